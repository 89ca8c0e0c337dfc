//! What faults strike: programs, services, and the links between them.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, ensure};
use firstcome_rig::{
    Proxy,
    settings::Settings,
    system::{API, Program, System, worker},
};
use firstcome_workers::commands::mock_data_platform::MockDataPlatform;
use sqlx::{PgConnection, PgPool};
use tokio::process::Command;

/// Every role in a process of its own, those of the lines in two, so that one may go on without the other.
pub(crate) const PROGRAMS: [Program; 8] = [
    worker("send-to-data-platform", "send-to-data-platform"),
    worker("update-sales-stats", "update-sales-stats"),
    worker("relay-outbox", "relay-outbox"),
    worker("products-1", "products"),
    worker("products-2", "products"),
    worker("coupons-1", "coupons"),
    worker("coupons-2", "coupons"),
    API,
];

/// How often it is looked whether a program has ended, as a supervisor does.
const SUPERVISE_INTERVAL: Duration = Duration::from_millis(200);

/// Starts, stops and kills the services, which are the campaign's own.
#[derive(Debug)]
pub(crate) struct Services {
    script: PathBuf,
    /// Their data.
    folder: PathBuf,
    is_cluster: bool,
    /// A library that tells a program another time than it is.
    pub(crate) fake_clock: String,
}

impl Services {
    /// Those that the script has started for us.
    ///
    /// # Errors
    /// They are somebody else's.
    pub(crate) async fn own() -> anyhow::Result<Self> {
        const HINT: &str = "faults strike services of the campaign's own only; run `make chaos`, which starts them";
        let folder = |variable| std::env::var_os(variable).map(PathBuf::from);
        let cluster = folder("FIRSTCOME_CLUSTER_DIR");
        let is_cluster = cluster.is_some();
        let script = PathBuf::from(if is_cluster { "scripts/cluster" } else { "scripts/services" });
        ensure!(
            script.is_file(),
            "run it from the project's folder: there is no {} here",
            script.display()
        );
        let folder = cluster.or_else(|| folder("FIRSTCOME_DEV_DIR")).context(HINT)?;
        let fake_clock = call(Path::new("scripts/services"), &["tool", "libfaketime"]).await?;
        let fake_clock = fake_clock.trim().to_owned();
        let services = Self { script, folder, is_cluster, fake_clock };
        for (variable, port) in
            [("DATABASE_URL", "postgres"), ("AMQP_URL", "rabbitmq"), ("REDIS_URL", "redis")]
        {
            let url = std::env::var(variable).context(HINT)?;
            ensure!(url.contains(&services.address(port).context(HINT)?), "{variable}: {HINT}");
        }
        Ok(services)
    }

    /// Whether there are several of a kind.
    pub(crate) fn are_a_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Which database has this role in the cluster.
    pub(crate) fn role(&self, role: &str) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.folder.join("role").join(role))?.trim().to_owned())
    }

    /// Which database of the cluster was lost with its role.
    pub(crate) fn lost(&self) -> anyhow::Result<String> {
        let names = std::fs::read_dir(self.folder.join("role"))?
            .filter_map(|role| role.ok()?.file_name().into_string().ok());
        let mut lost = names.filter_map(|name| Some(name.strip_prefix("lost-")?.to_owned()));
        lost.next().context("no database is lost")
    }

    /// Where the service listens.
    pub(crate) fn address(&self, port: &str) -> anyhow::Result<String> {
        let port = match (self.is_cluster, port) {
            (false, port) => port.to_owned(),
            (true, "rabbitmq") => "haproxy-amqp".to_owned(),
            (true, port) => format!("haproxy-{port}"),
        };
        let port = std::fs::read_to_string(self.folder.join("ports").join(port))?;
        Ok(format!("127.0.0.1:{}", port.trim()))
    }

    /// Returns if the disks of PostgreSQL and RabbitMQ can be filled.
    ///
    /// # Errors
    /// They are the machine's.
    pub(crate) async fn have_small_disks(&self) -> anyhow::Result<()> {
        for name in ["postgres", "rabbitmq"] {
            self.call(&["free", name]).await?;
        }
        Ok(())
    }

    /// What the script says.
    pub(crate) async fn call(&self, arguments: &[&str]) -> anyhow::Result<String> {
        call(&self.script, arguments).await
    }
}

