//! The broker is asked for the depths of the lines by one API, and all of them tell them.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use redis::aio::MultiplexedConnection;
use reqwest::Method;
use serde_json::json;

use firstcome_tests::{Answer, Api, Options, Shop, eventually, shop};

/// How old what is told may be.
const TRUTH: Duration = Duration::from_secs(1);
/// So long a planted text lies in Redis, like a true one. It is put there more often.
const PLANTED_MS: u64 = 400;

fn options() -> Options {
    Options { users: 100, partitions: 2, worker: false, ..Options::default() }
}

/// What an API says of each line's messages: of which queue, and how many.
async fn told(shop: &Shop, url: &str) -> Vec<(String, i64)> {
    let answer = Answer::of(shop.admin(Method::GET, &format!("{url}/api/admin/queues"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let lines = answer.body["items"].as_array().unwrap().iter();
    let lines = lines.inspect(|line| assert_eq!(line["lastKnown"], json!([]), "{line}"));
    let told = |line: &serde_json::Value| {
        (line["queue"].as_str().unwrap().to_owned(), line["ready"].as_i64().unwrap_or(-1))
    };
    lines.map(told).collect()
}

async fn ready(shop: &Shop, url: &str) -> i64 {
    told(shop, url).await.iter().map(|(_, ready)| ready).sum()
}

/// From a second after now all of them tell the same.
async fn all_tell(shop: &Shop, apis: &[&Api], messages: i64) {
    tokio::time::sleep(TRUTH).await;
    for _ in 0..5 {
        for api in apis {
            assert_eq!(ready(shop, &api.url).await, messages, "{}", api.url);
        }
        tokio::time::sleep(Duration::from_millis(110)).await;
    }
}

/// A message for each of these users, as each waits for the one before.
async fn submit(shop: &Shop, coupon: i64, users: std::ops::Range<i64>) {
    for user in users {
        shop.accepted_issue(user, coupon).await;
    }
}

async fn redis(shop: &Shop) -> MultiplexedConnection {
    let client = redis::Client::open(shop.redis.direct.as_str()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// The names under which the APIs share the depths.
fn key(shop: &Shop, what: &str) -> String {
    let mut broker = shop.broker.as_broker();
    broker.amqp_url.clone_from(&shop.broker.proxied);
    format!("{}:{what}:{}", shop.namespace, broker.place())
}

/// Whatever the APIs put there is replaced by this, and nobody gets the turn, while `test` runs.
async fn planted(shop: &Shop, put: &[&str], test: impl AsyncFnOnce()) {
    let (mut redis, over) = (redis(shop).await, AtomicBool::default());
    let (depths, turn) = (key(shop, "depths"), key(shop, "depths-turn"));
    let plant = async {
        while !over.load(Ordering::Relaxed) {
            let mut all = redis::pipe();
            all.atomic().cmd("SET").arg(&turn).arg("test").arg("PX").arg(PLANTED_MS);
            all.cmd("DEL").arg(&depths).cmd(put[0]).arg(&depths).arg(&put[1..]);
            all.cmd("PEXPIRE").arg(&depths).arg(PLANTED_MS);
            all.query_async::<redis::Value>(&mut redis).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let test = async {
        test().await;
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(plant, test);
}

/// Each has its turn, and those that are gone leave none behind.
#[tokio::test(flavor = "multi_thread")]
async fn every_api_tells_the_depths_whoever_asks_for_them() {
    shop(options(), async |shop| {
        let others = [shop.start_api(|_| {}).await, shop.start_api(|_| {}).await];
        let coupon = shop.campaign(100).await;
        submit(shop, coupon, 1..21).await;
        all_tell(shop, &[&shop.api, &others[0], &others[1]], 20).await;
        for (other, users) in others.into_iter().zip([21..31, 31..41]) {
            other.stop().await;
            let messages = users.end - 1;
            submit(shop, coupon, users).await;
            all_tell(shop, &[&shop.api], messages).await;
        }

        let other = shop.start_api(|_| {}).await;
        shop.redis.proxy.cut();
        submit(shop, coupon, 41..51).await;
        all_tell(shop, &[&shop.api, &other], 50).await;
        shop.redis.proxy.restore();
        submit(shop, coupon, 51..61).await;
        all_tell(shop, &[&shop.api, &other], 60).await;
        shop.redis.proxy.freeze();
        submit(shop, coupon, 61..71).await;
        all_tell(shop, &[&shop.api, &other], 70).await;
        shop.redis.proxy.restore();
        other.stop().await;
        shop.start_worker();
    })
    .await;
}

/// Read by all of them, so none asks the broker; and believed no further than it can do harm.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_is_believed_within_reason() {
    shop(options(), async |shop| {
        let other = shop.start_api(|_| {}).await;
        let apis = [&shop.api, &other];
        let coupon = shop.campaign(100).await;
        submit(shop, coupon, 1..11).await;
        all_tell(shop, &apis, 10).await;
        let queues = told(shop, &shop.api.url).await;
        let of = |depth: serde_json::Value| {
            let all = queues.iter().map(|(queue, _)| (queue.clone(), depth.clone()));
            serde_json::Value::Object(all.collect()).to_string()
        };
        let all = i64::try_from(queues.len()).unwrap();

        planted(shop, &["SET", &of(json!([7, 0]))], async || {
            all_tell(shop, &apis, 7 * all).await;
        })
        .await;
        all_tell(shop, &apis, 10).await;
        // Of one line only: the others are asked for.
        let (queue, messages) = &queues[0];
        let one = json!({queue: [messages + 3, 0], "other": [1, 1]}).to_string();
        planted(shop, &["SET", &one], async || all_tell(shop, &apis, 13).await).await;
        let (full, null) = (of(json!([u32::MAX, 0])), of(json!(null)));
        let odd: [&[&str]; 6] = [
            &["SET", &full],
            &["SET", "{}"],
            &["SET", "\u{0}garbage"],
            &["SET", &null],
            &["RPUSH", "no", "text"],
            &["HSET", "no", "text"],
        ];
        for (put, user) in odd.into_iter().zip(11..) {
            planted(shop, put, async || {
                all_tell(shop, &apis, user - 1).await;
                for api in apis {
                    let ready = format!("{}/health/ready", api.url);
                    let ready = Answer::of(shop.anonymous(Method::GET, &ready)).await;
                    assert_eq!(ready.status, 200, "{ready:?}");
                }
                submit(shop, coupon, user..user + 1).await;
            })
            .await;
        }
        let mut redis = redis(shop).await;
        eventually("they share what the broker says again", async || {
            redis::AsyncTypedCommands::exists(&mut redis, key(shop, "depths")).await.unwrap()
        })
        .await;
        other.stop().await;
        shop.start_worker();
    })
    .await;
}
