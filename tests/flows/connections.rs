//! Clients that hold connections: slow ones, silent ones, and more than there may be.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::processes::{self, free_port, log};
use firstcome_tests::{Answer, DEADLINE, Options, Shop, eventually, shop, token};

const REQUEST: &[u8] = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";

async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// A connection that has had an answer and could ask again.
async fn idle(url: &str) -> TcpStream {
    let mut stream = connect(url).await;
    stream.write_all(REQUEST).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 "));
    stream
}

/// A connection in the middle of a request.
async fn busy(url: &str) -> TcpStream {
    let mut stream = connect(url).await;
    let head = format!(
        "POST /api/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        token(7, false)
    );
    // Whoever is refused may be so before it is written.
    let _ = stream.write_all(head.as_bytes()).await;
    stream
}

/// What comes first; nothing if the connection is closed.
async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let read = timeout(DEADLINE, stream.read(&mut bytes)).await.unwrap().unwrap_or_default();
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

/// How long until the other side closes it.
async fn closes_after(mut stream: TcpStream) -> Duration {
    let started = Instant::now();
    let mut rest = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("it is closed");
    started.elapsed()
}

async fn figure(shop: &Shop, url: &str, name: &str) -> f64 {
    let answer = shop.anonymous(Method::GET, &format!("{url}/metrics")).send().await.unwrap();
    let text = answer.text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_small_and_comes_in_time() {
    shop(Options::default(), async |shop| {
        let api = shop.start_api(|_| {}).await;
        // hyper would take 400 KiB of it, and wait for more.
        let mut large = connect(&api.url).await;
        let head_of = |size| format!("GET / HTTP/1.1\r\nHost: x\r\nX-A: {}", "a".repeat(size));
        large.write_all(head_of(20_000).as_bytes()).await.unwrap();
        assert!(head(&mut large).await.starts_with("HTTP/1.1 431 "));

        let mut waiting = idle(&api.url).await;
        waiting.write_all(b"GET /health/live HTTP/1.1\r\nHost: x").await.unwrap();
        let mut fresh = connect(&api.url).await;
        fresh.write_all(head_of(10_000).as_bytes()).await.unwrap();
        let silent = idle(&api.url).await;
        for took in join_all([waiting, fresh].map(closes_after)).await {
            assert!((9..15).contains(&took.as_secs()), "{took:?}");
        }
        // Between requests there is more time than a balancer takes to give up its end.
        let soon = timeout(Duration::from_secs(1), closes_after(silent));
        assert!(soon.await.is_err(), "a connection between requests is kept");
        api.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_not_held_for_good() {
    shop(Options::default(), async |shop| {
        let api = shop.start_api(|_| {}).await;
        let open = async || figure(shop, &api.url, "firstcome_http_connections").await;
        let started = Instant::now();
        let mut deaf = Vec::new();
        for _ in 0..10 {
            let mut stream = connect(&api.url).await;
            // 60 MB: more than what fits into the buffers between us.
            let request = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n";
            stream.write_all(request.repeat(40).as_bytes()).await.unwrap();
            deaf.push(stream);
        }
        // Besides those that ask for the figure.
        eventually("they are there", async || open().await >= 10.0).await;
        eventually("they are given up", async || open().await < 5.0).await;
        // Before silence would have been the reason.
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
        drop(deaf);
        api.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_and_idle_ones_make_room() {
    shop(Options::default(), async |shop| {
        let api = shop.start_api(|config| config.max_connections = 40).await;
        let refused = "firstcome_http_connections_refused_total";
        assert_eq!(figure(shop, &api.url, refused).await, 0.0);
        assert_eq!(figure(shop, &api.url, "firstcome_http_connections_limit").await, 40.0);
        // One after the other, and none is given back.
        let mut silent = Vec::new();
        for _ in 0..200 {
            let mut stream = connect(&api.url).await;
            stream.write_all(REQUEST).await.unwrap();
            let answer = head(&mut stream).await;
            if answer.starts_with("HTTP/1.1 503 ") {
                // As it says.
                assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            } else {
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            }
            silent.push(stream);
        }

        // In the middle of a request nobody is cut off for others: these are refused.
        let mut busy = Vec::new();
        let refusal = loop {
            assert!(busy.len() < 100, "as many as come are taken");
            busy.push(self::busy(&api.url).await);
            let request = shop.anonymous(Method::GET, &format!("{}/api/products", api.url));
            let answer = Answer::try_of(request.header("Connection", "close")).await;
            if let Some(answer) = answer.ok().filter(|answer| answer.status != 200) {
                break answer;
            }
        };
        refusal.is_problem(503, "too-many-connections");
        assert_eq!(refusal.headers["retry-after"], "1");
        drop((busy, silent));
        eventually("there is room again", async || {
            let request = shop.anonymous(Method::GET, &format!("{}/health/live", api.url));
            request.send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        assert!(figure(shop, &api.url, refused).await >= 1.0);
        api.stop().await;
    })
    .await;
}

/// The descriptors of the process run out all the same, as where others share its limit.
#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_it_says_so_and_serves_as_soon_as_it_can() {
    shop(Options::default(), async |shop| {
        let port = free_port();
        let api = processes::api(shop, port).await;
        let url = format!("http://127.0.0.1:{port}");
        let id = api.id().unwrap();
        let open = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
        let limit = |files: usize| {
            let limit = format!("--nofile={files}:");
            let status = std::process::Command::new("prlimit")
                .args(["--pid", &id.to_string(), &limit])
                .status();
            assert!(status.unwrap().success());
        };
        limit(open + 10);
        // Idle ones are closed for whoever comes.
        let mut silent = Vec::new();
        for _ in 0..30 {
            silent.push(idle(&url).await);
        }
        // Others are not.
        let mut busy = Vec::new();
        for _ in 0..20 {
            busy.push(self::busy(&url).await);
        }
        let told = || {
            let log = std::fs::read_to_string(log(shop)).unwrap();
            log.matches("cannot accept clients").count()
        };
        eventually("it says so", async || told() > 0).await;
        let waiting = tokio::spawn({
            let url = url.clone();
            async move { idle(&url).await }
        });
        let started = Instant::now();
        drop(busy);
        waiting.await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert!(told() < 10, "{} lines in the log", told());
        api.stop().await.unwrap();
    })
    .await;
}
