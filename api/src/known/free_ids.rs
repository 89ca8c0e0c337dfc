//! Ids that nobody has. Those that were given by hand do not move the sequences, which pass them when they come to
//! them: whoever moved one to the largest id that was given would leave none after the largest there can be.

use std::{collections::HashSet, ops::Range};

use sqlx::PgConnection;

/// The looks of one request for a free id, each followed by a [`skip`]: each time twice as far, so they cover all that
/// there are.
pub(crate) const LOOKS: Range<u32> = 0..52;

/// What has ids of a sequence.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Table {
    Users,
    Products,
    Coupons,
}

impl Table {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Products => "products",
            Self::Coupons => "coupons",
        }
    }

    /// Those of these ids that somebody has.
    async fn taken(
        self,
        connection: &mut PgConnection,
        ids: &[i64],
    ) -> Result<Vec<i64>, sqlx::Error> {
        match self {
            Self::Users => {
                sqlx::query_scalar!("SELECT id FROM users WHERE id = ANY($1)", ids)
                    .fetch_all(connection)
                    .await
            }
            Self::Products => {
                sqlx::query_scalar!("SELECT id FROM products WHERE id = ANY($1)", ids)
                    .fetch_all(connection)
                    .await
            }
            Self::Coupons => {
                sqlx::query_scalar!("SELECT id FROM coupons WHERE id = ANY($1)", ids)
                    .fetch_all(connection)
                    .await
            }
        }
    }
}

/// So many ids that nobody has, nor is given in the same breath.
pub(crate) async fn draw(
    transaction: &mut PgConnection,
    table: Table,
    count: usize,
    given: &HashSet<i64>,
) -> Result<Vec<i64>, sqlx::Error> {
    let mut free = Vec::with_capacity(count);
    for look in LOOKS {
        if free.len() == count {
            return Ok(free);
        }
        let missing = i64::try_from(count - free.len()).unwrap_or(i64::MAX);
        let drawn = sqlx::query_scalar!(
            r#"SELECT nextval(pg_get_serial_sequence($1, 'id')) AS "id!" FROM generate_series(1, $2::bigint)"#,
            table.name(),
            missing,
        )
        .fetch_all(&mut *transaction)
        .await?;
        let taken: HashSet<i64> = table.taken(transaction, &drawn).await?.into_iter().collect();
        let is_free = |id: &i64| !taken.contains(id) && !given.contains(id);
        free.extend(drawn.into_iter().filter(is_free));
        if free.len() < count {
            skip(transaction, table, look).await?;
        }
    }
    Err(sqlx::Error::RowNotFound)
}

/// Moves a sequence on, past an id that is taken: by twice as much with each look.
pub(crate) async fn skip(
    transaction: &mut PgConnection,
    table: Table,
    look: u32,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "SELECT setval(sequence, nextval(sequence) + $2) AS moved
         FROM (SELECT pg_get_serial_sequence($1, 'id')::regclass AS sequence) AS ids",
        table.name(),
        (1i64 << look) - 1,
    )
    .fetch_one(transaction)
    .await?;
    Ok(())
}
