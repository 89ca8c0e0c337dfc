//! RabbitMQ: connections, topology, confirmed publishing and consuming. The only crate that knows
//! lapin.

pub mod connect;
pub mod consume;
pub mod depth;
pub mod publish;
pub mod retry;
pub mod tls;
pub mod topology;

use std::ffi::OsStr;

use clap::{Arg, Args, Command, builder::TypedValueParser, error::ErrorKind};
use lapin::uri::{AMQPScheme, AMQPUri};

/// Where the broker is and how our queues in it are called. The API and the workers must be given
/// the same values.
#[derive(Debug, Clone, Args)]
pub struct BrokerArgs {
    /// RabbitMQ, as amqp://user:password@host:port/vhost (or amqps://); ?heartbeat=SECONDS sets
    /// the heartbeat (default 4). Of several nodes, with commas in between, the first that answers within
    /// 5 seconds is used.
    #[arg(
        long,
        env = "AMQP_URL",
        default_value = "amqp://guest:guest@127.0.0.1:5672/%2f",
        hide_env_values = true,
        value_parser = AmqpUrl
    )]
    pub amqp_url: String,

    /// Prefix of all queue names, Redis keys and channels: one broker can serve several
    /// installations.
    #[arg(long, env = "QUEUE_NAMESPACE", default_value = "firstcome", value_parser = parse_namespace)]
    pub queue_namespace: String,

    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub tls: tls::TlsArgs,
}

impl BrokerArgs {
    /// A broker that needs no files of ours.
    #[must_use]
    pub fn new(amqp_url: &str, queue_namespace: &str) -> Self {
        Self {
            amqp_url: amqp_url.to_owned(),
            queue_namespace: queue_namespace.to_owned(),
            tls: tls::TlsArgs::default(),
        }
    }

    /// Whether its parts fit together.
    ///
    /// # Errors
    /// What to change.
    pub fn check(&self) -> Result<(), String> {
        let nodes = connect::nodes(&self.amqp_url)?;
        if self.tls.is_given() && nodes.iter().any(|node| node.scheme != AMQPScheme::AMQPS) {
            let hint = "AMQP_CA_FILE, AMQP_CERT_FILE and AMQP_KEY_FILE are for nodes at amqps://";
            return Err(format!("{hint}, and AMQP_URL has another one"));
        }
        Ok(())
    }

    /// Which broker it is, as its nodes and their virtual hosts say: `host:port/vhost`, without who is let in.
    #[must_use]
    pub fn place(&self) -> String {
        // A malformed URL leads nowhere.
        let nodes = connect::nodes(&self.amqp_url).unwrap_or_default();
        let mut places: Vec<String> = nodes
            .into_iter()
            .map(|AMQPUri { authority, vhost, .. }| {
                format!("{}:{}/{vhost}", authority.host, authority.port)
            })
            .collect();
        // Each process may have a favourite.
        places.sort();
        places.join(",")
    }
}

/// Reads the URL. Unlike that of a function, its error does not show the value, which holds a password.
#[derive(Clone)]
struct AmqpUrl;

impl TypedValueParser for AmqpUrl {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        _argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        let read = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
        let read = read.and_then(|urls| connect::nodes(urls).map(|_| urls.to_owned()));
        read.map_err(|error| {
            let hint = "is what is special in the password percent-encoded?";
            let message = format!("AMQP_URL is malformed: {error} ({hint})\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

/// Reads a [`BrokerArgs::queue_namespace`].
///
/// # Errors
/// What is expected.
pub fn parse_namespace(value: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if (1..=64).contains(&value.len()) && value.chars().all(fine) {
        Ok(value.to_owned())
    } else {
        Err("expected 1..=64 of a-z, 0-9, '-' and '_'".to_owned())
    }
}
