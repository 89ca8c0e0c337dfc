//! The depths of the lines, shared by all APIs through Redis: one of them asks the broker, the others read what it was
//! told. A hint like all that is there: whoever finds none asks the broker itself.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use firstcome_broker::{BrokerArgs, depth::Depth};
use redis::RedisResult;
use tokio::time::sleep;

use crate::cache::Cache;

/// For so long the turn to ask the broker is somebody's. Shorter than what was told then lives: whoever has the
/// next one has as long as they differ.
const TURN: Duration = Duration::from_millis(300);
/// How old what is read may be. It is read anew 250 ms later, and if Redis does not answer within 300 ms, the broker is
/// asked: less than a second in all.
const LIFE: Duration = Duration::from_millis(400);
/// How often, and after how long, it is looked whether the one that has the turn has told by now: a broker or a machine
/// that is slow is not to be asked by all at once.
const PATIENCE: (u32, Duration) = (2, Duration::from_millis(60));

/// How much waits where, by the queues' names.
pub(super) type Depths = HashMap<String, Depth>;

/// What the APIs of one installation tell each other. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Share {
    cache: Cache,
    /// Names of the broker, too: with the wrong one, an API is to notice, and to mislead nobody.
    depths: Arc<str>,
    turn: Arc<str>,
    /// Whether it is in the log that what was there is not understood.
    is_told: Arc<AtomicBool>,
}

/// What Redis says to one that wants to know the depths.
#[derive(Debug)]
pub(super) enum Heard {
    /// To ask the broker, for all.
    Turn(Turn),
    /// These.
    Depths(Depths),
    /// Somebody else asks the broker, and has not told yet.
    Later,
    Nothing,
}

/// The turn to ask the broker for all.
#[derive(Debug)]
pub(super) struct Turn {
    /// Until when what is told now may be read, in milliseconds by Redis' clock: those of our machines may differ.
    until: u64,
}

/// Of one that has or has not given the turn, its time, and what is told.
type Answers =
    (RedisResult<Option<String>>, RedisResult<(u64, u64)>, RedisResult<Vec<Option<Vec<u8>>>>);

impl Share {
    pub(super) fn new(cache: Cache, broker: &BrokerArgs) -> Self {
        let key = |what| format!("{}:{what}:{}", broker.queue_namespace, broker.place()).into();
        Self { cache, depths: key("depths"), turn: key("depths-turn"), is_told: Arc::default() }
    }

    /// What others have heard lately, or the turn.
    pub(super) async fn hear(&self) -> Heard {
        let (times, pause) = PATIENCE;
        for _ in 0..times {
            let heard = self.ask().await;
            if !matches!(heard, Heard::Later) {
                return heard;
            }
            sleep(pause).await;
        }
        self.ask().await
    }

    async fn ask(&self) -> Heard {
        let mut questions = redis::pipe();
        let turn = TURN.as_millis().to_string();
        questions.cmd("SET").arg(&*self.turn).arg(1).arg("NX").arg("PX").arg(turn);
        questions.cmd("TIME");
        // Of a key that is no text it says that there is none.
        questions.cmd("MGET").arg(&*self.depths);
        // One that is full, and takes nothing new, is not away.
        questions.ignore_errors();
        let asking = async |mut redis| {
            let (turn, time, told): Answers = questions.query_async(&mut redis).await?;
            Ok((turn.ok().flatten(), time.ok(), told?))
        };
        let Some((turn, time, told)) = self.cache.ask(asking).await else { return Heard::Nothing };
        if let (Some(_), Some((seconds, micros))) = (turn, time) {
            let now = Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros));
            return Heard::Turn(Turn { until: millis(now.saturating_add(LIFE)) });
        }
        let Some(told) = told.into_iter().next().flatten() else { return Heard::Later };
        let depths = read(&told);
        let is_odd = depths.is_none();
        let was_odd = self.is_told.swap(is_odd, Ordering::Relaxed);
        if is_odd && !was_odd {
            tracing::warn!(key = &*self.depths, "not understood what Redis says of the lines");
        }
        depths.map_or(Heard::Nothing, Heard::Depths)
    }

    /// Tells the others.
    pub(super) async fn tell(&self, turn: Turn, depths: &Depths) {
        let mut telling = redis::pipe();
        telling.cmd("SET").arg(&*self.depths).arg(write(depths)).arg("PXAT").arg(turn.until);
        telling.ignore_errors();
        let telling = async |mut redis| telling.query_async::<redis::Value>(&mut redis).await;
        self.cache.ask(telling).await;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn write(depths: &Depths) -> String {
    let depths: HashMap<&str, (u32, u32)> = depths
        .iter()
        .map(|(queue, depth)| (queue.as_str(), (depth.ready, depth.consumers)))
        .collect();
    // Names and numbers: there is nothing to fail at.
    serde_json::to_string(&depths).unwrap_or_default()
}

fn read(told: &[u8]) -> Option<Depths> {
    let depths: HashMap<String, (u32, u32)> = serde_json::from_slice(told).ok()?;
    let depths = depths.into_iter();
    Some(depths.map(|(queue, (ready, consumers))| (queue, Depth { ready, consumers })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let depths = Depths::from([
            ("shop.coupon.1.00".to_owned(), Depth { ready: 0, consumers: 1 }),
            ("shop.order.7.pin-9\"".to_owned(), Depth { ready: u32::MAX, consumers: 0 }),
        ]);
        assert_eq!(read(write(&depths).as_bytes()), Some(depths));
        assert_eq!(read(write(&Depths::new()).as_bytes()), Some(Depths::new()));
    }

    #[test]
    fn what_is_not_understood_is_nothing() {
        let odd: [&[u8]; 10] = [
            b"",
            b"1",
            b"\xff\xfe",
            b"null",
            b"[]",
            b"{\"q\":[1]}",
            b"{\"q\":[1,2,3]}",
            b"{\"q\":[-1,2]}",
            b"{\"q\":[4294967296,2]}",
            b"{\"q\":[1,2]} and more",
        ];
        for told in odd {
            assert_eq!(read(told), None, "{told:?}");
        }
    }

    #[tokio::test]
    async fn brokers_are_told_apart_and_nobody_s_password_is() {
        let share = |url| {
            let client = redis::Client::open("redis://127.0.0.1:1").unwrap();
            Share::new(Cache::new(client).unwrap(), &BrokerArgs::new(url, "shop"))
        };
        let one = share("amqp://api:s3cret@one:5672/%2f,amqp://api:s3cret@two:5672/%2f");
        assert_eq!(&*one.depths, "shop:depths:one:5672//,two:5672//");
        let other = share("amqp://me@two,amqp://me@one");
        assert_eq!((one.depths, one.turn), (other.depths, other.turn.clone()));
        assert_ne!(other.turn, share("amqp://me@two/shop,amqp://me@one").turn);
    }
}
