//! Ids and names that come from outside: of jobs, in paths, in tokens, in headers, in Redis, of lines.

use std::sync::OnceLock;

use firstcome_api::{
    http::{auth::user_id, path::PathId},
    known::job_ids::Signer,
};
use firstcome_contract::{
    ids::{MAX_ID, UserId},
    job::{JobId, held_key, id::MAC_BITS},
    line::LineName,
    request_id::RequestId,
    trace::{TraceParent, TraceState},
};
use uuid::{Uuid, Variant};

use super::number_of;

/// Reads one text as each of them.
///
/// # Panics
/// Where something does not hold.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(id) = text.parse::<Uuid>() {
        check_job_id(JobId::from(id), data);
    }
    if let Some(PathId(id)) = PathId::parse(text) {
        let digits = text.trim_start_matches('0');
        let is_it = id.to_string() == if digits.is_empty() { "0" } else { digits };
        assert!(is_it || id > MAX_ID, "{text} reads as {id}");
    }
    if let Some(user) = user_id(text) {
        assert_eq!(user.to_string(), text, "a subject is written in one way");
        assert!((1..=MAX_ID).contains(&user.get()));
        assert_eq!(PathId::parse(text).map(|id| id.0), Some(user.get()));
    }
    check_headers(text);
    if let Some((state, job, fingerprint)) = held_key::parse(text) {
        let entry = held_key::entry(state, job, fingerprint);
        assert_eq!(held_key::parse(&entry), Some((state, job, fingerprint)));
    }
    if let Some(user) = held_key::user_of("shop", text) {
        let (_, rest) = text.split_at(held_key::prefix("shop").len());
        let (kind, key) = rest
            .split_once(':')
            .expect("a user, then the rest")
            .1
            .split_once(':')
            .unwrap_or_default();
        let name = held_key::name("shop", user, kind, key);
        assert_eq!(held_key::user_of("shop", &name), Some(user));
    }
    if let Ok(name) = text.parse::<LineName>() {
        assert_eq!(name.to_string().parse(), Ok(name));
    }
}

/// It is written in one form, is made of its parts, and is believed for whom it was made only.
fn check_job_id(id: JobId, data: &[u8]) {
    let text = id.to_string();
    assert_eq!(text.parse::<Uuid>().map(JobId::from), Ok(id));
    assert!(text.len() == 36 && !text.bytes().any(|byte| byte.is_ascii_uppercase()), "{text}");
    let json = serde_json::to_string(&id).expect("a text");
    assert_eq!(json, format!("\"{text}\""));
    assert_eq!(serde_json::from_str::<JobId>(&json).ok(), Some(id));
    assert!(!id.submitted_at().to_rfc3339().starts_with('+'), "a time that can be told");
    assert_eq!(id.with_mac(id.mac()), id);
    assert!(id.mac() < 1 << MAC_BITS);
    let bits = id.get().as_u128();
    if let Some(kind) = id.kind()
        && (id.get().get_version_num(), id.get().get_variant()) == (7, Variant::RFC4122)
    {
        let sequence = (bits >> 64 & 0xfff) << 8 | bits >> 40 & 0xff;
        let (millis, sequence) = ((bits >> 80) as u64, sequence as u32);
        assert_eq!(JobId::compose(millis, kind, id.place(), sequence, id.mac()), id);
    }

    static SIGNER: OnceLock<Signer> = OnceLock::new();
    let signer = SIGNER.get_or_init(|| Signer::new(&["a key".to_owned(), "an old key".to_owned()]));
    let number = number_of(data);
    let user = UserId::new((number >> 16) as i64);
    let signed = signer.sign(user, id);
    assert_eq!(signed.without_mac(), id.without_mac());
    assert!(signer.issued(signed, user));
    // A wrong one is right once in 10¹² tries.
    let forged = JobId::from(Uuid::from_u128(signed.get().as_u128() ^ 1 << (number % 128)));
    assert!(!signer.issued(forged, user), "{forged} was not made for {user}");
    assert!(!signer.issued(signed, UserId::new(user.get() ^ 1)), "nor for somebody else");
}

/// What headers tell travels with a job, and is the same to everybody who reads it again.
fn check_headers(text: &str) {
    if let Some(parent) = TraceParent::parse(text) {
        let told = parent.to_string();
        assert_eq!(TraceParent::parse(&told), Some(parent));
        // All but the version, flags without a meaning and what later versions add.
        assert_eq!(told[2..53], text[2..53]);
    }
    if let Some(state) = TraceState::parse(text) {
        assert_eq!(TraceState::parse(state.as_str()).as_ref(), Some(&state));
        assert!(text.contains(state.as_str()));
    }
    if let Some(name) = RequestId::parse(text) {
        assert_eq!(name.as_str(), text);
        assert!(text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}
