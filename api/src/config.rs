//! Command line and environment.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use axum::http::HeaderValue;

use chrono::TimeDelta;
use clap::{Args, Parser, Subcommand};
use firstcome_broker::BrokerArgs;
use firstcome_process::database::{Pool, Sessions};
use firstcome_process::{database::settings::BY_KEY, redis::RedisArgs, telemetry};
use ipnet::{IpNet, Ipv4Net};
use reqwest::Url;

/// How many connections there may be unless something else is wanted: at 25 KiB for each unfinished
/// head, half a GiB at worst.
pub const DEFAULT_CONNECTIONS: u32 = 20_000;

/// Accepts first-come requests: validates, enqueues, answers polls.
#[derive(Debug, Parser)]
#[command(version, after_help = telemetry::HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What this process does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the HTTP API until SIGTERM or Ctrl-C; the default.
    #[command(after_help = telemetry::HELP)]
    Serve(Box<ServeArgs>),
    /// Print a token, signed with JWT_SECRET.
    Token(Box<TokenArgs>),
}

/// What `serve` needs.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Where to listen.
    #[arg(long, env = "API_ADDR", default_value = "127.0.0.1:8080")]
    pub api_addr: SocketAddr,
    /// Where operators come in instead: /api/admin, /ops, /metrics, /docs and /openapi.json are there only, if it is set.
    #[arg(long, env = "API_ADMIN_ADDR")]
    pub api_admin_addr: Option<SocketAddr>,
    /// Most connections of clients; fewer if the limit of open files (ulimit -n) does not leave so
    /// many. A client beyond it is answered with 503.
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = DEFAULT_CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// Pages of which origins may ask from a browser, comma-separated: scheme://host:port each, or * for
    /// any; none if not set.
    #[arg(long, env = "CORS_ORIGINS", value_delimiter = ',')]
    pub cors_origins: Vec<Origin>,
    /// Most streams of events (`Accept: text/event-stream`), and never more than half of the
    /// connections. One more is answered with 503; it may poll.
    #[arg(long, env = "MAX_STREAMS", default_value_t = 5_000)]
    pub max_streams: u32,
    /// How long it goes on accepting after SIGTERM, in seconds, while it says that it is not ready: until
    /// every balancer has seen that.
    #[arg(long, env = "DRAIN_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(..=300))]
    pub drain_seconds: u32,
    /// PostgreSQL, as postgres://user:password@host:port/database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// Most connections to PostgreSQL.
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_connections: u32,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub broker: BrokerArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub redis: RedisArgs,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub secrets: SecretArgs,
    /// Signs job ids. Several, comma-separated, while rotating: the first signs, all are believed. Believe
    /// the new one everywhere before any API signs with it: `old,new`, then `new,old`, then `new`.
    /// At least 16 bytes each, better 32 random ones.
    #[arg(long, env = "JOB_ID_KEY", hide_env_values = true)]
    pub job_id_key: Option<String>,
    /// How long a job can be polled after its submission, in seconds.
    #[arg(long, env = "JOB_RETENTION", default_value_t = 7 * 24 * 3600, value_parser = clap::value_parser!(u32).range(60..))]
    pub job_retention: u32,
    /// How old an order may be when its customer cancels it, in seconds; operators cancel any.
    #[arg(long, env = "CANCEL_WINDOW", default_value_t = 7 * 24 * 3600)]
    pub cancel_window: u32,
    /// How old a list of products may be, in seconds.
    #[arg(long, env = "PRODUCTS_TTL", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub products_ttl: u32,
    /// How old the list of popular products may be, in seconds.
    #[arg(long, env = "POPULAR_TTL", default_value_t = 1_800, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub popular_ttl: u32,
    /// Time zone of the business day, as PostgreSQL knows it.
    #[arg(long, env = "BUSINESS_TIME_ZONE", default_value = "Asia/Seoul")]
    pub business_time_zone: String,
    /// The most jobs that may wait in one line, about; beyond it submissions are answered with 503.
    #[arg(long, env = "LINE_CAPACITY", default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub line_capacity: u32,
    /// The most requests per second of one caller, by this process; 0 for any number.
    #[arg(long, env = "RATE_LIMIT", default_value_t = 100)]
    pub rate_limit: u32,
    /// The most requests per second of one address that come without a valid token, by this process; 0 for any
    /// number. By default 1,000 if TRUSTED_PROXIES is set, else any number.
    #[arg(long, env = "ADDRESS_RATE_LIMIT")]
    pub address_rate_limit: Option<u32>,
    /// Who is believed in what X-Forwarded-For says of those before it, comma-separated: addresses and networks, such
    /// as 10.0.0.0/8; nobody if not set.
    #[arg(long, env = "TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,
    /// How long a submission may wait for the broker's confirm, in milliseconds, before it is
    /// answered with 503.
    #[arg(long, env = "CONFIRM_DEADLINE_MS", default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    pub confirm_deadline_ms: u32,
}

