//! Who calls: `Authorization: Bearer <JWT>`.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{header, request::Parts},
};
use chrono::Utc;
use firstcome_contract::ids::{MAX_ID, UserId};
use futures_util::future::BoxFuture;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    issuer::{self, Issuer, Missing},
    keys::{Key, Terms},
    limit::Limiter,
    problem::{Code, Problem},
};
use crate::config::{SecretArgs, TokenArgs};

/// A signed-in caller.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The `sub` of the token.
    pub user_id: UserId,
    role: Role,
}

impl Caller {
    /// The name of the caller's role: of who has none, it is that of a customer.
    pub(crate) const fn role(&self) -> &'static str {
        match self.role {
            Role::Customer => "customer",
            Role::Auditor => AUDITOR,
            Role::Admin => ADMIN,
        }
    }
}

/// A caller with the role `admin`, who may change what operators can.
#[derive(Debug, Clone, Copy)]
pub struct Admin(pub Caller);

/// A caller who may see what operators see: with the role `auditor`, or `admin`.
#[derive(Debug, Clone, Copy)]
pub struct Auditor(pub Caller);

/// What a caller may do beside a customer's own; each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Customer,
    Auditor,
    Admin,
}

/// Whom a token names, as far as it tells.
#[derive(Debug)]
pub struct Identity {
    /// What the issuer calls them.
    pub subject: String,
    /// Their name, for people.
    pub name: Option<String>,
    /// Their address.
    pub email: Option<String>,
    /// The issuer has seen that it is theirs.
    pub email_verified: bool,
}

impl Identity {
    /// The user's id, if the issuer calls them by that.
    #[must_use]
    pub fn id(&self) -> Option<UserId> {
        user_id(&self.subject)
    }
}

/// The user's id that a subject is, if it is one.
#[must_use]
pub fn user_id(subject: &str) -> Option<UserId> {
    let id: i64 = subject.parse().ok()?;
    // As it is written in one way only: " 7", "+7" and "07" are somebody else.
    let is_it = (1..=MAX_ID).contains(&id) && id.to_string() == subject;
    is_it.then(|| UserId::new(id))
}

/// Knows whom tokens name.
pub trait Directory: std::fmt::Debug + Send + Sync {
    /// The user of a subject that was found before.
    fn known(&self, subject: &str) -> Option<UserId>;
    /// Finds the user, or makes one.
    fn find<'a>(&'a self, identity: &'a Identity)
    -> BoxFuture<'a, Result<Option<UserId>, Problem>>;
}

#[derive(Deserialize)]
struct Claims {
    sub: Subject,
    #[serde(default)]
    name: Claim<String>,
    #[serde(default)]
    email: Claim<String>,
    #[serde(default)]
    email_verified: Claim<Flag>,
    #[serde(default)]
    role: Claim<Names>,
    #[serde(default)]
    roles: Claim<Names>,
    #[serde(default)]
    scope: Claim<Names>,
}

/// RFC 7519 says string; issuers that use the database's id as it is are understood too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Subject {
    Text(String),
    Number(i64),
}

/// A claim of some type that issuers agree on; one of another type says nothing.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Claim<T> {
    Told(T),
    Other(IgnoredAny),
    #[default]
    None,
}

impl<T> From<Claim<T>> for Option<T> {
    fn from(claim: Claim<T>) -> Self {
        match claim {
            Claim::Told(told) => Some(told),
            Claim::Other(_) | Claim::None => None,
        }
    }
}

/// Some issuers write it as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Flag {
    Is(bool),
    Text(String),
}

impl Flag {
    fn is_set(&self) -> bool {
        match self {
            Self::Is(flag) => *flag,
            Self::Text(text) => text == "true",
        }
    }
}

/// Names of roles, as issuers write them: a list, or a text with spaces in between.
#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    Text(String),
    List(Vec<String>),
}

impl Names {
    fn have(&self, name: &str) -> bool {
        match self {
            Self::Text(text) => text.split_whitespace().any(|known| known == name),
            Self::List(list) => list.iter().any(|known| known == name),
        }
    }

    /// The highest role among them.
    fn role(&self) -> Role {
        let named = [(ADMIN, Role::Admin), (AUDITOR, Role::Auditor)];
        let found = named.into_iter().find(|(name, _)| self.have(name));
        found.map_or(Role::Customer, |(_, role)| role)
    }
}

