//! What the demo and the benchmark need for themselves on servers that others use too: a database
//! and a queue namespace, gone when it is over.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use firstcome_broker::{BrokerArgs, connect, topology};
use firstcome_contract::{
    family::Family,
    line::{Line, Naming},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::time::timeout;

/// How long each step of setting the stage and of clearing it may take.
const STEP_DEADLINE: Duration = Duration::from_secs(15);

/// A database and a namespace of one's own. Nothing exists before [`Stage::set`], nothing is left
/// after [`Stage::clear`].
#[derive(Debug)]
pub struct Stage {
    /// Names the database on its server.
    pub database: String,
    /// Where the programs find it.
    pub database_url: String,
    /// The prefix of all queue names.
    pub namespace: String,
    created: bool,
    server_url: String,
    amqp_url: String,
}

impl Stage {
    /// Named after what it is for and this process.
    ///
    /// # Errors
    /// If `server_url` does not look like a PostgreSQL URL.
    pub fn new(purpose: &str, server_url: &str, amqp_url: &str) -> anyhow::Result<Self> {
        let id = std::process::id();
        let database = format!("firstcome_{purpose}_{id}");
        let database_url = with_database(server_url, &database).context(
            "DATABASE_URL is not of the form postgres://user:password@host:port/database",
        )?;
        Ok(Self {
            database_url,
            database,
            created: false,
            namespace: format!("{purpose}-{id}"),
            server_url: server_url.to_owned(),
            amqp_url: amqp_url.to_owned(),
        })
    }

    /// Creates the database. The namespace comes to be when a program first declares its queues.
    ///
    /// # Errors
    /// With a hint for the user.
    pub async fn set(&mut self) -> anyhow::Result<()> {
        self.create(format!("CREATE DATABASE {}", self.database)).await
    }

    /// Like [`Self::set`], but as a copy of that database, which nobody may be connected to.
    ///
    /// # Errors
    /// With a hint for the user.
    pub async fn set_as_copy(&mut self, template: &Self) -> anyhow::Result<()> {
        self.create(format!("CREATE DATABASE {} TEMPLATE {}", self.database, template.database))
            .await
    }

    async fn create(&mut self, statement: String) -> anyhow::Result<()> {
        match self.on_server(statement).await {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P04") => bail!(
                "the database {0} exists: one that was killed may have left it. Drop it with: DROP DATABASE {0}",
                self.database
            ),
            created => {
                created.context("cannot create a database (is DATABASE_URL right, and may its user CREATE DATABASE?)")?;
            }
        }
        self.created = true;
        let pool = self.pool()?;
        let connected =
            sqlx::query_scalar::<_, String>("SELECT current_database()").fetch_one(&pool).await?;
        pool.close().await;
        ensure!(
            connected == self.database,
            "DATABASE_URL insists on the database {connected}; take `dbname` out of its parameters"
        );
        Ok(())
    }

    /// A pool on the database, for looking at it.
    ///
    /// # Errors
    /// If the URL is malformed.
    pub fn pool(&self) -> Result<PgPool, sqlx::Error> {
        PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(STEP_DEADLINE)
            .connect_lazy(&self.database_url)
    }

    /// Deletes everything, however far [`Self::set`] came; the programs must have ended. Returns
    /// what could not be deleted, with the reason.
    pub async fn clear(&self) -> Vec<String> {
        let mut left = Vec::new();
        if !self.created {
            return left; // what bears our name, if anything, is another's
        }
        if let Err(error) = self.delete_queues().await {
            left.push(format!("the queues {}.*: {error:#}", self.namespace));
        }
        // Force: a program that had to be killed may still have a connection there.
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database);
        if let Err(error) = self.on_server(drop).await {
            left.push(format!("the database {}: {error}", self.database));
        }
        left
    }

    async fn delete_queues(&self) -> anyhow::Result<()> {
        let pool = self.pool()?;
        let lines = lines(&pool).await;
        pool.close().await;
        let lines = match lines {
            Ok(lines) => lines,
            // 42P01, no such table: nothing ever ran here.
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => {
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        let connection =
            connect::connect(&BrokerArgs::new(&self.amqp_url, &self.namespace), "firstcome-rig")
                .await?;
        let deleted =
            timeout(STEP_DEADLINE, topology::delete(&connection, &self.namespace, lines)).await;
        connect::close(&connection).await;
        Ok(deleted.context("the broker does not answer")??)
    }

    async fn on_server(&self, statement: String) -> Result<(), sqlx::Error> {
        let work = async {
            let mut connection = PgConnection::connect(&self.server_url).await?;
            // Safe: the only variable part is the name, made of our letters and the process id.
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
            connection.close().await
        };
        timeout(STEP_DEADLINE, work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

/// Every line that a program has opened on this database.
///
/// # Errors
/// The database's.
pub async fn lines(pool: &PgPool) -> Result<Vec<Line>, sqlx::Error> {
    let rows: Vec<(String, i32, String, String)> =
        sqlx::query_as("SELECT family, generation, line, naming FROM partition_leases")
            .fetch_all(pool)
            .await?;
    let line = |(family, generation, name, naming): (String, i32, String, String)| {
        let (family, naming) = (Family::from_name(&family)?, Naming::from_name(&naming)?);
        Some(Line { family, generation, name: name.parse().ok()?, naming })
    };
    Ok(rows.into_iter().filter_map(line).collect())
}

/// The URL with another database; everything else (user, host, parameters) stays.
fn with_database(url: &str, database: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "postgres" | "postgresql") {
        return None;
    }
    let (rest, parameters) =
        rest.split_once('?').map_or((rest, None), |(rest, after)| (rest, Some(after)));
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    let parameters = parameters.map(|parameters| format!("?{parameters}")).unwrap_or_default();
    Some(format!("{scheme}://{authority}/{database}{parameters}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_changes() {
        for (url, expected) in [
            ("postgres://u:p@host:1/old", "postgres://u:p@host:1/new"),
            ("postgresql://host", "postgresql://host/new"),
            ("postgres://host?sslmode=require", "postgres://host/new?sslmode=require"),
            ("postgres:///old?host=/run/pg", "postgres:///new?host=/run/pg"),
        ] {
            assert_eq!(with_database(url, "new").as_deref(), Some(expected));
        }
        assert_eq!(with_database("mysql://host/old", "new"), None);
        assert_eq!(with_database("host/old", "new"), None);
    }
}
