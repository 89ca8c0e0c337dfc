//! Tokens of an issuer that publishes its keys.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use firstcome_api::config::ServeArgs;
use firstcome_tests::{Answer, Api, Options, Shop, eventually, shop};
use futures_util::{StreamExt, stream};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use rcgen::KeyPair;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

const NAME: &str = "https://issuer.example/";

/// A key of the issuer, by its name.
struct Signing {
    id: &'static str,
    key: EncodingKey,
}

impl Signing {
    fn new(id: &'static str) -> Self {
        let pem = KeyPair::generate().unwrap().serialize_pem();
        Self { id, key: EncodingKey::from_ec_pem(pem.as_bytes()).unwrap() }
    }

    /// As it is published: without `alg`, as several issuers do.
    fn public(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(self.id.to_owned());
        jwk.common.key_algorithm = None;
        serde_json::to_value(jwk).unwrap()
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }

    /// A token as it should be.
    fn token(&self, user: i64) -> String {
        self.sign(&claims(user))
    }
}

fn claims(user: i64) -> Value {
    let expires = chrono::Utc::now().timestamp() + 3_600;
    json!({"iss": NAME, "aud": ["elsewhere", "shop"], "sub": user.to_string(), "exp": expires})
}

/// How the issuer answers.
#[derive(Debug, Clone, Copy)]
enum Mode {
    Well,
    Failing,
    Malformed,
    Huge,
    Elsewhere,
}

/// An issuer, which counts how often it is asked.
#[derive(Clone)]
struct Issuer {
    url: String,
    keys: Arc<Mutex<Vec<Value>>>,
    mode: Arc<Mutex<Mode>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(keys: &[&Signing]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Self {
            url: format!("http://{}/keys", listener.local_addr().unwrap()),
            keys: Arc::default(),
            mode: Arc::new(Mutex::new(Mode::Well)),
            asked: Arc::default(),
        };
        issuer.publish(keys);
        let answering = issuer.clone();
        let router = Router::new().route("/keys", get(async move || answering.answer()));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        issuer
    }

    fn answer(&self) -> Response {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mode = *self.mode.lock().unwrap();
        match mode {
            Mode::Well => {
                // What others use it for is none of our business.
                let mut keys =
                    vec![json!({"kty": "oct", "k": "c2VjcmV0"}), json!({"kty": "new"}), json!(7)];
                keys.extend(self.keys.lock().unwrap().clone());
                json!({"keys": keys}).to_string().into_response()
            }
            Mode::Failing => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            Mode::Malformed => "<html>".into_response(),
            Mode::Huge => format!("{{\"keys\": [{}]}}", " ".repeat(2_000_000)).into_response(),
            Mode::Elsewhere => (StatusCode::FOUND, [(header::LOCATION, "/keys")]).into_response(),
        }
    }

