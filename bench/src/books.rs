//! What the database holds of a sale.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use firstcome_shared::job::{Status, issue_coupon::CouponIssued};
use sqlx::{PgPool, types::Json};
use uuid::Uuid;

use crate::sale::Record;

/// A job's outcome as the database has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// `succeeded`, `rejected` or `failed`.
    pub status: String,
    /// The code, unless it succeeded.
    pub code: Option<String>,
    /// The coupon, if it succeeded.
    pub coupon: Option<CouponIssued>,
    /// When it was settled.
    pub settled_at: DateTime<Utc>,
}

/// What the database holds of a sale.
#[derive(Debug, Default)]
pub struct Books {
    /// Every job's outcome.
    pub outcomes: HashMap<Uuid, Stored>,
    /// Coupons that the campaign has counted as issued.
    pub issued: i64,
    /// Who holds one: user, issue number, id.
    pub holders: Vec<(i64, i64, i64)>,
    /// Jobs that could not be processed.
    pub dead_letters: i64,
}

/// The figures of the last line.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Jobs that were accepted.
    pub accepted: usize,
    /// Those of them that have an outcome.
    pub settled: usize,
    /// Of these: got a coupon.
    pub succeeded: usize,
    /// Of these: a business "no".
    pub rejected: usize,
}

impl Books {
    /// Reads the books of a coupon; the `trials` are not part of the sale.
    ///
    /// # Errors
    /// The database's.
    pub async fn read(pool: &PgPool, coupon: i64, trials: &[Uuid]) -> Result<Self, sqlx::Error> {
        type Row = (Uuid, String, Option<String>, Option<Json<CouponIssued>>, DateTime<Utc>);
        let rows = sqlx::query_as::<_, Row>(
            "SELECT job_id, status, code, result, settled_at FROM job_outcomes WHERE job_id <> ALL($1)",
        )
        .bind(trials)
        .fetch_all(pool)
        .await?;
        let outcome = |(job, status, code, coupon, settled_at): Row| {
            (job, Stored { status, code, coupon: coupon.map(|Json(coupon)| coupon), settled_at })
        };
        let holders = sqlx::query_as(
            "SELECT user_id, issue_number, id FROM user_coupons WHERE coupon_id = $1",
        );
        let issued = sqlx::query_scalar("SELECT issued FROM coupons WHERE id = $1");
        let dead_letters = sqlx::query_scalar("SELECT count(*) FROM dead_letters");
        Ok(Self {
            outcomes: rows.into_iter().map(outcome).collect(),
            issued: issued.bind(coupon).fetch_one(pool).await?,
            holders: holders.bind(coupon).fetch_all(pool).await?,
            dead_letters: dead_letters.fetch_one(pool).await?,
        })
    }

    /// When the last outcome, and when the last coupon, was settled.
    #[must_use]
    pub fn ends(&self) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        let all = self.outcomes.values();
        let issued = all.clone().filter(|outcome| outcome.coupon.is_some());
        (
            all.map(|outcome| outcome.settled_at).max(),
            issued.map(|outcome| outcome.settled_at).max(),
        )
    }

    /// How many jobs ended how: by code, `succeeded` if there is none.
    #[must_use]
    pub fn tally(&self) -> BTreeMap<String, usize> {
        let mut tally = BTreeMap::new();
        for outcome in self.outcomes.values() {
            *tally
                .entry(outcome.code.clone().unwrap_or_else(|| outcome.status.clone()))
                .or_default() += 1;
        }
        tally
    }
}

/// The figures of the last line.
#[must_use]
pub fn totals(record: &Record, books: &Books) -> Totals {
    let accepted: HashSet<Uuid> = record.accepted.iter().map(|accepted| accepted.job).collect();
    let outcomes: Vec<&Stored> =
        accepted.iter().filter_map(|job| books.outcomes.get(job)).collect();
    let of = |status: Status| {
        outcomes.iter().filter(|outcome| outcome.status == status.as_str()).count()
    };
    Totals {
        accepted: accepted.len(),
        settled: outcomes.len(),
        succeeded: of(Status::Succeeded),
        rejected: of(Status::Rejected),
    }
}
