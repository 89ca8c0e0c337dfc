//! `GET`, `POST /api/admin/products`, `PATCH`, `DELETE /api/admin/products/{id}` and `POST …/{id}/stock`

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use chrono::{DateTime, Utc};
use firstcome_contract::{ids::ProductId, order::MAX_PRICE, sale::MAX_PER_CUSTOMER};
use sqlx::{Connection, PgConnection};
use utoipa::ToSchema;

use super::{Shelf, audit_log::Change};
use crate::{
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
        shown::ProductView,
    },
    product,
    state::AppState,
};

/// The largest stock.
const MAX_STOCK: i64 = 1_000_000_000;

/// A product to create.
#[derive(Debug, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ProductRequest, example = json!({
    "name": "Launch box", "price": 25_000, "stock": 50,
    "onSaleFrom": "2026-01-01T00:00:00Z", "onSaleUntil": "2099-01-01T00:00:00Z", "perCustomer": 2,
}))]
pub(super) struct NewProduct {
    #[schema(min_length = 1, max_length = 200)]
    pub(super) name: String,
    /// In won.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    pub(super) price: i64,
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    pub(super) stock: i64,
    /// First instant at which it can be ordered.
    pub(super) on_sale_from: Option<DateTime<Utc>>,
    /// First instant at which it can no longer be ordered; after `onSaleFrom`.
    pub(super) on_sale_until: Option<DateTime<Utc>>,
    /// How many a customer can have for life.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub(super) per_customer: Option<i64>,
}

impl NewProduct {
    pub(super) fn read(fields: &mut Fields) -> Self {
        let product = Self {
            name: fields.text("name", 200),
            price: fields.integer("price", 0..=MAX_PRICE),
            stock: fields.integer("stock", 0..=MAX_STOCK),
            on_sale_from: fields.optional_instant("onSaleFrom"),
            on_sale_until: fields.optional_instant("onSaleUntil"),
            per_customer: fields.optional_integer("perCustomer", 1..=MAX_PER_CUSTOMER),
        };
        if let (Some(from), Some(until)) = (product.on_sale_from, product.on_sale_until)
            && from >= until
        {
            fields.reject("onSaleUntil", "must be after onSaleFrom");
        }
        product
    }
}

/// What to change of a product. `null` takes a bound away.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ProductChange, example = json!({"stock": 100}))]
struct EditedProduct {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// In won.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    price: Option<i64>,
    /// Absolute: takes its turn with the sales.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    stock: Option<i64>,
    #[schema(value_type = Option<DateTime<Utc>>)]
    on_sale_from: Option<Option<DateTime<Utc>>>,
    #[schema(value_type = Option<DateTime<Utc>>)]
    on_sale_until: Option<Option<DateTime<Utc>>>,
    /// Counts what was bought before, too.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 1_000_000)]
    per_customer: Option<Option<i64>>,
    /// `true` stops the sale at once: what stands in line by then is settled; `false` resumes it.
    paused: Option<bool>,
    /// `false` restores a product that was deleted, which nothing else can be done to; `true` deletes it.
    deleted: Option<bool>,
}

impl EditedProduct {
    fn read(fields: &mut Fields) -> Self {
        let instant =
            |fields: &mut Fields, name| fields.has(name).then(|| fields.optional_instant(name));
        Self {
            name: fields.optional_text("name", 200),
            price: fields.optional_integer("price", 0..=MAX_PRICE),
            stock: fields.optional_integer("stock", 0..=MAX_STOCK),
            on_sale_from: instant(fields, "onSaleFrom"),
            on_sale_until: instant(fields, "onSaleUntil"),
            per_customer: fields
                .has("perCustomer")
                .then(|| fields.optional_integer("perCustomer", 1..=MAX_PER_CUSTOMER)),
            paused: fields.optional_flag("paused"),
            deleted: fields.optional_flag("deleted"),
        }
    }
}

/// What to add to a stock.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StockChange, example = json!({"delta": 50}))]
struct AddedStock {
    /// Not 0; what is below it is taken out.
    #[schema(minimum = -1_000_000_000, maximum = 1_000_000_000)]
    delta: i64,
}

