//! The program's command line: helpful, and refusing what would be insecure.

use std::process::{Command, Output};

fn api(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    run("firstcome-api", arguments, environment)
}

fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(firstcome_rig::binary(program).unwrap())
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn help_names_every_variable() {
    let help = String::from_utf8(api(&["serve", "--help"], &[]).stdout).unwrap();
    for variable in [
        "API_ADDR",
        "DATABASE_URL",
        "AMQP_URL",
        "REDIS_URL",
        "QUEUE_NAMESPACE",
        "JWT_SECRET",
        "JWT_PUBLIC_KEYS",
        "JOB_ID_KEY",
        "JOB_RETENTION",
        "LINE_CAPACITY",
        "RATE_LIMIT",
        "ADDRESS_RATE_LIMIT",
        "TRUSTED_PROXIES",
        "MAX_CONNECTIONS",
        "MAX_STREAMS",
        "DRAIN_SECONDS",
        "FIRSTCOME_DEV",
        "PRODUCTS_TTL",
        "POPULAR_TTL",
        "BUSINESS_TIME_ZONE",
        "RUST_LOG",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ] {
        assert!(help.contains(variable), "{variable} is missing from\n{help}");
    }
}

#[test]
fn it_does_not_start_with_a_missing_or_default_secret() {
    let database = ("DATABASE_URL", "postgres://localhost/nothing");
    let address = ("API_ADDR", "127.0.0.1:0");
    let good = ("JWT_SECRET", "0123456789abcdef");
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[database, address], "JWT_SECRET is not set"),
        (&[database, address, ("JWT_SECRET", "short")], "JWT_SECRET is too short"),
        (&[database, address, ("JWT_SECRET", "0123456789abcde")], "JWT_SECRET is too short"),
        (&[database, address, ("JWT_SECRET", "                    ")], "JWT_SECRET is too short"),
        (&[database, address, ("JWT_SECRET", "aaaaaaaaaaaaaaaaaaaa")], "one character"),
        (&[database, address, ("JWT_SECRET", "firstcome-development-only")], "well-known"),
        (&[database, address, good], "JOB_ID_KEY is not set"),
        (
            &[database, address, good, ("JOB_ID_KEY", "0123456789abcdef,")],
            "JOB_ID_KEY is too short",
        ),
    ];
    for (environment, hint) in cases {
        // Without a command it serves.
        let output = api(&[], environment);
        assert!(!output.status.success());
        assert!(stderr(&output).contains(hint), "{}", stderr(&output));
    }
}

#[test]
fn bad_settings_are_refused_with_a_hint() {
    let dev = ("FIRSTCOME_DEV", "true");
    // Another API may run here, on the usual port.
    let address = ("API_ADDR", "127.0.0.1:0");
    let database = ("DATABASE_URL", "postgres://localhost/nothing");
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[dev], "DATABASE_URL"),
        (&[dev, address, ("DATABASE_URL", "nonsense")], "DATABASE_URL"),
        (&[dev, database, ("API_ADDR", "nowhere")], "API_ADDR"),
        (&[dev, database, ("LINE_CAPACITY", "0")], "LINE_CAPACITY"),
        (&[dev, database, ("TRUSTED_PROXIES", "10.0.0.0/8,10.0.0.0/33")], "TRUSTED_PROXIES"),
        (&[dev, database, ("ADDRESS_RATE_LIMIT", "-1")], "ADDRESS_RATE_LIMIT"),
        (&[dev, database, ("QUEUE_NAMESPACE", "a b")], "QUEUE_NAMESPACE"),
        (
            &[dev, database, address, ("OTEL_EXPORTER_OTLP_ENDPOINT", "a b")],
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
        (&[dev, database, address, ("REDIS_URL", "http://x")], "REDIS_URL"),
    ];
    for (environment, hint) in cases {
        let output = api(&["serve"], environment);
        assert!(!output.status.success());
        let text = stderr(&output);
        assert!(
            text.to_uppercase().replace('-', "_").contains(hint),
            "{hint} is missing from {text}"
        );
    }
}