impl Claim<Names> {
    fn role(&self) -> Role {
        if let Self::Told(names) = self { names.role() } else { Role::Customer }
    }
}

const ADMIN: &str = "admin";
const AUDITOR: &str = "auditor";
/// The roles of those who may see what operators see.
pub(crate) const OPERATORS: [&str; 2] = [AUDITOR, ADMIN];

/// Checks tokens; cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    keys: Keys,
    /// Where else roles stand.
    roles_claim: Option<String>,
    /// Unless subjects are ids of users.
    directory: Option<Arc<dyn Directory>>,
}

enum Keys {
    Given(Vec<Key>),
    Published(Arc<Issuer>),
}

/// Why a token says nothing.
#[derive(Debug)]
enum Denied {
    Invalid,
    /// It may be good, which cannot be told for so long.
    Untold(Duration),
    /// It is good, and names nobody we know.
    Unknown,
    /// Whom it names could not be found out.
    Failed(Problem),
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl Verifier {
    /// Reads the keys that the configuration names, or begins to fetch them, until `stop`.
    ///
    /// # Errors
    /// With a hint, if there is none or it cannot be read.
    pub fn start(
        secrets: &SecretArgs,
        directory: Option<Arc<dyn Directory>>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let terms = Terms::new(secrets);
        let keys = match (&secrets.jwt_jwks_url, &secrets.jwt_public_keys) {
            (Some(url), _) => Keys::Published(Issuer::start(url, secrets, stop)?),
            (None, Some(path)) => Keys::Given(terms.file(path)?),
            (None, None) => Keys::Given(vec![terms.secret(&secrets.jwt_secret()?)]),
        };
        let roles_claim = secrets.jwt_roles_claim.clone();
        Ok(Self(Arc::new(Inner { keys, roles_claim, directory })))
    }

    /// Whether there is any key.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        match &self.0.keys {
            Keys::Given(_) => true,
            Keys::Published(issuer) => issuer.keys().is_some(),
        }
    }

    async fn caller(&self, token: &str) -> Result<Caller, Denied> {
        let (claims, role) = self.read(token).await?;
        let caller = |user_id| Caller { user_id, role };
        let subject = match claims.sub {
            Subject::Text(text) => text,
            Subject::Number(number) => number.to_string(),
        };
        let identity = Identity {
            subject,
            name: claims.name.into(),
            email: claims.email.into(),
            email_verified: Option::from(claims.email_verified)
                .is_some_and(|flag: Flag| flag.is_set()),
        };
        let Some(directory) = &self.0.directory else {
            return identity.id().map(caller).ok_or(Denied::Invalid);
        };
        if let Some(user_id) = directory.known(&identity.subject) {
            return Ok(caller(user_id));
        }
        let found = directory.find(&identity).await.map_err(Denied::Failed)?;
        found.map(caller).ok_or(Denied::Unknown)
    }

    /// What a token says, and what its caller may do.
    async fn read(&self, token: &str) -> Result<(Claims, Role), Denied> {
        let issuer = match &self.0.keys {
            Keys::Given(keys) => return self.0.read(token, keys).ok_or(Denied::Invalid),
            Keys::Published(issuer) => issuer,
        };
        let id = jsonwebtoken::decode_header(token).map_err(|_| Denied::Invalid)?.kid;
        let keys = match issuer.keys() {
            Some(keys) if id.as_ref().is_none_or(|id| issuer::has(&keys, id)) => keys,
            _ => issuer.look_up(id.as_deref()).await.map_err(|missing| match missing {
                Missing::Unknown => Denied::Invalid,
                Missing::Untold(wait) => Denied::Untold(wait),
            })?,
        };
        self.0.read(token, &keys).ok_or(Denied::Invalid)
    }
}

impl Inner {
    /// What the token says, if one of the keys has signed it.
    fn read(&self, token: &str, keys: &[Key]) -> Option<(Claims, Role)> {
        // Only a set of keys has names for them.
        let id = match keys {
            [Key { id: None, .. }] => None,
            _ => jsonwebtoken::decode_header(token).ok()?.kid,
        };
        let mut named = keys.iter().filter(|key| key.id.is_none() || id.is_none() || key.id == id);
        let (claims, role) = named.find_map(|key| self.claims(token, key))?;
        let roles = [&claims.role, &claims.roles, &claims.scope].map(Claim::role);
        let role = roles.into_iter().fold(role, Role::max);
        Some((claims, role))
    }

