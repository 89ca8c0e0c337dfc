//! What workers settled and operators changed, as it is announced over Redis: hints, of which none is needed.

use std::{sync::Arc, time::Duration};

use firstcome_broker::retry::Retry;
use firstcome_contract::{
    ids::{CouponId, ProductId, UserId},
    job::{HeardBatch, outcome::settled_channel},
};
use futures_util::StreamExt;
use redis::{Msg, RedisResult};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    campaigns::{self, Campaigns},
    outcomes::Outcomes,
    product_pages::Pages,
    products::{self, Products},
    subjects::{self, Subjects},
};

/// How long Redis may take to let us listen.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Those who are told.
#[derive(Debug)]
pub struct Told {
    /// Of outcomes.
    pub jobs: Arc<Outcomes>,
    /// Of campaigns that were changed, or are sold out.
    pub coupons: Arc<Campaigns>,
    /// Of products that were changed.
    pub products: Arc<Products>,
    /// Of products that were changed, or are there again.
    pub pages: Arc<Pages>,
    /// Of users whose personal data was removed.
    pub subjects: Option<Arc<Subjects>>,
}

/// Listens until `stop`.
pub fn start(redis: redis::Client, namespace: &str, told: Told, stop: CancellationToken) {
    let channels = Channels {
        settled: settled_channel(namespace),
        coupon_changed: campaigns::changed_channel(namespace),
        product_changed: products::changed_channel(namespace),
        user_forgotten: subjects::forgotten_channel(namespace),
    };
    tokio::spawn(stop.run_until_cancelled_owned(listen(redis, channels, told)));
}

struct Channels {
    settled: String,
    coupon_changed: String,
    product_changed: String,
    user_forgotten: String,
}

/// Hears the announcements; reconnects as long as it takes.
async fn listen(redis: redis::Client, channels: Channels, told: Told) {
    let mut retry = Retry::reconnect();
    loop {
        match hear(&redis, &channels, &told, &mut retry).await {
            Ok(()) => tracing::warn!("Redis closed the subscription"),
            Err(error) => {
                tracing::warn!(%error, "no announcements from Redis; polls ask the database")
            }
        }
        told.jobs.set_announced(false);
        sleep(retry.next_delay()).await;
    }
}

async fn hear(
    redis: &redis::Client,
    channels: &Channels,
    told: &Told,
    retry: &mut Retry,
) -> RedisResult<()> {
    let connecting = timeout(CONNECT_TIMEOUT, redis.get_async_pubsub()).await;
    let mut subscription = connecting.map_err(|_| timed_out())??;
    let Channels { settled, coupon_changed, product_changed, user_forgotten } = channels;
    let all = [settled, coupon_changed, product_changed, user_forgotten];
    let subscribing = timeout(CONNECT_TIMEOUT, subscription.subscribe(&all));
    subscribing.await.map_err(|_| timed_out())??;
    retry.reset();
    told.jobs.set_announced(true);
    tracing::info!("listening to announcements on Redis");
    let mut messages = subscription.on_message();
    while let Some(message) = messages.next().await {
        let channel = message.get_channel_name();
        if channel == coupon_changed {
            if let Some(id) = changed(&message) {
                told.coupons.forget(CouponId::new(id));
            }
        } else if channel == product_changed {
            if let Some(id) = changed(&message) {
                told.products.forget(ProductId::new(id));
                told.pages.changed();
            }
        } else if channel == user_forgotten {
            if let (Some(id), Some(subjects)) = (changed(&message), &told.subjects) {
                subjects.forget(UserId::new(id));
            }
        } else {
            told.settled(message.get_payload_bytes());
        }
    }
    Ok(())
}

/// The id of what an operator changed.
fn changed(message: &Msg) -> Option<i64> {
    std::str::from_utf8(message.get_payload_bytes()).ok()?.parse().ok()
}

impl Told {
    fn settled(&self, message: &[u8]) {
        match HeardBatch::decode(message) {
            Ok(batch) => {
                for coupon in &batch.sold_out {
                    self.coupons.sold_out(*coupon);
                }
                if !batch.restocked.is_empty() {
                    self.pages.changed();
                }
                self.jobs.post(&batch.settled);
            }
            Err(error) => tracing::warn!(%error, "announcement not understood"),
        }
    }
}

fn timed_out() -> redis::RedisError {
    redis::RedisError::from((redis::ErrorKind::Io, "no answer in time"))
}
