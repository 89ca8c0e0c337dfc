//! What it costs that many wait with an event stream each, while others storm one hot coupon.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use firstcome_rig::{answers::job_of, http::Client, system::COUPONS};
use http::header::{AUTHORIZATION, HeaderValue};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{coupons::hot_coupon, idle::rss_mib};
use crate::compare::{
    load::Requests,
    plan::MOST_CONNECTIONS,
    requests,
    run::{FIRSTCOME, Run},
    sale::Sale,
    servers::Firstcome,
    throughput::measure,
};

/// As many as the API allows by default.
const STREAMS: usize = 5_000;
/// How many of them are opened at a time.
const AT_ONCE: usize = 50;
/// How long a stream may take to begin.
const DEADLINE: Duration = Duration::from_secs(30);
/// The system, with that many streams.
const WITH_STREAMS: &str = "firstcome-streams";

/// The streams are of orders that nobody settles, each of another user: they last as long as they are needed.
pub(super) async fn streams(run: &mut Run<'_>) -> anyhow::Result<()> {
    run.say("firstcome, event streams");
    let database = run.databases.used("bench_streams").await?;
    // Both declare their lines; then orders wait.
    let system = Firstcome::start(&database).await?.stop_workers().await?;
    let system = system.start(&[COUPONS])?;
    let (requests, goods) = run.hot(Sale::Coupons, &database).await?;
    measure(&run.warm_up(system.address, requests), &goods, &database.pool).await?;

    let (without, _) = hot_coupon(run, &system, &database, MOST_CONNECTIONS, false).await?;
    run.note("streams", FIRSTCOME, MOST_CONNECTIONS, &without);
    let api = system.api().context("the API does not run")?;
    let before = rss_mib(api)?;
    let orders = requests::hot_orders(&run.databases.bearers, None);
    let open = open(system.address, &orders).await?;
    // What opening them took is given back, or is part of the price.
    sleep(run.plan.window / 2).await;
    let grown = rss_mib(api)? - before;
    run.measurements.add(format!("streams.{WITH_STREAMS}.rss_mib"), grown);
    let (with, _) = hot_coupon(run, &system, &database, MOST_CONNECTIONS, false).await?;
    run.note("streams", WITH_STREAMS, MOST_CONNECTIONS, &with);
    run.say(format_args!("  {STREAMS} streams: {grown:.0} MiB"));
    ensure!(open.len() == STREAMS, "{} of {STREAMS} streams are open", open.len());
    drop(open);
    system.stop().await?;
    database.audit(FIRSTCOME).await?;
    run.databases.delete(database).await
}

/// Submits an order for each stream, and opens it; each is read as a client would.
async fn open(address: SocketAddr, orders: &Requests) -> anyhow::Result<JoinSet<()>> {
    let mut opening = JoinSet::new();
    for first in 0..AT_ONCE {
        let orders = Arc::clone(orders);
        opening.spawn(async move {
            let mut client = Client::new(address, DEADLINE);
            let mut streams = Vec::new();
            for index in (first..STREAMS).step_by(AT_ONCE) {
                let (call, _) = orders(index).context("too few users")?;
                let bearer = call.headers().get(AUTHORIZATION).cloned();
                let job = job_of(&client.send(call).await?);
                let (job, bearer) = job.zip(bearer).context("an order was not accepted")?;
                streams.push(timeout(DEADLINE, begin(address, job, &bearer)).await??);
            }
            anyhow::Ok(streams)
        });
    }
    let mut open = JoinSet::new();
    while let Some(opened) = opening.join_next().await {
        for mut stream in opened?? {
            open.spawn(async move {
                while stream.read(&mut [0; 512]).await.is_ok_and(|count| count > 0) {}
            });
        }
    }
    // Whoever is gone by now was not served.
    while open.try_join_next().is_some() {}
    Ok(open)
}

/// A stream that has told its first place.
async fn begin(
    address: SocketAddr,
    job: Uuid,
    bearer: &HeaderValue,
) -> anyhow::Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(address).await?;
    let token = bearer.to_str()?;
    let request = format!(
        "GET /api/jobs/{job} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\
         authorization: {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    // As small as a client's that holds thousands.
    let mut stream = BufReader::with_capacity(512, stream);
    let mut line = String::new();
    while !line.starts_with("event: queued") {
        line.clear();
        ensure!(stream.read_line(&mut line).await? > 0, "a stream ended before its first event");
        ensure!(!line.starts_with("HTTP/1.1") || line.contains(" 200 "), "a stream: {line}");
    }
    Ok(stream)
}
