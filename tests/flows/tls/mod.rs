//! The programs with servers that speak TLS, of this test alone: an authority of their own, and a certificate asked of
//! every client.

mod authority;
mod servers;

use std::path::PathBuf;

use firstcome_rig::{Process, binary};
use firstcome_tests::{DEADLINE, eventually, token};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::processes::free_port;
use authority::Authority;
use servers::Servers;

type Settings = Vec<(&'static str, String)>;

/// What a client of these servers is told.
fn settings(servers: &Servers) -> Settings {
    let file = |name: &str| servers.files.join(name).to_str().unwrap().to_owned();
    let (ca, certificate, key) = (file("ca.pem"), file("client.pem"), file("client-key.pem"));
    vec![
        ("DATABASE_URL", servers.postgres("verify-full", &ca, Some((&certificate, &key)))),
        ("AMQP_URL", servers.rabbitmq.clone()),
        ("AMQP_CA_FILE", ca.clone()),
        ("AMQP_CERT_FILE", certificate.clone()),
        ("AMQP_KEY_FILE", key.clone()),
        ("REDIS_URL", servers.redis.clone()),
        ("REDIS_CA_FILE", ca),
        ("REDIS_CERT_FILE", certificate),
        ("REDIS_KEY_FILE", key),
        ("QUEUE_NAMESPACE", "tls".to_owned()),
        ("WORKER_ADDR", format!("127.0.0.1:{}", free_port())),
        ("API_ADDR", format!("127.0.0.1:{}", free_port())),
        ("FIRSTCOME_DEV", "true".to_owned()),
        ("DRAIN_SECONDS", "0".to_owned()),
    ]
}

/// The same but for one.
fn with(mut settings: Settings, name: &str, value: Option<String>) -> Settings {
    match value {
        Some(value) => settings.iter_mut().find(|(known, _)| *known == name).unwrap().1 = value,
        None => settings.retain(|(known, _)| *known != name),
    }
    settings
}

fn get<'a>(settings: &'a Settings, name: &str) -> &'a str {
    &settings.iter().find(|(known, _)| *known == name).unwrap().1
}

fn log(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{name}.log"))
}

