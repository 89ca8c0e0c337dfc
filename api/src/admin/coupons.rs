//! `GET`, `POST /api/admin/coupons`, `PATCH`, `DELETE /api/admin/coupons/{id}`

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use chrono::{DateTime, Utc};
use firstcome_contract::{ids::CouponId, order::MAX_PRICE};
use sqlx::{Connection, PgConnection};
use utoipa::ToSchema;

use super::{Shelf, audit_log::Change};
use crate::{
    coupon,
    http::{
        auth::{Admin, Auditor},
        body::Body,
        etag::{IfMatch, IfMatchHeader, if_match},
        fields::Fields,
        idempotency_key::IdempotencyKey,
        json,
        page::{List, Page},
        path::PathId,
        problem::{Code, Problem},
    },
    known::{
        free_ids::{self, Table},
        once::once,
        shown::{CouponView, DISCOUNT_TYPES, discount_types},
    },
    state::AppState,
};

/// The largest number of coupons.
const MAX_TOTAL: i64 = 1_000_000_000;

/// A campaign to create.
#[derive(Debug, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = CouponRequest, example = json!({
    "name": "Launch day", "discountType": "percent", "discountValue": 20, "maxDiscount": 10_000,
    "total": 500, "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2099-01-01T00:00:00Z",
}))]
pub(super) struct NewCoupon {
    #[schema(min_length = 1, max_length = 200)]
    pub(super) name: String,
    #[schema(schema_with = discount_types)]
    pub(super) discount_type: &'static str,
    /// Won, or percent: then at most 100.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    pub(super) discount_value: i64,
    /// The most that a percentage takes off, in won.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    pub(super) max_discount: Option<i64>,
    /// How many coupons there are.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    pub(super) total: i64,
    /// First instant at which it can be had.
    pub(super) starts_at: DateTime<Utc>,
    /// First instant at which it can no longer be had; after `startsAt`.
    pub(super) ends_at: DateTime<Utc>,
    /// First instant at which an issued one can no longer be used: `endsAt`, unless given; not before it.
    pub(super) valid_until: Option<DateTime<Utc>>,
}

impl NewCoupon {
    pub(super) fn read(fields: &mut Fields) -> Self {
        let discount_type = fields.optional_choice("discountType", &DISCOUNT_TYPES);
        let percent = discount_type == Some("percent");
        let coupon = Self {
            name: fields.text("name", 200),
            discount_type: discount_type.unwrap_or_default(),
            discount_value: fields
                .integer("discountValue", 1..=if percent { 100 } else { MAX_PRICE }),
            max_discount: fields.optional_integer("maxDiscount", 1..=MAX_PRICE),
            total: fields.integer("total", 1..=MAX_TOTAL),
            starts_at: fields.instant("startsAt"),
            ends_at: fields.instant("endsAt"),
            valid_until: fields.optional_instant("validUntil"),
        };
        if discount_type.is_none() {
            // Does nothing where the choice was there but wrong.
            fields.reject("discountType", "is required");
        }
        if discount_type == Some("fixed") && coupon.max_discount.is_some() {
            fields.reject("maxDiscount", "goes with discountType percent only");
        }
        if coupon.starts_at >= coupon.ends_at {
            fields.reject("endsAt", "must be after startsAt");
        }
        if coupon.valid_until.is_some_and(|until| until < coupon.ends_at) {
            fields.reject("validUntil", "must not be before endsAt");
        }
        coupon
    }
}

/// What to change of a campaign; like a new one otherwise.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = CouponChange, example = json!({"total": 1_000}))]
struct EditedCoupon {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    #[schema(schema_with = discount_types)]
    discount_type: Option<&'static str>,
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    discount_value: Option<i64>,
    /// `null` takes the cap away.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 1_000_000_000)]
    max_discount: Option<Option<i64>>,
    /// Not below what is issued.
    #[schema(minimum = 1, maximum = 1_000_000_000)]
    total: Option<i64>,
    starts_at: Option<DateTime<Utc>>,
    /// Issued coupons stay good if it comes earlier; a later one takes `validUntil` along.
    ends_at: Option<DateTime<Utc>>,
    /// Counts for issued coupons too.
    valid_until: Option<DateTime<Utc>>,
    /// `true` stops the issuing at once: what stands in line by then is settled, and issued coupons can be used; `false`
    /// resumes it.
    paused: Option<bool>,
    /// `false` restores a campaign that was deleted, which nothing else can be done to; `true` deletes it.
    deleted: Option<bool>,
}

impl EditedCoupon {
    fn read(fields: &mut Fields) -> Self {
        Self {
            name: fields.optional_text("name", 200),
            discount_type: fields.optional_choice("discountType", &DISCOUNT_TYPES),
            discount_value: fields.optional_integer("discountValue", 1..=MAX_PRICE),
            max_discount: fields
                .has("maxDiscount")
                .then(|| fields.optional_integer("maxDiscount", 1..=MAX_PRICE)),
            total: fields.optional_integer("total", 1..=MAX_TOTAL),
            starts_at: fields.optional_instant("startsAt"),
            ends_at: fields.optional_instant("endsAt"),
            valid_until: fields.optional_instant("validUntil"),
            paused: fields.optional_flag("paused"),
            deleted: fields.optional_flag("deleted"),
        }
    }
}

