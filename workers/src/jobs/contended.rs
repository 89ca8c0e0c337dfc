//! Products and balances, for which batches of different lines contend: locked in the one global order (products by id,
//! then balances by user), so that they wait for each other but never deadlock; and stored.

use std::collections::{BTreeMap, BTreeSet};

use firstcome_contract::{
    ids::{ProductId, UserId},
    job::{Envelope, Job},
    money::Money,
};
use sqlx::PgConnection;

/// Locks the products and balances of all these jobs. What is taken after them is a user's own, and guarded by
/// the lock of the balance.
pub(super) async fn lock_ahead(
    transaction: &mut PgConnection,
    jobs: &[&Envelope],
) -> Result<(), sqlx::Error> {
    let (mut products, mut users) = (BTreeSet::new(), BTreeSet::new());
    for envelope in jobs {
        match &envelope.job {
            Job::IssueCoupon(_) => {}
            Job::PlaceOrder(order) => {
                products.extend(order.product_ids());
                users.insert(envelope.user_id);
            }
            Job::CancelOrder(cancel) => {
                products.extend(cancel.product_ids.iter().copied().map(ProductId::get));
                users.insert(cancel.customer_id);
            }
        }
    }
    sqlx::query!(
        "SELECT FROM products WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE",
        &products.into_iter().collect::<Vec<_>>(),
    )
    .execute(&mut *transaction)
    .await?;
    lock_balances(transaction, users).await?;
    Ok(())
}

/// Locks the balances of these users, as far as they exist, and tells them.
pub(super) async fn lock_balances(
    transaction: &mut PgConnection,
    users: BTreeSet<UserId>,
) -> Result<BTreeMap<UserId, Money>, sqlx::Error> {
    let users: Vec<i64> = users.into_iter().map(UserId::get).collect();
    // NO KEY UPDATE is what our UPDATEs will take anyway, and lets the foreign keys' KEY SHARE pass.
    let rows = sqlx::query!(
        "SELECT user_id, amount FROM balances WHERE user_id = ANY($1) ORDER BY user_id FOR NO KEY UPDATE",
        &users,
    )
    .fetch_all(transaction)
    .await?;
    Ok(rows.into_iter().map(|row| (UserId::new(row.user_id), Money::new(row.amount))).collect())
}

/// Stores stocks and balances as they are after a batch. The rows are locked since the load.
pub(super) async fn store(
    transaction: &mut PgConnection,
    stocks: impl Iterator<Item = (ProductId, i64)>,
    balances: impl Iterator<Item = (UserId, Money)>,
) -> Result<(), sqlx::Error> {
    let (products, stocks): (Vec<i64>, Vec<i64>) =
        stocks.map(|(id, stock)| (id.get(), stock)).unzip();
    let balances = balances.map(|(user, amount)| (user.get(), amount.get()));
    let (users, balances): (Vec<i64>, Vec<i64>) = balances.unzip();
    sqlx::query!(
        "WITH stock AS (
             UPDATE products SET stock = batch.stock
             FROM UNNEST($1::bigint[], $2::bigint[]) AS batch (id, stock)
             WHERE products.id = ANY(ARRAY[batch.id])
         )
         UPDATE balances SET amount = batch.amount
         FROM UNNEST($3::bigint[], $4::bigint[]) AS batch (user_id, amount)
         WHERE balances.user_id = ANY(ARRAY[batch.user_id])",
        &products,
        &stocks,
        &users,
        &balances,
    )
    .execute(transaction)
    .await?;
    Ok(())
}
