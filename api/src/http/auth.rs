//! Who calls: `Authorization: Bearer <JWT>`.

use std::sync::Arc;

use anyhow::Context;
use axum::{
    extract::{FromRef, FromRequestParts},
    http::{header, request::Parts},
};
use chrono::Utc;
use firstcome_contract::ids::{MAX_ID, UserId};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey, Header, Validation,
    jwk::JwkSet,
};
use serde::{Deserialize, Serialize};

use super::{
    limit::Limiter,
    problem::{Code, Problem},
};
use crate::config::{SecretArgs, TokenArgs};

/// A signed-in caller.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The `sub` of the token.
    pub user_id: UserId,
    admin: bool,
}

/// A caller with the role `admin`.
#[derive(Debug, Clone, Copy)]
pub struct Admin(pub Caller);

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: Subject,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<String>>,
    /// Checked by the library, which also knows fractions; here only to be written.
    #[serde(skip_deserializing)]
    exp: i64,
}

/// RFC 7519 says string; issuers that use the database's id as it is are understood too.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Subject {
    Text(String),
    Number(i64),
}

const ADMIN: &str = "admin";

/// Checks tokens; cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    keys: Arc<[Key]>,
}

/// A key, the id that a JWKS gives it, and what it may sign.
type Key = (Option<String>, DecodingKey, Validation);

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl Verifier {
    /// Reads the keys that the configuration names.
    ///
    /// # Errors
    /// With a hint, if there is none or it cannot be read.
    pub fn new(secrets: &SecretArgs) -> anyhow::Result<Self> {
        let Some(path) = &secrets.jwt_public_keys else {
            let secret = DecodingKey::from_secret(secrets.jwt_secret()?.as_bytes());
            let key = (None, secret, validation(vec![Algorithm::HS256]));
            return Ok(Self { keys: Arc::new([key]) });
        };
        let file = std::fs::read(path)
            .with_context(|| format!("JWT_PUBLIC_KEYS: cannot read {}", path.display()))?;
        let keys = if file.trim_ascii_start().starts_with(b"{") {
            jwks(&file)
        } else {
            pem(&file).map(|(key, algorithms)| vec![(None, key, validation(algorithms))])
        };
        let keys = keys.with_context(|| {
            format!("JWT_PUBLIC_KEYS: {} is neither a JWKS nor a PEM public key", path.display())
        })?;
        anyhow::ensure!(
            !keys.iter().any(|(_, key, _)| is_weak(key)),
            "JWT_PUBLIC_KEYS: {} holds an RSA key of less than 2048 bits, which can be guessed",
            path.display()
        );
        anyhow::ensure!(
            !keys.is_empty(),
            "JWT_PUBLIC_KEYS: {} holds no signing key",
            path.display()
        );
        Ok(Self { keys: keys.into() })
    }

    fn caller(&self, token: &str) -> Option<Caller> {
        // Only a set of keys has names for them.
        let kid = match &*self.keys {
            [(None, ..)] => None,
            _ => jsonwebtoken::decode_header(token).ok()?.kid,
        };
        let claims = self
            .keys
            .iter()
            .filter(|(id, ..)| id.is_none() || kid.is_none() || *id == kid)
            .find_map(|(_, key, validation)| {
                jsonwebtoken::decode::<Claims>(token, key, validation).ok()
            })?
            .claims;
        let user_id = match claims.sub {
            Subject::Text(text) => text.parse().ok()?,
            Subject::Number(number) => number,
        };
        let admin = claims.role.as_deref() == Some(ADMIN)
            || claims.roles.iter().flatten().any(|role| role == ADMIN);
        (1..=MAX_ID).contains(&user_id).then(|| Caller { user_id: UserId::new(user_id), admin })
    }
}

fn validation(algorithms: Vec<Algorithm>) -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    // Only what the key is made for: a public key must never pass for an HMAC secret.
    validation.algorithms = algorithms;
    // An expiry is honoured where there is one (checked by default), but issuers may leave it out.
    validation.required_spec_claims.clear();
    validation.validate_nbf = true;
    validation.validate_aud = false;
    validation
}