impl AddedStock {
    fn read(fields: &mut Fields) -> Self {
        let has_delta = fields.has("delta");
        let delta = fields.integer("delta", -MAX_STOCK..=MAX_STOCK);
        if has_delta && delta == 0 {
            fields.reject("delta", "must not be 0");
        }
        Self { delta }
    }
}

/// The products, by id and as they are now; or those that were deleted, which can be restored.
///
/// # Errors
/// 400, 401, 403, 503.
#[utoipa::path(
    get, path = "/api/admin/products", operation_id = "listAllProducts", tag = "Admin",
    params(Shelf, Page),
    responses((status = 200, description = "A page of the products.", body = List<ProductView>)),
)]
pub async fn list_products(
    State(state): State<AppState>,
    _auditor: Auditor,
    Shelf { deleted, page }: Shelf,
) -> Result<Response, Problem> {
    if !deleted {
        return Ok(json::ok(&product::read_page(&state.pool, page).await?));
    }
    let products = sqlx::query_as!(
        ProductView,
        r#"SELECT id, name, price, on_sale_from, on_sale_until, per_customer, paused_at IS NOT NULL AS "paused!",
                  stock, stock = 0 AS "sold_out!" FROM products
           WHERE deleted_at IS NOT NULL AND id > COALESCE($1::bigint, 0)
           ORDER BY id LIMIT $2"#,
        page.after,
        page.rows(),
    )
    .fetch_all(&state.pool)
    .await?;
    Ok(json::ok(&page.cut(products, |product| product.id)))
}

/// Creates a product.
///
/// # Errors
/// 400, 401, 403, 422, 503.
#[utoipa::path(
    post, path = "/api/admin/products", operation_id = "createProduct", tag = "Admin",
    params(IdempotencyKey),
    request_body = NewProduct,
    responses((
        status = 201, description = "The product.", body = ProductView,
        headers(("ETag" = String, description = "Names this state, for the `If-Match` of an edit.")),
    )),
)]
pub async fn create_product(
    State(state): State<AppState>,
    Admin(admin): Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, bytes } = body;
    let wanted = NewProduct::read(&mut fields);
    fields.finish()?;
    let product =
        once(&state.pool, admin.user_id, "create-product", &headers, &bytes, async |transaction| {
            for look in free_ids::LOOKS {
                if let Some(product) = insert(&mut *transaction, &wanted).await? {
                    let target = format!("products/{}", product.id);
                    let change = Change::new(admin.user_id, "create-product", target);
                    change.after(&product)?.note(transaction).await?;
                    return Ok(product);
                }
                free_ids::skip(transaction, Table::Products, look).await?;
            }
            Err(Problem::new(Code::InternalError))
        })
        .await?;
    // Of a product that was not there, only the lists tell.
    state.product_pages.forget().await;
    Ok(json::tagged(StatusCode::CREATED, &product))
}

/// With the next id of the sequence; `None` if that is taken, by one that was given by hand.
async fn insert(
    transaction: &mut PgConnection,
    wanted: &NewProduct,
) -> Result<Option<ProductView>, sqlx::Error> {
    sqlx::query_as!(
                ProductView,
                r#"INSERT INTO products (name, price, stock, stocked, on_sale_from, on_sale_until, per_customer)
                   VALUES ($1, $2, $3, $3, $4, $5, $6)
                   ON CONFLICT ON CONSTRAINT products_pkey DO NOTHING
                   RETURNING id, name, price, on_sale_from, on_sale_until, per_customer,
                             paused_at IS NOT NULL AS "paused!", stock, stock = 0 AS "sold_out!""#,
                wanted.name,
                wanted.price,
                wanted.stock,
                wanted.on_sale_from,
                wanted.on_sale_until,
                wanted.per_customer,
            )
            .fetch_optional(transaction)
            .await
}

