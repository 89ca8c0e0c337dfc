//! `Idempotency-Key`: the same key with the same request gets the same answer.
//!
//! The guarantee of one effect is PostgreSQL's: a unique key in the transaction of the effect. For
//! jobs, Redis makes the replay fast while the first job is still queued, in two phases: a claim
//! (*pending*) before the publish, *accepted* after the confirm. Who finds a pending claim
//! publishes the same job id once more, which settles once; so no crash between the two phases
//! leaves a key that promises a job nobody queued.

mod claims;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use chrono::TimeDelta;
use firstcome_contract::{
    ids::UserId,
    job::{Envelope, Idempotency, JobId, JobKind},
    line::Line,
};
use firstcome_process::database::Pool;
use sha2::{Digest, Sha256};

use super::{lost::Lost, outcomes::Outcomes};
use crate::{
    cache::Cache,
    digest,
    publish::{Enqueuer, Owner, Refusal},
};
use claims::Claims;

/// Digests what was asked for, in 32 hexadecimal digits; the lengths of the parts count, too.
#[must_use]
pub fn fingerprint(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        digest.update(part);
    }
    digest::text(digest)
}

/// A keyed request for a job, and the job that it may become.
#[derive(Debug)]
pub struct Claim {
    job: JobId,
    user_id: UserId,
    kind: &'static str,
    idempotency: Idempotency,
    /// Set once the broker has confirmed the job.
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

    /// The key and the fingerprint, which travel with the job.
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
    pub async fn submit(
        &self,
        claim: &Arc<Claim>,
        envelope: &Envelope,
        line: Option<Line>,
    ) -> Result<(), Refusal> {
        let (submission, answered) = match self.enqueuer.submission(envelope, line, true) {
            Ok(submission) => submission,
            // A repeat needs no line.
            Err(refusal) => {
                let owner = self.owner(claim).await;
                return Err(owner.map_or(refusal, Refusal::KeyTaken));
            }
        };
        self.claims.submit(Arc::clone(claim), submission);
        let answer = self.enqueuer.answer(answered, claims::LOOK_UP_TIMEOUT).await;
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
