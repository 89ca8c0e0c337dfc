//! What the database holds of a sale.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, NaiveDate, Utc};
use firstcome_contract::job::{JobKind, Status};
use firstcome_rig::{
    answers::{Detail, Outcome, Success},
    settings::BUSINESS_TIME_ZONE,
};
use sqlx::{PgPool, types::Json};
use uuid::Uuid;

use crate::load::Record;

/// How every job of a kind ended.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(pub(crate) HashMap<Uuid, Outcome>);

/// The figures of the last line.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Jobs that were accepted.
    pub(crate) accepted: usize,
    /// Those of them that have an outcome.
    pub(crate) settled: usize,
    /// Of these: got what they asked for.
    pub(crate) succeeded: usize,
    /// Of these: a business "no".
    pub(crate) rejected: usize,
}

impl Outcomes {
    /// Reads those of this kind; the `trials` are not part of the sale.
    pub(crate) async fn read(
        pool: &PgPool,
        kind: JobKind,
        trials: &[Uuid],
    ) -> Result<Self, sqlx::Error> {
        type Row = (
            Uuid,
            String,
            Option<String>,
            Option<Json<Detail>>,
            Option<Json<Success>>,
            DateTime<Utc>,
        );
        let rows = sqlx::query_as::<_, Row>(
            "SELECT job_id, status, code, detail, result, settled_at FROM job_outcomes
             WHERE kind = $1 AND job_id <> ALL($2)",
        );
        let row = |(job, status, code, detail, result, settled_at): Row| {
            let detail = detail.map(|Json(detail)| detail).unwrap_or_default();
            (
                job,
                Outcome {
                    status,
                    code,
                    detail,
                    result: result.map(|Json(result)| result),
                    settled_at,
                },
            )
        };
        let rows = rows.bind(kind.as_str()).bind(trials).fetch_all(pool).await?;
        Ok(Self(rows.into_iter().map(row).collect()))
    }

    /// When the last one was settled, and when the last one that succeeded.
    #[must_use]
    pub(crate) fn ends(&self) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        let last = |outcomes: &mut dyn Iterator<Item = &Outcome>| {
            outcomes.map(|outcome| outcome.settled_at).max()
        };
        (
            last(&mut self.0.values()),
            last(&mut self.0.values().filter(|outcome| outcome.result.is_some())),
        )
    }

    /// How many jobs ended how: by code, `succeeded` if there is none.
    #[must_use]
    pub(crate) fn tally(&self) -> BTreeMap<String, usize> {
        let mut tally = BTreeMap::new();
        for outcome in self.0.values() {
            *tally.entry(outcome.name().to_owned()).or_default() += 1;
        }
        tally
    }

    /// The figures of the last line.
    #[must_use]
    pub(crate) fn totals(&self, record: &Record) -> Totals {
        let accepted: HashSet<Uuid> = record.accepted.iter().map(|accepted| accepted.job).collect();
        let outcomes: Vec<&Outcome> = accepted.iter().filter_map(|job| self.0.get(job)).collect();
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
}

/// What the database holds of a coupon drop.
#[derive(Debug, Default)]
pub(crate) struct StoredDrop {
    pub(crate) outcomes: Outcomes,
    /// Coupons that the campaign has counted as issued.
    pub(crate) issued: i64,
    /// Who holds one: user, issue number, id.
    pub(crate) holders: Vec<(i64, i64, i64)>,
}

impl StoredDrop {
    /// Reads what a campaign left behind; the `trials` are not part of the sale.
    pub(crate) async fn read(
        pool: &PgPool,
        campaign: i64,
        trials: &[Uuid],
    ) -> Result<Self, sqlx::Error> {
        let holders = sqlx::query_as(
            "SELECT user_id, issue_number, id FROM user_coupons WHERE coupon_id = $1",
        );
        let issued = sqlx::query_scalar("SELECT issued FROM coupons WHERE id = $1");
        Ok(Self {
            outcomes: Outcomes::read(pool, JobKind::IssueCoupon, trials).await?,
            issued: issued.bind(campaign).fetch_one(pool).await?,
            holders: holders.bind(campaign).fetch_all(pool).await?,
        })
    }
}

/// An order as the database holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredOrder {
    /// The job that placed it.
    pub(crate) job: Uuid,
    /// The user that placed it.
    pub(crate) user: i64,
    /// The campaign whose coupon it used.
    pub(crate) campaign: Option<i64>,
    /// What its items cost, what the coupon took off, what was paid.
    pub(crate) amounts: (i64, i64, i64),
    /// What was bought: product, price of one, quantity; by product.
    pub(crate) items: Vec<(i64, i64, i64)>,
    pub(crate) payments: Vec<i64>,
    /// The business day on which it was completed.
    pub(crate) day: NaiveDate,
}

