//! Every "no" of `issue-coupon`: as a job's outcome, and early where it is certain.

use serde_json::json;
use sqlx::AssertSqlSafe;

use firstcome_tests::{Answer, Options, Shop, shop};

/// Sends a request while no worker runs, changes the campaign, and tells how the job ends.
async fn outcome_after(
    shop: &Shop,
    user: i64,
    coupon: i64,
    change: &'static str,
) -> serde_json::Value {
    let job = shop.accepted_issue(user, coupon).await;
    let change = format!("UPDATE coupons SET {change} WHERE id = $1");
    sqlx::query(AssertSqlSafe(change)).bind(coupon).execute(&shop.pool).await.unwrap();
    shop.start_worker();
    let settled = shop.settled(user, &job).await;
    shop.stop_workers().await;
    settled
}

fn rejected(job: &serde_json::Value, status: u16, code: &str) {
    assert_eq!((&job["status"], &job["result"]), (&json!("rejected"), &json!(null)), "{job}");
    let error = &job["error"];
    assert_eq!((&error["code"], &error["status"]), (&json!(code), &json!(status)), "{job}");
    assert!(
        error["type"].is_string() && error["title"].is_string() && error["detail"].is_string(),
        "{job}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rejection_comes_out_of_the_line() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(1).await;
        rejected(
            &outcome_after(shop, 999, coupon, "deleted_at = NULL").await,
            404,
            "user-not-found",
        );

        // Windows are judged at submission: moving them afterwards is what makes these late.
        let coupon = shop.campaign(1).await;
        let job = outcome_after(shop, 7, coupon, "starts_at = now() + interval '1 hour'").await;
        rejected(&job, 409, "coupon-not-started");

        let coupon = shop.campaign(1).await;
        let job = outcome_after(shop, 7, coupon, "ends_at = now() - interval '1 hour'").await;
        rejected(&job, 409, "coupon-ended");

        let coupon = shop.campaign(1).await;
        let job = outcome_after(shop, 7, coupon, "deleted_at = now()").await;
        rejected(&job, 404, "coupon-not-found");

        let coupon = shop.campaign(1).await;
        let winner = shop.accepted_issue(7, coupon).await;
        let again = shop.accepted_issue(7, coupon).await;
        let loser = shop.accepted_issue(8, coupon).await;
        shop.start_worker();
        assert_eq!(shop.settled(7, &winner).await["status"], "succeeded");
        rejected(&shop.settled(7, &again).await, 409, "coupon-already-issued");
        rejected(&shop.settled(8, &loser).await, 409, "coupon-sold-out");
    })
    .await;
}

/// In one batch with others, large and small, and in those that come after it.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_one_or_is_nobody_is_told_so_among_others() {
    shop(Options { worker: false, users: 300, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(1_000).await;
        let first = shop.accepted_issue(1, coupon).await;
        shop.start_worker();
        assert_eq!(shop.settled(1, &first).await["result"]["issueNumber"], 1);
        let (mut next, mut known) = (2, vec![1]);
        for others in [90, 3, 70] {
            shop.stop_workers().await;
            let mut jobs = Vec::new();
            for user in [next, known[known.len() - 1], 9_999, next]
                .into_iter()
                .chain(next + 1..next + others)
            {
                jobs.push((user, shop.accepted_issue(user, coupon).await));
            }
            shop.start_worker();
            for (user, job) in jobs {
                let settled = shop.settled(user, &job).await;
                if user == 9_999 {
                    rejected(&settled, 404, "user-not-found");
                } else if known.contains(&user) {
                    rejected(&settled, 409, "coupon-already-issued");
                } else {
                    known.push(user);
                    assert_eq!(settled["result"]["issueNumber"], json!(known.len()), "{settled}");
                }
            }
            next += others;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_submitted_in_time_counts_however_late_it_is_settled() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(1).await;
        let job = shop.accepted_issue(7, coupon).await;
        // Ends after the submission, before the settlement.
        sqlx::query("UPDATE coupons SET ends_at = clock_timestamp() WHERE id = $1")
            .bind(coupon)
            .execute(&shop.pool)
            .await
            .unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        shop.start_worker();
        assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certain_rejections_are_answered_early() {
    shop(Options::default(), async |shop| {
        // Sample coupons: 3 has ended, 4 has not started.
        shop.issue(7, 3).await.is_problem(409, "coupon-ended");
        shop.issue(7, 4).await.is_problem(409, "coupon-not-started");
        shop.issue(7, 99_999).await.is_problem(404, "coupon-not-found");
        shop.issue(7, i64::MAX).await.is_problem(404, "coupon-not-found");
        let huge = Answer::of(shop.post(7, "/api/coupons/99999999999999999999999/issue")).await;
        huge.is_problem(404, "coupon-not-found");

        let coupon = shop.campaign(1).await;
        let job = shop.accepted_issue(7, coupon).await;
        shop.settled(7, &job).await;
        firstcome_tests::eventually("the API knows that it is sold out", async || {
            shop.issue(8, coupon).await.code() == "coupon-sold-out"
        })
        .await;
        // Nothing of this was a job that stands in line.
        let late: Vec<_> = shop
            .outcomes()
            .await
            .into_keys()
            .filter(|code| code != "succeeded" && code != "coupon-sold-out")
            .collect();
        assert_eq!(late, [""; 0]);
    })
    .await;
}

/// Whoever learns that none was left is not the only one: the next one need not stand in line.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_after_a_sold_out_is_told_at_once() {
    shop(Options::default(), async |shop| {
        // An outcome that the database tells first leaves the API to find out by itself.
        for attempt in 1..=5 {
            let coupon = shop.campaign(1).await;
            let won = shop.accepted_issue(7, coupon).await;
            let lost = shop.accepted_issue(8, coupon).await;
            assert_eq!(shop.settled(7, &won).await["status"], "succeeded");
            assert_eq!(shop.settled(8, &lost).await["status"], "rejected");
            let answer = shop.issue(9, coupon).await;
            if answer.status == 409 || attempt == 5 {
                return answer.is_problem(409, "coupon-sold-out");
            }
        }
    })
    .await;
}