/// Who may call.
#[derive(Debug, Clone, Default, Args)]
pub struct SecretArgs {
    /// Development mode: missing secrets get a well-known default.
    #[arg(long, env = "FIRSTCOME_DEV")]
    pub dev: bool,
    /// HS256 secret of the tokens; at least 16 bytes, better 32 random ones.
    #[arg(long, env = "JWT_SECRET", hide_env_values = true)]
    pub jwt_secret: Option<String>,
    /// File with the public keys of the tokens' issuer: a JWKS (JSON) or one PEM public key.
    /// Replaces JWT_SECRET.
    #[arg(long, env = "JWT_PUBLIC_KEYS", conflicts_with = "jwt_jwks_url")]
    pub jwt_public_keys: Option<PathBuf>,
    /// Where the issuer of the tokens publishes its public keys (a JWKS), as https://host/path. Replaces JWT_SECRET.
    #[arg(long, env = "JWT_JWKS_URL", hide_env_values = true)]
    pub jwt_jwks_url: Option<String>,
    /// File with the certificates (PEM) that may vouch for that host, instead of the public ones.
    #[arg(long, env = "JWT_JWKS_CA_FILE", requires = "jwt_jwks_url")]
    pub jwt_jwks_ca_file: Option<PathBuf>,
    /// The `iss` that a token must have.
    #[arg(long, env = "JWT_ISSUER")]
    pub jwt_issuer: Option<String>,
    /// A token must have one of these in its `aud`; with commas in between.
    #[arg(long, env = "JWT_AUDIENCE", value_delimiter = ',')]
    pub jwt_audience: Vec<String>,
    /// A token must have an `exp`.
    #[arg(long, env = "JWT_REQUIRE_EXP")]
    pub jwt_require_exp: bool,
    /// The claim with the caller's roles, as text or list, besides `role`, `roles` and `scope`; one within others by its
    /// path, such as realm_access.roles.
    #[arg(long, env = "JWT_ROLES_CLAIM")]
    pub jwt_roles_claim: Option<String>,
    /// What the `sub` of a token is: a user's id, or anything, which is mapped to one on first sight: to who has the
    /// token's verified `email`.
    #[arg(long, env = "JWT_SUBJECTS", default_value = "ids", value_parser = ["ids", "map"])]
    pub jwt_subjects: String,
    /// Who is not known is made a user, with the token's `name` and `email`.
    #[arg(long, env = "JWT_CREATE_USERS")]
    pub jwt_create_users: bool,
}

/// What `token` needs.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// The user's id.
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    pub user: i64,
    /// Give the role that opens /api/admin.
    #[arg(long)]
    pub admin: bool,
    /// Give the role that reads what operators see, and changes nothing.
    #[arg(long, conflicts_with = "admin")]
    pub auditor: bool,
    /// How long the token is valid, in seconds.
    #[arg(long, default_value_t = 12 * 3600)]
    pub expires_in: u32,
    #[command(flatten)]
    #[expect(missing_docs, reason = "the text would replace the command's own help")]
    pub secrets: SecretArgs,
}

/// What one address may ask per second without a valid token, unless something else is wanted. Ten times what a
/// caller may: an address may be an office, or a whole town of a mobile carrier's.
const DEFAULT_ADDRESS_RATE: u32 = 1_000;

/// The well-known secret of development mode.
const DEVELOPMENT_SECRET: &str = "firstcome-development-only";
/// Shorter secrets can be guessed, in bytes.
const SHORTEST_SECRET: usize = 16;

impl SecretArgs {
    pub(crate) fn maps_subjects(&self) -> bool {
        self.jwt_subjects == "map"
    }

    /// The HS256 secret.
    ///
    /// # Errors
    /// A hint, if it is missing or short.
    pub fn jwt_secret(&self) -> anyhow::Result<String> {
        self.secret("JWT_SECRET", self.jwt_secret.as_deref())
    }

    fn secret(&self, name: &str, value: Option<&str>) -> anyhow::Result<String> {
        match value {
            _ if self.dev && value.is_none() => Ok(DEVELOPMENT_SECRET.to_owned()),
            Some(DEVELOPMENT_SECRET) if !self.dev => {
                anyhow::bail!("{name} is the well-known development secret; choose another one")
            }
            Some(secret) if secret.trim().len() < SHORTEST_SECRET => anyhow::bail!(
                "{name} is too short: at least {SHORTEST_SECRET} bytes, e.g. from `openssl rand -hex 32`"
            ),
            Some(secret) if secret.bytes().collect::<HashSet<_>>().len() < 2 => {
                anyhow::bail!("{name} is one character all over; try `openssl rand -hex 32`")
            }
            Some(secret) => Ok(secret.to_owned()),
            None => anyhow::bail!(
                "{name} is not set; outside development mode (--dev) there is no default. Try `openssl rand -hex 32`"
            ),
        }
    }
}

