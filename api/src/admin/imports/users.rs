//! Users, as they are imported.

use std::collections::{HashMap, HashSet};

use futures_util::future::{BoxFuture, ready};
use sqlx::PgConnection;

use super::{
    Verdict,
    reader::Layout,
    settle::{Row, Stored},
    table::Table,
};
use crate::{
    admin::users::NewUser,
    balance::CEILING,
    http::{auth::user_id, fields::Fields, problem::Code},
    known::{
        free_ids::{self, Table as Ids},
        subjects::{self, MAX_SUBJECT, Subjects},
    },
    state::AppState,
};

/// A user to create or to edit.
#[derive(Debug)]
pub struct UserRow {
    user: NewUser,
    /// What a new one begins with.
    balance: i64,
    /// What the tokens' issuer calls the user.
    subject: Option<String>,
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

/// Whom the tokens' issuer means by its subjects: each means one user, and a user has one at most.
#[derive(Debug, Default)]
struct Links {
    users: HashMap<String, i64>,
    subjects: HashMap<i64, String>,
    /// Those that were not there, in the order of the rows.
    new: Vec<(String, i64)>,
}

impl Links {
    /// Adds what is there.
    fn add(&mut self, stored: Vec<(String, i64)>) {
        for (subject, user) in stored {
            self.subjects.insert(user, subject.clone());
            self.users.insert(subject, user);
        }
    }

    /// Why this subject cannot mean this user.
    fn objection(&self, subject: &str, user: i64) -> Option<&'static str> {
        if self.users.get(subject).is_some_and(|linked| *linked != user) {
            return Some("is another user's");
        }
        let other = self.subjects.get(&user).is_some_and(|linked| linked != subject);
        other.then_some("the user has another one")
    }

    /// Whether that is new.
    fn put(&mut self, subject: &str, user: i64) -> bool {
        let is_new = self.users.insert(subject.to_owned(), user).is_none();
        if is_new {
            self.subjects.insert(user, subject.to_owned());
            self.new.push((subject.to_owned(), user));
        }
        is_new
    }
}

impl Layout for UserRow {
    const COLUMNS: &'static [&'static str] = &["id", "name", "email", "balance", "subject"];
    const REQUIRED: &'static [&'static str] = &["name", "email"];

    fn read(fields: &mut Fields) -> Self {
        let user = NewUser::read(fields);
        let balance = fields.optional_integer("balance", 0..=CEILING).unwrap_or_default();
        let subject = fields.optional_text("subject", MAX_SUBJECT);
        if subject.as_ref().is_some_and(|subject| subject.len() > MAX_SUBJECT) {
            fields.reject("subject", format!("must not be longer than {MAX_SUBJECT} bytes"));
        }
        if subject.as_deref().is_some_and(|subject| user_id(subject).is_some()) {
            fields.reject(
                "subject",
                "must not be a number: a token with that means the user with the id",
            );
        }
        Self { user, balance, subject }
    }
}

impl Row for UserRow {
    const TABLE: Ids = Ids::Users;

    fn store<'c>(
        state: &'c AppState,
        rows: &'c [Self],
        transaction: &'c mut PgConnection,
    ) -> BoxFuture<'c, Result<Stored, sqlx::Error>> {
        Box::pin(async move {
            let issuer = state.subjects.as_deref().and_then(Subjects::mapped_issuer);
            // Before users: of somebody who comes meanwhile, the database then refuses a second user or link, and the
            // row is tried once more; the other way round the subject would be a stranger's.
            let mut links = links(transaction, issuer, rows).await?;
            let mut addresses = owners(transaction, rows).await?;
            let given: HashSet<i64> = rows.iter().filter_map(|row| row.user.id).collect();
            // Also where a row may take the address away from who has it.
            let may_be_new = |row: &&UserRow| {
                let owner = addresses.owner(&row.user.email);
                row.user.id.is_none() && owner.is_none_or(|owner| given.contains(&owner))
            };
            let new = rows.iter().filter(may_be_new).count();
            let free = free_ids::draw(transaction, Ids::Users, new, &given).await?;
            let ids: HashSet<i64> =
                given.into_iter().chain(addresses.owners.values().copied()).collect();
            let ids: Vec<i64> = ids.into_iter().collect();
            if let (Some(issuer), Some(links)) = (issuer, &mut links) {
                links.add(subjects::linked(transaction, issuer, &[], &ids).await?);
            }
            let stored = load(transaction, ids, &mut addresses).await?;
            let mut batch =
                Batch { users: Table::new(stored), addresses, links, ..Batch::default() };
            let mut free = free.into_iter();
            let verdicts = rows.iter().map(|row| batch.put(&mut free, row)).collect();
            let Batch { users, balances, links, .. } = batch;
            insert(transaction, &users, &balances).await?;
            update(transaction, &users).await?;
            if let (Some(issuer), Some(Links { new, .. })) = (issuer, &links) {
                let (subjects, users): (Vec<&str>, Vec<i64>) =
                    new.iter().map(|(subject, user)| (subject.as_str(), *user)).unzip();
                subjects::link(transaction, issuer, &subjects, &users).await?;
            }
            Ok(Stored { verdicts, changed: users.changed().map(|(id, _)| id).collect() })
        })
    }

    /// Nothing that is remembered of users is imported.
    fn announce<'c>(_: &'c AppState, _: &'c Stored) -> BoxFuture<'c, ()> {
        Box::pin(ready(()))
    }
}

