//! Outcomes as they come: streams of events, and submissions whose answer is held.

use std::time::Duration;

use firstcome_tests::{Answer, DEADLINE, Options, Shop, eventually, sale::one, shop};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{metrics::Figures, processes};

/// What came of a stream.
struct Events {
    response: Response,
    text: String,
}

/// One event; its name is empty where only the time to come again was told.
struct Event {
    name: String,
    data: Value,
    retry: Option<u64>,
}

impl Events {
    async fn open(shop: &Shop, user: i64, job: &str, api: &str) -> Self {
        let request = shop.get(user, &format!("{api}/api/jobs/{job}"));
        let response = events(request).send().await.unwrap();
        assert_eq!(response.status(), 200);
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store"),
            ("x-accel-buffering", "no"),
        ] {
            assert_eq!(response.headers()[name], value);
        }
        Self { response, text: String::new() }
    }

    /// The next one; `None` at the end, which must be a clean one.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if block.starts_with(':') {
                    continue;
                }
                let field = |name: &str| {
                    let mut lines = block.lines().filter_map(|line| line.split_once(": "));
                    lines.find(|(field, _)| *field == name).map(|(_, value)| value.to_owned())
                };
                let data = field("data").map(|data| serde_json::from_str(&data).unwrap());
                return Some(Event {
                    name: field("event").unwrap_or_default(),
                    data: data.unwrap_or_default(),
                    retry: field("retry").map(|retry| retry.parse().unwrap()),
                });
            }
            let chunk = timeout(DEADLINE, self.response.chunk()).await.expect("something comes");
            match chunk.unwrap() {
                Some(chunk) => self.text.push_str(std::str::from_utf8(&chunk).unwrap()),
                None => return None,
            }
        }
    }

    /// The job of the event `settled`, after which there is nothing.
    async fn settled(mut self) -> Value {
        loop {
            let event = self.next().await.expect("no end before the outcome");
            if event.name == "settled" {
                assert!(self.next().await.is_none(), "it is the last");
                return event.data;
            }
            assert_eq!(event.name, "queued");
        }
    }
}

fn events(request: RequestBuilder) -> RequestBuilder {
    request.header("Accept", "text/event-stream").header("Last-Event-ID", "7")
}

fn waiting(request: RequestBuilder, wait: &str) -> RequestBuilder {
    request.header("Prefer", wait)
}

