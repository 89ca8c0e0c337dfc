//! A service goes away in the middle of a drop.

use std::time::Duration;

use firstcome_contract::{
    ids::CouponId,
    job::{IssueCoupon, Job},
};
use futures_util::{StreamExt, stream};
use reqwest::Method;

use firstcome_rig::Way;
use firstcome_tests::{Answer, Options, Shop, eventually, shop};

async fn is_ready(shop: &Shop) -> bool {
    Answer::of(shop.anonymous(Method::GET, "/health/ready")).await.status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_no_outcome_differs_and_polls_still_answer() {
    shop(Options { users: 1_000, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(200).await;
        let drop = shop.storm((0..3_000).map(|n| (n % 1_000 + 1, coupon)), 64);
        let loss = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            shop.redis.proxy.cut();
        };
        let (answers, ()) = tokio::join!(drop, loss);
        assert!(
            answers.iter().all(|answer| answer.status == 202 || answer.code() == "coupon-sold-out")
        );
        shop.settle_and_audit().await;
        assert_eq!(shop.outcomes().await["succeeded"], 200);

        // A waiting poll is answered by the sweep.
        let coupon = shop.campaign(1).await;
        let job = shop.accepted_issue(7, coupon).await;
        let settled = shop.poll(7, &job, 30).await;
        assert_eq!(settled.body["status"], "succeeded");
        assert!(settled.took < Duration::from_secs(10), "{:?}", settled.took);

        // Redis comes back by itself.
        shop.redis.proxy.restore();
        let coupon = shop.campaign(1).await;
        let job = shop.accepted_issue(8, coupon).await;
        assert_eq!(shop.settled(8, &job).await["status"], "succeeded");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_broker_503_within_the_deadline_then_recovery() {
    let options = Options { users: 1_000, confirm_deadline_ms: 1_000, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(1_000).await;
        let drop = shop.storm((1..=1_000).map(|user| (user, coupon)), 32);
        let loss = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            shop.broker.proxy.cut();
        };
        let (answers, ()) = tokio::join!(drop, loss);
        for answer in answers.iter().filter(|answer| answer.status != 202) {
            answer.is_problem(503, "broker-unavailable");
            answer.retry_after();
            assert!(answer.took < Duration::from_secs(3), "{:?}", answer.took);
        }
        shop.issue(7, coupon).await.is_problem(503, "broker-unavailable");
        assert!(!is_ready(shop).await);

        shop.broker.proxy.restore();
        eventually("the broker is found again", async || is_ready(shop).await).await;
        // Everyone tries again: who was accepted before may not get a second coupon.
        let answers = shop.storm((1..=1_000).map(|user| (user, coupon)), 32).await;
        assert!(
            answers.iter().all(|answer| answer.status == 202 || answer.code() == "coupon-sold-out"),
            "{answers:?}"
        );
        shop.settle_and_audit().await;
        assert_eq!(shop.outcomes().await["succeeded"], 1_000);
    })
    .await;
}

/// Published into a link that swallows it, which then breaks: nobody knows whether the broker has the job.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_has_not_confirmed_is_not_accepted() {
    shop(Options { users: 20, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(20).await;
        for key in [None, Some("one")] {
            shop.accepted_issue(1, coupon).await;
            shop.broker.proxy.block(Way::Asks);
            let asking = async {
                match key {
                    None => shop.issue(2, coupon).await,
                    Some(key) => shop.issue_keyed(3, coupon, key).await,
                }
            };
            let breaking = async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                shop.broker.proxy.cut();
            };
            let (answer, ()) = tokio::join!(asking, breaking);
            answer.is_problem(503, "broker-unavailable");
            assert!(answer.took >= Duration::from_millis(300), "{answer:?}");
            shop.broker.proxy.restore();
            eventually("the broker is found again", async || is_ready(shop).await).await;
        }
        shop.settle_and_audit().await;
        assert_eq!(shop.outcomes().await.values().sum::<i64>(), 2);
    })
    .await;
}

/// The broker's own bound, counted in messages.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_503_until_there_is_room() {
    let options = Options { worker: false, partitions: 1, line_capacity: 5, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(1_000).await;
        let mut accepted = 0;
        let refused = loop {
            let answer = shop.issue(7, coupon).await;
            if answer.status != 202 {
                break answer;
            }
            accepted += 1;
            assert!(accepted < 100, "the line takes more than it may");
        };
        refused.is_problem(503, "line-full");
        assert!(refused.retry_after() >= 1);
        shop.start_worker();
        eventually("there is room again", async || shop.issue(7, coupon).await.status == 202).await;
    })
    .await;
}

