//! What this process knows of the products that are asked for: enough to say "no such product", "paused" or "not on
//! sale" without a line.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use firstcome_contract::{
    ids::ProductId,
    order::Item,
    rejection::Rejection,
    sale::{Sale, first_rejection},
};
use firstcome_process::database::Pool;
use futures_util::future::join_all;
use sqlx::PgConnection;

use super::{board::Board, early::Early};
use crate::cache::Cache;

/// How many products are kept in memory.
const CAPACITY: usize = 100_000;

/// The Redis channel for ids of products that an operator changed.
#[must_use]
pub fn changed_channel(namespace: &str) -> String {
    format!("{namespace}:product-changed")
}

/// Products that were asked for lately, and when they are sold.
#[derive(Debug)]
pub struct Products(Arc<Board<ProductId, Sale>>);

impl Products {
    /// Makes a board that knows no product yet.
    #[must_use]
    pub fn new(pool: &Pool, cache: Cache, namespace: &str) -> Self {
        let channel = changed_channel(namespace);
        Self(Board::new(pool, cache, channel, CAPACITY, |connection, ids| {
            Box::pin(stored(connection, ids))
        }))
    }

    /// Why the line would reject every order of these items that is submitted then, if that is certain.
    pub async fn early_rejection(
        &self,
        items: &[Item],
        submitted_at: DateTime<Utc>,
    ) -> Option<Early> {
        let known = join_all(items.iter().map(|item| self.0.look(item.product_id))).await;
        early(&known, submitted_at)
    }

    /// Forgets a product that an operator changed here, and has every other API forget it.
    pub async fn changed(&self, id: ProductId) {
        self.0.changed(id).await;
    }

    /// The same of many that an import changed.
    pub async fn all_changed(&self, ids: &[i64]) {
        self.0.all_changed(ids.iter().copied().map(ProductId::new)).await;
    }

    /// Forgets a product that was changed.
    pub fn forget(&self, id: ProductId) {
        self.0.forget(id);
    }
}

/// Of an order, by what is known of its products: each as [`Board::look`] tells it.
fn early(known: &[Option<Option<Sale>>], submitted_at: DateTime<Utc>) -> Option<Early> {
    if known.contains(&Some(None)) {
        return Some(Early::new(Rejection::ProductNotFound));
    }
    let sales = known.iter().copied().flatten().flatten();
    let rejection = first_rejection(sales.clone(), submitted_at)?;
    if rejection != Rejection::ProductNotOnSale {
        return Some(Early::new(rejection));
    }
    // Of those that are not on sale, when the last one begins; never, if one is over.
    let refused = sales.filter(|sale| sale.check(submitted_at).is_err());
    let begins = refused.map(|sale| sale.from.filter(|from| *from > submitted_at));
    let begins: Option<Vec<DateTime<Utc>>> = begins.collect();
    let begins_at = begins.and_then(|begins| begins.into_iter().max());
    Some(begins_at.map_or(Early::new(rejection), |begins_at| Early::until(begins_at, rejection)))
}

async fn stored(
    connection: &mut PgConnection,
    ids: Vec<ProductId>,
) -> Result<HashMap<ProductId, Sale>, sqlx::Error> {
    let ids: Vec<i64> = ids.into_iter().map(ProductId::get).collect();
    let rows = sqlx::query!(
        "SELECT id, on_sale_from, on_sale_until, paused_at FROM products WHERE id = ANY($1) AND deleted_at IS NULL",
        &ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let sale =
                Sale { from: row.on_sale_from, until: row.on_sale_until, paused_at: row.paused_at };
            (ProductId::new(row.id), sale)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn the_first_rejection_of_the_precedence_is_told() {
        let now = Utc::now();
        let at = |seconds| now + TimeDelta::seconds(seconds);
        let open = Sale::default();
        let soon = Sale { from: Some(at(10)), ..open };
        let later = Sale { from: Some(at(20)), until: Some(at(30)), ..open };
        let over = Sale { from: Some(at(-20)), until: Some(at(-10)), ..open };
        let paused = Sale { paused_at: Some(at(-1)), ..soon };
        let known = |sales: &[Sale]| -> Vec<Option<Option<Sale>>> {
            sales.iter().map(|sale| Some(Some(*sale))).collect()
        };
        let not_on_sale = Rejection::ProductNotOnSale;
        let cases: [(&[Sale], Option<Early>); 6] = [
            (&[open, open], None),
            (&[open, soon], Some(Early::until(at(10), not_on_sale))),
            (&[later, soon, open], Some(Early::until(at(20), not_on_sale))),
            (&[over], Some(Early::new(not_on_sale))),
            (&[soon, over, later], Some(Early::new(not_on_sale))),
            (&[over, soon, paused], Some(Early::new(Rejection::SalePaused))),
        ];
        for (sales, expected) in cases {
            let mut known = known(sales);
            assert_eq!(early(&known, now), expected, "{sales:?}");
            // Of which nothing is known: the others are what they are.
            known.push(None);
            assert_eq!(early(&known, now), expected, "{sales:?}");
            known.push(Some(None));
            let missing = Some(Early::new(Rejection::ProductNotFound));
            assert_eq!(early(&known, now), missing, "{sales:?}");
        }
    }
}
