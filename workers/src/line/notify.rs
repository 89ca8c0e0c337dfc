//! Tells the relay that there is something in the outbox. A hint: lost ones cost an event up to a
//! second, when the relay looks by itself, so nothing here ever delays or fails a batch.
//!
//! Deliberately not in the batch's transaction: PostgreSQL lets only one transaction of the whole
//! cluster commit at a time that notifies, and the next one when that is on the disk.

use std::time::Duration;

use firstcome_process::database::{Pool, within};
use sqlx::PgConnection;
use tokio::{sync::mpsc, time::sleep};

/// Time between two notifications: one wakes the relay for all that was committed before it.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(5);
/// The longest that a notification may take, connecting included.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(3);

/// The sending end; cheap to clone.
#[derive(Debug, Clone)]
pub struct Notifier(mpsc::Sender<()>);

impl Notifier {
    /// Starts the task that notifies. It ends when every clone is dropped.
    #[must_use]
    pub fn start(pool: &Pool) -> Self {
        // One that waits stands for all that come meanwhile.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(notify(pool.clone(), receiver));
        Self(sender)
    }

    /// Wakes the relay: what is in the outbox is committed.
    pub(crate) fn notify(&self) {
        let _ = self.0.try_send(());
    }
}

async fn notify(pool: Pool, mut due: mpsc::Receiver<()>) {
    // Not of the pool: its connections are for batches.
    let mut kept = None;
    while due.recv().await.is_some() {
        let connection = kept.take();
        match within(NOTIFY_TIMEOUT, notify_on(connection, &pool)).await {
            Ok(connection) => kept = Some(connection),
            Err(error) => tracing::debug!(%error, "the relay was not notified"),
        }
        sleep(NOTIFY_INTERVAL).await;
    }
}

/// Gives the connection back if it is good.
async fn notify_on(
    connection: Option<PgConnection>,
    pool: &Pool,
) -> Result<PgConnection, sqlx::Error> {
    let mut on = match connection {
        Some(connection) => connection,
        None => {
            let mut on = pool.connect().await?;
            // Nobody waits for this to be on the disk.
            sqlx::raw_sql("SET synchronous_commit = off").execute(&mut on).await?;
            on
        }
    };
    sqlx::query!("SELECT pg_notify('outbox', '')").execute(&mut on).await?;
    Ok(on)
}