    /// What the token says if this key has signed it, and the role that stands where it is configured.
    fn claims(&self, token: &str, Key { key, validation, .. }: &Key) -> Option<(Claims, Role)> {
        let Some(path) = &self.roles_claim else {
            let decoded = jsonwebtoken::decode::<Claims>(token, key, validation).ok()?;
            return Some((decoded.claims, Role::Customer));
        };
        let all = jsonwebtoken::decode::<Value>(token, key, validation).ok()?.claims;
        // A name may have dots in it, as those that are URLs.
        let within = || path.split('.').try_fold(&all, |claim, name| claim.get(name));
        let found = all.get(path).or_else(within).map(Names::deserialize);
        let role = found.and_then(Result::ok).map_or(Role::Customer, |names| names.role());
        Some((serde_json::from_value(all).ok()?, role))
    }
}

/// The claims of a token that we make ourselves.
#[derive(Serialize)]
struct Issued<'a> {
    sub: String,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

/// A token as [`Verifier`] accepts it, for development and tests.
///
/// # Errors
/// With a hint, if there is no secret.
pub fn token(args: &TokenArgs) -> anyhow::Result<String> {
    let secrets = &args.secrets;
    let claims = Issued {
        sub: args.user.to_string(),
        exp: Utc::now().timestamp() + i64::from(args.expires_in),
        role: match (args.admin, args.auditor) {
            (true, _) => Some(ADMIN),
            (false, true) => Some(AUDITOR),
            (false, false) => None,
        },
        iss: secrets.jwt_issuer.as_deref(),
        aud: secrets.jwt_audience.first().map(String::as_str),
    };
    let key = EncodingKey::from_secret(secrets.jwt_secret()?.as_bytes());
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
        let limiter = Limiter::from_ref(state);
        let token = token.ok_or_else(|| {
            let problem =
                Problem::with_detail(Code::Unauthenticated, "Send Authorization: Bearer <token>.");
            limiter.admit_stranger(parts).err().unwrap_or(problem)
        })?;
        let caller = Verifier::from_ref(state).caller(token).await.map_err(|denied| {
            // Whose token is good, or may be, pays for nobody who shares the address.
            if matches!(denied, Denied::Invalid)
                && let Err(limited) = limiter.admit_stranger(parts)
            {
                return limited;
            }
            match denied {
                Denied::Invalid => Problem::with_detail(
                    Code::Unauthenticated,
                    "The token is malformed, expired or not signed by a key we trust.",
                ),
                Denied::Unknown => Problem::new(Code::UserNotFound),
                Denied::Failed(problem) => problem,
                Denied::Untold(wait) => {
                    Problem::new(Code::IssuerUnavailable).retry_after(wait.as_secs() + 1)
                }
            }
        })?;
        limiter.admit(caller.user_id)?;
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
        if caller.role >= Role::Admin {
            Ok(Self(caller))
        } else {
            Err(Problem::with_detail(Code::Forbidden, "The role admin is needed."))
        }
    }
}