async fn call(script: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(script).args(arguments).output().await?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} {}: {told}", script.display(), arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The links from the programs to what they need.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) database: Proxy,
    pub(crate) broker: Proxy,
    pub(crate) redis: Proxy,
    pub(crate) platform: Proxy,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) services: Services,
    pub(crate) links: Links,
    pub(crate) platform: MockDataPlatform,
    pub(crate) programs: tokio::sync::Mutex<System>,
    /// Past the links: what the campaign looks at.
    pub(crate) pool: PgPool,
    /// The broker and the database, past the links.
    pub(crate) amqp_url: String,
    pub(crate) database_url: String,
    /// The process of a program that was started as no operator would.
    altered: Mutex<Option<u32>>,
    /// Connections that nobody else can have meanwhile.
    held: Mutex<Vec<PgConnection>>,
    /// Queues that the broker had lost, and that were deleted.
    given_up: Mutex<Vec<String>>,
}

impl World {
    pub(crate) fn new(
        settings: Settings,
        services: Services,
        links: Links,
        platform: MockDataPlatform,
        programs: System,
        pool: PgPool,
        past_the_links: (&str, &str),
    ) -> Self {
        let (database_url, amqp_url) = past_the_links;
        Self {
            settings,
            services,
            links,
            platform,
            programs: programs.into(),
            pool,
            database_url: database_url.to_owned(),
            amqp_url: amqp_url.to_owned(),
            altered: Mutex::default(),
            held: Mutex::default(),
            given_up: Mutex::default(),
        }
    }

    /// Remembers that this process of the program is not as it should be.
    pub(crate) fn note_altered(&self, name: &str, programs: &System) {
        *self.altered.lock().unwrap_or_else(PoisonError::into_inner) = process(name, programs);
    }

    /// Whether that process still runs.
    pub(crate) fn is_altered(&self, name: &str, programs: &System) -> bool {
        let altered = *self.altered.lock().unwrap_or_else(PoisonError::into_inner);
        altered.is_some() && altered == process(name, programs)
    }

    /// Whether every event of an order was counted and delivered.
    pub(crate) async fn is_at_rest(&self) -> bool {
        let told: Result<(i64, i64), _> = sqlx::query_as(
            "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM cancellations),
                    (SELECT count(*) FROM event_inbox)",
        )
        .fetch_one(&self.pool)
        .await;
        let delivered = i64::try_from(self.platform.received().len()).unwrap_or(i64::MAX);
        told.is_ok_and(|(events, counted)| events == counted && events == delivered)
    }

    /// Stops the programs; what did not go well.
    pub(crate) async fn end(self) -> Vec<String> {
        self.pool.close().await;
        self.programs.into_inner().stop().await
    }

    /// Starts programs again that have ended, for ever.
    pub(crate) async fn supervise(&self) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(SUPERVISE_INTERVAL).await;
            self.programs.lock().await.revive()?;
        }
    }

    /// Remembers a queue that is gone with all that stood in it.
    pub(crate) fn note_given_up(&self, queue: String) {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).push(queue);
    }

    /// The queues that are gone since this was asked last.
    pub(crate) fn given_up(&self) -> Vec<String> {
        std::mem::take(&mut *self.given_up.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps these connections from everybody else.
    pub(crate) fn hold(&self, connections: Vec<PgConnection>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = connections;
    }

    /// The connections that were held.
    pub(crate) fn let_go(&self) -> Vec<PgConnection> {
        std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn process(name: &str, programs: &System) -> Option<u32> {
    programs.ids().into_iter().find(|(program, _)| *program == name).map(|(_, id)| id)
}
