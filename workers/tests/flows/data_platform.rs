//! The data platform gets every completed order, whatever it does to us.

use std::{collections::HashSet, time::Duration};

use firstcome_workers::mock_data_platform::{MockDataPlatform, Mode};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::support::{Options, Shop, eventually, shop};

/// A mock on a port of its own.
async fn mock() -> (MockDataPlatform, Options, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let (mock, stop) = (MockDataPlatform::default(), CancellationToken::new());
    tokio::spawn(mock.clone().serve(listener, stop.clone()));
    (mock, Options { users: 200, data_platform_url: Some(url), ..Options::default() }, stop)
}

async fn sell(shop: &Shop, users: std::ops::RangeInclusive<i64>) {
    let orders = users.map(async |user| {
        let order = json!({"items": [{"productId": user % 5 + 1, "quantity": 1}]});
        let answer = shop.order(user, &order).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    });
    futures_util::future::join_all(orders).await;
}

/// Every completed order has arrived, except those of `without`.
async fn all_arrived(shop: &Shop, mock: &MockDataPlatform, without: i64) {
    shop.settle_and_audit().await;
    let expected: Vec<Uuid> = sqlx::query_scalar("SELECT job_id FROM orders WHERE user_id <> $1")
        .bind(without)
        .fetch_all(&shop.pool)
        .await
        .unwrap();
    let expected: HashSet<Uuid> = expected.into_iter().collect();
    assert!(!expected.is_empty());
    eventually("every completed order has arrived", async || {
        mock.received().keys().copied().collect::<HashSet<_>>() == expected
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_orders_arrive() {
    let (mock, options, _stop) = mock().await;
    shop(options, async |shop| {
        sell(shop, 1..=200).await;
        all_arrived(shop, &mock, 0).await;
        assert!(mock.received().values().all(|times| *times == 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_in_trouble_loses_no_event_and_stops_nobody() {
    let (mock, options, _stop) = mock().await;
    shop(options, async |shop| {
        let troubles = [Mode::Error, Mode::Overloaded, Mode::Hang, Mode::Slow];
        for (trouble, first) in troubles.into_iter().zip([1, 51, 101, 151]) {
            mock.set_mode(trouble);
            sell(shop, first..=first + 49).await;
            // The shop goes on selling.
            shop.settle_and_audit().await;
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        mock.set_mode(Mode::Ok);
        all_arrived(shop, &mock, 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_was_away_for_the_whole_sale_gets_everything_afterwards() {
    // A port that nobody listens on, until later.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = Some(format!("http://{address}/events"));
    shop(Options { users: 100, data_platform_url: url, ..Options::default() }, async |shop| {
        sell(shop, 1..=100).await;
        shop.settle_and_audit().await;
        let mock = MockDataPlatform::default();
        let listener = TcpListener::bind(address).await.unwrap();
        tokio::spawn(mock.clone().serve(listener, CancellationToken::new()));
        all_arrived(shop, &mock, 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_is_set_aside_alone() {
    let (mock, options, _stop) = mock().await;
    shop(options, async |shop| {
        mock.refuse_user(42);
        sell(shop, 1..=100).await;
        all_arrived(shop, &mock, 42).await;
        let letter: (String, String, Vec<u8>) =
            sqlx::query_as("SELECT queue, reason, payload FROM dead_letters")
                .fetch_one(&shop.pool)
                .await
                .unwrap();
        assert!(letter.0.ends_with("data-platform") && letter.1.contains("400"), "{letter:?}");
        let event: serde_json::Value = serde_json::from_slice(&letter.2).unwrap();
        assert_eq!(event["data"]["userId"], 42);
    })
    .await;
}