/// The campaigns, by id; or those that were deleted, which can be restored.
///
/// # Errors
/// 400, 401, 403, 503.
#[utoipa::path(
    get, path = "/api/admin/coupons", operation_id = "listAllCoupons", tag = "Admin",
    params(Shelf, Page),
    responses((status = 200, description = "A page of the campaigns.", body = List<CouponView>)),
)]
pub async fn list_coupons(
    State(state): State<AppState>,
    _auditor: Auditor,
    Shelf { deleted, page }: Shelf,
) -> Result<Response, Problem> {
    if !deleted {
        return Ok(json::ok(&coupon::read_page(&state.pool, page).await?));
    }
    let coupons = sqlx::query_as!(
        CouponView,
        r#"SELECT id, name, discount_type, discount_value, max_discount, total,
                  total - issued AS "remaining!", starts_at, ends_at, valid_until, paused_at IS NOT NULL AS "paused!"
           FROM coupons
           WHERE deleted_at IS NOT NULL AND id > COALESCE($1::bigint, 0)
           ORDER BY id LIMIT $2"#,
        page.after,
        page.rows(),
    )
    .fetch_all(&state.pool)
    .await?;
    Ok(json::ok(&page.cut(coupons, |coupon| coupon.id)))
}

/// Creates a campaign.
///
/// # Errors
/// 400, 401, 403, 422, 503.
#[utoipa::path(
    post, path = "/api/admin/coupons", operation_id = "createCoupon", tag = "Admin",
    params(IdempotencyKey),
    request_body = NewCoupon,
    responses((
        status = 201, description = "The campaign.", body = CouponView,
        headers(("ETag" = String, description = "Names this state, for the `If-Match` of an edit.")),
    )),
)]
pub async fn create_coupon(
    State(state): State<AppState>,
    Admin(admin): Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, bytes } = body;
    let wanted = NewCoupon::read(&mut fields);
    fields.finish()?;

    let coupon =
        once(&state.pool, admin.user_id, "create-coupon", &headers, &bytes, async |transaction| {
            for look in free_ids::LOOKS {
                if let Some(coupon) = insert(&mut *transaction, &wanted).await? {
                    let target = format!("coupons/{}", coupon.id);
                    let change = Change::new(admin.user_id, "create-coupon", target);
                    change.after(&coupon)?.note(transaction).await?;
                    return Ok(coupon);
                }
                free_ids::skip(transaction, Table::Coupons, look).await?;
            }
            Err(Problem::new(Code::InternalError))
        })
        .await?;
    Ok(json::tagged(StatusCode::CREATED, &coupon))
}

/// With the next id of the sequence; `None` if that is taken, by one that was given by hand.
async fn insert(
    transaction: &mut PgConnection,
    wanted: &NewCoupon,
) -> Result<Option<CouponView>, sqlx::Error> {
    sqlx::query_as!(
            CouponView,
            r#"INSERT INTO coupons (name, discount_type, discount_value, max_discount, total, starts_at, ends_at, valid_until)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
               ON CONFLICT ON CONSTRAINT coupons_pkey DO NOTHING
               RETURNING id, name, discount_type, discount_value, max_discount, total,
                         total - issued AS "remaining!", starts_at, ends_at, valid_until, paused_at IS NOT NULL AS "paused!""#,
            wanted.name,
            wanted.discount_type,
            wanted.discount_value,
            wanted.max_discount,
            wanted.total,
            wanted.starts_at,
            wanted.ends_at,
            wanted.valid_until,
        )
        .fetch_optional(transaction)
        .await
}

