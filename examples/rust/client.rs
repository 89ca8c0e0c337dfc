//! A client of Firstcome: asks for a coupon once, and stays until it is known how that ended.
//!
//! `API=… TOKEN=… cargo run -p firstcome-tests --example client -- COUPON`; `KEY` is the key of the intention, where it is to survive
//! this process. Exits with 0 if it succeeded.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use serde_json::Value;
use uuid::Uuid;

/// When it gives up.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let variable = |name| std::env::var(name).with_context(|| format!("{name} is not set"));
    let coupon: i64 = std::env::args().nth(1).context("which coupon?")?.parse()?;
    let (api, token) = (variable("API")?, variable("TOKEN")?);
    // One key per intention, for all attempts: they are one job, whatever got lost on the way.
    let key = variable("KEY").unwrap_or_else(|_| Uuid::new_v4().to_string());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().timeout(Duration::from_secs(60)).build()?;
    let until = Instant::now() + PATIENCE;
    let ask =
        |method, path: &str| client.request(method, format!("{api}{path}")).bearer_auth(&token);

    let issue = ask(Method::POST, &format!("/api/coupons/{coupon}/issue"));
    let (mut job, mut after) = insist(&issue.header("Idempotency-Key", key), until).await?;
    while job["status"] == "queued" {
        if let Some(position) = job["position"].as_u64() {
            eprintln!("place {position}, about {} s", job["estimatedSeconds"]);
        }
        pause(after.unwrap_or(1.0), 0.25, until).await?;
        let id = job["jobId"].as_str().context("no jobId")?;
        // Held until it is settled, at most so long.
        let poll = ask(Method::GET, &format!("/api/jobs/{id}")).header("Prefer", "wait=5");
        (job, after) = insist(&poll, until).await?;
    }
    println!("{job}");
    Ok(ExitCode::from(u8::from(job["status"] != "succeeded")))
}

/// Asks until there is an answer that counts: a success, or one that repeating would not change.
async fn insist(request: &RequestBuilder, until: Instant) -> anyhow::Result<(Value, Option<f64>)> {
    let mut backoff = 0.5;
    loop {
        let request = request.try_clone().context("a body that cannot be sent twice")?;
        let mut asked_for = None;
        // No answer, or half of one: nobody knows whether it was heard. The key makes it safe to repeat.
        if let Ok(answer) = request.send().await {
            let (status, after) = (answer.status(), retry_after(&answer));
            let passes = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS]
                .contains(&status)
                || status.is_server_error()
                || (status == StatusCode::CONFLICT && after.is_some());
            match answer.json::<Value>().await {
                Ok(body) if status.is_success() => return Ok((body, after)),
                problem if !status.is_success() && !passes => {
                    let problem = problem.unwrap_or_default();
                    bail!("{status}: {}: {}", problem["code"], problem["detail"]);
                }
                _ => asked_for = after,
            }
        }
        match asked_for {
            Some(seconds) => pause(seconds, 0.25, until).await?,
            None => pause(backoff, backoff / 2.0, until).await?,
        }
        backoff = f64::min(backoff * 2.0, 15.0);
    }
}

fn retry_after(answer: &Response) -> Option<f64> {
    answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

/// So long, and up to so much more, so that not all come back at once.
async fn pause(seconds: f64, jitter: f64, until: Instant) -> anyhow::Result<()> {
    let random = f64::from(Uuid::new_v4().as_bytes()[0]) / 255.0;
    let pause = Duration::try_from_secs_f64(seconds + jitter * random).unwrap_or(PATIENCE);
    anyhow::ensure!(Instant::now() + pause < until, "gave up: it took too long");
    tokio::time::sleep(pause).await;
    Ok(())
}