fn no_worker() -> Options {
    Options { worker: false, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_the_place_and_then_the_outcome() {
    shop(no_worker(), async |shop| {
        let coupon = shop.campaign(1).await;
        shop.accepted_issue(8, coupon).await;
        let id = shop.accepted_issue(7, coupon).await;
        let mut stream = Events::open(shop, 7, &id, "").await;
        let first = stream.next().await.unwrap();
        assert_eq!(first.name, "queued");
        assert!(first.retry.is_some());
        assert!(first.data.as_object().unwrap().contains_key("estimatedSeconds"));
        // It becomes known who waits before: what changes is told.
        let mut place = first.data["position"].as_u64();
        while place != Some(2) {
            place = stream.next().await.unwrap().data["position"].as_u64();
        }
        shop.start_worker();
        let told = stream.settled().await;
        assert_eq!((&told["jobId"], &told["status"]), (&json!(id), &json!("rejected")));
        assert_eq!(told["error"]["code"], "coupon-sold-out");
        // As a poll tells it, and again to whoever comes late.
        assert_eq!(told, shop.settled(7, &id).await);
        assert_eq!(told, Events::open(shop, 7, &id, "").await.settled().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_for_the_submitter_alone() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(1).await;
        let id = shop.accepted_issue(7, coupon).await;
        let path = format!("/api/jobs/{id}");
        Answer::of(events(shop.get(8, &path))).await.is_problem(404, "job-not-found");
        let anonymous = events(shop.anonymous(reqwest::Method::GET, &path));
        Answer::of(anonymous).await.is_problem(401, "unauthenticated");
        let forged = events(shop.anonymous(reqwest::Method::GET, &path)).bearer_auth("forged");
        Answer::of(forged).await.is_problem(401, "unauthenticated");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_and_polls_are_not_kept_out() {
    shop(no_worker(), async |shop| {
        let api = shop.start_api(|config| config.max_streams = 1).await;
        let coupon = shop.campaign(1).await;
        let id = shop.accepted_issue(7, coupon).await;
        let mut stream = Events::open(shop, 7, &id, &api.url).await;
        stream.next().await.unwrap();
        let path = format!("{}/api/jobs/{id}", api.url);
        let refused = Answer::of(events(shop.get(7, &path))).await;
        refused.is_problem(503, "too-many-streams");
        assert!(refused.retry_after() >= 1);
        assert_eq!(Answer::of(shop.get(7, &path)).await.body["status"], "queued");
        let figures = Figures::of(shop, &api.url).await;
        assert_eq!(figures.get("event_streams"), 1.0);
        assert_eq!(figures.get("event_streams_refused_total"), 1.0);
        // A client that goes away makes room.
        drop(stream);
        eventually("there is room", async || {
            Figures::of(shop, &api.url).await.get("event_streams") == 0.0
        })
        .await;
        let stream = Events::open(shop, 7, &id, &api.url).await;
        shop.start_worker();
        assert_eq!(stream.settled().await["status"], "succeeded");
        api.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_api_ends_its_streams() {
    shop(no_worker(), async |shop| {
        let other = shop.start_api(|_| {}).await;
        let coupon = shop.campaign(1).await;
        let id = shop.accepted_issue(7, coupon).await;
        let mut stream = Events::open(shop, 7, &id, &other.url).await;
        assert_eq!(stream.next().await.unwrap().name, "queued");
        let reading = async {
            let mut last = None;
            while let Some(event) = stream.next().await {
                last = Some(event);
            }
            last.unwrap()
        };
        let (last, ()) = tokio::join!(reading, other.stop());
        assert!(last.name.is_empty() && last.retry.is_some(), "it says when to come again");
        // Elsewhere it goes on.
        let stream = Events::open(shop, 7, &id, "").await;
        shop.start_worker();
        assert_eq!(stream.settled().await["status"], "succeeded");
    })
    .await;
}

/// One that is stopped like a frozen machine, then goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_a_worker_that_stands_still() {
    shop(no_worker(), async |shop| {
        let worker = processes::worker(shop);
        let coupon = shop.campaign(2).await;
        let first = shop.accepted_issue(8, coupon).await;
        shop.settled(8, &first).await;
        worker.signal("STOP").await.unwrap();
        let id = shop.accepted_issue(7, coupon).await;
        let mut stream = Events::open(shop, 7, &id, "").await;
        assert_eq!(stream.next().await.unwrap().name, "queued");
        worker.signal("CONT").await.unwrap();
        assert_eq!(stream.settled().await["status"], "succeeded");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_may_be_answered_with_its_outcome() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(1).await;
        let issue = |user, key: &str| {
            let request = shop.post(user, &format!("/api/coupons/{coupon}/issue"));
            waiting(request, "wait=30").header("Idempotency-Key", key)
        };
        let won = shop.submit(7, issue(7, "a")).await;
        assert_eq!((won.status, &won.body["status"]), (200, &json!("succeeded")), "{won:?}");
        assert_eq!(won.headers["preference-applied"], "wait=30");
        assert_eq!(won.body, shop.settled(7, won.job_id()).await);
        // The repeat is the same job.
        let again = shop.submit(7, issue(7, "a")).await;
        assert_eq!((again.status, &again.body), (200, &won.body));
        // What is not accepted is answered as always.
        let product = shop.product(1_000, 1).await;
        let order = |body: &Value| waiting(shop.post(7, "/api/orders").json(body), "wait=30");
        Answer::of(order(&json!({}))).await.is_problem(400, "validation-failed");
        let rejected = shop.submit(7, order(&one(product, 2))).await;
        assert_eq!((rejected.status, &rejected.body["status"]), (200, &json!("rejected")));
        assert_eq!(rejected.body["error"]["code"], "out-of-stock");
        let bought = shop.submit(7, order(&one(product, 1))).await;
        let cancel = format!("/api/orders/{}/cancel", bought.body["result"]["orderId"]);
        let cancelled = shop.submit(7, waiting(shop.post(7, &cancel), "wait=30")).await;
        assert_eq!((cancelled.status, &cancelled.body["status"]), (200, &json!("succeeded")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_that_waits_in_vain_is_accepted_like_any_other() {
    shop(no_worker(), async |shop| {
        let coupon = shop.campaign(10).await;
        let path = format!("/api/coupons/{coupon}/issue");
        let keyed = |wait| waiting(shop.post(7, &path), wait).header("Idempotency-Key", "a");
        let held = shop.submit(7, keyed("wait=1")).await;
        assert_eq!((held.status, &held.body["status"]), (202, &json!("queued")));
        assert_eq!(held.headers["preference-applied"], "wait=1");
        assert!(held.headers.contains_key("location") && held.headers.contains_key("retry-after"));
        assert!(held.took >= Duration::from_secs(1), "{:?}", held.took);
        let malformed = shop.submit(8, waiting(shop.post(8, &path), "wait=soon")).await;
        assert_eq!(malformed.status, 202);
        assert!(!malformed.headers.contains_key("preference-applied"));
        // A client that goes away is accepted nevertheless: its repeat is the same job.
        let left = waiting(shop.post(9, &path), "wait=30").header("Idempotency-Key", "b");
        assert!(left.timeout(Duration::from_millis(500)).send().await.unwrap_err().is_timeout());
        let repeats = async {
            let left = waiting(shop.post(9, &path), "wait=30").header("Idempotency-Key", "b");
            (shop.submit(7, keyed("wait=30")).await, shop.submit(9, left).await)
        };
        let ((again, left), ()) = tokio::join!(repeats, async { shop.start_worker() });
        assert_eq!((again.status, again.job_id()), (200, held.job_id()));
        assert_eq!((left.status, &left.body["status"]), (200, &json!("succeeded")));
    })
    .await;
}