/// What the database holds of a product sale.
#[derive(Debug, Default)]
pub(crate) struct StoredSale {
    pub(crate) outcomes: Outcomes,
    /// All orders, by id.
    pub(crate) orders: BTreeMap<i64, StoredOrder>,
    /// What is left, by product.
    pub(crate) stocks: HashMap<i64, i64>,
    /// What they have, by user.
    pub(crate) balances: HashMap<i64, i64>,
    /// Used coupons of the campaign: user and order.
    pub(crate) used: Vec<(i64, i64)>,
    /// Sold quantity and amount, by day and product.
    pub(crate) statistics: BTreeMap<(NaiveDate, i64), (i64, i64)>,
    /// The orders that were cancelled, with the job that did it.
    pub(crate) cancelled: BTreeMap<i64, Uuid>,
    /// What came back: user, order, amount.
    pub(crate) refunds: Vec<(i64, i64, i64)>,
}

impl StoredSale {
    /// Reads what a sale left behind in which coupons of this campaign could be used.
    pub(crate) async fn read(pool: &PgPool, campaign: i64) -> Result<Self, sqlx::Error> {
        let used = sqlx::query_as(
            "SELECT user_id, order_id FROM user_coupons WHERE coupon_id = $1 AND used_at IS NOT NULL",
        );
        Ok(Self {
            outcomes: Outcomes::read(pool, JobKind::PlaceOrder, &[]).await?,
            orders: orders(pool).await?,
            stocks: pairs(pool, "SELECT id, stock FROM products").await?,
            balances: balances(pool).await?,
            used: used.bind(campaign).fetch_all(pool).await?,
            statistics: statistics(pool).await?,
            cancelled: cancelled(pool).await?,
            refunds: refunds(pool).await?,
        })
    }

    /// The same after more was sold and some of it taken back: the outcomes are those that were not there `before`.
    pub(crate) async fn read_after(
        pool: &PgPool,
        campaign: i64,
        before: &Self,
    ) -> Result<Self, sqlx::Error> {
        let mut stored = Self::read(pool, campaign).await?;
        let outcomes = &mut stored.outcomes.0;
        outcomes.extend(Outcomes::read(pool, JobKind::CancelOrder, &[]).await?.0);
        outcomes.retain(|job, _| !before.outcomes.0.contains_key(job));
        Ok(stored)
    }
}

/// What every user has.
pub(crate) async fn balances(pool: &PgPool) -> Result<HashMap<i64, i64>, sqlx::Error> {
    pairs(pool, "SELECT user_id, amount FROM balances").await
}

/// How many events the statistics have counted, and when the last one.
pub(crate) async fn counted(pool: &PgPool) -> Result<(i64, Option<DateTime<Utc>>), sqlx::Error> {
    sqlx::query_as("SELECT count(*), max(counted_at) FROM event_inbox").fetch_one(pool).await
}

/// How many jobs and events could not be processed.
pub(crate) async fn dead_letters(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM dead_letters").fetch_one(pool).await
}

async fn pairs(pool: &PgPool, select: &'static str) -> Result<HashMap<i64, i64>, sqlx::Error> {
    let rows: Vec<(i64, i64)> = sqlx::query_as(select).fetch_all(pool).await?;
    Ok(rows.into_iter().collect())
}

async fn orders(pool: &PgPool) -> Result<BTreeMap<i64, StoredOrder>, sqlx::Error> {
    type Items = Json<Vec<(i64, i64, i64)>>;
    type Row = (i64, Uuid, i64, Option<i64>, i64, i64, i64, NaiveDate, Items, Vec<i64>);
    let rows = sqlx::query_as::<_, Row>(
        "SELECT id, job_id, user_id, coupon_id, items_amount, discount, paid, (completed_at AT TIME ZONE $1)::date,
                (SELECT COALESCE(jsonb_agg(jsonb_build_array(product_id, unit_price, quantity) ORDER BY product_id), '[]')
                 FROM order_items WHERE order_id = orders.id),
                ARRAY(SELECT amount FROM payments WHERE order_id = orders.id)
         FROM orders",
    );
    let order = |(
        id,
        job,
        user,
        campaign,
        items_amount,
        discount,
        paid,
        day,
        Json(items),
        payments,
    ): Row| {
        let amounts = (items_amount, discount, paid);
        (id, StoredOrder { job, user, campaign, amounts, items, payments, day })
    };
    Ok(rows.bind(BUSINESS_TIME_ZONE).fetch_all(pool).await?.into_iter().map(order).collect())
}

async fn cancelled(pool: &PgPool) -> Result<BTreeMap<i64, Uuid>, sqlx::Error> {
    let rows: Vec<(i64, Uuid)> =
        sqlx::query_as("SELECT order_id, job_id FROM cancellations").fetch_all(pool).await?;
    Ok(rows.into_iter().collect())
}

async fn refunds(pool: &PgPool) -> Result<Vec<(i64, i64, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT user_id, order_id, amount FROM balance_transactions WHERE kind = 'refund'",
    )
    .fetch_all(pool)
    .await
}

async fn statistics(pool: &PgPool) -> Result<BTreeMap<(NaiveDate, i64), (i64, i64)>, sqlx::Error> {
    let rows: Vec<(NaiveDate, i64, i64, i64)> =
        sqlx::query_as("SELECT day, product_id, quantity, amount FROM product_sales")
            .fetch_all(pool)
            .await?;
    let entry = |(day, product, quantity, amount)| ((day, product), (quantity, amount));
    Ok(rows.into_iter().map(entry).collect())
}
