//! Where everything is, and what the programs are told.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context, ensure};
use chrono::Utc;
use clap::Args;
use http::header::HeaderValue;
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

/// Signs the tokens if JWT_SECRET is not set: the one that the API falls back to in development
/// mode, so that tokens of `firstcome-api token --dev` are believed, too.
const DEVELOPMENT_SECRET: &str = "firstcome-development-only";
/// How long a token is valid, in seconds.
const TOKEN_LIFETIME: i64 = 12 * 3600;

/// Time zone of the demo's business day.
pub const BUSINESS_TIME_ZONE: &str = "Asia/Seoul";

/// The servers that everything runs on.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// PostgreSQL, as postgres://user:password@host:port/database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// RabbitMQ, as amqp://user:password@host:port/vhost.
    #[arg(long, env = "AMQP_URL", hide_env_values = true)]
    pub amqp_url: Option<String>,
    /// Redis, as redis://host:port.
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<String>,
    /// HS256 secret of the tokens; development mode's own if not set.
    #[arg(long, env = "JWT_SECRET", hide_env_values = true)]
    pub jwt_secret: Option<String>,
}

/// What the programs are told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The URL of the database.
    pub database_url: String,
    /// The URL of the broker.
    pub amqp_url: String,
    /// The URL of Redis.
    pub redis_url: String,
    /// The prefix of queues, keys and channels.
    pub namespace: String,
    /// Where the API listens.
    pub api_addr: SocketAddr,
    /// Where the stand-in for the data platform listens, if there is one.
    pub data_platform: Option<SocketAddr>,
    /// Signs the tokens.
    pub jwt_secret: String,
    /// Before the names of the log files.
    pub log_prefix: &'static str,
}

/// What a token says, as the API reads it.
#[derive(Serialize)]
struct Claims {
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    exp: i64,
}

impl ServerArgs {
    /// The settings, once everything is there.
    ///
    /// # Errors
    /// If a variable is missing; the error says how to get the servers: by the command `make`.
    pub fn settings(
        self,
        make: &str,
        namespace: String,
        api_addr: SocketAddr,
        log_prefix: &'static str,
    ) -> anyhow::Result<Settings> {
        let given = |value: Option<String>, name: &str| {
            value.filter(|value| !value.is_empty()).with_context(|| {
                format!("{name} is not set; run `{make}`, which starts PostgreSQL, RabbitMQ and Redis and sets it")
            })
        };
        ensure!(
            std::env::var_os("JWT_PUBLIC_KEYS").is_none(),
            "JWT_PUBLIC_KEYS is set, so the tokens made here would not be believed; unset it"
        );
        Ok(Settings {
            database_url: given(self.database_url, "DATABASE_URL")?,
            amqp_url: given(self.amqp_url, "AMQP_URL")?,
            redis_url: given(self.redis_url, "REDIS_URL")?,
            namespace,
            api_addr,
            data_platform: None,
            jwt_secret: self.jwt_secret.unwrap_or_else(|| DEVELOPMENT_SECRET.to_owned()),
            log_prefix,
        })
    }
}

impl Settings {
    /// A token that this system's API believes, valid for half a day.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn token(&self, user: i64, admin: bool) -> anyhow::Result<String> {
        let claims = Claims {
            sub: user.to_string(),
            role: admin.then_some("admin"),
            exp: Utc::now().timestamp() + TOKEN_LIFETIME,
        };
        let key = EncodingKey::from_secret(self.jwt_secret.as_bytes());
        Ok(jsonwebtoken::encode(&Header::default(), &claims, &key)?)
    }

    /// The token as the value of an `Authorization` header.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn bearer(&self, user: i64, admin: bool) -> anyhow::Result<HeaderValue> {
        Ok(HeaderValue::from_str(&format!("Bearer {}", self.token(user, admin)?))?)
    }

    /// Where a client on this machine reaches the API.
    #[must_use]
    pub fn api_for_clients(&self) -> SocketAddr {
        let mut address = self.api_addr;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            });
        }
        address
    }

    /// The log file of a program.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        scratch_folder().join("logs").join(format!("{}{name}.log", self.log_prefix))
    }

    /// The environment of the programs, on top of our own.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("DATABASE_URL", self.database_url.clone()),
            ("AMQP_URL", self.amqp_url.clone()),
            ("REDIS_URL", self.redis_url.clone()),
            ("QUEUE_NAMESPACE", self.namespace.clone()),
            ("API_ADDR", self.api_addr.to_string()),
            ("FIRSTCOME_DEV", "true".to_owned()),
            ("JWT_SECRET", self.jwt_secret.clone()),
            // No balancer has to see that it ends.
            ("DRAIN_SECONDS", "0".to_owned()),
            // RUST_BACKTRACE is for panics; an error's place in the code would only bury its text.
            ("RUST_LIB_BACKTRACE", "0".to_owned()),
        ];
        if let Some(address) = self.data_platform {
            variables.extend([
                ("MOCK_DATA_PLATFORM_ADDR", address.to_string()),
                ("DATA_PLATFORM_URL", format!("http://{address}/events")),
                ("BUSINESS_TIME_ZONE", BUSINESS_TIME_ZONE.to_owned()),
            ]);
        }
        variables
    }
}

/// Where logs and whatever else is of no lasting value go; not under version control.
#[must_use]
pub fn scratch_folder() -> PathBuf {
    std::env::var_os("FIRSTCOME_DEV_DIR").map_or_else(|| PathBuf::from(".dev"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> ServerArgs {
        ServerArgs {
            database_url: Some("postgres://localhost/x".to_owned()),
            amqp_url: Some(String::new()),
            redis_url: None,
            jwt_secret: None,
        }
    }

    fn settings(servers: ServerArgs) -> anyhow::Result<Settings> {
        servers.settings("make demo", "demo".to_owned(), "0.0.0.0:81".parse()?, "demo-")
    }

    #[test]
    fn a_missing_server_comes_with_a_hint() {
        let hint = settings(servers()).unwrap_err().to_string();
        assert!(hint.starts_with("AMQP_URL is not set; run `make demo`"), "{hint}");
    }

    #[test]
    fn clients_reach_an_api_that_listens_everywhere() {
        let servers = ServerArgs {
            amqp_url: Some("amqp://localhost".to_owned()),
            redis_url: Some("redis://localhost".to_owned()),
            ..servers()
        };
        let settings = settings(servers).unwrap();
        assert_eq!(settings.api_for_clients().to_string(), "127.0.0.1:81");
        assert!(settings.bearer(7, true).is_ok());
    }
}
