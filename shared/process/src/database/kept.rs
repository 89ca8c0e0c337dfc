//! A connection that goes from one use to the next.

use super::{Pool, PooledConnection};

/// Keeps a connection for whoever uses one again and again. A pool looks at a connection when it is taken and
/// when it is given back, a round trip each time.
#[derive(Debug)]
pub struct Kept {
    pool: Pool,
    connection: Option<PooledConnection>,
}

impl Kept {
    /// Keeps none yet.
    #[must_use]
    pub fn of(pool: &Pool) -> Self {
        Self { pool: pool.clone(), connection: None }
    }

    /// The connection that is kept, or one of the pool.
    ///
    /// # Errors
    /// None is kept, and the pool has none.
    pub async fn acquire(&mut self) -> Result<PooledConnection, sqlx::Error> {
        match self.connection.take() {
            Some(kept) => Ok(kept),
            None => self.pool.acquire().await,
        }
    }

    /// Keeps a connection that has nothing left to do for the next use, unless others may wait for one.
    pub fn keep(&mut self, connection: PooledConnection) {
        if connection.is_good() && !self.pool.is_exhausted() {
            self.connection = Some(connection);
        }
    }

    /// Gives back what is kept: the next use is not in sight.
    pub fn give_back(&mut self) {
        self.connection = None;
    }
}
