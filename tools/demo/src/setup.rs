//! Before a sale opens: what is sold; does one job go all the way, and how long does it take by
//! itself?

use std::time::Duration;

use anyhow::bail;
use chrono::{TimeDelta, Utc};
use firstcome_rig::{
    answers::{self, Accepted, Poll},
    http::{Client, call, call_with},
    settings::Settings,
};
use http::{Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use crate::mix::{MOST_OF_ONE, Product, RANGE, Role};

/// What a coupon of the drop takes off an order, in won.
pub(crate) const DISCOUNT: i64 = 1_000;
/// Jobs before the sale; the first one warms up, the others show what a job takes at rest.
const TRIALS: usize = 10;
/// The sample coupon that they are for.
const TRIAL_COUPON: i64 = 2;

/// Jobs on a system at rest: the proof that the whole line works, and what one job takes there.
///
/// # Errors
/// What was answered instead.
pub(crate) async fn try_out(settings: &Settings) -> anyhow::Result<(Vec<Uuid>, Duration)> {
    let bearer = settings.bearer(1, false)?;
    let path = answers::coupon_path(TRIAL_COUPON)?;
    let mut client = Client::new(settings.api_for_clients(), Duration::from_secs(15));
    let (mut trials, mut took) = (Vec::new(), Vec::new());
    while trials.len() < TRIALS {
        let clicked = Instant::now();
        let answer = client.send(call(Method::POST, path.clone(), Some(&bearer))).await?;
        let Some(job) = answers::job_of(&answer).filter(|_| answer.status == StatusCode::ACCEPTED)
        else {
            bail!("the answer was {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        };
        let accepted = Accepted { intent: 0, job, user: 1, at: Duration::ZERO };
        let settled = loop {
            match answers::read_poll(
                &accepted,
                &answers::poll_once(&mut client, job, &bearer).await?,
            ) {
                Poll::Settled(settled) => break settled,
                Poll::Queued => {}
                Poll::Unavailable => bail!("a poll was answered with 503"),
                Poll::Unexpected(what) => bail!(what),
            }
        };
        if trials.is_empty() {
            anyhow::ensure!(
                settled.outcome.coupon().is_some(),
                "the first one was {} ({})",
                settled.outcome.status,
                settled.outcome.name()
            );
        } else {
            took.push(clicked.elapsed());
        }
        trials.push(job);
    }
    took.sort_unstable();
    Ok((trials, took.get(took.len() / 2).copied().unwrap_or_default()))
}

/// Creates the campaign of the coupon drop; returns its id.
///
/// # Errors
/// What the API answered, if not 201.
pub(crate) async fn create_coupon(settings: &Settings, total: u32) -> anyhow::Result<i64> {
    let now = Utc::now();
    let coupon = json!({
        "name": "Flash sale",
        "discountType": "fixed",
        "discountValue": DISCOUNT,
        "total": total,
        "startsAt": now - TimeDelta::minutes(1),
        "endsAt": now + TimeDelta::days(2),
    });
    create(settings, Uri::from_static("/api/admin/coupons"), &coupon).await
}

/// Creates the products of the product sale: `stock` consoles, and of everything else more than
/// `orders` orders can ask for.
///
/// # Errors
/// What the API answered, if not 201.
pub(crate) async fn create_products(
    settings: &Settings,
    stock: u32,
    orders: u32,
) -> anyhow::Result<Vec<Product>> {
    let mut products = Vec::new();
    for (role, name, price) in RANGE {
        let plenty = i64::from(orders) * MOST_OF_ONE;
        let stock = if role == Role::Console { i64::from(stock) } else { plenty };
        let product = json!({ "name": name, "price": price, "stock": stock });
        let id = create(settings, Uri::from_static("/api/admin/products"), &product).await?;
        products.push(Product { role, id, name, price, stock });
    }
    Ok(products)
}

async fn create(settings: &Settings, path: Uri, what: &serde_json::Value) -> anyhow::Result<i64> {
    #[derive(Deserialize)]
    struct Created {
        id: i64,
    }
    let admin = settings.bearer(1, true)?;
    let mut client = Client::new(settings.api_for_clients(), Duration::from_secs(10));
    let answer = client.send(call_with(Method::POST, path.clone(), Some(&admin), what)).await?;
    if answer.status != StatusCode::CREATED {
        let body = String::from_utf8_lossy(&answer.body);
        bail!("POST {path} was answered with {} {body}", answer.status);
    }
    Ok(serde_json::from_slice::<Created>(&answer.body)?.id)
}
