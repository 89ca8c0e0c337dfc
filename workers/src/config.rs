//! Settings, from the command line and the environment.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use firstcome_broker::{BrokerArgs, parse_namespace};
use firstcome_contract::event::EventType;
use firstcome_process::{
    database::{
        Pool, Sessions,
        settings::{BY_KEY, BY_KEY_ANEW, PLANNED_ANEW},
    },
    redis::RedisArgs,
};

/// The database.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// PostgreSQL, as postgres://user:password@host:port/database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// Most connections to PostgreSQL; a process with every role has as many for settling, and as many
    /// for the rest. A partition uses one while it settles a batch.
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_connections: u32,
}

/// Where lost jobs are looked for.
#[derive(Debug, Clone, Args)]
pub struct ReconcileArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub database: DatabaseArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub redis: RedisArgs,
    /// Prefix of all Redis keys and channels, as of the API and the workers.
    #[arg(long, env = "QUEUE_NAMESPACE", default_value = "firstcome", value_parser = parse_namespace)]
    pub queue_namespace: String,
}

/// When a day begins.
#[derive(Debug, Clone, Args)]
pub struct TimeZoneArgs {
    /// Time zone of the business day, as PostgreSQL knows it.
    #[arg(long, env = "BUSINESS_TIME_ZONE", default_value = "Asia/Seoul")]
    pub business_time_zone: String,
}

/// How long things are remembered.
#[derive(Debug, Clone, Args)]
pub struct RetentionArgs {
    /// How long jobs can be polled, keys repeated and events redelivered, in seconds; as the API's.
    #[arg(long, env = "JOB_RETENTION", default_value_t = 7 * 24 * 3600, value_parser = clap::value_parser!(u32).range(60..))]
    pub job_retention: u32,
}

/// What every role needs.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub database: DatabaseArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub broker: BrokerArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub redis: RedisArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub time_zone: TimeZoneArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub retention: RetentionArgs,
    /// Where to serve /health/live, /health/ready and /metrics; port 0 is any that is free, and logged.
    #[arg(long, env = "WORKER_ADDR", default_value = "127.0.0.1:0")]
    pub worker_addr: SocketAddr,
    /// Where the role send-to-data-platform posts CloudEvents, as https://host:port/path or http://….
    #[arg(long, env = "DATA_PLATFORM_URL", hide_env_values = true)]
    pub data_platform_url: Option<String>,
    /// Secrets with which requests to the data platform are signed (Standard Webhooks), each whsec_ and base64, with
    /// spaces in between.
    #[arg(long, env = "DATA_PLATFORM_SIGNING_SECRET", hide_env_values = true)]
    pub data_platform_signing_secret: Option<String>,
    /// Bearer token for the data platform.
    #[arg(long, env = "DATA_PLATFORM_TOKEN", hide_env_values = true)]
    pub data_platform_token: Option<String>,
    /// Certificates (PEM) that may vouch for the data platform, instead of the public ones.
    #[arg(long, env = "DATA_PLATFORM_CA_FILE")]
    pub data_platform_ca_file: Option<PathBuf>,
    /// What the data platform is to get, as the role relay-outbox knows it: types of events, with commas in between. Events
    /// of other types are not kept for it.
    #[arg(
        long,
        env = "DATA_PLATFORM_EVENTS",
        value_delimiter = ',',
        default_values = [EventType::OrderCompleted.code(), EventType::OrderCancelled.code()],
        value_parser = event_types()
    )]
    pub data_platform_events: Vec<EventType>,
    /// How long the data platform may take to answer, in milliseconds.
    #[arg(long, env = "DATA_PLATFORM_TIMEOUT_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(10..=300_000))]
    pub data_platform_timeout_ms: u32,
}

/// Reads a type of events.
fn event_types() -> impl TypedValueParser<Value = EventType> {
    PossibleValuesParser::new(EventType::ALL.map(EventType::code))
        .try_map(|code| EventType::from_code(&code).ok_or("no such type of events"))
}

impl DatabaseArgs {
    /// A pool that connects when it is first used, so that a database that is away delays the
    /// work instead of ending the process. For roles that do not settle.
    ///
    /// # Errors
    /// A malformed URL.
    pub fn pool(&self) -> Result<Pool, sqlx::Error> {
        // See `database::answered`: whatever they do is done in pieces.
        self.pool_of("5s", &BY_KEY_ANEW, false)
    }

    /// The same for commands that end: somebody waits for them, they take what they take, and some read whole tables.
    ///
    /// # Errors
    /// A malformed URL.
    pub fn command_pool(&self) -> Result<Pool, sqlx::Error> {
        self.pool_of("0", &PLANNED_ANEW, false)
    }

    /// The same for those that change nothing: a standby will do.
    ///
    /// # Errors
    /// A malformed URL.
    pub fn reading_pool(&self) -> Result<Pool, sqlx::Error> {
        self.pool_of("0", &PLANNED_ANEW, true)
    }

    /// The same for those who settle, in batches of all sizes.
    ///
    /// # Errors
    /// A malformed URL.
    pub fn settling_pool(&self) -> Result<Pool, sqlx::Error> {
        // A batch that takes longer is settled in parts, so that others wait less for its locks.
        self.pool_of("5s", &BY_KEY, false)
    }

    fn pool_of(
        &self,
        statement_timeout: &'static str,
        planning: &[(&'static str, &'static str)],
        may_be_read_only: bool,
    ) -> Result<Pool, sqlx::Error> {
        let sessions = Sessions {
            application_name: "firstcome-worker",
            connections: self.database_connections,
            patience: Duration::from_secs(5),
            // A ping per batch would cost every batch a round trip.
            trusted_for: Duration::from_secs(1),
            statement_timeout,
            planning,
            may_be_read_only,
        };
        Pool::connect_lazy(&self.database_url, &sessions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    /// A program with these settings.
    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        args: WorkerArgs,
    }

    fn asked_for(setting: &[&str]) -> Result<Vec<EventType>, String> {
        let database = ["firstcome-worker", "--database-url=postgres://localhost/x"];
        let program = Program::try_parse_from(database.iter().chain(setting));
        program.map(|program| program.args.data_platform_events).map_err(|error| error.to_string())
    }

    #[test]
    fn the_data_platform_gets_the_types_that_are_named() {
        let orders = [EventType::OrderCompleted, EventType::OrderCancelled];
        assert_eq!(asked_for(&[]).unwrap(), orders);
        for event in EventType::ALL {
            let named = format!("--data-platform-events={}", event.code());
            assert_eq!(asked_for(&[&named]), Ok(vec![event]));
        }
        let two = "--data-platform-events=coupon.issued,product.sold-out";
        let two = asked_for(&[two]).unwrap();
        assert_eq!(two, [EventType::CouponIssued, EventType::ProductSoldOut]);
    }

    #[test]
    fn a_type_that_there_is_not_is_refused_with_those_that_there_are() {
        for wrong in ["order.lost", "order.completed,", "", "#", "order.completed;coupon.issued"] {
            let error = asked_for(&[&format!("--data-platform-events={wrong}")]).unwrap_err();
            assert!(error.contains("--data-platform-events"), "{error}");
            assert!(error.contains("product.sold-out"), "{error}");
        }
        let help = Program::command().render_long_help().to_string();
        for event in EventType::ALL {
            assert!(help.contains(event.code()), "{help}");
        }
    }
}
