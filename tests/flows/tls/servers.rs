//! Servers that speak TLS, as `scripts/services` starts them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::Authority;

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
    folder: PathBuf,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/services").canonicalize().unwrap()
}

pub(super) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Servers {
    /// Starts them anew, with certificates of this authority.
    pub(super) fn start(authority: &Authority) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
        let folder = root.join(".dev/tls");
        let files = folder.join("files");
        fs::create_dir_all(&files).unwrap();
        authority.write(&files.join("ca.pem"));
        Authority::new("another one").write(&files.join("other-ca.pem"));
        authority.sign(&files, "server", &["127.0.0.1", "::1"]);
        authority.sign(&files, "client", &[]);
        let servers = Self {
            files,
            rabbitmq: String::new(),
            redis: String::new(),
            rabbitmq_clear: String::new(),
            redis_clear: String::new(),
            postgres_port: String::new(),
            folder,
        };
        servers.services("clean");
        servers.services("start");
        let port = |name: &str| {
            fs::read_to_string(servers.folder.join("ports").join(name)).unwrap().trim().to_owned()
        };
        let rabbitmq = format!("amqps://guest:guest@127.0.0.1:{}/%2f", port("rabbitmq-tls"));
        let redis = format!("rediss://127.0.0.1:{}/", port("redis-tls"));
        let rabbitmq_clear = format!("amqp://guest:guest@127.0.0.1:{}/%2f", port("rabbitmq"));
        let redis_clear = format!("redis://127.0.0.1:{}/", port("redis"));
        let postgres_port = port("postgres");
        Self {
            rabbitmq,
            redis,
            rabbitmq_clear,
            redis_clear,
            postgres_port,
            files: servers.files.clone(),
            folder: servers.folder.clone(),
        }
    }

    fn services(&self, what: &str) {
        let output = Command::new(script())
            .arg(what)
            .env("FIRSTCOME_DEV_DIR", &self.folder)
            .env("FIRSTCOME_TLS_DIR", &self.files)
            .env_remove("DATABASE_URL")
            .env_remove("AMQP_URL")
            .env_remove("REDIS_URL")
            .env_remove("FIRSTCOME_SERVICES_RUN")
            .output()
            .unwrap();
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
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
        if !self.rabbitmq.is_empty() {
            self.services("stop");
        }
    }
}