/// Changes what is given, also of a campaign that is on. A larger total ends a sold-out at once. A campaign
/// that was deleted is there again as it was, with the coupons that were issued.
///
/// # Errors
/// 400, 401, 403, 404, 409 for a total below what is issued; 412, 503.
#[utoipa::path(
    patch, path = "/api/admin/coupons/{id}", operation_id = "editCoupon", tag = "Admin",
    params(IfMatchHeader),
    request_body = Option<EditedCoupon>,
    responses((
        status = 200, description = "The campaign, as it is now.", body = CouponView,
        headers(("ETag" = String, description = "Names this state, for the `If-Match` of an edit.")),
    )),
    extensions(("x-codes" = json!([Code::CouponNotFound, Code::TotalBelowIssued]))),
)]
pub async fn edit_coupon(
    State(state): State<AppState>,
    Admin(admin): Admin,
    PathId(id): PathId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, .. } = body;
    let wanted = EditedCoupon::read(&mut fields);
    fields.finish()?;
    let condition = if_match(&headers)?;
    let mut connection = state.pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let may_be_deleted = wanted.deleted == Some(false);
    let before = hold(&mut transaction, id, condition.as_ref(), may_be_deleted).await?;
    // A pause begins with its millisecond, as in the edit of a product.
    let coupon = sqlx::query_as!(
        CouponView,
        r#"UPDATE coupons SET name = COALESCE($2, name), discount_type = COALESCE($3, discount_type),
                  discount_value = COALESCE($4, discount_value),
                  max_discount = CASE WHEN $5 THEN $6 ELSE max_discount END, total = COALESCE($7, total),
                  starts_at = COALESCE($8, starts_at), ends_at = COALESCE($9, ends_at),
                  valid_until = COALESCE($10, CASE WHEN $9 > ends_at THEN GREATEST($9, valid_until) ELSE valid_until END),
                  paused_at = CASE WHEN $12 THEN COALESCE(paused_at, date_trunc('milliseconds', clock_timestamp()))
                                   WHEN $12 IS NULL THEN paused_at END,
                  deleted_at = CASE WHEN $11 THEN now() END
           WHERE id = $1 AND (deleted_at IS NULL OR $11 = false)
           RETURNING id, name, discount_type, discount_value, max_discount, total,
                     total - issued AS "remaining!", starts_at, ends_at, valid_until, paused_at IS NOT NULL AS "paused!""#,
        id,
        wanted.name,
        wanted.discount_type,
        wanted.discount_value,
        wanted.max_discount.is_some(),
        wanted.max_discount.flatten(),
        wanted.total,
        wanted.starts_at,
        wanted.ends_at,
        wanted.valid_until,
        wanted.deleted,
        wanted.paused,
    )
    .fetch_optional(&mut *transaction)
    .await
    .map_err(|error| match error.as_database_error().and_then(|error| error.constraint()) {
        Some("coupons_issued_within_total") => Problem::new(Code::TotalBelowIssued),
        Some("coupons_window") => Problem::invalid("endsAt", "must be after startsAt"),
        Some("coupons_discount") => Problem::invalid("discountValue", "must be from 1 to 100 percent"),
        Some("coupons_cap_is_of_percent") => {
            Problem::invalid("maxDiscount", "goes with discountType percent only")
        }
        _ => error.into(),
    })?;
    let coupon = coupon.ok_or_else(|| Problem::new(Code::CouponNotFound))?;
    let change = Change::new(admin.user_id, "edit-coupon", format!("coupons/{id}"));
    change.before(&before)?.after(&coupon)?.note(&mut transaction).await?;
    // Told also where it may or may not have been changed.
    let committed = transaction.commit().await;
    state.coupons.changed(CouponId::new(id)).await;
    committed?;
    Ok(json::tagged(StatusCode::OK, &coupon))
}

/// Ends a campaign, until it is restored. Coupons in users' hands stay good.
///
/// # Errors
/// 401, 403, 404, 412, 503.
#[utoipa::path(
    delete, path = "/api/admin/coupons/{id}", operation_id = "deleteCoupon", tag = "Admin",
    params(IfMatchHeader),
    responses((status = 204, description = "The campaign is over.")),
    extensions(("x-codes" = json!([Code::CouponNotFound]))),
)]
pub async fn delete_coupon(
    State(state): State<AppState>,
    Admin(admin): Admin,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let condition = if_match(&headers)?;
    let mut connection = state.pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let before = hold(&mut transaction, id, condition.as_ref(), false).await?;
    sqlx::query!("UPDATE coupons SET deleted_at = now() WHERE id = $1 AND deleted_at IS NULL", id)
        .execute(&mut *transaction)
        .await?;
    let change = Change::new(admin.user_id, "delete-coupon", format!("coupons/{id}"));
    change.before(&before)?.note(&mut transaction).await?;
    let committed = transaction.commit().await;
    state.coupons.changed(CouponId::new(id)).await;
    committed?;
    Ok(StatusCode::NO_CONTENT)
}

/// Holds a campaign for an edit, as it is before; the edit may have to be made only of what was read.
async fn hold(
    transaction: &mut PgConnection,
    id: i64,
    condition: Option<&IfMatch>,
    may_be_deleted: bool,
) -> Result<CouponView, Problem> {
    let coupon = sqlx::query_as!(
        CouponView,
        r#"SELECT id, name, discount_type, discount_value, max_discount, total,
                  total - issued AS "remaining!", starts_at, ends_at, valid_until, paused_at IS NOT NULL AS "paused!"
           FROM coupons WHERE id = $1 AND (deleted_at IS NULL OR $2) FOR NO KEY UPDATE"#,
        id,
        may_be_deleted,
    )
    .fetch_optional(transaction)
    .await?;
    let coupon = coupon.ok_or_else(|| Problem::new(Code::CouponNotFound))?;
    condition.map_or(Ok(()), |condition| condition.check(&coupon))?;
    Ok(coupon)
}
