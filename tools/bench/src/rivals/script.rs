//! Coupons in Redis: one script checks and counts, and puts the coupon into a stream, from which [`super::writer`] brings it
//! into the database.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use firstcome_contract::{campaign::Campaign, job::JobId};
use redis::{
    Client, ErrorKind, RedisError, RedisResult, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use sqlx::{PgPool, Row};
use tokio::sync::Mutex;

use super::{campaign::campaign, writer::STREAM};

/// Who holds a coupon of the campaign, how many are issued, the stream; the user, the total, and what to tell the writer.
/// Three commands where a coupon is granted, which is what has to be quick.
const SCRIPT: &str = "
    if redis.call('SADD', KEYS[1], ARGV[1]) == 0 then return -1 end
    local number = redis.call('INCR', KEYS[2])
    if number > tonumber(ARGV[2]) then
        redis.call('DECR', KEYS[2])
        redis.call('SREM', KEYS[1], ARGV[1])
        return 0
    end
    redis.call('XADD', KEYS[3], '*', 'coupon', ARGV[3] .. ' ' .. number)
    return number";
/// How long until a connection that was lost is tried again, at most.
const RECONNECT_EVERY: Duration = Duration::from_millis(100);
/// More than a restart of Redis takes.
const MOST_RECONNECTS: usize = 200;

/// Redis, and the campaigns that were asked for.
pub(super) struct RedisLua {
    /// One connection for all, with as many requests in flight as there are.
    redis: ConnectionManager,
    /// What Redis calls the script.
    script: String,
    /// They do not change here; how many are issued is known by Redis alone.
    campaigns: RwLock<HashMap<i64, Campaign>>,
    /// Whoever looks for new ones has this.
    looking: Mutex<()>,
}

/// What the script says.
pub(super) enum Issued {
    /// The coupon is in the stream, with its number.
    Accepted,
    /// The user has one.
    Already,
    /// There is none left.
    SoldOut,
}

impl RedisLua {
    /// A request waits for its answer so long at most.
    pub(super) async fn connect(client: Client, most: Duration) -> RedisResult<Self> {
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(most))
            .set_max_delay(RECONNECT_EVERY)
            .set_number_of_retries(MOST_RECONNECTS);
        let mut redis = ConnectionManager::new_with_config(client, config).await?;
        let script = load(&mut redis).await?;
        Ok(Self { redis, script, campaigns: RwLock::default(), looking: Mutex::default() })
    }

    /// Issues a coupon of a campaign of so many, if it can be.
    pub(super) async fn issue(
        &self,
        job: JobId,
        user: i64,
        coupon: i64,
        total: i64,
    ) -> RedisResult<Issued> {
        let mut redis = self.redis.clone();
        let mut call = redis::cmd("EVALSHA");
        call.arg(&self.script)
            .arg(3)
            .arg(format!("bench-held:{coupon}"))
            .arg(issued(coupon))
            .arg(STREAM)
            .arg(user)
            .arg(total)
            .arg(format!("{job} {user} {coupon}"));
        let number: i64 = match call.query_async(&mut redis).await {
            Err(error) if is_unknown(&error) => {
                load(&mut redis).await?;
                call.query_async(&mut redis).await?
            }
            answered => answered?,
        };
        Ok(match number {
            -1 => Issued::Already,
            0 => Issued::SoldOut,
            _ => Issued::Accepted,
        })
    }

    fn known(&self, coupon: i64) -> Option<Campaign> {
        let known = self.campaigns.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&coupon).copied()
    }

    /// What the campaign allows, if there is such a campaign.
    pub(super) async fn campaign(
        &self,
        pool: &PgPool,
        coupon: i64,
    ) -> anyhow::Result<Option<Campaign>> {
        if let Some(campaign) = self.known(coupon) {
            return Ok(Some(campaign));
        }
        // One looks, the others wait for that.
        let _looking = self.looking.lock().await;
        if self.known(coupon).is_none() {
            self.look(pool).await?;
        }
        Ok(self.known(coupon))
    }

    /// Learns all campaigns from the database; whoever is the first to count begins with what was issued before.
    async fn look(&self, pool: &PgPool) -> anyhow::Result<()> {
        let rows = sqlx::query(
            "SELECT total, issued, starts_at, ends_at, id FROM coupons WHERE deleted_at IS NULL",
        );
        let (mut found, mut counts) = (HashMap::new(), redis::pipe());
        for row in rows.fetch_all(pool).await? {
            let (id, campaign) = (row.try_get(4)?, campaign(&row)?);
            found.insert(id, campaign);
            counts.cmd("SET").arg(issued(id)).arg(campaign.issued).arg("NX").ignore();
        }
        counts.exec_async(&mut self.redis.clone()).await?;
        *self.campaigns.write().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    }
}

/// The key of a campaign's count.
fn issued(coupon: i64) -> String {
    format!("bench-issued:{coupon}")
}

async fn load(redis: &mut ConnectionManager) -> RedisResult<String> {
    redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(redis).await
}

/// Redis was started anew since the script was loaded.
fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