impl<S> FromRequestParts<S> for Auditor
where
    S: Send + Sync,
    Verifier: FromRef<S>,
    Limiter: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Caller::from_request_parts(parts, state).await?;
        if caller.role >= Role::Auditor {
            Ok(Self(caller))
        } else {
            Err(Problem::with_detail(Code::Forbidden, "The role admin or auditor is needed."))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use serde_json::json;

    use super::*;

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

    fn with(secrets: &SecretArgs) -> anyhow::Result<Verifier> {
        Verifier::start(secrets, None, &CancellationToken::new())
    }

    impl Verifier {
        /// With keys that are there, nobody waits.
        fn caller_now(&self, token: &str) -> Option<Caller> {
            self.caller(token).now_or_never().unwrap().ok()
        }
    }

    fn with_secret() -> Verifier {
        with(&SecretArgs { jwt_secret: Some(SECRET.to_owned()), ..SecretArgs::default() }).unwrap()
    }

    fn with_file(name: &str, content: &str) -> anyhow::Result<Verifier> {
        let path = std::env::temp_dir().join(format!("firstcome-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        let secrets = SecretArgs { jwt_public_keys: Some(path.clone()), ..SecretArgs::default() };
        let verifier = with(&secrets);
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
        with_secret().caller_now(&signed(
            Algorithm::HS256,
            &EncodingKey::from_secret(SECRET.as_bytes()),
            claims,
        ))
    }

    #[test]
    fn claims_say_who_calls() {
        let user = |claims| with_claims(&claims).map(|caller| (caller.user_id.get(), caller.role));
        let later = Utc::now().timestamp() + 3600;
        assert_eq!(user(json!({"sub": "7", "exp": later})), Some((7, Role::Customer)));
        assert_eq!(user(json!({"sub": 7})), Some((7, Role::Customer)));
        assert_eq!(user(json!({"sub": "7", "role": "admin"})), Some((7, Role::Admin)));
        assert_eq!(user(json!({"sub": "7", "roles": ["clerk", "admin"]})), Some((7, Role::Admin)));
        assert_eq!(
            user(json!({"sub": "7", "role": "clerk", "aud": "anyone"})),
            Some((7, Role::Customer))
        );
        assert_eq!(user(json!({"sub": "7", "scope": "read auditor"})), Some((7, Role::Auditor)));
        assert_eq!(
            user(json!({"sub": "7", "roles": ["auditor"], "role": "admin"})),
            Some((7, Role::Admin))
        );
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
        assert!(with_secret().caller_now(&signed(Algorithm::HS256, &wrong, &claims)).is_none());
        let right = EncodingKey::from_secret(SECRET.as_bytes());
        assert!(with_secret().caller_now(&signed(Algorithm::HS512, &right, &claims)).is_none());
        let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiI3In0.";
        assert!(with_secret().caller_now(unsigned).is_none());
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
            assert!(verifier.caller_now(&signed(Algorithm::EdDSA, &private, &claims)).is_some());
            let confused = EncodingKey::from_secret(PUBLIC_PEM.as_bytes());
            assert!(verifier.caller_now(&signed(Algorithm::HS256, &confused, &claims)).is_none());
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
        assert!(verifier.caller_now(&token).is_some(), "a key that is taken is of use");
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
            let known = [None, Some("k1"), Some("k2")]
                .map(|kid| verifier.caller_now(&token(kid)).is_some());
            assert_eq!(known, expected, "{name}");
        }
        let secret = EncodingKey::from_secret(SECRET.as_bytes());
        let secret = signed_as(Some("any"), Algorithm::HS256, &secret, &claims);
        assert!(with_secret().caller_now(&secret).is_some(), "a secret has no name");
    }

    /// Made by PyJWT and jose: `tests/tokens`.
    #[test]
    fn tokens_of_other_libraries_are_understood() {
        let files = [
            ("pyjwt.json", include_str!("../../../tests/tokens/pyjwt.json"), None),
            (
                "jose.json",
                include_str!("../../../tests/tokens/jose.json"),
                Some("realm_access.roles"),
            ),
        ];
        for (name, file, roles_claim) in files {
            let file: Value = serde_json::from_str(file).unwrap();
            let path =
                std::env::temp_dir().join(format!("firstcome-{}-{name}", std::process::id()));
            std::fs::write(&path, file["jwks"].to_string()).unwrap();
            let secrets = |issuer: &str| SecretArgs {
                jwt_public_keys: Some(path.clone()),
                jwt_issuer: Some(issuer.to_owned()),
                jwt_audience: vec!["shop".to_owned()],
                jwt_require_exp: true,
                jwt_roles_claim: roles_claim.map(str::to_owned),
                ..SecretArgs::default()
            };
            let verifier = with(&secrets("https://issuer.example/")).unwrap();
            let other = with(&secrets("https://other.example/")).unwrap();
            let tokens = file["tokens"].as_object().unwrap();
            assert_eq!(tokens.len(), 9, "{name}");
            for (algorithm, token) in tokens {
                let token = token.as_str().unwrap();
                let caller = verifier.caller_now(token);
                let caller = caller.unwrap_or_else(|| panic!("{name}: {algorithm}"));
                assert_eq!(
                    (caller.user_id.get(), caller.role),
                    (7, Role::Admin),
                    "{name}: {algorithm}"
                );
                assert!(other.caller_now(token).is_none(), "{name}: {algorithm}");
                // The first letter of a signature has no bits that do not count.
                let (said, signature) = token.rsplit_once('.').unwrap();
                let first = if signature.starts_with('A') { "B" } else { "A" };
                let forged = format!("{said}.{first}{}", &signature[1..]);
                assert!(verifier.caller_now(&forged).is_none(), "{name}: {algorithm}");
            }
            std::fs::remove_file(path).unwrap();
        }
    }
}
