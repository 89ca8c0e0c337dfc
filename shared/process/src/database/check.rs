//! Whether a session is one that can be used.

use std::sync::{
    Once,
    atomic::{AtomicBool, Ordering},
};

use sqlx::PgConnection;

use super::pooler::{Pooler, explained};

/// What a pool wants its sessions to be.
#[derive(Debug, Default)]
pub(crate) struct Check {
    names: Vec<&'static str>,
    values: Vec<&'static str>,
    may_be_read_only: bool,
    /// It is in the log that nothing can be written.
    is_told: AtomicBool,
}

/// What the session was like; now it has the settings of its pool, and is marked as taken.
struct Seen {
    /// How many of the settings it did not have.
    dropped: i64,
    /// Another connection has it, or had it and left it as it was.
    was_taken: bool,
}

impl Check {
    pub(crate) fn new(
        settings: impl IntoIterator<Item = (&'static str, &'static str)>,
        may_be_read_only: bool,
    ) -> Self {
        let (names, values) = settings.into_iter().unzip();
        Self { names, values, may_be_read_only, is_told: AtomicBool::default() }
    }

    /// Makes sure that the session of a new connection is its own, can write, and has the settings of its pool:
    /// a pooler in between may have dropped them.
    ///
    /// # Errors
    /// Why it is not to be used.
    pub(crate) async fn check_new(&self, on: &mut PgConnection) -> Result<(), sqlx::Error> {
        static DROPPED: Once = Once::new();
        static SHARED: Once = Once::new();
        let seen = self.look(on).await?;
        if seen.was_taken {
            // The pool tells nobody why it has no connection.
            SHARED.call_once(|| tracing::error!("{}", Pooler::SharesSessions));
            return Err(Pooler::SharesSessions.into());
        }
        if seen.dropped > 0 {
            DROPPED.call_once(|| {
                tracing::warn!(
                    "a pooler before PostgreSQL drops the settings of sessions (the startup parameter \
                     `options`): they are set one by one"
                );
            });
        }
        Ok(())
    }

    /// The same later on: the session still is one that was looked at when it was new.
    ///
    /// # Errors
    /// Why it is not to be used any more.
    pub(crate) async fn check(&self, on: &mut PgConnection) -> Result<(), sqlx::Error> {
        let seen = self.look(on).await?;
        let is_another = seen.dropped > 0 || !seen.was_taken;
        if is_another { Err(Pooler::SharesSessions.into()) } else { Ok(()) }
    }

    async fn look(&self, on: &mut PgConnection) -> Result<Seen, sqlx::Error> {
        static ASYNCHRONOUS: Once = Once::new();
        let session = sqlx::query!(
            r#"SELECT current_setting('transaction_read_only') = 'on' AS "is_read_only!",
                      pg_is_in_recovery() AS "is_standby!",
                      current_setting('synchronous_standby_names') = ''
                          AND EXISTS (SELECT FROM pg_stat_replication) AS "is_asynchronous!",
                      (SELECT count(set_config(name, setting, false))
                       FROM UNNEST($1::text[], $2::text[]) AS stated (name, setting)
                       WHERE current_setting(name) <> setting) AS "dropped!",
                      CASE WHEN current_setting('firstcome.session', true) = 'taken' THEN true
                           ELSE set_config('firstcome.session', 'taken', false) IS NULL END AS "was_taken!""#,
            &self.names as &[&str],
            &self.values as &[&str],
        )
        .fetch_one(on)
        .await
        .map_err(explained)?;
        if session.is_read_only && !self.may_be_read_only {
            let reason = if session.is_standby {
                "PostgreSQL is a standby here: DATABASE_URL has to lead to the primary"
            } else {
                "PostgreSQL is read-only here (default_transaction_read_only)"
            };
            if !self.is_told.swap(true, Ordering::Relaxed) {
                tracing::error!("{reason}; it counts as away until it can be written to");
            }
            return Err(sqlx::Error::Configuration(reason.into()));
        }
        if self.is_told.swap(false, Ordering::Relaxed) {
            tracing::info!("PostgreSQL can be written to again");
        }
        if session.is_asynchronous {
            ASYNCHRONOUS.call_once(|| {
                tracing::warn!(
                    "PostgreSQL has standbys and waits for none of them (synchronous_standby_names is \
                     empty): a failover loses outcomes that were told"
                );
            });
        }
        Ok(Seen { dropped: session.dropped, was_taken: session.was_taken })
    }
}
