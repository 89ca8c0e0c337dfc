//! Lists in fewer bytes, for who takes them so, and nothing else.

use std::io::Read;

use firstcome_tests::{Answer, Options, eventually, sale::one, shop};
use flate2::read::GzDecoder;
use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::json;

/// An answer as it came.
struct Sent {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Sent {
    async fn to(request: RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        Self { status, headers, bytes: answer.bytes().await.unwrap().into() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn is_packed(&self) -> bool {
        self.header("content-encoding").is_some_and(|encoding| {
            assert_eq!(encoding, "gzip");
            true
        })
    }

    /// Caches keep both forms apart.
    fn varies(&self) -> bool {
        let values = self.headers.get_all("vary").iter();
        values
            .map(|value| value.to_str().unwrap().to_lowercase())
            .any(|value| value.contains("accept-encoding"))
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if self.is_packed() {
            GzDecoder::new(&*self.bytes).read_to_string(&mut text).unwrap();
        } else {
            text = String::from_utf8(self.bytes.clone()).unwrap();
        }
        text
    }
}

/// The answer as it is, and to who takes gzip: the same in fewer bytes.
async fn both(request: impl Fn() -> RequestBuilder) -> [Sent; 2] {
    let plain = Sent::to(request()).await;
    let packed = Sent::to(request().header("Accept-Encoding", "gzip, deflate, br")).await;
    assert_eq!((plain.status, packed.status), (StatusCode::OK, StatusCode::OK));
    assert!(!plain.is_packed());
    assert!(packed.is_packed(), "{:?} of {} bytes", packed.headers, packed.bytes.len());
    assert!(plain.varies() && packed.varies());
    assert!(
        packed.bytes.len() < plain.bytes.len() / 2,
        "{} {}",
        packed.bytes.len(),
        plain.bytes.len()
    );
    assert_eq!(plain.header("content-type"), packed.header("content-type"));
    assert_eq!(plain.header("cache-control"), packed.header("cache-control"));
    [plain, packed]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_has_a_tag_for_each_of_its_forms() {
    shop(Options::default(), async |shop| {
        for campaign in 1..10 {
            shop.campaign(campaign).await;
        }
        // Read, then found in Redis, then sent as it was before.
        for path in ["/api/products", "/api/products", "/api/products?limit=100", "/api/coupons"] {
            let get = || shop.anonymous(Method::GET, path);
            let [plain, packed] = both(get).await;
            assert_eq!(plain.text(), packed.text(), "{path}");
            let tags = [&plain, &packed].map(|sent| sent.header("etag").unwrap().to_owned());
            assert!(tags.iter().all(|tag| tag.starts_with('"')) && tags[0] != tags[1], "{tags:?}");
            for (form, encoding) in [(0, "identity"), (1, "gzip")] {
                let asked = async |known: &str| {
                    let request = get().header("If-None-Match", known);
                    Sent::to(request.header("Accept-Encoding", encoding)).await
                };
                for known in [
                    tags[form].clone(),
                    format!("W/{}", tags[form]),
                    tags.join(", "),
                    "*".to_owned(),
                ] {
                    let same = asked(&known).await;
                    assert_eq!(same.status, StatusCode::NOT_MODIFIED, "{path} {encoding} {known}");
                    assert_eq!(same.header("etag"), Some(tags[form].as_str()));
                    assert!(same.varies() && same.bytes.is_empty() && !same.is_packed());
                }
                // Who has the other form does not have this one.
                let other = asked(&tags[1 - form]).await;
                assert_eq!((other.status, other.is_packed()), (StatusCode::OK, form == 1));
            }
        }
        for (encoding, is_packed) in
            [("gzip;q=0", false), ("*", true), ("br", false), ("identity, gzip;q=0.5", false)]
        {
            let request =
                shop.anonymous(Method::GET, "/api/products").header("Accept-Encoding", encoding);
            assert_eq!(Sent::to(request).await.is_packed(), is_packed, "{encoding}");
        }
        // An edit makes others of both.
        let tag = |sent: &Sent| sent.header("etag").unwrap().to_owned();
        let before = both(|| shop.anonymous(Method::GET, "/api/products")).await;
        shop.edited("products/1", &json!({"name": "Renamed"})).await;
        eventually("the edit is read", async || {
            let after = both(|| shop.anonymous(Method::GET, "/api/products")).await;
            assert_eq!(after[0].text(), after[1].text());
            after[0].text().contains("Renamed")
                && (0..2).all(|form| tag(&before[form]) != tag(&after[form]))
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_one_caller_and_of_operators_are_short_too() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(20).await;
        let mut jobs = Vec::new();
        for user in 1..=20 {
            jobs.push((user, shop.accepted_issue(user, coupon).await));
        }
        for (user, job) in jobs {
            assert_eq!(shop.settled(user, &job).await["status"], "succeeded");
        }
        for _ in 0..15 {
            assert_eq!(shop.ordered(7, &one(1, 1)).await["status"], "succeeded");
        }
        for path in ["/api/users/orders", "/api/users/balance/history"] {
            let [plain, packed] = both(|| shop.get(7, path)).await;
            assert_eq!(plain.text(), packed.text(), "{path}");
            assert_eq!(packed.header("cache-control"), Some("no-store"));
        }
        let winners = format!("/api/admin/coupons/{coupon}/winners");
        let buyers = "/api/admin/products/1/buyers";
        for path in ["/api/admin/products", buyers, &winners] {
            let [plain, packed] = both(|| shop.admin(Method::GET, path)).await;
            assert_eq!(plain.text(), packed.text(), "{path}");
        }
        for path in [buyers, &winners] {
            let [plain, packed] =
                both(|| shop.admin(Method::GET, path).header("Accept", "text/csv")).await;
            assert_eq!(plain.text(), packed.text(), "{path}");
            // It goes as it is read.
            assert_eq!(packed.header("transfer-encoding"), Some("chunked"));
            assert_eq!(packed.header("content-disposition"), plain.header("content-disposition"));
        }
        let [plain, packed] = both(|| shop.anonymous(Method::GET, "/openapi.json")).await;
        assert_eq!(plain.text(), packed.text());
    })
    .await;
}

/// A table that breaks off, here at row 1,500, has no end in either form.
#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_is_no_whole_table() {
    shop(Options { users: 2_000, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(2_000).await;
        let issued = "INSERT INTO user_coupons (user_id, coupon_id, issue_number, issued_at) SELECT id, $1, id, now() FROM users";
        sqlx::query(issued).bind(coupon).execute(&shop.pool).await.unwrap();
        shop.sql(
            "ALTER TABLE user_coupons RENAME TO kept;
             CREATE VIEW user_coupons AS SELECT id, user_id, coupon_id, issue_number, issued_at, order_id,
                    CASE WHEN issue_number = 1500 THEN to_timestamp(1 / (issue_number - 1500)) ELSE used_at END AS used_at
             FROM kept",
        )
        .await;
        for encoding in ["identity", "gzip"] {
            let request = shop.admin(Method::GET, &format!("/api/admin/coupons/{coupon}/winners"));
            let request = request.header("Accept", "text/csv").header("Accept-Encoding", encoding);
            let whole = async {
                // Where the database fails at once, not even the head is sent.
                let begun = request.send().await?;
                assert_eq!(begun.status(), StatusCode::OK);
                assert_eq!(begun.headers().contains_key("content-encoding"), encoding == "gzip");
                begun.bytes().await
            };
            assert!(whole.await.is_err(), "{encoding}: it has no end");
        }
        shop.sql("DROP VIEW user_coupons; ALTER TABLE kept RENAME TO user_coupons; DELETE FROM user_coupons").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_at_noon_is_sent_as_it_is() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(100).await;
        let gzip = |request: RequestBuilder| request.header("Accept-Encoding", "gzip");
        let accepted = gzip(shop.post(7, &format!("/api/coupons/{coupon}/issue")));
        let accepted = shop.submit(7, accepted).await;
        assert_eq!(accepted.status, 202);
        let job = accepted.job_id();
        shop.settled(7, job).await;
        let poll = format!("/api/jobs/{job}");
        let stream = shop.get(7, &poll).header("Accept", "text/event-stream");
        // Short ones, of a list too.
        let long = "x".repeat(2_000);
        let answers = [
            Sent::to(gzip(shop.get(7, &poll))).await,
            Sent::to(gzip(stream)).await,
            Sent::to(gzip(shop.get(7, "/api/users/cart"))).await,
            Sent::to(gzip(shop.get(7, "/api/users/orders"))).await,
            Sent::to(gzip(shop.anonymous(Method::GET, "/api/products?limit=1"))).await,
            Sent::to(gzip(shop.anonymous(Method::GET, "/api/products/1"))).await,
            Sent::to(gzip(shop.anonymous(Method::GET, &format!("/api/users/orders?{long}=1"))))
                .await,
        ];
        for (n, answer) in answers.iter().enumerate() {
            assert!(!answer.is_packed(), "{n}: {:?}", answer.headers);
        }
        assert!(answers[1].text().contains("event: settled"));
        assert!(answers[4].varies(), "a longer one of this path is not");

        // The tag of one thing is that of its state, by which it is edited.
        let [plain, packed] = [
            Sent::to(shop.anonymous(Method::GET, "/api/products/1")).await,
            Sent::to(gzip(shop.anonymous(Method::GET, "/api/products/1"))).await,
        ];
        let tag = packed.header("etag").unwrap();
        assert_eq!(plain.header("etag"), Some(tag));
        let edit = async |name: &str| {
            let request =
                shop.admin(Method::PATCH, "/api/admin/products/1").json(&json!({"name": name}));
            Answer::of(gzip(request).header("If-Match", tag)).await
        };
        assert_eq!(edit("Edited").await.status, 200);
        edit("Edited again").await.is_problem(412, "precondition-failed");
    })
    .await;
}
