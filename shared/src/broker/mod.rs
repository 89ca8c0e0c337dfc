//! RabbitMQ: connections, topology and confirmed publishing. Together with `workers/runtime` the
//! only code that knows lapin.

pub mod connect;
pub mod depth;
pub mod publish;
pub mod topology;

use clap::Args;

/// Where the broker is and how our queues in it are called. The API and the workers must be given
/// the same values.
#[derive(Debug, Clone, Args)]
pub struct BrokerArgs {
    /// RabbitMQ, as amqp://user:password@host:port/vhost (or amqps://); ?heartbeat=SECONDS sets
    /// the heartbeat (default 10).
    #[arg(
        long,
        env = "AMQP_URL",
        default_value = "amqp://guest:guest@127.0.0.1:5672/%2f",
        hide_env_values = true,
        value_parser = parse_amqp_url
    )]
    pub amqp_url: String,

    /// Prefix of all queue names, Redis keys and channels: one broker can serve several
    /// installations.
    #[arg(long, env = "QUEUE_NAMESPACE", default_value = "firstcome", value_parser = parse_namespace)]
    pub queue_namespace: String,
}

fn parse_amqp_url(value: &str) -> Result<String, String> {
    value.parse::<lapin::uri::AMQPUri>().map(|_| value.to_owned())
}

fn parse_namespace(value: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if (1..=64).contains(&value.len()) && value.chars().all(fine) {
        Ok(value.to_owned())
    } else {
        Err("expected 1..=64 of a-z, 0-9, '-' and '_'".to_owned())
    }
}