/// Users as a batch leaves them.
#[derive(Debug, Default)]
struct Batch {
    users: Table<User>,
    addresses: Addresses,
    /// What new ones begin with.
    balances: HashMap<i64, i64>,
    /// Unless subjects of tokens are ids.
    links: Option<Links>,
}

impl Batch {
    /// Puts a row where it belongs: to the user with its id, else to the one with its address, else to a new one.
    fn put(&mut self, free: &mut impl Iterator<Item = i64>, row: &UserRow) -> Verdict {
        let UserRow { user: NewUser { id, name, email }, balance, subject } = row;
        let owner = self.addresses.owner(email);
        let Some(id) = id.or(owner).or_else(|| free.next()) else {
            return Verdict::faulty("id", "there is none that is free");
        };
        let former = self.users.get(id).map(|user| user.email.clone());
        // What stands in the row already is nobody else's business.
        if former.as_ref() != Some(email) && owner.is_some_and(|owner| owner != id) {
            let detail = format!("is another user's ({})", Code::EmailTaken.name());
            return Verdict::faulty("email", &detail);
        }
        let is_linked = match (subject, &mut self.links) {
            (None, _) => false,
            (Some(_), None) => {
                return Verdict::faulty(
                    "subject",
                    "tokens call users by their ids here (JWT_SUBJECTS)",
                );
            }
            (Some(subject), Some(links)) => match links.objection(subject, id) {
                Some(objection) => return Verdict::faulty("subject", objection),
                None => links.put(subject, id),
            },
        };
        self.addresses.give(id, email, former.as_deref());
        let verdict = self.users.put(id, User { name: name.clone(), email: email.clone() });
        if verdict == Verdict::Created {
            self.balances.insert(id, *balance);
        }
        if is_linked && verdict == Verdict::Unchanged { Verdict::Updated } else { verdict }
    }
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

/// Whom the subjects of these rows mean; `None` unless subjects are mapped.
async fn links(
    transaction: &mut PgConnection,
    issuer: Option<&str>,
    rows: &[UserRow],
) -> Result<Option<Links>, sqlx::Error> {
    let Some(issuer) = issuer else { return Ok(None) };
    let subjects: Vec<&str> = rows.iter().filter_map(|row| row.subject.as_deref()).collect();
    let mut links = Links::default();
    links.add(subjects::linked(transaction, issuer, &subjects, &[]).await?);
    Ok(Some(links))
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
         WHERE users.id = ANY(ARRAY[batch.id])",
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
        let users = Table::new([(1, user("Ann", "a@x")), (2, user("Bob", "B@x"))]);
        let key = |email: &str| (email.to_owned(), email.to_lowercase());
        let addresses = Addresses {
            keys: ["a@x", "A@x", "B@x", "b@x", "c@x", "d@x"].map(key).into(),
            owners: [("a@x".to_owned(), 1), ("b@x".to_owned(), 2)].into(),
        };
        let mut links = Links::default();
        links.add(vec![("ann".to_owned(), 1)]);
        let mut batch = Batch { users, addresses, links: Some(links), ..Batch::default() };
        let mut free = 10..;
        let mut put_as = |subject: Option<&str>, id: Option<i64>, name: &str, email: &str| {
            let user = NewUser { id, name: name.to_owned(), email: email.to_owned() };
            let subject = subject.map(str::to_owned);
            batch.put(&mut free, &UserRow { user, balance: 5, subject })
        };
        let mut put = |id: Option<i64>, name: &str, email: &str| put_as(None, id, name, email);
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

        let objection = |detail: &str| Verdict::faulty("subject", detail);
        assert_eq!(put_as(Some("ann"), Some(1), "Ann", "A@x"), Verdict::Unchanged);
        assert_eq!(put_as(Some("ann"), Some(2), "Bob", "c@x"), objection("is another user's"));
        assert_eq!(
            put_as(Some("anna"), Some(1), "Ann", "A@x"),
            objection("the user has another one")
        );
        assert_eq!(put_as(Some("bob"), Some(2), "Bob", "c@x"), Verdict::Updated);
        assert_eq!(put_as(Some("bob"), Some(3), "Cid", "b@x"), objection("is another user's"));
        assert_eq!(put_as(Some("cid"), Some(3), "Cid", "b@x"), Verdict::Updated);
        assert_eq!(batch.links.unwrap().new, [("bob".to_owned(), 2), ("cid".to_owned(), 3)]);
        assert_eq!(batch.balances, [(3, 5), (10, 5)].into());
    }
}
