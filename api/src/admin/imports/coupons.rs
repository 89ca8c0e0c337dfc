//! Campaigns, as they are imported.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use sqlx::PgConnection;

use super::{
    Verdict,
    reader::Layout,
    settle::{Row, Stored},
    table::Table,
};
use crate::{
    admin::coupons::NewCoupon,
    http::{
        fields::{Fields, IDS},
        problem::Code,
    },
    known::free_ids::{self, Table as Ids},
    state::AppState,
};

/// A campaign to create or to edit.
#[derive(Debug)]
pub struct CouponRow {
    id: Option<i64>,
    coupon: NewCoupon,
    /// Whether the cap is to be what it says, be it none; else one that is there stays.
    gives_cap: bool,
}

/// A campaign as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Coupon {
    name: String,
    discount_type: String,
    discount_value: i64,
    max_discount: Option<i64>,
    total: i64,
    issued: i64,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    valid_until: DateTime<Utc>,
    is_deleted: bool,
}

impl Layout for CouponRow {
    const COLUMNS: &'static [&'static str] = &[
        "id",
        "name",
        "discountType",
        "discountValue",
        "maxDiscount",
        "total",
        "startsAt",
        "endsAt",
        "validUntil",
    ];
    const REQUIRED: &'static [&'static str] =
        &["name", "discountType", "discountValue", "total", "startsAt", "endsAt"];

    fn read(fields: &mut Fields) -> Self {
        Self {
            gives_cap: fields.has("maxDiscount"),
            id: fields.optional_integer("id", IDS),
            coupon: NewCoupon::read(fields),
        }
    }
}

impl Row for CouponRow {
    const TABLE: Ids = Ids::Coupons;

    fn store<'c>(
        _: &'c AppState,
        rows: &'c [Self],
        transaction: &'c mut PgConnection,
    ) -> BoxFuture<'c, Result<Stored, sqlx::Error>> {
        Box::pin(async move {
            let given: HashSet<i64> = rows.iter().filter_map(|row| row.id).collect();
            let new = rows.iter().filter(|row| row.id.is_none()).count();
            let free = free_ids::draw(transaction, Ids::Coupons, new, &given).await?;
            let ids = given.into_iter().collect();
            let mut coupons = Table::new(load(transaction, ids).await?);
            let mut free = free.into_iter();
            let verdicts = rows.iter().map(|row| put(&mut coupons, &mut free, row)).collect();
            insert(transaction, &coupons).await?;
            update(transaction, &coupons).await?;
            Ok(Stored { verdicts, changed: coupons.changed().map(|(id, _)| id).collect() })
        })
    }

    fn announce<'c>(state: &'c AppState, stored: &'c Stored) -> BoxFuture<'c, ()> {
        Box::pin(state.coupons.all_changed(&stored.changed))
    }
}

fn put(
    coupons: &mut Table<Coupon>,
    free: &mut impl Iterator<Item = i64>,
    row: &CouponRow,
) -> Verdict {
    let Some(id) = row.id.or_else(|| free.next()) else {
        return Verdict::faulty("id", "there is none that is free");
    };
    let wanted = &row.coupon;
    let mut coupon = Coupon {
        name: wanted.name.clone(),
        discount_type: wanted.discount_type.to_owned(),
        discount_value: wanted.discount_value,
        max_discount: wanted.max_discount,
        total: wanted.total,
        issued: 0,
        starts_at: wanted.starts_at,
        ends_at: wanted.ends_at,
        valid_until: wanted.valid_until.unwrap_or(wanted.ends_at),
        is_deleted: false,
    };
    if let Some(stored) = coupons.get(id) {
        if stored.is_deleted {
            return Verdict::faulty("id", "is of a campaign that was deleted: restore it first");
        }
        if wanted.total < stored.issued {
            let detail = format!(
                "must not be below the {} that are issued ({})",
                stored.issued,
                Code::TotalBelowIssued.name()
            );
            return Verdict::faulty("total", &detail);
        }
        coupon.issued = stored.issued;
        if !row.gives_cap && wanted.discount_type == "percent" {
            coupon.max_discount = stored.max_discount;
        }
        if wanted.valid_until.is_none() {
            // As with an edit: a later end takes it along, an earlier one takes nothing back.
            let is_later = wanted.ends_at > stored.ends_at;
            coupon.valid_until =
                if is_later { stored.valid_until.max(wanted.ends_at) } else { stored.valid_until };
        }
    }
    coupons.put(id, coupon)
}

