//! Bad requests: always a problem, never a 5xx, and every offending field is named.

use reqwest::Method;
use serde_json::json;

use firstcome_tests::{Answer, Options, shop, token};

/// Every route that needs a caller; `{}` stands where an id goes.
const CUSTOMER: [(Method, &str); 14] = [
    (Method::GET, "/api/balance/{}"),
    (Method::POST, "/api/balance/charge"),
    (Method::GET, "/api/users/balance/history?limit=no"),
    (Method::POST, "/api/coupons/{}/issue"),
    (Method::GET, "/api/users/coupons?limit=no"),
    (Method::GET, "/api/users/cart"),
    (Method::DELETE, "/api/users/cart"),
    (Method::PUT, "/api/users/cart/{}"),
    (Method::DELETE, "/api/users/cart/{}"),
    (Method::POST, "/api/orders"),
    (Method::GET, "/api/orders/{}"),
    (Method::GET, "/api/users/orders?limit=no"),
    (Method::GET, "/api/jobs/{}"),
    (Method::GET, "/api/jobs/7"),
];
/// Every route that needs the role.
const ADMIN: [(Method, &str); 13] = [
    (Method::POST, "/api/admin/users"),
    (Method::DELETE, "/api/admin/users/{}/personal-data"),
    (Method::POST, "/api/admin/imports/users"),
    (Method::POST, "/api/admin/imports/products"),
    (Method::POST, "/api/admin/imports/coupons"),
    (Method::GET, "/api/admin/products/{}/buyers"),
    (Method::GET, "/api/admin/coupons/{}/winners"),
    (Method::POST, "/api/admin/products"),
    (Method::PATCH, "/api/admin/products/{}"),
    (Method::DELETE, "/api/admin/products/{}"),
    (Method::POST, "/api/admin/coupons"),
    (Method::PATCH, "/api/admin/coupons/{}"),
    (Method::DELETE, "/api/admin/coupons/{}"),
];

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_checked_before_anything_else() {
    shop(Options::default(), async |shop| {
        let nonsense =
            ["Bearer nonsense", "Basic dTpw", "Bearer", &format!("Bearer {}x", token(7, false))];
        for (method, path) in CUSTOMER.iter().chain(&ADMIN) {
            for id in ["1", "no-id"] {
                let path = path.replace("{}", id);
                // Neither is the body looked at.
                let request = || shop.anonymous(method.clone(), &path).body("{");
                let answer = Answer::of(request()).await;
                answer.is_problem(401, "unauthenticated");
                assert_eq!(answer.headers["www-authenticate"], "Bearer");
                for header in nonsense {
                    Answer::of(request().header("Authorization", header))
                        .await
                        .is_problem(401, "unauthenticated");
                }
            }
        }
        for (method, path) in &ADMIN {
            for id in ["1", "no-id"] {
                let request = shop
                    .anonymous(method.clone(), &path.replace("{}", id))
                    .bearer_auth(token(7, false));
                Answer::of(request.body("{")).await.is_problem(403, "forbidden");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_are_problems_too() {
    shop(Options::default(), async |shop| {
        let live = Answer::of(shop.anonymous(Method::GET, "/health/live")).await;
        assert_eq!(live.status, 200);
        Answer::of(shop.get(7, "/api/nothing")).await.is_problem(404, "route-not-found");
        let wrong = Answer::of(shop.get(7, "/api/coupons/1/issue")).await;
        wrong.is_problem(405, "method-not-allowed");
        assert_eq!(wrong.headers["allow"], "POST");
        Answer::of(shop.post(7, "/api/coupons/one/issue"))
            .await
            .is_problem(400, "validation-failed");
        Answer::of(shop.get(7, "/api/coupons/%FF")).await.is_problem(400, "validation-failed");
        Answer::of(shop.get(7, "/api/coupons/0")).await.is_problem(404, "coupon-not-found");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_read_strictly() {
    shop(Options::default(), async |shop| {
        let post = async |body: Vec<u8>, content_type: &str| {
            let request =
                shop.admin(Method::POST, "/api/admin/users").header("Content-Type", content_type);
            Answer::of(request.body(body)).await
        };
        let json = "application/json";
        post(b"{}".to_vec(), "text/plain").await.is_problem(415, "unsupported-media-type");
        post(b"{".to_vec(), json).await.is_problem(400, "malformed-body");
        post(b"[]".to_vec(), json).await.is_problem(400, "malformed-body");
        post(b"{\"name\": \"\xff\"}".to_vec(), json).await.is_problem(400, "malformed-body");
        post("[".repeat(10_000).into_bytes(), json).await.is_problem(400, "malformed-body");
        post(format!("{{\"name\": {}", "[".repeat(10_000)).into_bytes(), json)
            .await
            .is_problem(400, "malformed-body");
        for size in [64 * 1024 + 1, 70_000, 900_000] {
            post(vec![b' '; size], json).await.is_problem(413, "body-too-large");
        }
        post(vec![b' '; 64 * 1024], json).await.is_problem(400, "malformed-body");
        post(b"{}".to_vec(), "application/json; charset=utf-8")
            .await
            .is_problem(400, "validation-failed");

        let fields =
            post(br#"{"id": 1.0, "name": 7, "name": "x", "mail": "a@b"}"#.to_vec(), json).await;
        fields.is_problem(400, "validation-failed");
        let mut named: Vec<_> = fields.body["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["field"].clone())
            .collect();
        named.sort_by_key(ToString::to_string);
        assert_eq!(named, ["email", "id", "mail", "name"]);

        // A route without fields takes none, and needs no body.
        let issue = |body: &'static str| {
            shop.post(7, "/api/coupons/4/issue").header("Content-Type", json).body(body)
        };
        Answer::of(issue("{}")).await.is_problem(409, "coupon-not-started");
        Answer::of(issue(r#"{"quantity": 2}"#)).await.is_problem(400, "validation-failed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_to_their_end() {
    shop(Options::default(), async |shop| {
        for product in 1..=3 {
            let order = json!({"items": [{"productId": product, "quantity": 1}]});
            assert_eq!(shop.ordered(7, &order).await["status"], "succeeded");
            let coupon = shop.campaign(1).await;
            let job = shop.accepted_issue(7, coupon).await;
            assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
        }
        // Catalogues by id, histories newest first.
        for (path, count, rising) in [
            ("/api/coupons", 7, true),
            ("/api/products", 100, true),
            ("/api/users/coupons", 3, false),
            ("/api/users/orders", 3, false),
            ("/api/users/balance/history", 4, false),
        ] {
            let get = async |query: &str| Answer::of(shop.get(7, &format!("{path}{query}"))).await;
            for limit in [1, 3, 20, 100] {
                let mut ids = Vec::new();
                let mut query = format!("?limit={limit}");
                loop {
                    let page = get(&query).await;
                    assert_eq!(page.status, 200, "{page:?}");
                    let items = page.body["items"].as_array().unwrap();
                    assert!((1..=limit).contains(&items.len()), "{path}{query}: {}", items.len());
                    ids.extend(items.iter().map(|item| item["id"].as_i64().unwrap()));
                    match page.body["next"].as_str() {
                        Some(next) => query = format!("?limit={limit}&cursor={next}"),
                        None => break,
                    }
                }
                assert_eq!(ids.len(), count, "{path}");
                assert!(
                    ids.is_sorted_by(|a, b| if rising { a < b } else { a > b }),
                    "{path}: {ids:?}"
                );
            }
            assert_eq!(get("").await.body, get("?limit=20").await.body);
            for (bad, field) in [
                ("?limit=0", "limit"),
                ("?limit=101", "limit"),
                ("?limit=x", "limit"),
                ("?limit=1&limit=2", "limit"),
                ("?cursor=?", "cursor"),
                ("?page=2", "page"),
            ] {
                let answer = get(bad).await;
                answer.is_problem(400, "validation-failed");
                assert_eq!(answer.body["errors"][0]["field"], field, "{path}{bad}");
            }
        }
        let coupon = Answer::of(shop.anonymous(Method::GET, "/api/coupons/2")).await.body;
        assert_eq!(
            (
                &coupon["discountType"],
                &coupon["discountValue"],
                &coupon["maxDiscount"],
                &coupon["remaining"]
            ),
            (&json!("percent"), &json!(10), &json!(5000), &json!(10_000))
        );
        Answer::of(shop.anonymous(Method::GET, "/api/coupons/99"))
            .await
            .is_problem(404, "coupon-not-found");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_cost_little_and_get_a_problem() {
    shop(Options::default(), async |shop| {
        let many: Vec<String> = (0..2_000).map(|n| format!("a{n}")).collect();
        let query = format!("/api/coupons?{}", many.join("&"));
        let answer = Answer::of(shop.anonymous(Method::GET, &query)).await;
        answer.is_problem(400, "validation-failed");
        assert!(answer.body["errors"].as_array().unwrap().len() <= 101);
        let body: String = many.iter().map(|name| format!("\"{name}\":1,")).collect();
        let request =
            shop.admin(Method::POST, "/api/admin/users").header("Content-Type", "application/json");
        let answer = Answer::of(request.body(format!("{{{}\"z\":1}}", body))).await;
        answer.is_problem(400, "validation-failed");

        Answer::of(shop.get(7, "/api/jobs/%ff")).await.is_problem(404, "job-not-found");
        let encoded =
            shop.admin(Method::POST, "/api/admin/users").header("Content-Type", "application/json");
        Answer::of(encoded.header("Content-Encoding", "gzip").body("{}"))
            .await
            .is_problem(415, "unsupported-media-type");
        let utf16 = shop
            .admin(Method::POST, "/api/admin/users")
            .header("Content-Type", "application/json; charset=utf-16");
        Answer::of(utf16.body("{}")).await.is_problem(415, "unsupported-media-type");

        // Closer together than the database can tell.
        let body = json!({"name": "A drop", "discountType": "fixed", "discountValue": 1, "total": 1,
            "startsAt": "2026-01-01T00:00:00.0000001Z", "endsAt": "2026-01-01T00:00:00.0000002Z"});
        let answer = Answer::of(shop.admin(Method::POST, "/api/admin/coupons").json(&body)).await;
        answer.is_problem(400, "validation-failed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    shop(Options::default(), async |shop| {
        let api = shop.start_api(|_| {}).await;
        let address = api.url.strip_prefix("http://").unwrap();
        let mut slow = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /api/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
            token(7, false)
        );
        slow.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(firstcome_tests::DEADLINE, slow.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains(r#""code":"body-timeout""#), "{answer}");
        drop(slow);
        api.stop().await;
    })
    .await;
}

/// A client that sends its whole body before it reads learns what was wrong; one that never ends is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_can_be_read_by_who_is_still_sending() {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::timeout,
    };
    const BLOCK: [u8; 10_000] = [b' '; 10_000];
    shop(Options::default(), async |shop| {
        let limited = shop.start_api(|config| config.rate_limit = 1).await;
        let spent = shop.get(7, &format!("{}/api/users/cart", limited.url)).send().await.unwrap();
        assert_eq!(spent.status(), 200);
        let connect = async |authorization: &str, length: usize| {
            let mut client = TcpStream::connect(limited.url.strip_prefix("http://").unwrap()).await.unwrap();
            let head = format!(
                "POST /api/orders HTTP/1.1\r\nHost: x\r\n{authorization}Content-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n"
            );
            client.write_all(head.as_bytes()).await.unwrap();
            client
        };
        let bearer = format!("Authorization: Bearer {}\r\n", token(7, false));
        for (authorization, status) in [("", "401"), (bearer.as_str(), "429")] {
            for _ in 0..20 {
                let mut client = connect(authorization, 900_000).await;
                for _ in 0..90 {
                    client.write_all(&BLOCK).await.unwrap();
                    tokio::task::yield_now().await;
                }
                let mut answer = String::new();
                client.read_to_string(&mut answer).await.unwrap();
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            }
        }
        let mut endless = connect("", 1_000_000_000).await;
        let sending = async { while endless.write_all(&BLOCK).await.is_ok() {} };
        timeout(firstcome_tests::DEADLINE, sending).await.expect("it is cut off");
        // Who only keeps the connection does so for a moment.
        let mut silent = connect("", 900_000).await;
        let mut answer = String::new();
        timeout(firstcome_tests::DEADLINE, silent.read_to_string(&mut answer)).await.unwrap().unwrap();
        limited.stop().await;
    })
    .await;
}

/// A defect on our side is told without its words.
#[tokio::test(flavor = "multi_thread")]
async fn what_we_did_wrong_stays_with_us() {
    shop(Options::default(), async |shop| {
        shop.sql("DROP TABLE carts").await;
        let answer = Answer::of(shop.get(7, "/api/users/cart")).await;
        answer.is_problem(500, "internal-error");
        assert!(!answer.body.to_string().contains("carts"), "{answer:?}");
    })
    .await;
}

/// A client that sends half a request keeps nobody from stopping.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_api_does_not_wait_for_slow_clients() {
    use tokio::io::AsyncWriteExt;
    shop(Options::default(), async |shop| {
        let other = shop.start_api(|_| {}).await;
        let address = other.url.strip_prefix("http://").unwrap().to_owned();
        let mut slow = tokio::net::TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-A").await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let stopping = std::time::Instant::now();
        other.stop().await;
        assert!(
            stopping.elapsed() < std::time::Duration::from_secs(20),
            "{:?}",
            stopping.elapsed()
        );
    })
    .await;
}
