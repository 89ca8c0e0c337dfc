//! `Idempotency-Key`: the same key with the same request gets the same answer.
//!
//! The guarantee of one effect is PostgreSQL's: a unique key in the transaction of the effect. For
//! jobs, Redis makes the replay fast while the first job is still queued, in two phases: a claim
//! (*pending*) before the publish, *accepted* after the confirm. Who finds a pending claim
//! publishes the same job id once more, which settles once; so no crash between the two phases
//! leaves a key that promises a job nobody queued.

mod claims;

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::http::HeaderMap;
use chrono::TimeDelta;
use firstcome_contract::{
    ids::UserId,
    job::{Envelope, Idempotency, JobId, JobKind},
};
use firstcome_process::database::Pool;
use sha2::{Digest, Sha256};

use super::{cache::Cache, lost::Lost, outcomes::Outcomes};
use crate::{
    http::problem::Problem,
    publish::{Enqueuer, Owner, Refusal},
};
use claims::Claims;

const HEADER: &str = "idempotency-key";
/// Of a digest, enough to tell requests apart.
const FINGERPRINT_BYTES: usize = 16;

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
    let mut text = String::with_capacity(2 * FINGERPRINT_BYTES);
    for byte in digest.finalize().iter().take(FINGERPRINT_BYTES) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A keyed request for a job, and the job that it may become.
#[derive(Debug)]
pub struct Claim {
    job: JobId,
    user_id: UserId,
    kind: &'static str,
    idempotency: Idempotency,
    /// The job is in its line.
    is_queued: AtomicBool,
}

/// Looks keys up and remembers them.
#[derive(Debug)]
pub struct Keys {
    claims: Claims,
    enqueuer: Enqueuer,
}

impl Claim {
    /// The claim of this request for a key, for this job.
    #[must_use]
    pub fn new(
        job: JobId,
        user_id: UserId,
        kind: JobKind,
        key: String,
        asked_for: &[u8],
    ) -> Arc<Self> {
        let kind = kind.as_str();
        let fingerprint = fingerprint(&[kind.as_bytes(), asked_for]);
        let idempotency = Idempotency { key, fingerprint };
        Arc::new(Self { job, user_id, kind, idempotency, is_queued: AtomicBool::new(false) })
    }

    /// What travels with the job.
    #[must_use]
    pub fn idempotency(&self) -> &Idempotency {
        &self.idempotency
    }

    /// The same for another job, which is in its line.
    fn of(&self, job: JobId) -> Arc<Self> {
        let idempotency = self.idempotency.clone();
        Arc::new(Self { job, idempotency, is_queued: AtomicBool::new(true), ..*self })
    }
}

impl Keys {
    /// Keys of this namespace, of jobs that can be polled for so long.
    #[must_use]
    pub fn new(
        pool: &Pool,
        cache: Cache,
        namespace: &str,
        jobs: Arc<Outcomes>,
        lost: Arc<Lost>,
        enqueuer: Enqueuer,
        retention: TimeDelta,
    ) -> Self {
        let claims = Claims::start(cache, namespace, pool, jobs, lost, enqueuer.clone(), retention);
        Self { claims, enqueuer }
    }

    /// Puts the claim's job into its line, unless its key is another job's. Where neither Redis nor
    /// PostgreSQL can tell, the worker will decide.
    ///
    /// # Errors
    /// [`Refusal`]
    pub async fn submit(&self, claim: &Arc<Claim>, envelope: &Envelope) -> Result<(), Refusal> {
        let (submission, answered) = match self.enqueuer.submission(envelope, true) {
            Ok(submission) => submission,
            // A repeat needs no line.
            Err(refusal) => {
                let owner = self.owner(claim).await;
                return Err(owner.map_or(refusal, Refusal::KeyTaken));
            }
        };
        self.claims.submit(Arc::clone(claim), submission);
        let answer = self.enqueuer.answer(answered, claims::TIMEOUT).await;
        match answer {
            Ok(()) => claim.is_queued.store(true, Ordering::Relaxed),
            Err(Refusal::KeyTaken(owner)) if owner.is_same => {}
            // It was answered before acceptance, so the next one may have it.
            Err(_) => self.claims.release(claim).await,
        }
        answer
    }

    /// The job that has the key of this claim, as far as Redis and PostgreSQL can tell.
    pub async fn owner(&self, claim: &Arc<Claim>) -> Option<Owner> {
        self.claims.owner(Arc::clone(claim)).await
    }

    /// Notes that this job, which has the claim's key, is in its line.
    pub fn queued(&self, claim: &Claim, job: JobId) {
        self.claims.queued(claim.of(job));
    }
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
        // Running systems hold them: they never change.
        let issue = fingerprint(&[b"issue-coupon", &17i64.to_be_bytes()]);
        assert_eq!(issue, "4eba8493dee1101e43c36cd1492843fe");
        let charge = fingerprint(&[b"charge", &50_000i64.to_be_bytes()]);
        assert_eq!(charge, "9dad94be32ccd7373fe941b724b794b6");
    }
}