/// Those of these campaigns that there are, held until they are stored: in the order in which their lines hold them.
async fn load(
    transaction: &mut PgConnection,
    ids: Vec<i64>,
) -> Result<Vec<(i64, Coupon)>, sqlx::Error> {
    let coupons = sqlx::query!(
        r#"SELECT id, name, discount_type, discount_value, max_discount, total, issued, starts_at, ends_at, valid_until,
                  deleted_at IS NOT NULL AS "is_deleted!"
           FROM coupons WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"#,
        &ids,
    )
    .fetch_all(transaction)
    .await?;
    let stored = coupons.into_iter().map(|row| {
        let coupon = Coupon {
            name: row.name,
            discount_type: row.discount_type,
            discount_value: row.discount_value,
            max_discount: row.max_discount,
            total: row.total,
            issued: row.issued,
            starts_at: row.starts_at,
            ends_at: row.ends_at,
            valid_until: row.valid_until,
            is_deleted: row.is_deleted,
        };
        (row.id, coupon)
    });
    Ok(stored.collect())
}

/// Campaigns by column.
#[derive(Default)]
struct Columns<'a> {
    id: Vec<i64>,
    name: Vec<&'a str>,
    discount_type: Vec<&'a str>,
    discount_value: Vec<i64>,
    max_discount: Vec<Option<i64>>,
    total: Vec<i64>,
    starts_at: Vec<DateTime<Utc>>,
    ends_at: Vec<DateTime<Utc>>,
    valid_until: Vec<DateTime<Utc>>,
}

impl<'a> Columns<'a> {
    fn of(coupons: impl Iterator<Item = (i64, &'a Coupon)>) -> Self {
        let mut columns = Self::default();
        for (id, coupon) in coupons {
            columns.id.push(id);
            columns.name.push(&coupon.name);
            columns.discount_type.push(&coupon.discount_type);
            columns.discount_value.push(coupon.discount_value);
            columns.max_discount.push(coupon.max_discount);
            columns.total.push(coupon.total);
            columns.starts_at.push(coupon.starts_at);
            columns.ends_at.push(coupon.ends_at);
            columns.valid_until.push(coupon.valid_until);
        }
        columns
    }
}

async fn insert(
    transaction: &mut PgConnection,
    coupons: &Table<Coupon>,
) -> Result<(), sqlx::Error> {
    let new = Columns::of(coupons.added());
    if new.id.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO coupons (id, name, discount_type, discount_value, max_discount, total, starts_at, ends_at, valid_until)
         SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::timestamptz[],
                              $8::timestamptz[], $9::timestamptz[])",
        &new.id,
        &new.name as &[&str],
        &new.discount_type as &[&str],
        &new.discount_value,
        &new.max_discount as &[Option<i64>],
        &new.total,
        &new.starts_at,
        &new.ends_at,
        &new.valid_until,
    )
    .execute(transaction)
    .await?;
    Ok(())
}

async fn update(
    transaction: &mut PgConnection,
    coupons: &Table<Coupon>,
) -> Result<(), sqlx::Error> {
    let changed = Columns::of(coupons.changed());
    if changed.id.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE coupons SET name = batch.name, discount_type = batch.discount_type, discount_value = batch.discount_value,
                max_discount = batch.max_discount, total = batch.total, starts_at = batch.starts_at, ends_at = batch.ends_at,
                valid_until = batch.valid_until
         FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::timestamptz[],
                     $8::timestamptz[], $9::timestamptz[])
           AS batch (id, name, discount_type, discount_value, max_discount, total, starts_at, ends_at, valid_until)
         WHERE coupons.id = ANY(ARRAY[batch.id])",
        &changed.id,
        &changed.name as &[&str],
        &changed.discount_type as &[&str],
        &changed.discount_value,
        &changed.max_discount as &[Option<i64>],
        &changed.total,
        &changed.starts_at,
        &changed.ends_at,
        &changed.valid_until,
    )
    .execute(transaction)
    .await?;
    Ok(())
}
