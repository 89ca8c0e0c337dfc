//! Users, as they are imported.

use std::collections::{HashMap, HashSet};

use futures_util::future::{BoxFuture, ready};
use sqlx::PgConnection;

use super::{
    Verdict,
    settle::{Row, Stored},
    table::Table,
};
use crate::{
    admin::users::NewUser,
    balance::CEILING,
    http::{fields::Fields, problem::Code},
    known::free_ids::{self, Table as Ids},
    state::AppState,
};

/// A user to create or to edit.
#[derive(Debug)]
pub(super) struct UserRow {
    user: NewUser,
    /// What a new one begins with.
    balance: i64,
}

/// A user as stored.
#[derive(Debug, PartialEq, Eq)]
struct User {
    name: String,
    email: String,
}

/// Who has which address, however it is written: by what PostgreSQL holds to be the same.
#[derive(Debug, Default)]
struct Addresses {
    /// What an address is compared by.
    keys: HashMap<String, String>,
    owners: HashMap<String, i64>,
}

impl Addresses {
    fn owner(&self, email: &str) -> Option<i64> {
        self.keys.get(email).and_then(|key| self.owners.get(key)).copied()
    }

    /// A user has this address now, instead of the former one.
    fn give(&mut self, id: i64, email: &str, former: Option<&str>) {
        let former = former.and_then(|former| self.keys.get(former));
        if let Some(former) = former
            && self.owners.get(former) == Some(&id)
        {
            self.owners.remove(former);
        }
        if let Some(key) = self.keys.get(email) {
            self.owners.insert(key.clone(), id);
        }
    }
}

impl Row for UserRow {
    const TABLE: Ids = Ids::Users;
    const COLUMNS: &'static [&'static str] = &["id", "name", "email", "balance"];
    const REQUIRED: &'static [&'static str] = &["name", "email"];

    fn read(fields: &mut Fields) -> Self {
        let user = NewUser::read(fields);
        let balance = fields.optional_integer("balance", 0..=CEILING).unwrap_or_default();
        Self { user, balance }
    }

    fn store<'c>(
        rows: &'c [Self],
        transaction: &'c mut PgConnection,
    ) -> BoxFuture<'c, Result<Stored, sqlx::Error>> {
        Box::pin(async move {
            let mut addresses = owners(transaction, rows).await?;
            let given: HashSet<i64> = rows.iter().filter_map(|row| row.user.id).collect();
            let is_new = |row: &&UserRow| {
                row.user.id.is_none() && addresses.owner(&row.user.email).is_none()
            };
            let new = rows.iter().filter(is_new).count();
            let free = free_ids::draw(transaction, Ids::Users, new, &given).await?;
            let ids: HashSet<i64> =
                given.into_iter().chain(addresses.owners.values().copied()).collect();
            let stored = load(transaction, ids.into_iter().collect(), &mut addresses).await?;
            let mut users = Table::new(stored);
            let mut balances = HashMap::new();
            let mut free = free.into_iter();
            let verdicts = rows
                .iter()
                .map(|row| put(&mut users, &mut addresses, &mut balances, &mut free, row));
            let verdicts = verdicts.collect();
            insert(transaction, &users, &balances).await?;
            update(transaction, &users).await?;
            Ok(Stored { verdicts, changed: users.changed().map(|(id, _)| id).collect() })
        })
    }

    /// Nothing that is remembered of users is imported.
    fn announce<'c>(_: &'c AppState, _: &'c Stored) -> BoxFuture<'c, ()> {
        Box::pin(ready(()))
    }
}

/// Puts a row where it belongs: to the user with its id, else to the one with its address, else to a new one.
fn put(
    users: &mut Table<User>,
    addresses: &mut Addresses,
    balances: &mut HashMap<i64, i64>,
    free: &mut impl Iterator<Item = i64>,
    UserRow { user: NewUser { id, name, email }, balance }: &UserRow,
) -> Verdict {
    let owner = addresses.owner(email);
    let Some(id) = id.or(owner).or_else(|| free.next()) else {
        return Verdict::faulty("id", "there is none that is free");
    };
    let former = users.get(id).map(|user| user.email.clone());
    // What stands in the row already is nobody else's business.
    if former.as_ref() != Some(email) && owner.is_some_and(|owner| owner != id) {
        return Verdict::faulty(
            "email",
            &format!("is another user's ({})", Code::EmailTaken.name()),
        );
    }
    addresses.give(id, email, former.as_deref());
    let verdict = users.put(id, User { name: name.clone(), email: email.clone() });
    if verdict == Verdict::Created {
        balances.insert(id, *balance);
    }
    verdict
}

/// Who has the addresses of these rows.
async fn owners(
    transaction: &mut PgConnection,
    rows: &[UserRow],
) -> Result<Addresses, sqlx::Error> {
    let emails: Vec<&str> = rows.iter().map(|row| row.user.email.as_str()).collect();
    let found = sqlx::query!(
        r#"SELECT asked.email AS "email!", lower(asked.email) AS "key!", owner.id AS "owner?"
           FROM UNNEST($1::text[]) AS asked (email)
           LEFT JOIN LATERAL (SELECT id FROM users WHERE lower(users.email) = lower(asked.email) LIMIT 1) AS owner ON true"#,
        &emails as &[&str],
    )
    .fetch_all(transaction)
    .await?;
    let mut addresses = Addresses::default();
    for row in found {
        if let Some(owner) = row.owner {
            addresses.owners.insert(row.key.clone(), owner);
        }
        addresses.keys.insert(row.email, row.key);
    }
    Ok(addresses)
}

