//! An operator halts the lines of a family, and lets them go on.

use reqwest::Method;
use serde_json::json;

use super::incident::{lines, metric};
use firstcome_tests::{Answer, Options, Shop, eventually, sale::one, sale::succeeded, shop};

async fn ask(shop: &Shop, path: &str) -> Answer {
    Answer::of(shop.admin(Method::POST, &format!("/api/admin/queues/{path}"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn halted_lines_accept_and_wait_beside_the_others() {
    shop(Options { users: 3, ..Options::default() }, async |shop| {
        let (coupon, product) = (shop.campaign(10).await, shop.product(100, 10).await);
        // One that has been taken counts as served as soon as its worker has told how it fares.
        eventually("all are served", async || {
            lines(shop)
                .await
                .iter()
                .all(|line| line["owner"].is_string() && line["state"] == "open")
        })
        .await;
        let before = ask(shop, "coupon/resume").await;
        assert_eq!((before.status, &before.body["halted"]), (200, &json!(false)), "not halted");

        let halted = ask(shop, "coupon/halt").await;
        assert_eq!(halted.status, 200, "{halted:?}");
        assert_eq!(ask(shop, "coupon/halt").await.body, halted.body, "since when it is");
        eventually("nobody serves them", async || {
            lines(shop).await.iter().all(|line| {
                let is_halted = line["family"] == "coupon";
                line["halted"] == is_halted && line["owner"].is_null() == is_halted
            })
        })
        .await;
        let all = lines(shop).await;
        for line in &all {
            assert_eq!(line["halted"], line["family"] == "coupon", "{line}");
            assert_eq!(line["state"], "open", "on purpose: {line}");
        }

        let waiting = shop.issue(1, coupon).await;
        assert_eq!(waiting.status, 202, "{waiting:?}");
        shop.ordered(2, &one(product, 1)).await;
        let poll = shop.poll(1, waiting.job_id(), 1).await;
        assert_eq!(poll.body["status"], "queued", "{poll:?}");
        // The order counts until its worker has told that it is settled.
        eventually("one waits", async || metric(shop, "line_waiting_jobs").await == 1.0).await;
        assert_eq!(metric(shop, "line_stalled").await, 0.0, "nobody is to be woken");
        let of_coupons = all.iter().filter(|line| line["family"] == "coupon").count();
        assert_eq!(
            metric(shop, "line_halted").await,
            f64::from(u32::try_from(of_coupons).unwrap())
        );
        let ready = Answer::of(shop.anonymous(Method::GET, "/health/ready")).await;
        assert_eq!((ready.status, &ready.body["halted"]), (200, &json!(["coupon"])), "{ready:?}");

        assert_eq!(ask(shop, "coupon/resume").await.body["halted"], false);
        succeeded(&shop.settled(1, waiting.job_id()).await);
        let log = Answer::of(shop.audit("/api/admin/audit-log?target=queues/coupon")).await;
        let actions: Vec<_> =
            log.body["items"].as_array().unwrap().iter().map(|row| &row["action"]).collect();
        assert_eq!(actions, ["resume-lines", "halt-lines"], "each change once");
        ask(shop, "nothing/halt").await.is_problem(400, "validation-failed");
    })
    .await;
}
