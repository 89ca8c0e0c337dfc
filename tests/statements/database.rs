//! A database of 200,000 rows a table, filled as no sale would fill it: with what misleads a planner.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgConnectOptions};

/// Ours alone.
pub(crate) struct Database {
    name: String,
    server: String,
}

impl Database {
    /// With the schema, and autovacuum off: statistics come only where a test says so.
    pub(crate) async fn empty() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let server = std::env::var("DATABASE_URL").expect("run the tests with `make test`");
        let database = Self { name: format!("statements_{}_{number}", std::process::id()), server };
        database.on_server(format!("CREATE DATABASE {}", database.name)).await;
        let pool = PgPool::connect_with(database.options()).await.unwrap();
        firstcome_workers::schema::migrate(&pool).await.unwrap();
        pool.close().await;
        database
            .run(
                "DO $$ DECLARE name regclass; BEGIN
                     FOR name IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' LOOP
                         EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', name);
                     END LOOP;
                 END $$",
            )
            .await;
        database
    }

    /// A session with these settings.
    pub(crate) async fn connect(&self, settings: &[(&str, &str)]) -> PgConnection {
        let options =
            settings.iter().fold(self.options(), |options, setting| options.options([*setting]));
        PgConnection::connect_with(&options).await.unwrap()
    }

    pub(crate) async fn analyze(&self) {
        self.run("ANALYZE").await;
    }

    pub(crate) async fn drop(self) {
        self.on_server(format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }

    fn options(&self) -> PgConnectOptions {
        self.server.parse::<PgConnectOptions>().unwrap().database(&self.name)
    }

    pub(crate) async fn run(&self, sql: &'static str) {
        let mut connection = self.connect(&[]).await;
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }

    async fn on_server(&self, sql: String) {
        let mut connection = PgConnection::connect(&self.server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }
}
