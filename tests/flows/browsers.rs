//! What browsers, CDNs and proxies need of the answers: names of requests, CORS, caching.

use firstcome_tests::{Answer, Options, eventually, sale::instant, shop};
use reqwest::{Method, StatusCode};
use serde_json::json;

const PAGE: &str = "https://shop.example";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_one_name_in_all_that_is_told_of_it() {
    shop(Options::default(), async |shop| {
        let named = |path: &str, id: &str| shop.get(7, path).header("X-Request-Id", id);
        for path in [
            "/api/users/cart",
            "/api/products",
            "/api/nowhere",
            "/api/jobs/1",
            "/api/users/cart?a=b",
            "/health/live",
        ] {
            let answer = Answer::of(named(path, "from/the-edge~1")).await;
            assert_eq!(answer.headers["x-request-id"], "from/the-edge~1", "{path}");
            if answer.status >= 400 {
                assert_eq!(answer.body["requestId"], "from/the-edge~1", "{path}");
            }
        }
        let unknown = shop.anonymous(Method::GET, "/api/users/cart").header("X-Request-Id", "mine");
        let unknown = Answer::of(unknown).await;
        assert_eq!((unknown.status, &unknown.body["requestId"]), (401, &json!("mine")));

        let long = "i".repeat(129);
        let mut made = std::collections::HashSet::new();
        for id in [None, None, Some("two words"), Some(long.as_str())] {
            let request = shop.get(7, "/api/nowhere");
            let request =
                if let Some(id) = id { request.header("X-Request-Id", id) } else { request };
            let answer = Answer::of(request).await;
            let name = answer.headers["x-request-id"].to_str().unwrap().to_owned();
            assert_eq!(answer.body["requestId"], json!(name));
            assert!(made.insert(name));
        }

        // The error of a job is no answer to a request.
        let job = shop.ordered(7, &json!({"items": [{"productId": 1, "quantity": 9_999}]})).await;
        assert_eq!(
            (job["error"]["code"].as_str(), job["error"].get("requestId")),
            (Some("insufficient-balance"), None)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_another_origin_may_ask_if_they_are_listed() {
    shop(Options::default(), async |shop| {
        let asked = |origin: &str| {
            let preflight = shop.anonymous(Method::OPTIONS, "/api/coupons/1/issue");
            preflight
                .header("Origin", origin)
                .header("Access-Control-Request-Method", "POST")
                .header("Access-Control-Request-Headers", "authorization,idempotency-key,prefer")
        };
        let allowed = asked(PAGE).send().await.unwrap();
        assert_eq!(allowed.status(), StatusCode::OK);
        let header = |name: &str| allowed.headers()[name].to_str().unwrap().to_lowercase();
        assert_eq!(header("access-control-allow-origin"), PAGE);
        assert!(header("access-control-allow-methods").contains("post"));
        let headers = header("access-control-allow-headers");
        for name in [
            "authorization",
            "content-type",
            "idempotency-key",
            "if-match",
            "if-none-match",
            "prefer",
            "x-request-id",
        ] {
            assert!(headers.contains(name), "{headers}");
        }
        assert!(header("vary").contains("origin"));
        let other = asked("https://evil.example").send().await.unwrap();
        assert!(!other.headers().contains_key("access-control-allow-origin"));

        // Answers and problems alike, those before a handler too: else a page cannot tell what was wrong.
        let from_page = |request: reqwest::RequestBuilder| request.header("Origin", PAGE).send();
        for (request, status) in [
            (shop.get(7, "/api/users/cart"), 200),
            (shop.anonymous(Method::GET, "/api/users/cart"), 401),
            (shop.get(7, "/api/nowhere"), 404),
            (shop.get(7, "/api/users/cart?unknown=1"), 400),
            (shop.post(7, "/api/orders").body("x".repeat(2_000_000)), 413),
        ] {
            let answer = from_page(request).await.unwrap();
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers()["access-control-allow-origin"], PAGE, "{status}");
            let exposed =
                answer.headers()["access-control-expose-headers"].to_str().unwrap().to_lowercase();
            for name in ["location", "retry-after", "x-request-id", "etag", "preference-applied"] {
                assert!(exposed.contains(name), "{exposed}");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn public_reads_may_be_kept_for_a_moment_and_asked_for_again() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(5).await;
        let read = async |path: &str, known: Option<&str>| {
            let request = shop.anonymous(Method::GET, path);
            let request =
                if let Some(tag) = known { request.header("If-None-Match", tag) } else { request };
            request.send().await.unwrap()
        };
        let one_coupon = format!("/api/coupons/{coupon}");
        for path in [
            "/api/products",
            "/api/products/1",
            "/api/products/popular",
            "/api/coupons",
            one_coupon.as_str(),
        ] {
            let first = read(path, None).await;
            let tag = first.headers()["etag"].to_str().unwrap().to_owned();
            assert!(tag.starts_with('"'), "{path}: a strong one: {tag}");
            let kept = first.headers()["cache-control"].clone();
            assert_eq!(kept, "public, max-age=1, stale-while-revalidate=1", "{path}");
            for known in
                [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()]
            {
                let again = read(path, Some(&known)).await;
                assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}: {known}");
                assert_eq!(again.headers()["etag"], tag.as_str());
                assert_eq!(again.headers()["cache-control"], kept);
                assert_eq!(again.bytes().await.unwrap().len(), 0);
            }
            for known in ["\"other\"", "malformed", "W/\"\"", ""] {
                assert_eq!(
                    read(path, Some(known)).await.status(),
                    StatusCode::OK,
                    "{path}: {known}"
                );
            }
        }

        // Whoever has what was edited gets the edit.
        let before = read("/api/products/1", None).await;
        let tag = before.headers()["etag"].to_str().unwrap().to_owned();
        shop.edited("products/1", &json!({"name": "Renamed"})).await;
        eventually("the edit is read", async || {
            let now = read("/api/products/1", Some(&tag)).await;
            now.status() == StatusCode::OK && now.headers()["etag"] != tag.as_str()
        })
        .await;

        // What is one caller's, or of this moment, is nobody else's.
        let job = shop.accepted_issue(7, coupon).await;
        let settled = shop.settled(7, &job).await;
        assert!(instant(&settled["settledAt"]) >= instant(&settled["submittedAt"]));
        for path in [
            "/api/users/cart",
            "/api/users/orders",
            &format!("/api/jobs/{job}"),
            "/api/users/coupons",
            "/api/nowhere",
        ] {
            let answer = shop.get(7, path).send().await.unwrap();
            let is_there = path != "/api/nowhere";
            assert_eq!(answer.status().is_success(), is_there, "{path}");
            assert_eq!(answer.headers()["cache-control"], "no-store", "{path}");
        }
        let missing = read("/api/products/99999", None).await;
        assert_eq!(
            (missing.status(), &missing.headers()["cache-control"].clone()),
            (StatusCode::NOT_FOUND, &"no-store".parse().unwrap())
        );
    })
    .await;
}
