//! The keys that sign tokens: a secret, or public ones from a file or a set (JWKS, RFC 7517).

use std::{collections::HashSet, path::Path};

use anyhow::Context;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Validation,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use crate::config::SecretArgs;

/// A key, the id that a set gives it, and what it may sign.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) key: DecodingKey,
    pub(super) validation: Validation,
}

/// What a token must say besides who its caller is.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    issuer: Option<String>,
    audience: Vec<String>,
    expires: bool,
}

impl Terms {
    pub(super) fn new(secrets: &SecretArgs) -> Self {
        Self {
            issuer: secrets.jwt_issuer.clone(),
            audience: secrets.jwt_audience.clone(),
            expires: secrets.jwt_require_exp,
        }
    }

    fn validation(&self, algorithms: Vec<Algorithm>) -> Validation {
        let mut validation = Validation::new(Algorithm::HS256);
        // Only what the key is made for: a public key must never pass for an HMAC secret.
        validation.algorithms = algorithms;
        validation.validate_nbf = true;
        // An expiry is honoured where there is one, but issuers may leave it out.
        let mut required = HashSet::new();
        if self.expires {
            required.insert("exp".to_owned());
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.insert("iss".to_owned());
        }
        validation.validate_aud = !self.audience.is_empty();
        if validation.validate_aud {
            validation.set_audience(&self.audience);
            required.insert("aud".to_owned());
        }
        validation.required_spec_claims = required;
        validation
    }

    fn key(&self, id: Option<String>, key: DecodingKey, algorithms: Vec<Algorithm>) -> Key {
        Key { id, key, validation: self.validation(algorithms) }
    }

    /// A secret that issuer and API share.
    pub(super) fn secret(&self, secret: &str) -> Key {
        self.key(None, DecodingKey::from_secret(secret.as_bytes()), vec![Algorithm::HS256])
    }

    /// The keys of a file: a set, or one in PEM.
    ///
    /// # Errors
    /// With a hint.
    pub(super) fn file(&self, path: &Path) -> anyhow::Result<Vec<Key>> {
        let file = std::fs::read(path)
            .with_context(|| format!("JWT_PUBLIC_KEYS: cannot read {}", path.display()))?;
        let keys = if file.trim_ascii_start().starts_with(b"{") {
            self.set(&file)
        } else {
            pem(&file).map(|(key, algorithms)| vec![self.key(None, key, algorithms)])
        };
        let keys = keys.with_context(|| {
            format!("JWT_PUBLIC_KEYS: {} is neither a JWKS nor a PEM public key", path.display())
        })?;
        anyhow::ensure!(
            !keys.iter().any(|key| is_weak(&key.key)),
            "JWT_PUBLIC_KEYS: {} holds an RSA key of less than 2048 bits, which can be guessed",
            path.display()
        );
        anyhow::ensure!(
            !keys.is_empty(),
            "JWT_PUBLIC_KEYS: {} holds no signing key",
            path.display()
        );
        Ok(keys)
    }

    /// The keys of a set that can verify a token and cannot be guessed.
    ///
    /// # Errors
    /// It is no set.
    pub(super) fn strong(&self, set: &[u8]) -> anyhow::Result<Vec<Key>> {
        let mut keys = self.set(set)?;
        keys.retain(|key| !is_weak(&key.key));
        Ok(keys)
    }

    /// The keys of a set that can verify a token. Others (for encryption, symmetric, of kinds that are not known)
    /// are somebody else's business.
    fn set(&self, set: &[u8]) -> anyhow::Result<Vec<Key>> {
        #[derive(Deserialize)]
        struct Set {
            // One by one: one that cannot be read is no reason to do without the others.
            keys: Vec<Value>,
        }
        let Set { keys } = serde_json::from_slice(set)?;
        let usable = keys.into_iter().filter_map(|key| {
            let jwk: Jwk = serde_json::from_value(key).ok()?;
            let algorithms = algorithms(&jwk)?;
            let key = DecodingKey::from_jwk(&jwk).ok()?;
            Some(self.key(jwk.common.key_id, key, algorithms))
        });
        Ok(usable.collect())
    }
}

/// What a key of a set may sign: what it says itself, else what its type can.
fn algorithms(jwk: &Jwk) -> Option<Vec<Algorithm>> {
    if jwk.common.public_key_use == Some(PublicKeyUse::Encryption) {
        return None;
    }
    let of_type = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => vec![
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            EllipticCurve::P521 | EllipticCurve::Ed25519 | _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => vec![Algorithm::EdDSA],
        // A secret in a set that is public is none.
        AlgorithmParameters::OctetKey(_) | AlgorithmParameters::Other(_) | _ => return None,
    };
    let Some(told) = jwk.common.key_algorithm else { return Some(of_type) };
    let told: Algorithm = told.to_string().parse().ok()?;
    of_type.contains(&told).then(|| vec![told])
}

/// Whether it is an RSA key of less than 2,048 bits: its modulus alone would take 256 bytes.
fn is_weak(key: &DecodingKey) -> bool {
    const STRONG: usize = 256;
    let length = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => n.len(),
        DecodingKeyKind::SecretOrDer(der) => der.len(),
    };
    key.family() == AlgorithmFamily::Rsa && length < STRONG
}

fn pem(file: &[u8]) -> anyhow::Result<(DecodingKey, Vec<Algorithm>)> {
    anyhow::ensure!(
        !file.windows(PRIVATE.len()).any(|text| text == PRIVATE),
        "it is a private key, which is not for us to know: `openssl pkey -pubout` makes the public one"
    );
    if let Ok(key) = DecodingKey::from_rsa_pem(file) {
        return Ok((key, vec![Algorithm::RS256, Algorithm::RS384, Algorithm::RS512]));
    }
    if let Ok(key) = DecodingKey::from_ec_pem(file) {
        // A point is two coordinates and a byte that says so.
        let algorithm = match key.try_get_as_bytes()?.len() {
            65 => Algorithm::ES256,
            97 => Algorithm::ES384,
            _ => anyhow::bail!("of elliptic curves, P-256 and P-384 are supported"),
        };
        return Ok((key, vec![algorithm]));
    }
    Ok((DecodingKey::from_ed_pem(file)?, vec![Algorithm::EdDSA]))
}

const PRIVATE: &[u8] = b"PRIVATE KEY-----";
