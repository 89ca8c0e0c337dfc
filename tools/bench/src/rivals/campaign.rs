//! A campaign, as it stands in the database.

use firstcome_contract::campaign::Campaign;
use sqlx::{Row, postgres::PgRow};

/// What a row says that begins with total, issued, starts_at and ends_at.
pub(super) fn campaign(row: &PgRow) -> Result<Campaign, sqlx::Error> {
    Ok(Campaign {
        total: row.try_get(0)?,
        issued: row.try_get(1)?,
        starts_at: row.try_get(2)?,
        ends_at: row.try_get(3)?,
        paused_at: None,
    })
}
