//! Whom a token means: people whom the issuer does not call by the user's id, and people who are new. Known ones cost
//! no query.

use std::sync::atomic::{AtomicU64, Ordering};

use firstcome_contract::ids::UserId;
use firstcome_process::database::Pool;
use futures_util::future::BoxFuture;
use quick_cache::sync::Cache;
use redis::AsyncTypedCommands;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::users::{self, is_address};
use crate::{
    config::SecretArgs,
    http::{
        auth::{Directory, Identity},
        problem::{Code, Problem},
        text::is_invisible,
    },
};

/// The most subjects that are remembered.
const MAX_KNOWN: usize = 200_000;
/// The longest subject, in bytes (OpenID Connect says 255).
pub(crate) const MAX_SUBJECT: usize = 255;
/// How often a subject is looked for that others link at that moment.
const LOOKS: u32 = 3;
/// The longest name of a user that a token makes, in characters.
const MAX_NAME: usize = 200;

/// Finds the user of a subject, or makes one.
#[derive(Debug)]
pub struct Subjects {
    pool: Pool,
    issuer: String,
    maps: bool,
    creates: bool,
    known: Cache<String, UserId>,
    /// Counts what was forgotten, for those who were looking meanwhile.
    changes: AtomicU64,
    redis: crate::cache::Cache,
    /// The Redis channel for ids of users who were forgotten.
    channel: String,
}

/// The Redis channel for ids of users whose personal data was removed.
#[must_use]
pub fn forgotten_channel(namespace: &str) -> String {
    format!("{namespace}:user-forgotten")
}

impl Subjects {
    /// As the configuration wants it; `None` if subjects are ids, and users are made elsewhere.
    #[must_use]
    pub fn new(
        secrets: &SecretArgs,
        pool: &Pool,
        redis: crate::cache::Cache,
        namespace: &str,
    ) -> Option<Self> {
        let (maps, creates) = (secrets.maps_subjects(), secrets.jwt_create_users);
        let issuer = secrets.jwt_issuer.clone().unwrap_or_default();
        (maps || creates).then(|| Self {
            pool: pool.clone(),
            issuer,
            maps,
            creates,
            known: Cache::new(MAX_KNOWN),
            changes: AtomicU64::new(0),
            redis,
            channel: forgotten_channel(namespace),
        })
    }

    /// Forgets whom an issuer means by a user who was unmapped here, and has every other API forget it.
    pub async fn forgotten(&self, user: UserId) {
        self.forget(user);
        let told =
            self.redis.ask(async |mut redis| redis.publish(&self.channel, user.to_string()).await);
        told.await;
    }

    /// Forgets a user who was unmapped.
    pub fn forget(&self, user: UserId) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.known.retain(|_, known| *known != user);
    }

    /// The issuer whose subjects are mapped, if they are.
    pub(crate) fn mapped_issuer(&self) -> Option<&str> {
        self.maps.then_some(&self.issuer)
    }

    async fn find(&self, identity: &Identity) -> Result<Option<UserId>, Problem> {
        let mut connection = self.pool.acquire().await?;
        if let Some(id) = identity.id() {
            return self.numbered(&mut connection, id, identity).await;
        }
        if !self.maps || identity.subject.len() > MAX_SUBJECT {
            return Ok(None);
        }
        for _ in 0..LOOKS {
            if let Some(found) = self.look(&mut connection, identity).await? {
                return Ok(found);
            }
        }
        Err(Problem::new(Code::InternalError))
    }

    /// Finds or makes the user of a subject that is no id; `None` where an import made or linked one meanwhile.
    async fn look(
        &self,
        connection: &mut PgConnection,
        identity: &Identity,
    ) -> Result<Option<Option<UserId>>, Problem> {
        let mut transaction = connection.begin().await?;
        // All first requests of a subject wait for the first of them.
        sqlx::query!(
            "SELECT pg_advisory_xact_lock(hashtextextended($1 || chr(10) || $2, 0))::text AS locked",
            self.issuer,
            identity.subject,
        )
        .fetch_one(&mut *transaction)
        .await?;
        let mapped = sqlx::query_scalar!(
            "SELECT user_id FROM subjects WHERE issuer = ANY(ARRAY[$1::text]) AND subject BETWEEN $2 AND $2 ORDER BY issuer, subject LIMIT 1",
            self.issuer,
            identity.subject,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if let Some(user) = mapped {
            return Ok(Some(Some(UserId::new(user))));
        }
        let found = self.with_address(&mut transaction, identity).await?;
        let user = match found {
            Some(user) => user,
            None if !self.creates => return Ok(Some(None)),
            None => match create(&mut transaction, None, identity).await {
                Err(problem) if problem.code() == Code::EmailTaken => return Ok(None),
                created => created?,
            },
        };
        let linked = sqlx::query!(
            "INSERT INTO subjects (issuer, subject, user_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            self.issuer,
            identity.subject,
            user,
        )
        .execute(&mut *transaction)
        .await?;
        if linked.rows_affected() == 0 {
            return Ok(None);
        }
        transaction.commit().await?;
        tracing::info!(user, is_new = found.is_none(), "a subject that was not known before");
        Ok(Some(Some(UserId::new(user))))
    }

    /// A subject that is an id.
    async fn numbered(
        &self,
        connection: &mut PgConnection,
        id: UserId,
        identity: &Identity,
    ) -> Result<Option<UserId>, Problem> {
        let is_there = sqlx::query_scalar!(r#"SELECT id FROM users WHERE id = $1"#, id.get())
            .fetch_optional(&mut *connection)
            .await?;
        if is_there.is_none() && self.creates {
            let mut transaction = connection.begin().await?;
            create(&mut transaction, Some(id.get()), identity).await?;
            transaction.commit().await?;
        }
        Ok(Some(id))
    }

    /// Who has the address that the issuer has verified, unless that is another subject of it.
    async fn with_address(
        &self,
        transaction: &mut PgConnection,
        identity: &Identity,
    ) -> Result<Option<i64>, sqlx::Error> {
        let Some(email) = identity.email.as_ref().filter(|_| identity.email_verified) else {
            return Ok(None);
        };
        sqlx::query_scalar!(
            "SELECT id FROM users WHERE lower(email) = lower($1)
             AND (SELECT user_id FROM subjects WHERE issuer = ANY(ARRAY[$2::text]) AND user_id BETWEEN users.id AND users.id
                  ORDER BY issuer, user_id LIMIT 1) IS NULL",
            email,
            self.issuer,
        )
        .fetch_optional(transaction)
        .await
    }
}

/// Forgets whom issuers mean by this user: who comes with such a token next is somebody new.
pub(crate) async fn unmap(connection: &mut PgConnection, user: i64) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM subjects WHERE user_id = $1", user).execute(connection).await?;
    Ok(())
}