impl ServeArgs {
    /// How long a job can be polled.
    #[must_use]
    pub fn retention(&self) -> TimeDelta {
        TimeDelta::seconds(self.job_retention.into())
    }

    /// How many requests per second one address may send without a valid token; 0 for any number. Where no proxy is
    /// named, all of the shop's visitors may come with the address of one.
    #[must_use]
    pub fn address_rate_limit(&self) -> u32 {
        let default = if self.trusted_proxies.is_empty() { 0 } else { DEFAULT_ADDRESS_RATE };
        self.address_rate_limit.unwrap_or(default)
    }

    /// The keys that sign job ids: the first signs, all verify.
    ///
    /// # Errors
    /// A hint, if one is missing or short.
    pub fn job_id_keys(&self) -> anyhow::Result<Vec<String>> {
        let secret = |key| self.secrets.secret("JOB_ID_KEY", key);
        match &self.job_id_key {
            None => Ok(vec![secret(None)?]),
            Some(keys) => keys.split(',').map(|key| secret(Some(key.trim()))).collect(),
        }
    }

    /// A pool that connects when it is first used, so that the API starts and accepts while the
    /// database is away.
    ///
    /// # Errors
    /// A malformed URL.
    pub fn pool(&self) -> Result<Pool, sqlx::Error> {
        let sessions = Sessions {
            application_name: "firstcome-api",
            connections: self.database_connections,
            patience: Duration::from_secs(2),
            trusted_for: Duration::ZERO,
            // Nothing that the API asks takes long; what does, hangs.
            statement_timeout: "5s",
            planning: &BY_KEY,
            may_be_read_only: false,
        };
        Pool::connect_lazy(&self.database_url, &sessions)
    }
}

/// An origin as browsers send it, or `*` for any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(origin: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "an origin is * or scheme://host or scheme://host:port, without a path and in lower case";
        let origin = origin.trim();
        let is_origin = Url::parse(origin)
            .is_ok_and(|url| url.origin().ascii_serialization() == origin && !origin.contains('*'));
        if origin == "*" || is_origin {
            HeaderValue::from_str(origin).map(Self).map_err(|_| FORM)
        } else {
            Err(FORM)
        }
    }
}

impl Origin {
    /// Whether it stands for all.
    pub(crate) fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// As it stands in headers.
    pub(crate) const fn as_header(&self) -> &HeaderValue {
        &self.0
    }
}

/// Addresses: one, or those of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(network: &str) -> Result<Self, Self::Err> {
        const FORM: &str =
            "a proxy is an address, such as 10.0.0.7, or a network, such as 10.0.0.0/8 or fd00::/8";
        let network = network.trim();
        let address = || network.parse().map(|address: IpAddr| address.into());
        let network = network.parse().or_else(|_| address()).map_err(|_| FORM)?;
        Ok(Self(unmapped(network)))
    }
}

impl Network {
    /// Whether the address is one of them.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

/// A network of IPv4 addresses that are written as IPv6 ones is one of IPv4.
fn unmapped(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let length = network.prefix_len().checked_sub(MAPPED_BITS);
    match (network.addr().to_canonical(), length) {
        (IpAddr::V4(address), Some(length)) if network.addr().is_ipv6() => {
            Ipv4Net::new(address, length).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_with_its_addresses() {
        for (network, within, without) in [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            (" 10.1.2.3/16 ", "10.1.0.0", "10.0.255.255"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("10.1.0.0/16", "::ffff:10.1.0.1", "::ffff:10.2.0.1"),
            ("::ffff:10.1.0.0/112", "10.1.0.1", "10.2.0.1"),
            ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
        ] {
            let read: Network = network.parse().unwrap();
            assert!(read.contains(within.parse().unwrap()), "{network}: {within}");
            assert!(!read.contains(without.parse().unwrap()), "{network}: {without}");
        }
        for bad in [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "10.0.0.0/",
            "::1/129",
            "proxy.example",
            "*",
            "[::1]",
            "10.0.0.1:80",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_what_browsers_send() {
        for good in ["*", "https://shop.example", "http://localhost:5173", " https://a.b:8443 "] {
            assert_eq!(
                good.parse::<Origin>().map(|origin| origin.0),
                Ok(good.trim().parse().unwrap())
            );
        }
        for bad in [
            "",
            "shop.example",
            "https://shop.example/",
            "https://shop.example/path",
            "https://",
            "https://Shop.example",
            "https://user@shop.example",
            "https://*.shop.example:x",
            "null",
            "a,b",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