/// Our own bound, counted in jobs: nothing but 202 and 503, and every 202 settles.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_line_refuses_and_forgets_nothing() {
    let options = Options { worker: false, partitions: 2, users: 3_000, ..Options::default() };
    shop(options, async |shop| {
        let (hot, cold) = two_lines(shop).await;
        let api = shop.start_api(|config| config.line_capacity = 500).await;
        let url = |coupon| format!("{}/api/coupons/{coupon}/issue", api.url);
        let storm =
            stream::iter(1..=3_000).map(|user| shop.submit(user, shop.post(user, &url(hot))));
        let answers: Vec<Answer> = storm.buffer_unordered(64).collect().await;
        let accepted = answers.iter().filter(|answer| answer.status == 202).count();
        // Some were under way when it was looked at.
        assert!((450..650).contains(&accepted), "{accepted}");
        for refused in answers.iter().filter(|answer| answer.status != 202) {
            refused.is_problem(503, "line-full");
            assert!(refused.retry_after() >= 1);
        }
        // The neighbours' line is not full.
        assert_eq!(shop.submit(1, shop.post(1, &url(cold))).await.status, 202);
        shop.start_worker();
        eventually("there is room again", async || {
            shop.submit(1, shop.post(1, &url(hot))).await.status == 202
        })
        .await;
        api.stop().await;
    })
    .await;
}

/// Two campaigns that stand in different lines.
pub(super) async fn two_lines(shop: &Shop) -> (i64, i64) {
    let queue =
        |coupon| shop.queue_of(&Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) }));
    let first = shop.campaign(1_000_000).await;
    loop {
        let other = shop.campaign(1_000_000).await;
        if queue(other) != queue(first) {
            return (first, other);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_jobs_are_accepted_and_settled_later() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(10).await;
        let before = shop.accepted_issue(1, coupon).await;
        shop.settled(1, &before).await;

        shop.database.proxy.cut();
        let job = shop.accepted_issue(7, coupon).await;
        // Nobody can know whether it is settled: neither "queued" nor 404, but "not now".
        shop.poll(7, &job, 0).await.is_problem(503, "database-unavailable");
        // What was told once is not unsaid.
        assert_eq!(shop.poll(1, &before, 0).await.body["status"], "succeeded");
        Answer::of(shop.get(7, "/api/users/coupons")).await.is_problem(503, "database-unavailable");
        let live = Answer::of(shop.anonymous(Method::GET, "/health/live")).await;
        assert_eq!(live.status, 200);
        // It accepts, so it stays in rotation, and says what is missing.
        let database = async || {
            let answer = Answer::of(shop.anonymous(Method::GET, "/health/ready")).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.body["database"] == true
        };
        eventually("the database is missed", async || !database().await).await;

        shop.database.proxy.restore();
        assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
        eventually("the database is found again", database).await;
    })
    .await;
}

/// An API that starts in the outage knows from Redis how jobs are dealt out.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_starts_without_the_database_accepts() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(10).await;
        shop.database.proxy.cut();
        let late = shop.start_api(|_| ()).await;
        let issue = shop.post(7, &format!("{}/api/coupons/{coupon}/issue", late.url));
        let accepted = shop.submit(7, issue).await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        shop.database.proxy.restore();
        assert_eq!(shop.settled(7, accepted.job_id()).await["status"], "succeeded");
        late.stop().await;
    })
    .await;
}

/// The worker commits, but its acknowledgement is lost: the redelivered jobs settle once.
#[tokio::test(flavor = "multi_thread")]
async fn redelivered_jobs_settle_once() {
    shop(Options { users: 500, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(500).await;
        let drop = shop.storm((1..=500).map(|user| (user, coupon)), 16);
        let cuts = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(150)).await;
                shop.broker.proxy.cut();
                shop.broker.proxy.restore();
            }
        };
        tokio::join!(drop, cuts);
        shop.settle_and_audit().await;
    })
    .await;
}

/// A connection that is neither closed nor answering, as behind a firewall that lost its state.
#[tokio::test(flavor = "multi_thread")]
async fn frozen_database_connections_stop_nothing_for_good() {
    shop(Options { users: 500, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(500).await;
        let drop = shop.storm((1..=500).map(|user| (user, coupon)), 16);
        let freeze = async {
            eventually("the drop is on", async || shop.accepted_ids().len() > 100).await;
            shop.database.proxy.freeze();
        };
        let (answers, ()) = tokio::join!(drop, freeze);
        assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
        shop.settle_and_audit().await;
        eventually("the API has new connections", async || is_ready(shop).await).await;
    })
    .await;
}

/// Who asks too much is told when to come back; nobody else notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_runs_wild_is_held_back_alone() {
    shop(Options::default(), async |shop| {
        let api = shop.start_api(|config| config.rate_limit = 5).await;
        let balance = async |user: i64| {
            Answer::of(shop.get(user, &format!("{}/api/balance/{user}", api.url))).await
        };
        let mut wild = Vec::new();
        for _ in 0..30 {
            wild.push(balance(1).await);
        }
        let served = wild.iter().filter(|answer| answer.status == 200).count();
        assert!((5..30).contains(&served), "{served}");
        let refused = wild.iter().find(|answer| answer.status != 200).unwrap();
        refused.is_problem(429, "rate-limited");
        assert_eq!(refused.headers["retry-after"], "1");
        assert_eq!(balance(2).await.status, 200);
        eventually("it is served again", async || balance(1).await.status == 200).await;
        api.stop().await;
    })
    .await;
}
