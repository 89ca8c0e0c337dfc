//! The operator, who goes on working through all of it: stock, totals, pauses, pins, partitions.

use std::time::Duration;

use anyhow::Context;
use firstcome_check::history::Request;
use firstcome_rig::{
    Process,
    http::{Client, call, call_with},
};
use http::{Method, Uri};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    sale::{Sale, TOTAL},
    world::World,
};

/// How often something is changed.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a sale is paused.
const PAUSED: Duration = Duration::from_secs(1);
/// How many partitions a family has.
const PARTITIONS: std::ops::RangeInclusive<u8> = 2..=5;
/// How long the command that changes them may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// Changes something again and again, until `stop`.
pub(crate) async fn operate(
    world: &World,
    sale: &Sale,
    seed: u64,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = sale.client();
    while stop.run_until_cancelled(sleep(PAUSE.mul_f64(2.0 * random.f64()))).await.is_some() {
        change(world, sale, &mut random, &mut client).await?;
    }
    Ok(())
}

/// Changes something. What is not answered is left alone: the next change comes soon.
async fn change(
    world: &World,
    sale: &Sale,
    random: &mut fastrand::Rng,
    client: &mut Client,
) -> anyhow::Result<()> {
    let product = random.choice(&sale.products).copied().context("nothing is sold")?;
    let coupon = random.choice(sale.current()).copied().context("there is no campaign")?;
    match random.u8(0..12) {
        0..5 => {
            let delta = random.i64(5..=25);
            sale.ask(client, 1, Request::AddStock { product, delta }, None).await?;
        }
        5..7 => {
            let total = TOTAL + random.i64(1..=60);
            sale.ask(client, 1, Request::SetTotal { coupon, total }, None).await?;
        }
        7 => {
            set_paused(sale, client, product, true).await;
            sleep(PAUSED).await;
            // A sale that stays paused is over.
            while !set_paused(sale, client, product, false).await {
                sleep(PAUSED).await;
            }
        }
        8..11 => {
            let subject = if random.bool() {
                format!("product/{product}")
            } else {
                format!("coupon/{coupon}")
            };
            let method = if random.bool() { Method::PUT } else { Method::DELETE };
            send(sale, client, method, format!("/api/admin/pins/{subject}"), None).await;
        }
        _ => {
            let family = if random.bool() { "coupon" } else { "product" };
            let partitions = random.u8(PARTITIONS).to_string();
            let arguments = ["partitions", family, &partitions];
            let log = world.settings.log("partitions");
            let environment = world.settings.environment();
            let mut changing = Process::start("firstcome-worker", &arguments, environment, &log)?;
            let give_up = Instant::now() + COMMAND_DEADLINE;
            while matches!(changing.ended(), Ok(None)) && Instant::now() < give_up {
                sleep(PAUSED / 10).await;
            }
        }
    }
    Ok(())
}

async fn set_paused(sale: &Sale, client: &mut Client, product: i64, is: bool) -> bool {
    let path = format!("/api/admin/products/{product}");
    send(sale, client, Method::PATCH, path, Some(json!({"paused": is}))).await
}

/// Whether it was done.
async fn send(
    sale: &Sale,
    client: &mut Client,
    method: Method,
    path: String,
    what: Option<Value>,
) -> bool {
    let Ok(path) = Uri::try_from(path) else { return false };
    let call = match what {
        Some(what) => call_with(method, path, Some(&sale.admin), &what),
        None => call(method, path, Some(&sale.admin)),
    };
    client.send(call).await.is_ok_and(|answer| answer.status.is_success())
}