#[test]
fn a_malformed_url_is_named_and_its_password_is_not_shown() {
    let urls = [
        ("DATABASE_URL", "postgres://user:s3cret#word@localhost/shop"),
        ("AMQP_URL", "amqp://user:s3cret#word@localhost:5672/%2f"),
        ("AMQP_URL", "s3cret"),
        ("AMQP_URL", "amqp:user:s3cret@localhost"),
        ("REDIS_URL", "redis://user:s3cret#word@localhost:6379"),
        ("REDIS_URL", "s3cret"),
        ("DATABASE_URL", "mysql://user:s3cret@localhost/shop"),
        ("DATABASE_URL", "user:s3cret@localhost/shop"),
        ("DATABASE_URL", "postgres://user:s3cret@[::1/shop"),
        ("AMQP_URL", "amqp://user:s3cret@[::1"),
        ("REDIS_URL", "redis://user:s3cret@[::1"),
        ("JWT_JWKS_URL", "http://user:s3cret@[::1/keys"),
        ("JWT_JWKS_URL", "user:s3cret@localhost/keys"),
        ("JWT_JWKS_URL", "https://user:s3cret@local host/keys"),
        ("DATA_PLATFORM_URL", "http://user:s3cret@[::1/events"),
        ("DATA_PLATFORM_URL", "user:s3cret@localhost/events"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:s3cret@[::1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "user:s3cret@localhost:4318/x"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://user:s3cret@local host"),
    ];
    for (name, url) in urls {
        let mut environment = vec![
            ("FIRSTCOME_DEV", "true"),
            ("API_ADDR", "127.0.0.1:0"),
            ("WORKER_ADDR", "127.0.0.1:0"),
        ];
        // The workers' only.
        let (program, command) = match name {
            "DATA_PLATFORM_URL" => ("firstcome-worker", "all"),
            _ => ("firstcome-api", "serve"),
        };
        if name != "DATABASE_URL" {
            environment.push(("DATABASE_URL", "postgres://localhost/nothing"));
        }
        environment.push((name, url));
        let output = run(program, &[command], &environment);
        assert!(!output.status.success(), "{url}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(name) && !said.contains("panicked"), "{url}: {said}");
        let help = run(program, &[command, "--help"], &environment);
        let text = [output.stdout, output.stderr, help.stdout, help.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains("s3cret"), "{url}: {text}");
    }
}

#[test]
fn secrets_and_urls_come_from_files() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("secrets-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let secret = file("secret", "0123456789abcdef\n");
    let short = file("short", "0123456789abcde\r\n");
    let database = file("database", "postgres://user:s3cret@localhost/nothing\n");
    let wrong = file("wrong", "postgres://user:s3cret#word@localhost/shop");
    let missing = folder.join("missing").to_str().unwrap().to_owned();

    let tokens = |environment| api(&["token", "--user", "7"], environment);
    assert!(tokens(&[("JWT_SECRET_FILE", &secret)]).status.success());
    let help = api(&["token", "--help"], &[("JWT_SECRET_FILE", &secret)]);
    assert!(!String::from_utf8(help.stdout).unwrap().contains("0123456789abcdef"));

    // A pipe, which tells it once; several commands have the variable.
    let program = firstcome_rig::binary("firstcome-api").unwrap();
    let piped = "JWT_SECRET_FILE=<(cat \"$1\") exec \"$0\" token --user 7";
    let piped =
        Command::new("bash").args(["-c", piped]).arg(program).arg(&secret).output().unwrap();
    assert!(piped.status.success(), "{}", stderr(&piped));
    for command in ["serve", "token"] {
        let help = String::from_utf8(api(&[command, "--help"], &[]).stdout).unwrap();
        assert!(help.contains("X_FILE"), "{help}");
    }

    let url = ("DATABASE_URL_FILE", database.as_str());
    let good = ("JWT_SECRET_FILE", secret.as_str());
    let address = ("API_ADDR", "127.0.0.1:0");
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[url, good, address], "JOB_ID_KEY is not set"),
        (&[url, address, ("JWT_SECRET_FILE", &short)], "JWT_SECRET is too short"),
        (&[url, good, address, ("JOB_ID_KEY_FILE", &missing)], "JOB_ID_KEY_FILE"),
        (&[url, good, ("JWT_SECRET", "0123456789abcdef")], "JWT_SECRET and JWT_SECRET_FILE"),
        (&[("DATABASE_URL_FILE", &wrong), good, address], "DATABASE_URL"),
        (&[url, ("AMQP_URL_FILE", &wrong), good, address], "AMQP_URL"),
    ];
    for (environment, hint) in cases {
        let output = api(&["serve"], environment);
        assert!(!output.status.success());
        let text = stderr(&output);
        assert!(text.contains(hint) && !text.contains("s3cret"), "{hint} is missing from {text}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn who_asks_for_health_where_nobody_listens_is_told_so() {
    let output = run("firstcome-worker", &["health"], &[("WORKER_ADDR", "127.0.0.1:0")]);
    assert!(!output.status.success() && stderr(&output).contains("WORKER_ADDR"));
    // Nobody has a port below 2.
    let output = run("firstcome-worker", &["health"], &[("API_ADDR", "0.0.0.0:1")]);
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("nobody listens"));
}

#[test]
fn development_mode_is_told() {
    // Its Redis URL is none, so it ends right after.
    let environment = [
        ("FIRSTCOME_DEV", "true"),
        ("DATABASE_URL", "postgres://localhost/nothing"),
        ("API_ADDR", "127.0.0.1:0"),
        ("REDIS_URL", "x"),
    ];
    let output = api(&["serve"], &environment);
    let log = [output.stdout, output.stderr].concat();
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("development mode"), "{log}");
}

#[test]
fn a_taken_port_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let environment = [
        ("FIRSTCOME_DEV", "true"),
        ("DATABASE_URL", "postgres://localhost/x"),
        ("API_ADDR", &address),
    ];
    let output = api(&["serve"], &environment);
    assert!(!output.status.success());
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    // Its Redis URL is none, so it ends right after.
    let output = Command::new("sh")
        .args(["-c", "ulimit -Sn 256 && ulimit -Hn && exec \"$0\" serve --dev --database-url postgres://x --redis-url x --api-addr 127.0.0.1:0"])
        .arg(firstcome_rig::binary("firstcome-api").unwrap())
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let hard = String::from_utf8(output.stdout.clone()).unwrap();
    let expected = format!("open files limit={}", hard.trim());
    assert!(stderr(&output).contains(&expected), "{expected}: {}", stderr(&output));
}

#[test]
fn too_few_files_for_any_client_are_refused_with_a_hint() {
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 100 && exec \"$0\" serve --dev --database-url postgres://x --api-addr 127.0.0.1:0"])
        .arg(firstcome_rig::binary("firstcome-api").unwrap())
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(stderr(&output).contains("ulimit -n"), "{}", stderr(&output));
}

#[test]
fn tokens_are_made_from_the_secret() {
    let made =
        |environment: &[(&str, &str)]| api(&["token", "--user", "7", "--admin"], environment);
    let token = made(&[("JWT_SECRET", "0123456789abcdef")]);
    assert!(token.status.success());
    assert_eq!(String::from_utf8(token.stdout).unwrap().trim().split('.').count(), 3);
    assert!(!made(&[]).status.success());
    assert!(made(&[("FIRSTCOME_DEV", "true")]).status.success());
}