/// Which of these subjects an issuer has, and those of these users, each with its user.
pub(crate) async fn linked(
    connection: &mut PgConnection,
    issuer: &str,
    subjects: &[&str],
    users: &[i64],
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    let links = sqlx::query!(
        r#"SELECT known.subject AS "subject!", known.user_id AS "user_id!" FROM UNNEST($2::text[]) AS asked (subject)
           CROSS JOIN LATERAL (SELECT subject, user_id FROM subjects
                               WHERE issuer = ANY(ARRAY[$1::text]) AND subject BETWEEN asked.subject AND asked.subject
                               ORDER BY issuer, subject LIMIT 1) AS known
           UNION ALL
           SELECT known.subject, known.user_id FROM UNNEST($3::bigint[]) AS asked (user_id)
           CROSS JOIN LATERAL (SELECT subject, user_id FROM subjects
                               WHERE issuer = ANY(ARRAY[$1::text]) AND user_id BETWEEN asked.user_id AND asked.user_id
                               ORDER BY issuer, user_id LIMIT 1) AS known"#,
        issuer,
        subjects as &[&str],
        users,
    )
    .fetch_all(connection)
    .await?;
    Ok(links.into_iter().map(|link| (link.subject, link.user_id)).collect())
}

/// Has an issuer mean these users by these subjects.
pub(crate) async fn link(
    connection: &mut PgConnection,
    issuer: &str,
    subjects: &[&str],
    users: &[i64],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO subjects (issuer, subject, user_id)
         SELECT $1, subject, user_id FROM UNNEST($2::text[], $3::bigint[]) AS new (subject, user_id)",
        issuer,
        subjects as &[&str],
        users,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes the user that a token tells of. An address that somebody else has, or that is none, is replaced.
async fn create(
    transaction: &mut PgConnection,
    id: Option<i64>,
    identity: &Identity,
) -> Result<i64, Problem> {
    let email = identity.email.as_deref().filter(|email| email.len() <= 254 && is_address(email));
    let is_taken = sqlx::query_scalar!(
        r#"SELECT (SELECT id FROM users WHERE lower(email) = lower($1) LIMIT 1) IS NOT NULL AS "taken!""#,
        email,
    )
    .fetch_one(&mut *transaction)
    .await?;
    let email = email.filter(|_| !is_taken).map(str::to_owned);
    let email = email.unwrap_or_else(|| format!("{}@users.invalid", Uuid::new_v4()));
    let name = identity.name.as_deref().unwrap_or_default();
    let seen = name.chars().filter(|c| !c.is_control() && !is_invisible(*c)).take(MAX_NAME);
    let mut name = seen.collect::<String>().trim().to_owned();
    if name.is_empty() {
        "-".clone_into(&mut name);
    }
    match users::create(transaction, id, &name, &email).await? {
        Some(user) => Ok(user.id),
        // Somebody made it meanwhile.
        None => id.ok_or_else(|| Problem::new(Code::InternalError)),
    }
}

impl Directory for Subjects {
    fn known(&self, subject: &str) -> Option<UserId> {
        self.known.get(subject)
    }

    fn find<'a>(
        &'a self,
        identity: &'a Identity,
    ) -> BoxFuture<'a, Result<Option<UserId>, Problem>> {
        Box::pin(async {
            let changes = self.changes.load(Ordering::SeqCst);
            let found = Self::find(self, identity).await?;
            if let Some(user) = found {
                self.known.insert(identity.subject.clone(), user);
                // Found before it was forgotten, and put after it.
                if self.changes.load(Ordering::SeqCst) != changes {
                    self.known.remove(&identity.subject);
                }
            }
            Ok(found)
        })
    }
}