/// What a command of the workers says, and whether it went well.
fn command(arguments: &[&str], settings: &Settings) -> (bool, String) {
    let output = std::process::Command::new(binary("firstcome-worker").unwrap())
        .args(arguments)
        .env_clear()
        .envs(settings.iter().map(|(name, value)| (*name, value.as_str())))
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A sale, from one end to the other.
async fn sell(settings: &Settings, key: &str) {
    let client = Client::new();
    let address = get(settings, "API_ADDR");
    let asked = |method: Method, path: &str, user: i64, admin: bool| -> RequestBuilder {
        client.request(method, format!("http://{address}{path}")).bearer_auth(token(user, admin))
    };
    eventually("the API is ready", async || {
        let ready = client.get(format!("http://{address}/health/ready")).send().await;
        ready.is_ok_and(|answer| answer.status() == StatusCode::OK)
    })
    .await;
    let campaign = json!({
        "name": "TLS", "discountType": "fixed", "discountValue": 1_000, "total": 10,
        "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2099-01-01T00:00:00Z", "validUntil": "2099-01-01T00:00:00Z",
    });
    let created =
        asked(Method::POST, "/api/admin/coupons", 1, true).json(&campaign).send().await.unwrap();
    assert_eq!(created.status(), StatusCode::CREATED, "{}", created.text().await.unwrap());
    let created: Value = created.json().await.unwrap();
    let path = format!("/api/coupons/{}/issue", created["id"]);
    // A key is looked up in Redis and in PostgreSQL.
    let asking = asked(Method::POST, &path, 7, false).header("Idempotency-Key", key).send();
    let accepted: Value = asking.await.unwrap().json().await.unwrap();
    let job = accepted["links"]["self"].as_str().unwrap();
    let polled =
        asked(Method::GET, job, 7, false).header("Prefer", "wait=20").send().await.unwrap();
    let polled: Value = polled.json().await.unwrap();
    assert_eq!(polled["status"], "succeeded", "{polled}");
}

/// The same servers at their IPv6 address.
fn at_ipv6(settings: &Settings) -> Settings {
    let is_server = |name: &str| ["DATABASE_URL", "AMQP_URL", "REDIS_URL"].contains(&name);
    let moved = settings.iter().map(|(name, value)| {
        (*name, if is_server(name) { value.replace("127.0.0.1", "[::1]") } else { value.clone() })
    });
    moved.collect()
}

/// The same servers without TLS.
fn in_the_clear(servers: &Servers, settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.retain(|(name, _)| !name.starts_with("AMQP_") && !name.starts_with("REDIS_"));
    settings.retain(|(name, _)| *name != "DATABASE_URL");
    let database = servers.postgres("disable", "", None).replace("&sslrootcert=", "");
    settings.extend([
        ("DATABASE_URL", database),
        ("AMQP_URL", servers.rabbitmq_clear.clone()),
        ("REDIS_URL", servers.redis_clear.clone()),
    ]);
    settings
}

/// Programs of their own, and a sale.
async fn sale(settings: &Settings, name: &str) -> [Process; 2] {
    let start = |program: &str, command: &str| {
        let log = log(&format!("{name}-{command}"));
        Process::start(program, &[command], settings.clone(), &log).unwrap()
    };
    let programs = [start("firstcome-worker", "all"), start("firstcome-api", "serve")];
    tokio::time::timeout(2 * DEADLINE, sell(settings, name)).await.expect("it is sold in time");
    programs
}

/// When it returns, their addresses are free.
async fn end<const N: usize>(programs: [Process; N]) {
    for program in programs {
        program.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_over_tls_and_whom_it_is_refused() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authority = Authority::new("Firstcome tests");
    let servers = Servers::start(&authority);
    let good = settings(&servers);
    // Whatever an earlier run left.
    let (_, said) = command(&["migrate"], &good);
    assert!(said.contains("up to date"), "{said}");
    let (is_fine, said) = command(&["sample-data", "--users", "10"], &good);
    assert!(is_fine, "{said}");
    let programs = sale(&good, "ipv4").await;
    assert!(servers.are_asked_over_tls().await, "every session is encrypted");
    end(programs).await;

    // The same by IPv6, over TLS and without.
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    assert!(
        has_ipv6,
        "this test needs IPv6, and this machine has no [::1]: see /proc/net/if_inet6"
    );
    end(sale(&at_ipv6(&good), "ipv6").await).await;
    end(sale(&at_ipv6(&in_the_clear(&servers, &good)), "ipv6-clear").await).await;

    // PostgreSQL: another authority, a name that the certificate does not have, no certificate of ours.
    let other = servers.files.join("other-ca.pem");
    let (ca, other) = (get(&good, "AMQP_CA_FILE"), other.to_str().unwrap());
    let ours = Some((get(&good, "AMQP_CERT_FILE"), get(&good, "AMQP_KEY_FILE")));
    for (url, reason) in [
        (servers.postgres("verify-full", other, ours), "UnknownIssuer"),
        (
            servers.postgres("verify-full", ca, ours).replace("@127.0.0.1:", "@localhost:"),
            "not valid for name",
        ),
        (servers.postgres("verify-full", ca, None), "client certificate"),
    ] {
        let (is_fine, said) =
            command(&["migrate"], &with(good.clone(), "DATABASE_URL", Some(url.clone())));
        assert!(!is_fine && said.contains(reason), "{url}: {reason}: {said}");
        assert!(!said.contains("s3cret"), "{said}");
    }

    // RabbitMQ and Redis: the API goes on trying, and says why in its log.
    let elsewhere = |name: &str| get(&good, name).replace("127.0.0.1", "localhost");
    for (name, value, reason) in [
        ("AMQP_CA_FILE", Some(other.to_owned()), "UnknownIssuer"),
        ("AMQP_URL", Some(elsewhere("AMQP_URL")), "not valid for name"),
        ("AMQP_CERT_FILE", None, "CertificateRequired"),
        ("REDIS_CA_FILE", Some(other.to_owned()), "UnknownIssuer"),
        ("REDIS_URL", Some(elsewhere("REDIS_URL")), "not valid for name"),
        ("REDIS_CERT_FILE", None, "CertificateRequired"),
    ] {
        let mut settings = with(good.clone(), name, value);
        // One goes with the other.
        if name.ends_with("CERT_FILE") {
            settings = with(settings, &name.replace("CERT", "KEY"), None);
        }
        let log = log(name);
        let _ = std::fs::remove_file(&log);
        let api = Process::start("firstcome-api", &["serve"], settings, &log).unwrap();
        eventually(&format!("{name}: the log says {reason}"), async || {
            std::fs::read_to_string(&log).unwrap_or_default().contains(reason)
        })
        .await;
        if name.starts_with("AMQP") {
            let ready = format!("http://{}/health/ready", get(&good, "API_ADDR"));
            eventually(&format!("{name}: it is not ready"), async || {
                let ready = reqwest::get(&ready).await;
                ready.is_ok_and(|answer| answer.status() == StatusCode::SERVICE_UNAVAILABLE)
            })
            .await;
        }
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(!said.contains("panicked") && !said.contains("guest:guest"), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
        end([api]).await;
    }

    // Settings that cannot be meant.
    let malformed = servers.files.join("malformed.pem");
    let text = "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
    std::fs::write(&malformed, text).unwrap();
    let malformed = malformed.to_str().unwrap();
    for (name, value, reason) in [
        ("AMQP_CA_FILE", Some("/nowhere.pem"), "AMQP_CA_FILE>': it cannot be read"),
        ("AMQP_CA_FILE", Some("Cargo.toml"), "AMQP_CA_FILE>': there is no certificate"),
        ("AMQP_CERT_FILE", Some(malformed), "AMQP_CERT_FILE>': it is malformed"),
        ("AMQP_KEY_FILE", Some(malformed), "AMQP_KEY_FILE>': there is no private key"),
        ("AMQP_KEY_FILE", None, "--amqp-key-file"),
        ("REDIS_KEY_FILE", None, "--redis-key-file"),
        ("REDIS_CA_FILE", Some("/nowhere.pem"), "REDIS_CA_FILE>': it cannot be read"),
        ("REDIS_CA_FILE", Some(malformed), "REDIS_CA_FILE>': it is malformed"),
        (
            "DATABASE_URL",
            Some("postgres://u:s3cret@h/d?sslrootcert=/nowhere.pem"),
            "DATABASE_URL: ",
        ),
        (
            "DATABASE_URL",
            Some("postgres://u:s3cret@h/d?sslrootcert=/nowhere.pem"),
            "sslrootcert=/nowhere.pem: it cannot be read",
        ),
        ("REDIS_URL", Some("redis://127.0.0.1:6379"), "rediss"),
        ("AMQP_URL", Some("amqp://guest:guest@127.0.0.1:5672"), "amqps"),
    ] {
        let (is_fine, said) =
            command(&["all"], &with(good.clone(), name, value.map(str::to_owned)));
        assert!(!is_fine && said.contains(reason), "{name}={value:?}: {reason}: {said}");
        assert!(!said.contains("guest:guest") && !said.contains("s3cret"), "{said}");
    }
}
