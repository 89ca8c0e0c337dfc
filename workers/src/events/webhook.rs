//! Who a delivery is from: [Standard Webhooks](https://www.standardwebhooks.com) 1.0 signatures, and a bearer token.

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The header that names the message; the same in every attempt.
pub const ID: &str = "webhook-id";
/// The header that tells when it was sent, in Unix seconds.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// The header of the signatures, one per secret, with spaces in between.
pub const SIGNATURE: &str = "webhook-signature";

/// How old or how far ahead a message may be, in seconds.
const TOLERANCE: u64 = 300;
const SECRET: &str = "whsec_";
const VERSION: &str = "v1,";

/// What the sender and the receiver share. Nothing of it is shown.
#[derive(Clone, Default)]
pub struct Credentials {
    secrets: Vec<Hmac<Sha256>>,
    token: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("secrets", &self.secrets.len())
            .field("token", &self.token.is_some())
            .finish()
    }
}

impl Credentials {
    /// Reads the settings: secrets with spaces in between, each `whsec_` and base64; and the token.
    ///
    /// # Errors
    /// With a hint that does not tell the secret.
    pub fn new(secrets: Option<&str>, token: Option<&str>) -> anyhow::Result<Self> {
        let secrets = secrets.map(|secrets| {
            let secrets: Result<Vec<_>, _> = secrets.split_whitespace().map(key).collect();
            let secrets = secrets.context("DATA_PLATFORM_SIGNING_SECRET")?;
            anyhow::ensure!(!secrets.is_empty(), "DATA_PLATFORM_SIGNING_SECRET is empty");
            Ok(secrets)
        });
        let is_token =
            |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        anyhow::ensure!(
            token.is_none_or(is_token),
            "DATA_PLATFORM_TOKEN: only visible ASCII characters, and at least one"
        );
        Ok(Self {
            secrets: secrets.transpose()?.unwrap_or_default(),
            token: token.map(str::to_owned),
        })
    }

    /// The bearer token, if there is one.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The value of [`SIGNATURE`], if there is a secret.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> Option<String> {
        let signed = self.secrets.iter().map(|secret| {
            let digest = digest(secret, id, timestamp, body).finalize().into_bytes();
            format!("{VERSION}{}", BASE64_STANDARD.encode(digest))
        });
        let signed: Vec<String> = signed.collect();
        (!signed.is_empty()).then(|| signed.join(" "))
    }

    /// Whether a message is from who has one of the secrets, and of these minutes; without a secret, always.
    #[must_use]
    pub fn verify(&self, message: &Signed<'_>, now: u64) -> bool {
        let Signed { id, timestamp, signature, body } = *message;
        let is_signed = |secret: &Hmac<Sha256>| {
            let signatures = signature.split(' ').filter_map(|one| one.strip_prefix(VERSION));
            let mut signatures = signatures.filter_map(|one| BASE64_STANDARD.decode(one).ok());
            signatures.any(|one| digest(secret, id, timestamp, body).verify_slice(&one).is_ok())
        };
        self.secrets.is_empty()
            || (now.abs_diff(timestamp) <= TOLERANCE && self.secrets.iter().any(is_signed))
    }
}

/// A message as it came, with its headers.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// [`ID`].
    pub id: &'a str,
    /// [`TIMESTAMP`].
    pub timestamp: u64,
    /// [`SIGNATURE`].
    pub signature: &'a str,
    /// The body, byte by byte.
    pub body: &'a [u8],
}

fn key(secret: &str) -> anyhow::Result<Hmac<Sha256>> {
    let key = secret.strip_prefix(SECRET).and_then(|key| BASE64_STANDARD.decode(key).ok());
    let key = key.filter(|key| (24..=64).contains(&key.len()));
    let key = key.context("each secret is whsec_ and the base64 of 24 to 64 bytes")?;
    Hmac::new_from_slice(&key).context("a key of a wrong length")
}

fn digest(secret: &Hmac<Sha256>, id: &str, timestamp: u64, body: &[u8]) -> Hmac<Sha256> {
    let mut digest = secret.clone();
    digest.update(format!("{id}.{timestamp}.").as_bytes());
    digest.update(body);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SECOND: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: u64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    /// Of the reference implementations' tests.
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn credentials(secrets: &str) -> Credentials {
        Credentials::new(Some(secrets), None).unwrap()
    }

    fn message(signature: &str) -> Signed<'_> {
        Signed { id: ID, timestamp: TIMESTAMP, signature, body: BODY }
    }

    #[test]
    fn it_signs_as_the_reference_implementations_do() {
        assert_eq!(credentials(FIRST).sign(ID, TIMESTAMP, BODY).unwrap(), SIGNATURE);
        let both = credentials(&format!("{SECOND} {FIRST}")).sign(ID, TIMESTAMP, BODY).unwrap();
        assert!(both.ends_with(&format!(" {SIGNATURE}")) && both.starts_with("v1,"), "{both}");
        assert_eq!(Credentials::default().sign(ID, TIMESTAMP, BODY), None);
    }

    #[test]
    fn what_is_not_signed_or_of_another_time_is_not_verified() {
        let known = credentials(FIRST);
        assert!(known.verify(&message(SIGNATURE), TIMESTAMP));
        // While the secret is rotated one side has two.
        let both = credentials(&format!("{SECOND} {FIRST}"));
        assert!(both.verify(&message(SIGNATURE), TIMESTAMP));
        assert!(known.verify(&message(&both.sign(ID, TIMESTAMP, BODY).unwrap()), TIMESTAMP));
        assert!(!credentials(SECOND).verify(&message(SIGNATURE), TIMESTAMP));
        for now in [TIMESTAMP - TOLERANCE, TIMESTAMP + TOLERANCE] {
            assert!(known.verify(&message(SIGNATURE), now));
        }
        for now in [TIMESTAMP - TOLERANCE - 1, TIMESTAMP + TOLERANCE + 1] {
            assert!(!known.verify(&message(SIGNATURE), now));
        }
        let true_one = message(SIGNATURE);
        let tampered = [
            Signed { id: "msg_other", ..true_one },
            Signed { timestamp: TIMESTAMP + 1, ..true_one },
            Signed { body: br#"{"test": 2432232315}"#, ..true_one },
            Signed { signature: "", ..true_one },
            Signed { signature: "v1,", ..true_one },
            Signed { signature: SIGNATURE.trim_start_matches("v1,"), ..true_one },
        ];
        for message in tampered {
            assert!(!known.verify(&message, TIMESTAMP), "{message:?}");
        }
    }

    #[test]
    fn wrong_settings_are_refused_and_never_shown() {
        for wrong in
            ["", " ", "c2VjcmV0", "whsec_c2VjcmV0", "whsec_???", &format!("{FIRST},{FIRST}")]
        {
            let error = Credentials::new(Some(wrong), None).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains("DATA_PLATFORM_SIGNING_SECRET"), "{error}");
            assert!(!error.contains("c2VjcmV0") && !error.contains("MfKQ"), "{error}");
        }
        for wrong in ["", "a b", "é"] {
            assert!(Credentials::new(None, Some(wrong)).is_err());
        }
        let shown = format!("{:?}", Credentials::new(Some(FIRST), Some("token-1")).unwrap());
        assert!(!shown.contains("token-1") && !shown.contains("MfKQ"), "{shown}");
    }
}