/// The keys of a set that can verify a token. Others (for encryption, symmetric, without `alg`) are
/// somebody else's business.
fn jwks(file: &[u8]) -> anyhow::Result<Vec<Key>> {
    let set: JwkSet = serde_json::from_slice(file)?;
    let usable = set.keys.iter().filter_map(|jwk| {
        let algorithm: Algorithm = jwk.common.key_algorithm?.to_string().parse().ok()?;
        let symmetric = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512].contains(&algorithm);
        let key = DecodingKey::from_jwk(jwk).ok().filter(|_| !symmetric)?;
        Some((jwk.common.key_id.clone(), key, validation(vec![algorithm])))
    });
    Ok(usable.collect())
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

/// A token as [`Verifier`] accepts it, for development and tests.
///
/// # Errors
/// With a hint, if there is no secret.
pub fn token(args: &TokenArgs) -> anyhow::Result<String> {
    let claims = Claims {
        sub: Subject::Text(args.user.to_string()),
        role: args.admin.then(|| ADMIN.to_owned()),
        roles: None,
        exp: Utc::now().timestamp() + i64::from(args.expires_in),
    };
    let key = EncodingKey::from_secret(args.secrets.jwt_secret()?.as_bytes());
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)?)
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Verifier: FromRef<S>,
    Limiter: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
        });
        let token = token.ok_or_else(|| {
            Problem::with_detail(Code::Unauthenticated, "Send Authorization: Bearer <token>.")
        })?;
        let caller = Verifier::from_ref(state).caller(token).ok_or_else(|| {
            Problem::with_detail(
                Code::Unauthenticated,
                "The token is malformed, expired or not signed by a key we trust.",
            )
        })?;
        Limiter::from_ref(state).admit(caller.user_id)?;
        Ok(caller)
    }
}

