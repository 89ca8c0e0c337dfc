//! A broker of several nodes: whoever loses one goes on with another.

use std::net::TcpListener;

use firstcome_tests::{Options, eventually, shop};

#[tokio::test(flavor = "multi_thread")]
async fn another_node_takes_over_from_one_that_is_lost() {
    let options = Options { users: 200, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(1_000).await;
        // Takes connections, and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = format!("amqp://127.0.0.1:{}", silent.local_addr().unwrap().port());
        let nodes = [silent.as_str(), &shop.broker.proxied, &shop.broker.direct].join(",");
        shop.start_worker_with(|config| config.broker.amqp_url.clone_from(&nodes));
        let api = shop.start_api(|config| config.broker.amqp_url.clone_from(&nodes)).await;
        let submit = async |user: i64| {
            let path = format!("{}/api/coupons/{coupon}/issue", api.url);
            shop.submit(user, shop.post(user, &path)).await
        };
        for user in 1..=100 {
            assert_eq!(submit(user).await.status, 202);
        }

        shop.broker.proxy.cut();
        eventually("the other node takes jobs", async || submit(101).await.status == 202).await;
        for user in 102..=200 {
            assert_eq!(submit(user).await.status, 202);
        }
        eventually("they are settled through the other node", async || {
            shop.outcomes().await.get("succeeded") == Some(&200)
        })
        .await;
        shop.broker.proxy.restore();
        shop.settle_and_audit().await;
        api.stop().await;
    })
    .await;
}
