//! `Idempotency-Key`: the same key with the same request gets the same answer.
//!
//! The guarantee of one effect is PostgreSQL's: a unique key in the transaction of the effect. For
//! jobs, Redis makes the replay fast while the first job is still queued, in two phases: a claim
//! (*pending*) before the publish, *accepted* after the confirm. Who finds a pending claim
//! publishes the same job id once more, which settles once; so no crash between the two phases
//! leaves a key that promises a job nobody queued.

mod claims;

use std::sync::Arc;

use axum::http::HeaderMap;
use firstcome_shared::{
    ids::UserId,
    job::{Idempotency, JobId, JobKind},
};
use redis::AsyncTypedCommands;
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use crate::{
    cache::Cache,
    job,
    problem::{Code, Problem},
};
use claims::{Claimed, Claims};

const HEADER: &str = "idempotency-key";

/// The key of a request, if it has one.
///
/// # Errors
/// 400 if it is not 1..=255 visible ASCII characters, or sent twice.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let visible = value.as_bytes().iter().all(u8::is_ascii_graphic);
    if !visible || !(1..=255).contains(&value.len()) || values.next().is_some() {
        return Err(Problem::invalid(
            "Idempotency-Key",
            "must be one header of 1 to 255 visible ASCII characters",
        ));
    }
    Ok(value.to_str().ok().map(str::to_owned))
}

/// A digest of what was asked for.
#[must_use]
pub fn fingerprint(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// A keyed request for a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    user_id: UserId,
    kind: &'static str,
    idempotency: Idempotency,
}

/// What is known of a key.
#[derive(Debug)]
pub enum Known {
    /// Nothing: this job is the first.
    Unused,
    /// The job may be queued or not; publishing it again is safe.
    Pending(JobId),
    /// The job is queued or settled.
    Accepted(JobId),
}

/// Looks keys up and remembers them.
#[derive(Debug)]
pub struct Keys {
    cache: Cache,
    claims: Claims,
    namespace: String,
}

impl Claim {
    /// The claim of this request.
    #[must_use]
    pub fn new(user_id: UserId, kind: JobKind, key: String, asked_for: &[u8]) -> Self {
        let kind = kind.as_str();
        let fingerprint = fingerprint(&[kind.as_bytes(), asked_for]);
        Self { user_id, kind, idempotency: Idempotency { key, fingerprint } }
    }

    /// What travels with the job.
    #[must_use]
    pub fn idempotency(&self) -> &Idempotency {
        &self.idempotency
    }
}

impl Keys {
    /// Keys of this namespace.
    #[must_use]
    pub fn new(pool: &PgPool, cache: Cache, namespace: &str, jobs: Arc<job::Board>) -> Self {
        let claims = Claims::start(cache.clone(), pool, jobs);
        Self { claims, cache, namespace: namespace.to_owned() }
    }

    /// Claims the key for `candidate`, or tells whose it is. Where neither Redis nor PostgreSQL can tell,
    /// the worker will decide.
    ///
    /// # Errors
    /// 422 if it belongs to another request.
    pub async fn claim(&self, claim: &Claim, candidate: JobId) -> Result<Known, Problem> {
        let ours = entry('p', candidate, claim);
        let Claimed { held, settled } = self.claims.claim(claim, self.redis_key(claim), ours).await;
        let held = held.as_deref().and_then(parse_entry);
        let (known, fingerprint) = match (held, settled) {
            (Some(('a', id, fingerprint)), _) => (Known::Accepted(id), fingerprint),
            (_, Some((id, fingerprint))) => (Known::Accepted(id), fingerprint),
            (Some((_, id, fingerprint)), None) => (Known::Pending(id), fingerprint),
            (None, None) => return Ok(Known::Unused),
        };
        if fingerprint != claim.idempotency.fingerprint {
            self.release(claim, candidate).await;
            return Err(Problem::new(Code::IdempotencyKeyReused));
        }
        if let Known::Accepted(id) = known {
            self.accepted(claim, id);
        }
        Ok(known)
    }

    /// Notes that the job is in its line.
    pub fn accepted(&self, claim: &Claim, id: JobId) {
        self.claims.accepted(id, self.redis_key(claim), entry('a', id, claim));
    }

    /// Gives the key back: the request was answered before acceptance.
    pub async fn release(&self, claim: &Claim, candidate: JobId) {
        let (key, ours) = (self.redis_key(claim), entry('p', candidate, claim));
        // Only our own claim. A claim that changes hands between the two commands is lost to
        // Redis, not to PostgreSQL.
        let release = self.cache.ask(async |mut redis| {
            if redis.get(&key).await?.as_ref() == Some(&ours) {
                redis.del(&key).await?;
            }
            Ok(())
        });
        release.await;
    }

    fn redis_key(&self, claim: &Claim) -> String {
        format!(
            "{}:idempotency:{}:{}:{}",
            self.namespace, claim.user_id, claim.kind, claim.idempotency.key
        )
    }
}

fn entry(state: char, id: JobId, claim: &Claim) -> String {
    format!("{state}:{id}:{}", claim.idempotency.fingerprint)
}

fn parse_entry(value: &str) -> Option<(char, JobId, String)> {
    let mut parts = value.splitn(3, ':');
    let state = parts.next()?.chars().next()?;
    let id = parts.next()?.parse::<uuid::Uuid>().ok()?;
    Some((state, JobId::from(id), parts.next()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn keys_are_visible_ascii() {
        let key_of = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
            }
            key(&headers).map_err(|_| ())
        };
        assert_eq!(key_of(&[]), Ok(None));
        assert_eq!(key_of(&[b"!az~"]), Ok(Some("!az~".to_owned())));
        assert_eq!(key_of(&[&[b'k'; 255]]).map(|key| key.map(|key| key.len())), Ok(Some(255)));
        for bad in [&b""[..], b"a b", b"caf\xc3\xa9", &[b'k'; 256]] {
            assert_eq!(key_of(&[bad]), Err(()));
        }
        assert_eq!(key_of(&[b"a", b"b"]), Err(()));
    }

    #[test]
    fn fingerprints_tell_parts_apart() {
        assert_ne!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"a", b"bc"]));
        assert_eq!(fingerprint(&[b"ab"]).len(), 32);
    }
}
