//! Servers that speak TLS, as `scripts/services` starts them.

use std::{fs, path::PathBuf};

use super::Authority;
use crate::services::OwnServices;

/// PostgreSQL, RabbitMQ and Redis of this test alone; stopped when dropped.
pub(super) struct Servers {
    pub(super) files: PathBuf,
    pub(super) rabbitmq: String,
    pub(super) redis: String,
    /// Without TLS.
    pub(super) rabbitmq_clear: String,
    /// Without TLS.
    pub(super) redis_clear: String,
    postgres_port: String,
    _services: OwnServices,
}

impl Servers {
    /// Starts them anew, with certificates of this authority.
    pub(super) fn start(authority: &Authority) -> Self {
        let files = format!("tls-{}", std::process::id());
        let files = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(files);
        fs::create_dir_all(&files).unwrap();
        authority.write(&files.join("ca.pem"));
        Authority::new("another one").write(&files.join("other-ca.pem"));
        authority.sign(&files, "server", &["127.0.0.1", "::1"]);
        authority.sign(&files, "client", &[]);
        let services = OwnServices::start_over_tls("tls", &files);
        let port = |name: &str| services.port(name);
        Self {
            files,
            rabbitmq: format!("amqps://guest:guest@127.0.0.1:{}/%2f", port("rabbitmq-tls")),
            redis: format!("rediss://127.0.0.1:{}/", port("redis-tls")),
            rabbitmq_clear: format!("amqp://guest:guest@127.0.0.1:{}/%2f", port("rabbitmq")),
            redis_clear: format!("redis://127.0.0.1:{}/", port("redis")),
            postgres_port: port("postgres"),
            _services: services,
        }
    }

    /// The database, asked in this way.
    pub(super) fn postgres(&self, mode: &str, ca: &str, ours: Option<(&str, &str)>) -> String {
        let ours = ours.map(|(certificate, key)| format!("&sslcert={certificate}&sslkey={key}"));
        let (port, ours) = (&self.postgres_port, ours.unwrap_or_default());
        format!(
            "postgres://firstcome:s3cret@127.0.0.1:{port}/firstcome?sslmode={mode}&sslrootcert={ca}{ours}"
        )
    }

    /// Whether no session of ours is in the clear.
    pub(super) async fn are_asked_over_tls(&self) -> bool {
        let url = format!(
            "postgres://firstcome@127.0.0.1:{}/firstcome?sslmode=disable",
            self.postgres_port
        );
        let pool = sqlx::PgPool::connect(&url).await.unwrap();
        let (encrypted, clear): (i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl)
             FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'firstcome%'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        encrypted > 0 && clear == 0
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.files);
    }
}
