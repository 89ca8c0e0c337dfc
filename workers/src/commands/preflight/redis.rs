//! Whether Redis answers in time to be of use.

use firstcome_process::redis::{REDIS_TIMEOUT, RedisArgs};
use redis::AsyncConnectionConfig;

use super::Check;

/// Whether it does. The sale could do without.
pub(super) async fn check(args: &RedisArgs) -> Check {
    match ping(args).await {
        Ok(()) => Check::ok("redis", "answers"),
        Err(error) => Check::warning(
            "redis",
            format!("polls, repeated keys and lists are slower, look at REDIS_URL: {error:#}"),
        ),
    }
}

async fn ping(args: &RedisArgs) -> anyhow::Result<()> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(REDIS_TIMEOUT))
        .set_response_timeout(Some(REDIS_TIMEOUT));
    let client = args.client()?;
    let mut redis = client.get_multiplexed_async_connection_with_config(&config).await?;
    Ok(redis::cmd("PING").query_async(&mut redis).await?)
}
