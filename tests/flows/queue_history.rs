//! What an operator who comes late is told of the last minutes.

use reqwest::Method;
use serde_json::Value;

use firstcome_tests::{Answer, Options, Shop, eventually, shop};

/// The sum of a figure over all lines, at each instant at which it is known.
async fn told(shop: &Shop, figure: &str) -> Vec<u64> {
    let history = Answer::of(shop.audit("/api/admin/queues/history")).await;
    assert_eq!(history.status, 200, "{history:?}");
    let instants = history.body["at"].as_array().unwrap().len();
    let lines = history.body["lines"].as_array().unwrap();
    let at = |line: &Value, instant: usize| line[figure][instant].as_u64();
    let known =
        (0..instants).filter(|instant| lines.iter().any(|line| at(line, *instant).is_some()));
    known.map(|instant| lines.iter().filter_map(|line| at(line, instant)).sum()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_is_told() {
    shop(Options { users: 300, worker: false, ..Options::default() }, async |shop| {
        // Somebody has to make the lines.
        shop.start_worker();
        eventually("the lines are there", async || !told(shop, "waitingJobs").await.is_empty())
            .await;
        shop.stop_workers().await;
        let coupon = shop.campaign(300).await;
        for user in 1..=300 {
            shop.accepted_issue(user, coupon).await;
        }
        eventually("it is told that 300 wait, and how long", async || {
            let longest = told(shop, "oldestSeconds").await.pop();
            told(shop, "waitingJobs").await.last() == Some(&300) && longest >= Some(1)
        })
        .await;
        shop.start_worker();
        eventually("it is told that all are settled", async || {
            told(shop, "settledJobs").await.last() == Some(&300)
        })
        .await;
        let waiting = told(shop, "waitingJobs").await;
        assert!(waiting.contains(&300) && waiting.last() == Some(&0), "{waiting:?}");
        let customer = Answer::of(shop.get(7, "/api/admin/queues/history")).await;
        assert_eq!(customer.status, 403, "{customer:?}");
        let stranger = Answer::of(shop.anonymous(Method::GET, "/api/admin/queues/history")).await;
        assert_eq!(stranger.status, 401, "{stranger:?}");
    })
    .await;
}