    fn publish(&self, keys: &[&Signing]) {
        *self.keys.lock().unwrap() = keys.iter().map(|key| key.public()).collect();
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn believed_by(&self, config: &mut ServeArgs) {
        config.secrets.jwt_jwks_url = Some(self.url.clone());
        config.secrets.jwt_issuer = Some(NAME.to_owned());
        config.secrets.jwt_audience = vec!["shop".to_owned(), "app".to_owned()];
    }
}

async fn cart(shop: &Shop, api: &Api, token: &str) -> Answer {
    let url = format!("{}/api/users/cart", api.url);
    Answer::of(shop.anonymous(Method::GET, &url).bearer_auth(token)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_and_no_valid_token_is_refused() {
    const PACE: Duration = Duration::from_millis(3);
    shop(Options::default(), async |shop| {
        let (old, new) = (Signing::new("old"), Signing::new("new"));
        let issuer = Issuer::start(&[&old]).await;
        let api = shop.start_api(|config| issuer.believed_by(config)).await;
        let is_published = AtomicBool::new(false);
        let began = tokio::time::Instant::now();
        let statuses: Vec<u16> = stream::iter(0..1_000u32)
            .map(|number| {
                let (old, new, issuer, api) = (&old, &new, &issuer, &api);
                let is_published = &is_published;
                async move {
                    tokio::time::sleep_until(began + PACE * number).await;
                    // It signs with the new one as soon as that is published, and not before: after a stall many are due.
                    if number == 300 {
                        issuer.publish(&[old, new]);
                        is_published.store(true, Ordering::Relaxed);
                    } else if number == 600 {
                        issuer.publish(&[new]);
                    }
                    let is_published = is_published.load(Ordering::Relaxed);
                    let signing = if is_published { new } else { old };
                    cart(shop, api, &signing.token(i64::from(number % 20) + 1)).await.status
                }
            })
            .buffer_unordered(64)
            .collect()
            .await;
        let refused: Vec<u16> = statuses.into_iter().filter(|status| *status != 200).collect();
        assert!(refused.is_empty(), "{refused:?}");
        assert_eq!(issuer.asked(), 2, "at the start, and for the new key");
        api.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_held_to_their_terms() {
    shop(Options::default(), async |shop| {
        let (known, stranger) = (Signing::new("known"), Signing::new("known"));
        let issuer = Issuer::start(&[&known]).await;
        let api = shop
            .start_api(|config| {
                issuer.believed_by(config);
                config.secrets.jwt_require_exp = true;
                config.secrets.jwt_roles_claim = Some("realm_access.roles".to_owned());
            })
            .await;
        let with = |name: &str, value: Value| {
            let mut claims = claims(7);
            claims[name] = value;
            claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            known.sign(&claims)
        };
        for good in
            [with("aud", json!("app")), with("sub", json!(7)), with("role", json!({"odd": 1}))]
        {
            assert_eq!(cart(shop, &api, &good).await.status, 200, "{good}");
        }
        let secret = EncodingKey::from_secret(known.public()["x"].as_str().unwrap().as_bytes());
        let header = Header { kid: Some("known".to_owned()), ..Header::new(Algorithm::HS256) };
        let tampered = {
            let token = known.token(7);
            let (head, rest) = token.split_once('.').unwrap();
            let (_, signature) = rest.split_once('.').unwrap();
            format!("{head}.eyJzdWIiOiI4In0.{signature}")
        };
        for bad in [
            with("iss", json!("https://other.example/")),
            with("iss", Value::Null),
            with("aud", json!("other")),
            with("aud", Value::Null),
            with("exp", json!(1_600_000_000)),
            with("exp", Value::Null),
            with("sub", json!("Ann")),
            stranger.token(7),
            jsonwebtoken::encode(&header, &claims(7), &secret).unwrap(),
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiI3In0.".to_owned(),
            tampered,
        ] {
            cart(shop, &api, &bad).await.is_problem(401, "unauthenticated");
        }

        let queues = async |token: String| {
            let url = format!("{}/api/admin/queues", api.url);
            shop.anonymous(Method::GET, &url)
                .bearer_auth(token)
                .send()
                .await
                .unwrap()
                .status()
                .as_u16()
        };
        let realm = |roles: Value| with("realm_access", json!({ "roles": roles }));
        for operator in [
            realm(json!(["clerk", "admin"])),
            realm(json!("admin")),
            with("realm_access.roles", json!(["admin"])),
            with("role", json!(["admin"])),
            with("roles", json!("admin")),
            with("scope", json!("openid admin")),
        ] {
            assert_eq!(queues(operator.clone()).await, 200, "{operator}");
        }
        for other in [
            realm(json!(["administrator"])),
            realm(json!(7)),
            with("scope", json!("admin:read")),
            known.token(7),
        ] {
            assert_eq!(queues(other.clone()).await, 403, "{other}");
        }
        assert_eq!(issuer.asked(), 1, "nobody named another key");
        api.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_away_or_lied_about_costs_nobody_else() {
    shop(Options::default(), async |shop| {
        let (known, unknown) = (Signing::new("known"), Signing::new("unknown"));
        let issuer = Issuer::start(&[&known]).await;
        issuer.set(Mode::Failing);
        let api = shop.start_unready_api(|config| issuer.believed_by(config)).await;
        let refused = cart(shop, &api, &known.token(7)).await;
        refused.is_problem(503, "issuer-unavailable");
        assert!(refused.retry_after() >= 1);
        let ready =
            shop.anonymous(Method::GET, &format!("{}/health/ready", api.url)).send().await.unwrap();
        assert_eq!(ready.status(), 503);
        for mode in [Mode::Malformed, Mode::Huge, Mode::Elsewhere] {
            issuer.set(mode);
            let asked = issuer.asked();
            eventually("it is asked again", async || issuer.asked() > asked).await;
            cart(shop, &api, &known.token(7)).await.is_problem(503, "issuer-unavailable");
        }
        issuer.set(Mode::Well);
        eventually("it is known", async || cart(shop, &api, &known.token(7)).await.status == 200)
            .await;

        // A name that the issuer does not know is asked for once; whoever makes up others has it asked no more.
        let asked = issuer.asked();
        cart(shop, &api, &unknown.token(7)).await.is_problem(401, "unauthenticated");
        for _ in 0..50 {
            cart(shop, &api, &unknown.token(7)).await.is_problem(401, "unauthenticated");
        }
        let made_up = Signing { id: "made up", ..Signing::new("") };
        let untold = cart(shop, &api, &made_up.token(7)).await;
        untold.is_problem(503, "issuer-unavailable");
        assert!((1..=61).contains(&untold.retry_after()), "{untold:?}");
        assert_eq!(issuer.asked(), asked + 1);
        issuer.set(Mode::Failing);
        assert_eq!(cart(shop, &api, &known.token(7)).await.status, 200);
        api.stop().await;
    })
    .await;
}

/// A token of people whom the issuer calls by a name, as development mode believes it.
fn named(claims: Value) -> String {
    let secret = EncodingKey::from_secret(b"firstcome-development-only");
    jsonwebtoken::encode(&Header::default(), &claims, &secret).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn subjects_that_are_no_numbers_are_users() {
    shop(Options { users: 3, ..Options::default() }, async |shop| {
        let users = async || -> i64 {
            sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&shop.pool).await.unwrap()
        };
        let api = shop
            .start_api(|config| {
                config.secrets.jwt_subjects = "map".to_owned();
                config.secrets.jwt_create_users = true;
            })
            .await;
        let coupon = shop.campaign(100).await;
        let issue = async |api: &Api, token: &str| {
            let url = format!("{}/api/coupons/{coupon}/issue", api.url);
            Answer::of(shop.anonymous(Method::POST, &url).bearer_auth(token)).await
        };

        // Whoever comes first makes the user, however many come first.
        let ann = named(json!({"sub": "auth0|ann", "name": " Ann\u{7}\u{202e} ", "email": "ann@example.com"}));
        let first = stream::iter(0..100).map(|_| cart(shop, &api, &ann)).buffer_unordered(32);
        let statuses: Vec<u16> = first.map(|answer| answer.status).collect().await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        assert_eq!(users().await, 4);
        let (id, name, email): (i64, String, String) =
            sqlx::query_as("SELECT id, name, email FROM users ORDER BY id DESC LIMIT 1")
                .fetch_one(&shop.pool)
                .await
                .unwrap();
        assert_eq!((name.as_str(), email.as_str()), ("Ann", "ann@example.com"));
        let job = issue(&api, &ann).await.job_id().to_owned();
        eventually("she has her coupon", async || {
            let held: i64 = sqlx::query_scalar("SELECT count(*) FROM user_coupons WHERE user_id = $1")
                .bind(id)
                .fetch_one(&shop.pool)
                .await
                .unwrap();
            held == 1
        })
        .await;
        let url = format!("{}/api/jobs/{job}", api.url);
        let polled = shop.anonymous(Method::GET, &url).bearer_auth(&ann).send().await.unwrap();
        assert_eq!(polled.status(), 200);

        // An address counts where the issuer has verified it, and for one subject only; whose it is keeps it.
        shop.sql("UPDATE users SET email = 'Bo@Example.com' WHERE id = 2").await;
        let bo = |sub: &str, verified: Value| {
            named(json!({"sub": sub, "name": "Bo", "email": "bo@example.com", "email_verified": verified}))
        };
        for (sub, verified, is_new) in [
            ("bo-unverified", json!(false), 1),
            ("bo-odd", json!({"not": "a flag"}), 1),
            ("bo", json!("true"), 0),
            ("bo-again", json!(true), 1),
        ] {
            let before = users().await;
            assert_eq!(cart(shop, &api, &bo(sub, verified)).await.status, 200, "{sub}");
            assert_eq!(users().await - before, is_new, "{sub}");
        }
        let mapped: String = sqlx::query_scalar("SELECT subject FROM subjects WHERE user_id = 2")
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!(mapped, "bo");

        // Numbers are ids, in the one way that they are written.
        assert_eq!(cart(shop, &api, &named(json!({"sub": "7001"}))).await.status, 200);
        assert_eq!(cart(shop, &api, &named(json!({"sub": 7002, "name": 5}))).await.status, 200);
        assert_eq!(cart(shop, &api, &named(json!({"sub": "07001", "name": ""}))).await.status, 200);
        let made: Vec<i64> = sqlx::query_scalar("SELECT id FROM users WHERE id > 7000 ORDER BY id")
            .fetch_all(&shop.pool)
            .await
            .unwrap();
        assert_eq!(made, [7001, 7002], "\"07001\" is somebody else");
        let unaudited = firstcome_workers::commands::audit::audit(&shop.pool).await.unwrap();
        assert!(unaudited.iter().all(|finding| finding.violations == 0), "{unaudited:?}");

        // Who is known needs no database.
        shop.database.proxy.cut();
        assert_eq!(issue(&api, &ann).await.status, 202);
        issue(&api, &named(json!({"sub": "somebody new"}))).await.is_problem(503, "database-unavailable");
        shop.database.proxy.restore();
        api.stop().await;

        // Where users are made elsewhere.
        let strict = shop.start_api(|config| config.secrets.jwt_subjects = "map".to_owned()).await;
        assert_eq!(cart(shop, &strict, &ann).await.status, 200);
        cart(shop, &strict, &named(json!({"sub": "nobody"}))).await.is_problem(404, "user-not-found");
        strict.stop().await;
    })
    .await;
}
