//! The way to Redis.

use std::{fs, io, path::PathBuf, time::Duration};

use clap::Args;
use redis::{Client, ClientTlsConfig, TlsCertificates};
use rustls::crypto::ring;

use crate::pem::{certificates_file, key_file};

/// The longest wait for Redis where all that comes of it is a hint: a slower one is of no use.
pub const REDIS_TIMEOUT: Duration = Duration::from_millis(500);

/// Where Redis is.
#[derive(Debug, Clone, Args)]
pub struct RedisArgs {
    /// Redis, for hints only: redis://host:port, or rediss:// for TLS. Without it everything works, and waiting polls are
    /// answered up to a second later.
    #[arg(
        long,
        env = "REDIS_URL",
        default_value = "redis://127.0.0.1:6379",
        hide_env_values = true
    )]
    pub redis_url: String,
    /// File with the certificates (PEM) of who signs Redis' certificate, in the place of the system's.
    #[arg(long, env = "REDIS_CA_FILE", value_parser = certificates_file())]
    pub redis_ca_file: Option<PathBuf>,
    /// File with our certificate (PEM) for Redis.
    #[arg(long, env = "REDIS_CERT_FILE", requires = "redis_key_file", value_parser = certificates_file())]
    pub redis_cert_file: Option<PathBuf>,
    /// File with the private key (PEM) of that certificate.
    #[arg(long, env = "REDIS_KEY_FILE", requires = "redis_cert_file", value_parser = key_file())]
    pub redis_key_file: Option<PathBuf>,
}

/// Why there is no way to Redis.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// A file that cannot be read.
    #[error("{0} cannot be read")]
    File(&'static str, #[source] io::Error),
    /// A malformed URL, or a file without what it should hold.
    #[error("REDIS_URL, REDIS_CA_FILE, REDIS_CERT_FILE or REDIS_KEY_FILE")]
    Settings(#[from] redis::RedisError),
}

impl RedisArgs {
    /// One without certificates of its own.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            redis_url: url.to_owned(),
            redis_ca_file: None,
            redis_cert_file: None,
            redis_key_file: None,
        }
    }

    /// One that connects when it is used.
    ///
    /// # Errors
    /// [`RedisError`]
    pub fn client(&self) -> Result<Client, RedisError> {
        let read = |setting, file: &Option<PathBuf>| {
            let read = file.as_ref().map(fs::read).transpose();
            read.map_err(|error| RedisError::File(setting, error))
        };
        let root_cert = read("REDIS_CA_FILE", &self.redis_ca_file)?;
        let certificate = read("REDIS_CERT_FILE", &self.redis_cert_file)?;
        let key = read("REDIS_KEY_FILE", &self.redis_key_file)?;
        let client_tls = certificate
            .zip(key)
            .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        // Who was first installed the same one.
        let _ = ring::default_provider().install_default();
        let client = if root_cert.is_none() && client_tls.is_none() {
            Client::open(self.redis_url.as_str())
        } else {
            Client::build_with_tls(
                self.redis_url.as_str(),
                TlsCertificates { client_tls, root_cert },
            )
        };
        Ok(client?)
    }
}