/// Changes what is given; a stock is absolute, and takes its turn with the sales. A product that was deleted
/// is on sale again as it was.
///
/// # Errors
/// 400, 401, 403, 404, 412, 503.
#[utoipa::path(
    patch, path = "/api/admin/products/{id}", operation_id = "editProduct", tag = "Admin",
    params(IfMatchHeader),
    request_body = Option<EditedProduct>,
    responses((
        status = 200, description = "The product, as it is now.", body = ProductView,
        headers(("ETag" = String, description = "Names this state, for the `If-Match` of an edit.")),
    )),
    extensions(("x-codes" = json!([Code::ProductNotFound]))),
)]
pub async fn edit_product(
    State(state): State<AppState>,
    Admin(admin): Admin,
    PathId(id): PathId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, .. } = body;
    let wanted = EditedProduct::read(&mut fields);
    fields.finish()?;
    let condition = if_match(&headers)?;
    let mut connection = state.pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let may_be_deleted = wanted.deleted == Some(false);
    let before = hold(&mut transaction, id, condition.as_ref(), may_be_deleted).await?;
    // A pause begins with its millisecond: job ids, which tell when they were submitted, know no finer one.
    let product = sqlx::query_as!(
        ProductView,
        r#"UPDATE products SET name = COALESCE($2, name), price = COALESCE($3, price), stock = COALESCE($4, stock),
                  stocked = stocked + COALESCE($4, stock) - stock,
                  on_sale_from = CASE WHEN $6 THEN $7 ELSE on_sale_from END,
                  on_sale_until = CASE WHEN $8 THEN $9 ELSE on_sale_until END,
                  per_customer = CASE WHEN $10 THEN $11 ELSE per_customer END,
                  paused_at = CASE WHEN $12 THEN COALESCE(paused_at, date_trunc('milliseconds', clock_timestamp()))
                                   WHEN $12 IS NULL THEN paused_at END,
                  deleted_at = CASE WHEN $5 THEN now() END
           WHERE id = $1 AND (deleted_at IS NULL OR $5 = false)
           RETURNING id, name, price, on_sale_from, on_sale_until, per_customer, paused_at IS NOT NULL AS "paused!",
                     stock, stock = 0 AS "sold_out!""#,
        id,
        wanted.name,
        wanted.price,
        wanted.stock,
        wanted.deleted,
        wanted.on_sale_from.is_some(),
        wanted.on_sale_from.flatten(),
        wanted.on_sale_until.is_some(),
        wanted.on_sale_until.flatten(),
        wanted.per_customer.is_some(),
        wanted.per_customer.flatten(),
        wanted.paused,
    )
    .fetch_optional(&mut *transaction)
    .await
    .map_err(|error| match error.as_database_error().and_then(|error| error.constraint()) {
        Some("products_sale_window") => Problem::invalid("onSaleUntil", "must be after onSaleFrom"),
        _ => error.into(),
    })?;
    let product = product.ok_or_else(|| Problem::new(Code::ProductNotFound))?;
    let change = Change::new(admin.user_id, "edit-product", format!("products/{id}"));
    change.before(&before)?.after(&product)?.note(&mut transaction).await?;
    // Told also where it may or may not have been changed.
    let committed = transaction.commit().await;
    changed(&state, id).await;
    committed?;
    Ok(json::tagged(StatusCode::OK, &product))
}

