//! `GET`, `POST /api/admin/products`, `PATCH`, `DELETE /api/admin/products/{id}`

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use firstcome_contract::order::MAX_PRICE;
use utoipa::ToSchema;

use super::{Shelf, created};
use crate::{
    http::{
        auth::Admin,
        body::Body,
        fields::Fields,
        idempotency_key::IdempotencyKey,
        json,
        page::{List, Page},
        path::PathId,
        problem::{Code, Problem},
    },
    known::{once::once, shown::ProductView},
    product,
    state::AppState,
};

/// The largest stock.
const MAX_STOCK: i64 = 1_000_000_000;

/// A product to create.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ProductRequest, example = json!({"name": "Launch box", "price": 25_000, "stock": 50}))]
struct NewProduct {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// In won.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    price: i64,
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    stock: i64,
}

impl NewProduct {
    fn read(fields: &mut Fields) -> Self {
        Self {
            name: fields.text("name", 200),
            price: fields.integer("price", 0..=MAX_PRICE),
            stock: fields.integer("stock", 0..=MAX_STOCK),
        }
    }
}

/// What to change of a product.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
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
    /// `false` restores a product that was deleted, which nothing else can be done to; `true` deletes it.
    deleted: Option<bool>,
}

impl EditedProduct {
    fn read(fields: &mut Fields) -> Self {
        Self {
            name: fields.optional_text("name", 200),
            price: fields.optional_integer("price", 0..=MAX_PRICE),
            stock: fields.optional_integer("stock", 0..=MAX_STOCK),
            deleted: fields.optional_flag("deleted"),
        }
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
    _admin: Admin,
    Shelf { deleted, page }: Shelf,
) -> Result<Response, Problem> {
    if !deleted {
        return Ok(json::ok(&product::read_page(&state.pool, page).await?));
    }
    let products = sqlx::query_as!(
        ProductView,
        r#"SELECT id, name, price, stock, stock = 0 AS "sold_out!" FROM products
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
    responses((status = 201, description = "The product.", body = ProductView)),
)]
pub async fn create_product(
    State(state): State<AppState>,
    Admin(admin): Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, bytes } = body;
    let NewProduct { name, price, stock } = NewProduct::read(&mut fields);
    fields.finish()?;
    let product =
        once(&state.pool, admin.user_id, "create-product", &headers, &bytes, async |transaction| {
            let product = sqlx::query_as!(
                ProductView,
                r#"INSERT INTO products (name, price, stock, stocked) VALUES ($1, $2, $3, $3)
               RETURNING id, name, price, stock, stock = 0 AS "sold_out!""#,
                name,
                price,
                stock,
            )
            .fetch_one(transaction)
            .await?;
            Ok(product)
        })
        .await?;
    state.product_pages.forget().await;
    Ok(created(&product))
}

/// Changes what is given; a stock is absolute, and takes its turn with the sales. A product that was deleted
/// is on sale again as it was.
///
/// # Errors
/// 400, 401, 403, 404, 503.
#[utoipa::path(
    patch, path = "/api/admin/products/{id}", operation_id = "editProduct", tag = "Admin",
    request_body = Option<EditedProduct>,
    responses((status = 200, description = "The product, as it is now.", body = ProductView)),
    extensions(("x-codes" = json!([Code::ProductNotFound]))),
)]
pub async fn edit_product(
    State(state): State<AppState>,
    _admin: Admin,
    PathId(id): PathId,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, .. } = body;
    let EditedProduct { name, price, stock, deleted } = EditedProduct::read(&mut fields);
    fields.finish()?;
    let product = sqlx::query_as!(
        ProductView,
        r#"UPDATE products SET name = COALESCE($2, name), price = COALESCE($3, price), stock = COALESCE($4, stock),
                  stocked = stocked + COALESCE($4, stock) - stock,
                  deleted_at = CASE WHEN $5 THEN now() END
           WHERE id = $1 AND (deleted_at IS NULL OR $5 = false)
           RETURNING id, name, price, stock, stock = 0 AS "sold_out!""#,
        id,
        name,
        price,
        stock,
        deleted,
    )
    .fetch_optional(&state.pool)
    .await?;
    state.product_pages.forget().await;
    Ok(json::ok(&product.ok_or_else(|| Problem::new(Code::ProductNotFound))?))
}

/// Takes a product off sale, until it is restored. Orders that contain it keep it.
///
/// # Errors
/// 401, 403, 404, 503.
#[utoipa::path(
    delete, path = "/api/admin/products/{id}", operation_id = "deleteProduct", tag = "Admin",
    responses((status = 204, description = "It is off sale.")),
    extensions(("x-codes" = json!([Code::ProductNotFound]))),
)]
pub async fn delete_product(
    State(state): State<AppState>,
    _admin: Admin,
    PathId(id): PathId,
) -> Result<StatusCode, Problem> {
    let deleted = sqlx::query!(
        "UPDATE products SET deleted_at = now() WHERE id = $1 AND deleted_at IS NULL",
        id
    )
    .execute(&state.pool)
    .await?;
    state.product_pages.forget().await;
    if deleted.rows_affected() == 0 {
        return Err(Problem::new(Code::ProductNotFound));
    }
    Ok(StatusCode::NO_CONTENT)
}