impl<S> FromRequestParts<S> for Admin
where
    S: Send + Sync,
    Verifier: FromRef<S>,
    Limiter: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        if caller.admin {
            Ok(Self(caller))
        } else {
            Err(Problem::with_detail(Code::Forbidden, "The role admin is needed."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    // Made for these tests; protects nothing.
    const PRIVATE_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJOjxJ40jAmzHaMvfRHmPyMJriH12GsaiT2uC2/cd36u\n-----END PRIVATE KEY-----\n";
    const PUBLIC_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEA2idLhShGgVAL0/hlk6+c4g/B4hAVsb3KY9L1hsoF2u4=\n-----END PUBLIC KEY-----\n";
    const PUBLIC_X: &str = "2idLhShGgVAL0_hlk6-c4g_B4hAVsb3KY9L1hsoF2u4";
    const SECRET: &str = "0123456789abcdef";
    const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----\n\
        MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCuDFTLTPMUg0oC0+z9KYV3g5UH\n\
        VyWlJT7d99+92mMRy8+n6yPmgC26mxTA4PxV4WLmvc+hWGHvrrlJndpD1CB6whLG\n\
        32tC8Ebm98eO3w6PDiWy7J2QOrXTFoHlJiBfFM9hBFJQXpyyiFMBRFYPcmaodi8A\n\
        cDG08AM7IEz00D476wIDAQAB\n\
        -----END PUBLIC KEY-----\n";
    const RSA_2048: &str = "-----BEGIN PUBLIC KEY-----\n\
        MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAuu+cynivze0rwGr07BMi\n\
        QiDaPo5e6eTSms08gBRlYGZI+EACesKq3w6vQdlUBM6BpLc7JvOHdtHlEF23Gh4v\n\
        fm1P6zg7rI1Db6It7iYYjG5gusrS3CeENtWdl5HofqlC20BmccJXWs9AFy9lEmZI\n\
        Vi2gvsn1nWd5hlhv2LWQ4aTyu2CXhfWhyRG6UpaGbr0k4ImI3EHwFl5DU7WCiZOB\n\
        f62P6OI/ZlgtvfVjEtxn3+nBLGgVIczlhpxJwe7JiKkUK/n5UlXKAsof3KF4HH2H\n\
        fjT9sG6YXLwuSFF0nrhGAG4LweyAhGlrWqv7kneWdkC2izBgHYpCORlAkAdYX21q\n\
        4QIDAQAB\n\
        -----END PUBLIC KEY-----\n";
    const P384_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDCGyCiA4zK9H0xTNi8j\n\
        xwEuhw5HX1kwgjhx2ctl6L7NP1jd2b5faTYCFb6s5S+tUbGhZANiAATSiQZD8gm1\n\
        2/rypc8bDWoA5Dxk8ZYhYM4mpIB/DO0GedxDSiU4gjxpii8Kx9BsabMdiK1H0kv/\n\
        bJ2EgCTCqXx5rpLtdDldcZ2TXfozgtf85JYLYB0Z7cphn4QH2kt7GQQ=\n\
        -----END PRIVATE KEY-----\n";
    const P384: &str = "-----BEGIN PUBLIC KEY-----\n\
        MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE0okGQ/IJtdv68qXPGw1qAOQ8ZPGWIWDO\n\
        JqSAfwztBnncQ0olOII8aYovCsfQbGmzHYitR9JL/2ydhIAkwql8ea6S7XQ5XXGd\n\
        k136M4LX/OSWC2AdGe3KYZ+EB9pLexkE\n\
        -----END PUBLIC KEY-----\n";
    const P521: &str = "-----BEGIN PUBLIC KEY-----\n\
        MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBNq5/xLI9KE93mfgfVsiJWrDvuszm\n\
        O95Lp0x/zdBY+2M2tCU5rhDtC5lzEgmLBHZFzCaMGtL0spNsDRkQQPYsmaQBDXFB\n\
        tQ/EkW7yR59M1n2VVg5I28nGnl1tLGnjMdmTYPcM6o9ssd3E+S85/99/oBKUqFtd\n\
        aY89JOyYeFjOrWOCy08=\n\
        -----END PUBLIC KEY-----\n";
    const RSA_1024_N: &str = "rgxUy0zzFINKAtPs_SmFd4OVB1clpSU-3fffvdpjEcvPp-sj5oAtupsUwOD8VeFi5r3PoVhh7665SZ3aQ9QgesISxt9rQvBG5vfHjt8Ojw4lsuydkDq10xaB5SYgXxTPYQRSUF6csohTAURWD3JmqHYvAHAxtPADOyBM9NA-O-s";

    fn with_secret() -> Verifier {
        let jwt_secret = Some(SECRET.to_owned());
        Verifier::new(&SecretArgs { dev: false, jwt_secret, jwt_public_keys: None }).unwrap()
    }

    fn with_file(name: &str, content: &str) -> anyhow::Result<Verifier> {
        let path = std::env::temp_dir().join(format!("firstcome-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        let secrets =
            SecretArgs { dev: false, jwt_secret: None, jwt_public_keys: Some(path.clone()) };
        let verifier = Verifier::new(&secrets);
        std::fs::remove_file(path).unwrap();
        verifier
    }

    fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
        signed_as(None, algorithm, key, claims)
    }

    fn signed_as(
        kid: Option<&str>,
        algorithm: Algorithm,
        key: &EncodingKey,
        claims: &Value,
    ) -> String {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, claims, key).unwrap()
    }

    fn with_claims(claims: &Value) -> Option<Caller> {
        with_secret().caller(&signed(
            Algorithm::HS256,
            &EncodingKey::from_secret(SECRET.as_bytes()),
            claims,
        ))
    }

    #[test]
    fn claims_say_who_calls() {
        let user = |claims| with_claims(&claims).map(|caller| (caller.user_id.get(), caller.admin));
        let later = Utc::now().timestamp() + 3600;
        assert_eq!(user(json!({"sub": "7", "exp": later})), Some((7, false)));
        assert_eq!(user(json!({"sub": 7})), Some((7, false)));
        assert_eq!(user(json!({"sub": "7", "role": "admin"})), Some((7, true)));
        assert_eq!(user(json!({"sub": "7", "roles": ["clerk", "admin"]})), Some((7, true)));
        assert_eq!(user(json!({"sub": "7", "role": "clerk", "aud": "anyone"})), Some((7, false)));
        for nobody in [
            json!({}),
            json!({"sub": "Ann"}),
            json!({"sub": 0}),
            json!({"sub": "-7"}),
            json!({"sub": "9007199254740992"}),
            json!({"sub": "7", "exp": later - 7200}),
            json!({"sub": "7", "nbf": later}),
        ] {
            assert_eq!(user(nobody.clone()), None, "{nobody}");
        }
    }

    #[test]
    fn only_the_right_signature_counts() {
        let claims = json!({"sub": "7"});
        let wrong = EncodingKey::from_secret(b"another secret!!");
        assert!(with_secret().caller(&signed(Algorithm::HS256, &wrong, &claims)).is_none());
        let right = EncodingKey::from_secret(SECRET.as_bytes());
        assert!(with_secret().caller(&signed(Algorithm::HS512, &right, &claims)).is_none());
        let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiI3In0.";
        assert!(with_secret().caller(unsigned).is_none());
    }

    #[test]
    fn public_keys_verify_and_never_pass_for_a_secret() {
        let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "k1", "x": PUBLIC_X}]});
        let private = EncodingKey::from_ed_pem(PRIVATE_PEM.as_bytes()).unwrap();
        let claims = json!({"sub": "7"});
        for verifier in
            [with_file("key.pem", PUBLIC_PEM), with_file("jwks.json", &jwks.to_string())]
        {
            let verifier = verifier.unwrap();
            assert!(verifier.caller(&signed(Algorithm::EdDSA, &private, &claims)).is_some());
            let confused = EncodingKey::from_secret(PUBLIC_PEM.as_bytes());
            assert!(verifier.caller(&signed(Algorithm::HS256, &confused, &claims)).is_none());
        }
        assert!(with_file("bad.pem", "no key").is_err());
        assert!(with_file("empty.json", r#"{"keys": []}"#).is_err());
    }

    #[test]
    fn weak_private_and_unknown_keys_are_refused_with_a_hint() {
        let refused = |name: &str, content: &str| {
            format!("{:#}", with_file(name, content).map(|_| ()).unwrap_err())
        };
        assert!(with_file("rsa-2048.pem", RSA_2048).is_ok());
        assert!(refused("rsa-1024.pem", RSA_1024).contains("2048 bits"));
        let weak = json!({"kty": "RSA", "alg": "RS256", "n": RSA_1024_N, "e": "AQAB"});
        let jwks = json!({ "keys": [weak] }).to_string();
        assert!(refused("rsa-1024.json", &jwks).contains("2048 bits"));
        assert!(refused("private.pem", PRIVATE_PEM).contains("private"));
        assert!(refused("p-521.pem", P521).contains("P-384"));
        let verifier = with_file("p-384.pem", P384).unwrap();
        let key = EncodingKey::from_ec_pem(P384_PRIVATE.as_bytes()).unwrap();
        let token = signed(Algorithm::ES384, &key, &json!({"sub": "7"}));
        assert!(verifier.caller(&token).is_some(), "a key that is taken is of use");
    }

    #[test]
    fn names_of_keys_count_where_keys_have_names() {
        let key = |kid: Option<&str>| json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": kid, "x": PUBLIC_X});
        let private = EncodingKey::from_ed_pem(PRIVATE_PEM.as_bytes()).unwrap();
        let claims = json!({"sub": "7"});
        let token = |kid| signed_as(kid, Algorithm::EdDSA, &private, &claims);
        for (name, keys, expected) in [
            ("one-named.json", json!([key(Some("k1"))]), [true, true, false]),
            ("one-unnamed.json", json!([key(None)]), [true, true, true]),
            ("both.json", json!([key(Some("k9")), key(None)]), [true, true, true]),
            ("others.json", json!([key(Some("k8")), key(Some("k9"))]), [true, false, false]),
        ] {
            let verifier = with_file(name, &json!({"keys": keys}).to_string()).unwrap();
            let known =
                [None, Some("k1"), Some("k2")].map(|kid| verifier.caller(&token(kid)).is_some());
            assert_eq!(known, expected, "{name}");
        }
        let secret = EncodingKey::from_secret(SECRET.as_bytes());
        let secret = signed_as(Some("any"), Algorithm::HS256, &secret, &claims);
        assert!(with_secret().caller(&secret).is_some(), "a secret has no name");
    }
}