/// Adds to a stock, or takes out of it; takes its turn with the sales.
///
/// # Errors
/// 400, 401, 403, 404, 409 if there is less than is to be taken out, 412, 422, 503.
#[utoipa::path(
    post, path = "/api/admin/products/{id}/stock", operation_id = "addStock", tag = "Admin",
    params(IdempotencyKey, IfMatchHeader),
    request_body = AddedStock,
    responses((
        status = 200, description = "The product, as it is now.", body = ProductView,
        headers(("ETag" = String, description = "Names this state, for the `If-Match` of an edit.")),
    )),
    extensions(("x-codes" = json!([Code::ProductNotFound, Code::StockTooLow]))),
)]
pub async fn add_stock(
    State(state): State<AppState>,
    Admin(admin): Admin,
    PathId(id): PathId,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, .. } = body;
    let AddedStock { delta } = AddedStock::read(&mut fields);
    fields.finish()?;
    let condition = if_match(&headers)?;
    let asked_for = [id.to_be_bytes(), delta.to_be_bytes()].concat();
    let product =
        once(&state.pool, admin.user_id, "add-stock", &headers, &asked_for, async |transaction| {
            let before = hold(&mut *transaction, id, condition.as_ref(), false).await?;
            let product = sqlx::query_as!(
                ProductView,
                r#"UPDATE products SET stock = stock + $2, stocked = stocked + $2
                   WHERE id = $1 AND deleted_at IS NULL
                   RETURNING id, name, price, on_sale_from, on_sale_until, per_customer,
                             paused_at IS NOT NULL AS "paused!", stock, stock = 0 AS "sold_out!""#,
                id,
                delta,
            )
            .fetch_optional(&mut *transaction)
            .await
            .map_err(|error| {
                match error.as_database_error().and_then(|error| error.constraint()) {
                    Some("products_stock_not_negative") => Problem::new(Code::StockTooLow),
                    _ => error.into(),
                }
            })?;
            let product = product.ok_or_else(|| Problem::new(Code::ProductNotFound))?;
            // What customers gave back may have made it more: then it can still be made less.
            if delta > 0 && product.stock > MAX_STOCK {
                let detail = format!("must not make the stock more than {MAX_STOCK}");
                return Err(Problem::invalid("delta", detail));
            }
            let change = Change::new(admin.user_id, "add-stock", format!("products/{id}"));
            change.before(&before)?.after(&product)?.note(transaction).await?;
            Ok(product)
        })
        .await;
    changed(&state, id).await;
    Ok(json::tagged(StatusCode::OK, &product?))
}

/// Takes a product off sale, until it is restored. Orders that contain it keep it.
///
/// # Errors
/// 401, 403, 404, 412, 503.
#[utoipa::path(
    delete, path = "/api/admin/products/{id}", operation_id = "deleteProduct", tag = "Admin",
    params(IfMatchHeader),
    responses((status = 204, description = "It is off sale.")),
    extensions(("x-codes" = json!([Code::ProductNotFound]))),
)]
pub async fn delete_product(
    State(state): State<AppState>,
    Admin(admin): Admin,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let condition = if_match(&headers)?;
    let mut connection = state.pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let before = hold(&mut transaction, id, condition.as_ref(), false).await?;
    sqlx::query!("UPDATE products SET deleted_at = now() WHERE id = $1 AND deleted_at IS NULL", id)
        .execute(&mut *transaction)
        .await?;
    let change = Change::new(admin.user_id, "delete-product", format!("products/{id}"));
    change.before(&before)?.note(&mut transaction).await?;
    let committed = transaction.commit().await;
    changed(&state, id).await;
    committed?;
    Ok(StatusCode::NO_CONTENT)
}

/// Holds a product for an edit, as it is before; the edit may have to be made only of what was read.
async fn hold(
    transaction: &mut PgConnection,
    id: i64,
    condition: Option<&IfMatch>,
    may_be_deleted: bool,
) -> Result<ProductView, Problem> {
    let product = sqlx::query_as!(
        ProductView,
        r#"SELECT id, name, price, on_sale_from, on_sale_until, per_customer, paused_at IS NOT NULL AS "paused!",
                  stock, stock = 0 AS "sold_out!"
           FROM products WHERE id = $1 AND (deleted_at IS NULL OR $2) FOR NO KEY UPDATE"#,
        id,
        may_be_deleted,
    )
    .fetch_optional(transaction)
    .await?;
    let product = product.ok_or_else(|| Problem::new(Code::ProductNotFound))?;
    condition.map_or(Ok(()), |condition| condition.check(&product))?;
    Ok(product)
}

/// Tells those who remember it, here and in every other API.
async fn changed(state: &AppState, id: i64) {
    state.product_pages.forget().await;
    state.products.changed(ProductId::new(id)).await;
}
