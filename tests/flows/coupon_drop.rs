//! The main job: a drop that many more want than can have it.

use std::collections::HashMap;

use firstcome_tests::{Answer, Options, shop};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_requests_for_five_hundred_coupons() {
    shop(Options { users: 5_000, partitions: 4, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(500).await;
        // Four rounds, so that most users ask several times.
        let requests = (0..20_000).map(|n| (n % 5_000 + 1, coupon));
        let answers = shop.storm(requests, 256).await;

        let mut answered: HashMap<String, usize> = HashMap::new();
        for answer in &answers {
            let what = if answer.status == 202 { "accepted" } else { answer.code() };
            *answered.entry(what.to_owned()).or_default() += 1;
        }
        let known = answered.keys().all(|what| ["accepted", "coupon-sold-out"].contains(&what.as_str()));
        assert!(known, "{answered:?}");

        shop.settle_and_audit().await;
        let (issued, users, lowest, highest): (i64, i64, i64, i64) = sqlx::query_as(
            "SELECT count(*), count(DISTINCT user_id), min(issue_number), max(issue_number) FROM user_coupons WHERE coupon_id = $1",
        )
        .bind(coupon)
        .fetch_one(&shop.pool)
        .await
        .unwrap();
        assert_eq!((issued, users, lowest, highest), (500, 500, 1, 500));
        let outcomes = shop.outcomes().await;
        assert_eq!(outcomes["succeeded"], 500);
        let known = ["succeeded", "coupon-already-issued", "coupon-sold-out"];
        assert!(outcomes.keys().all(|code| known.contains(&code.as_str())), "{outcomes:?}");
        let settled: i64 = outcomes.values().sum();
        assert_eq!(usize::try_from(settled).unwrap(), answered["accepted"]);
    })
    .await;
}

/// Without the early answers every request stands in line: the worker alone must get it right.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_settled_in_the_order_of_the_line() {
    let options = Options { users: 300, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(100).await;
        let first: Vec<Answer> = shop.storm((1..=100).map(|user| (user, coupon)), 16).await;
        // Submitted after all of the first hundred were accepted, so decided after them.
        let second: Vec<Answer> = shop.storm((101..=300).map(|user| (user, coupon)), 16).await;
        assert!(first.iter().chain(&second).all(|answer| answer.status == 202));
        shop.start_worker();
        shop.settle_and_audit().await;
        let (winners, last): (i64, i64) =
            sqlx::query_as("SELECT count(*), max(user_id) FROM user_coupons WHERE coupon_id = $1")
                .bind(coupon)
                .fetch_one(&shop.pool)
                .await
                .unwrap();
        assert_eq!((winners, last), (100, 100));
        assert_eq!(shop.outcomes().await["coupon-sold-out"], 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_a_campaign_without_overselling() {
    shop(Options { users: 400, ..Options::default() }, async |shop| {
        shop.start_worker();
        let coupon = shop.campaign(150).await;
        let storm = shop.storm((0..1_200).map(|n| (n % 400 + 1, coupon)), 400);
        let handover = async {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            shop.stop_workers().await;
            shop.start_worker();
        };
        tokio::join!(storm, handover);
        shop.settle_and_audit().await;
        assert_eq!(shop.outcomes().await["succeeded"], 150);
    })
    .await;
}

/// A batch waits for its campaign's row, and what its users hold has changed when it gets it.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_issued_the_coupon_while_the_batch_waited_is_told_so() {
    shop(Options { users: 2, ..Options::default() }, async |shop| {
        // Even if there is none left for anybody.
        for (total, next) in [(10, None), (1, Some("coupon-sold-out"))] {
            let coupon = shop.campaign(total).await;
            let mut other = shop.pool.begin().await.unwrap();
            for statement in [
                "UPDATE coupons SET issued = 1 WHERE id = $1",
                "INSERT INTO user_coupons (user_id, coupon_id, issue_number) VALUES (1, $1, 1)",
                "INSERT INTO job_outcomes (job_id, user_id, kind, status, result)
                 SELECT gen_random_uuid(), user_id, 'issue-coupon', 'succeeded',
                        jsonb_build_object('userCouponId', id, 'couponId', coupon_id, 'issueNumber', 1)
                 FROM user_coupons WHERE coupon_id = $1",
            ] {
                sqlx::query(statement).bind(coupon).execute(&mut *other).await.unwrap();
            }
            let again = shop.accepted_issue(1, coupon).await;
            let last = shop.accepted_issue(2, coupon).await;
            shop.is_waiting_for_a_row().await;
            other.commit().await.unwrap();
            assert_eq!(shop.settled(1, &again).await["error"]["code"], "coupon-already-issued");
            assert_eq!(shop.settled(2, &last).await["error"]["code"].as_str(), next);
        }
    })
    .await;
}
