//! A connection that goes from one use to the next.

use std::sync::{Mutex, PoisonError};

use super::{Pool, PooledConnection};

/// Keeps a connection for whoever uses one again and again. A pool looks at a connection when it is taken and
/// when it is given back, a round trip each time.
#[derive(Debug)]
pub struct Kept {
    pool: Pool,
    connection: Mutex<Option<PooledConnection>>,
}

impl Kept {
    /// Keeps none yet.
    #[must_use]
    pub fn of(pool: &Pool) -> Self {
        Self { pool: pool.clone(), connection: Mutex::default() }
    }

    /// The connection that is kept, or one of the pool.
    ///
    /// # Errors
    /// None is kept, and the pool has none.
    pub async fn acquire(&self) -> Result<PooledConnection, sqlx::Error> {
        match self.replace(None) {
            Some(kept) => Ok(kept),
            None => self.pool.acquire().await,
        }
    }

    /// Keeps a connection that has nothing left to do for the next use, unless others may wait for one.
    pub fn keep(&self, connection: PooledConnection) {
        if connection.is_good() && !self.pool.is_exhausted() {
            self.replace(Some(connection));
        }
    }

    /// Gives back what is kept: the next use is not in sight.
    pub fn give_back(&self) {
        self.replace(None);
    }

    fn replace(&self, connection: Option<PooledConnection>) -> Option<PooledConnection> {
        // Nothing panics while holding it.
        let mut kept = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *kept, connection)
    }
}
