//! Products, as they are imported.

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
    admin::products::NewProduct,
    http::fields::{Fields, IDS},
    known::free_ids::{self, Table as Ids},
    state::AppState,
};

/// A product to create or to edit. What is not given of one that is there stays.
#[derive(Debug)]
pub struct ProductRow {
    id: Option<i64>,
    product: NewProduct,
    gives_from: bool,
    gives_until: bool,
    gives_limit: bool,
}

/// A product as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Product {
    name: String,
    price: i64,
    stock: i64,
    on_sale_from: Option<DateTime<Utc>>,
    on_sale_until: Option<DateTime<Utc>>,
    per_customer: Option<i64>,
    is_deleted: bool,
}

impl Layout for ProductRow {
    const COLUMNS: &'static [&'static str] =
        &["id", "name", "price", "stock", "onSaleFrom", "onSaleUntil", "perCustomer"];
    const REQUIRED: &'static [&'static str] = &["name", "price", "stock"];

    fn read(fields: &mut Fields) -> Self {
        Self {
            gives_from: fields.has("onSaleFrom"),
            gives_until: fields.has("onSaleUntil"),
            gives_limit: fields.has("perCustomer"),
            id: fields.optional_integer("id", IDS),
            product: NewProduct::read(fields),
        }
    }
}

impl Row for ProductRow {
    const TABLE: Ids = Ids::Products;

    fn store<'c>(
        _: &'c AppState,
        rows: &'c [Self],
        transaction: &'c mut PgConnection,
    ) -> BoxFuture<'c, Result<Stored, sqlx::Error>> {
        Box::pin(async move {
            let given: HashSet<i64> = rows.iter().filter_map(|row| row.id).collect();
            let new = rows.iter().filter(|row| row.id.is_none()).count();
            let free = free_ids::draw(transaction, Ids::Products, new, &given).await?;
            let ids = given.into_iter().collect();
            let mut products = Table::new(load(transaction, ids).await?);
            let mut free = free.into_iter();
            let verdicts = rows.iter().map(|row| put(&mut products, &mut free, row)).collect();
            insert(transaction, &products).await?;
            update(transaction, &products).await?;
            Ok(Stored { verdicts, changed: products.changed().map(|(id, _)| id).collect() })
        })
    }

    fn announce<'c>(state: &'c AppState, stored: &'c Stored) -> BoxFuture<'c, ()> {
        Box::pin(async move {
            let is_changed = |verdict| matches!(verdict, &Verdict::Created | &Verdict::Updated);
            if stored.verdicts.iter().any(is_changed) {
                state.product_pages.forget().await;
                state.products.all_changed(&stored.changed).await;
            }
        })
    }
}

fn put(
    products: &mut Table<Product>,
    free: &mut impl Iterator<Item = i64>,
    row: &ProductRow,
) -> Verdict {
    let Some(id) = row.id.or_else(|| free.next()) else {
        return Verdict::faulty("id", "there is none that is free");
    };
    let wanted = &row.product;
    let mut product = Product {
        name: wanted.name.clone(),
        price: wanted.price,
        stock: wanted.stock,
        on_sale_from: wanted.on_sale_from,
        on_sale_until: wanted.on_sale_until,
        per_customer: wanted.per_customer,
        is_deleted: false,
    };
    if let Some(stored) = products.get(id) {
        if stored.is_deleted {
            return Verdict::faulty("id", "is of a product that was deleted: restore it first");
        }
        if !row.gives_from {
            product.on_sale_from = stored.on_sale_from;
        }
        if !row.gives_until {
            product.on_sale_until = stored.on_sale_until;
        }
        if !row.gives_limit {
            product.per_customer = stored.per_customer;
        }
    }
    if let (Some(from), Some(until)) = (product.on_sale_from, product.on_sale_until)
        && from >= until
    {
        return Verdict::faulty("onSaleUntil", "must be after onSaleFrom");
    }
    products.put(id, product)
}

/// Those of these products that there are, held until they are stored: in the order in which sales hold them.
async fn load(
    transaction: &mut PgConnection,
    ids: Vec<i64>,
) -> Result<Vec<(i64, Product)>, sqlx::Error> {
    let products = sqlx::query!(
        r#"SELECT id, name, price, stock, on_sale_from, on_sale_until, per_customer, deleted_at IS NOT NULL AS "is_deleted!"
           FROM products WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"#,
        &ids,
    )
    .fetch_all(transaction)
    .await?;
    let stored = products.into_iter().map(|row| {
        let product = Product {
            name: row.name,
            price: row.price,
            stock: row.stock,
            on_sale_from: row.on_sale_from,
            on_sale_until: row.on_sale_until,
            per_customer: row.per_customer,
            is_deleted: row.is_deleted,
        };
        (row.id, product)
    });
    Ok(stored.collect())
}

/// Products by column.
#[derive(Default)]
struct Columns<'a> {
    id: Vec<i64>,
    name: Vec<&'a str>,
    price: Vec<i64>,
    stock: Vec<i64>,
    from: Vec<Option<DateTime<Utc>>>,
    until: Vec<Option<DateTime<Utc>>>,
    per_customer: Vec<Option<i64>>,
}

impl<'a> Columns<'a> {
    fn of(products: impl Iterator<Item = (i64, &'a Product)>) -> Self {
        let mut columns = Self::default();
        for (id, product) in products {
            columns.id.push(id);
            columns.name.push(&product.name);
            columns.price.push(product.price);
            columns.stock.push(product.stock);
            columns.from.push(product.on_sale_from);
            columns.until.push(product.on_sale_until);
            columns.per_customer.push(product.per_customer);
        }
        columns
    }
}

async fn insert(
    transaction: &mut PgConnection,
    products: &Table<Product>,
) -> Result<(), sqlx::Error> {
    let new = Columns::of(products.added());
    if new.id.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO products (id, name, price, stock, stocked, on_sale_from, on_sale_until, per_customer)
         SELECT id, name, price, stock, stock, on_sale_from, on_sale_until, per_customer
         FROM UNNEST($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::timestamptz[], $7::bigint[])
           AS batch (id, name, price, stock, on_sale_from, on_sale_until, per_customer)",
        &new.id,
        &new.name as &[&str],
        &new.price,
        &new.stock,
        &new.from as &[Option<DateTime<Utc>>],
        &new.until as &[Option<DateTime<Utc>>],
        &new.per_customer as &[Option<i64>],
    )
    .execute(transaction)
    .await?;
    Ok(())
}

async fn update(
    transaction: &mut PgConnection,
    products: &Table<Product>,
) -> Result<(), sqlx::Error> {
    let changed = Columns::of(products.changed());
    if changed.id.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE products SET name = batch.name, price = batch.price, stock = batch.stock,
                stocked = stocked + batch.stock - products.stock, on_sale_from = batch.on_sale_from,
                on_sale_until = batch.on_sale_until, per_customer = batch.per_customer
         FROM UNNEST($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::timestamptz[], $7::bigint[])
           AS batch (id, name, price, stock, on_sale_from, on_sale_until, per_customer)
         WHERE products.id = ANY(ARRAY[batch.id])",
        &changed.id,
        &changed.name as &[&str],
        &changed.price,
        &changed.stock,
        &changed.from as &[Option<DateTime<Utc>>],
        &changed.until as &[Option<DateTime<Utc>>],
        &changed.per_customer as &[Option<i64>],
    )
    .execute(transaction)
    .await?;
    Ok(())
}