/// Those of these users that there are, held until they are stored.
async fn load(
    transaction: &mut PgConnection,
    ids: Vec<i64>,
    addresses: &mut Addresses,
) -> Result<Vec<(i64, User)>, sqlx::Error> {
    let users = sqlx::query!(
        r#"SELECT id, name, email, lower(email) AS "key!" FROM users WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"#,
        &ids,
    )
    .fetch_all(transaction)
    .await?;
    let mut stored = Vec::with_capacity(users.len());
    for row in users {
        addresses.keys.insert(row.email.clone(), row.key);
        stored.push((row.id, User { name: row.name, email: row.email }));
    }
    Ok(stored)
}

async fn insert(
    transaction: &mut PgConnection,
    users: &Table<User>,
    balances: &HashMap<i64, i64>,
) -> Result<(), sqlx::Error> {
    let (mut ids, mut names, mut emails, mut amounts) = (vec![], vec![], vec![], vec![]);
    for (id, User { name, email }) in users.added() {
        ids.push(id);
        names.push(name.as_str());
        emails.push(email.as_str());
        amounts.push(balances.get(&id).copied().unwrap_or_default());
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO users (id, email, name) SELECT * FROM UNNEST($1::bigint[], $2::text[], $3::text[])",
        &ids,
        &emails as &[&str],
        &names as &[&str],
    )
    .execute(&mut *transaction)
    .await?;
    // As with a charge: the sum of the history is the balance.
    sqlx::query!(
        "WITH opened AS (
             INSERT INTO balances (user_id, amount) SELECT user_id, amount FROM UNNEST($1::bigint[], $2::bigint[]) AS new (user_id, amount)
         )
         INSERT INTO balance_transactions (user_id, kind, amount, balance_after)
         SELECT user_id, 'charge', amount, amount FROM UNNEST($1::bigint[], $2::bigint[]) AS new (user_id, amount)
         WHERE amount > 0",
        &ids,
        &amounts,
    )
    .execute(transaction)
    .await?;
    Ok(())
}

async fn update(transaction: &mut PgConnection, users: &Table<User>) -> Result<(), sqlx::Error> {
    let (mut ids, mut names, mut emails) = (vec![], vec![], vec![]);
    for (id, User { name, email }) in users.changed() {
        ids.push(id);
        names.push(name.as_str());
        emails.push(email.as_str());
    }
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE users SET name = batch.name, email = batch.email
         FROM UNNEST($1::bigint[], $2::text[], $3::text[]) AS batch (id, name, email)
         WHERE users.id = batch.id",
        &ids,
        &names as &[&str],
        &emails as &[&str],
    )
    .execute(transaction)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_find_their_user() {
        let user =
            |name: &str, email: &str| User { name: name.to_owned(), email: email.to_owned() };
        let mut users = Table::new([(1, user("Ann", "a@x")), (2, user("Bob", "B@x"))]);
        let key = |email: &str| (email.to_owned(), email.to_lowercase());
        let mut addresses = Addresses {
            keys: ["a@x", "A@x", "B@x", "b@x", "c@x", "d@x"].map(key).into(),
            owners: [("a@x".to_owned(), 1), ("b@x".to_owned(), 2)].into(),
        };
        let (mut balances, mut free) = (HashMap::new(), 10..);
        let mut put = |id: Option<i64>, name: &str, email: &str| {
            let user = NewUser { id, name: name.to_owned(), email: email.to_owned() };
            super::put(
                &mut users,
                &mut addresses,
                &mut balances,
                &mut free,
                &UserRow { user, balance: 5 },
            )
        };
        let taken = Verdict::faulty("email", "is another user's (email-taken)");
        assert_eq!(put(Some(1), "Ann", "a@x"), Verdict::Unchanged);
        assert_eq!(put(None, "Ann", "a@x"), Verdict::Unchanged);
        assert_eq!(put(None, "Ann", "A@x"), Verdict::Updated, "as it is written now");
        assert_eq!(put(Some(1), "Ann", "b@x"), taken);
        assert_eq!(put(Some(3), "Cid", "b@x"), taken);
        assert_eq!(put(Some(2), "Bob", "c@x"), Verdict::Updated);
        assert_eq!(put(Some(3), "Cid", "b@x"), Verdict::Created, "it is free");
        assert_eq!(put(Some(1), "Ann", "c@x"), taken);
        assert_eq!(put(None, "Dan", "d@x"), Verdict::Created);
        assert_eq!(put(None, "Don", "d@x"), Verdict::Updated);
        assert_eq!(put(Some(10), "Don", "d@x"), Verdict::Unchanged);
        assert_eq!(balances, [(3, 5), (10, 5)].into());
    }
}
