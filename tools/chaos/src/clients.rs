//! The customers: what they ask for, and that they poll until they know.

use std::time::Duration;

use chrono::Utc;
use firstcome_check::history::{Item, Request, State, What};
use firstcome_rig::{
    answers::{self, Accepted, Poll},
    http::{Call, call, call_with},
};
use http::{HeaderValue, Method, Uri};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::sale::{Open, Reply, Sale, USERS};

/// How long a customer waits before he asks again who got no answer.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// How often a customer asks in all, with the same key.
const ATTEMPTS: usize = 3;
/// What may come in by one charge.
const CHARGES: std::ops::RangeInclusive<i64> = 1..=5_000;
/// How soon a job is polled again: at first, and at last.
const POLL_INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What a customer asks for, and how.
struct Wish {
    user: i64,
    request: Request,
    key: Option<String>,
    call: Call,
}

/// One customer after the other, at this pace, until `stop`.
pub(crate) async fn buy(sale: &Sale, seed: u64, pause: Duration, stop: &CancellationToken) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = sale.client();
    while stop.run_until_cancelled(sleep(pause.mul_f64(2.0 * random.f64()))).await.is_some() {
        let Some(Wish { user, request, key, call }) = wish(sale, &mut random) else { continue };
        // Without a key nobody should ask again: it might be done twice.
        let attempts = if key.is_some() { ATTEMPTS } else { 1 };
        for _ in 0..attempts {
            let (request, key) = (request.clone(), key.clone());
            match sale.ask(&mut client, user, request, key, call.clone()).await {
                Reply::Accepted | Reply::Refused => break,
                Reply::Unknown => sleep(RETRY_DELAY).await,
            }
        }
    }
}

fn wish(sale: &Sale, random: &mut fastrand::Rng) -> Option<Wish> {
    let user = random.i64(1..=USERS);
    let (user, request, path, body) = match random.u8(0..100) {
        0..45 => {
            let coupon = random.choice(sale.current()).copied()?;
            (user, Request::IssueCoupon { coupon }, format!("/api/coupons/{coupon}/issue"), None)
        }
        45..80 => {
            let coupon = (random.u8(0..3) == 0).then(|| random.choice(sale.current()).copied())?;
            let partial = random.u8(0..4) == 0;
            let mut items: Vec<Item> = Vec::new();
            for _ in 0..random.usize(1..=3) {
                let product = random.choice(&sale.products).copied()?;
                if items.iter().all(|item| item.product != product) {
                    items.push(Item { product, quantity: random.i64(1..=3) });
                }
            }
            let body = json!({
                "items": items.iter().map(|item| json!({"productId": item.product, "quantity": item.quantity}))
                    .collect::<Vec<_>>(),
                "couponId": coupon,
                "fulfilment": if partial { "partial" } else { "all" },
            });
            (
                user,
                Request::PlaceOrder { items, coupon, partial },
                "/api/orders".to_owned(),
                Some(body),
            )
        }
        80..92 => {
            let (user, order) = sale.some_order(random)?;
            (user, Request::CancelOrder { order }, format!("/api/orders/{order}/cancel"), None)
        }
        _ => {
            let amount = random.i64(CHARGES);
            let body = json!({"amount": amount});
            (user, Request::Charge { amount }, "/api/balance/charge".to_owned(), Some(body))
        }
    };
    // A charge without a key is refused.
    let key = (matches!(request, Request::Charge { .. }) || random.u8(0..10) < 6)
        .then(|| Uuid::from_u128(random.u128(..)).to_string());
    let path = Uri::try_from(path).ok()?;
    let bearer = sale.bearer(user)?;
    let mut call = match body {
        Some(body) => call_with(Method::POST, path, Some(bearer), &body),
        None => call(Method::POST, path, Some(bearer)),
    };
    if let Some(key) = &key {
        call.headers_mut().insert(answers::IDEMPOTENCY_KEY, HeaderValue::from_str(key).ok()?);
    }
    Some(Wish { user, request, key, call })
}

/// Polls open jobs whose turn it is, each by itself and less and less often, until `stop`; one of so many that do.
pub(crate) async fn poll(sale: &Sale, me: u64, of: u64, stop: &CancellationToken) {
    let mut client = sale.client();
    while !stop.is_cancelled() {
        let now = Instant::now();
        let mine: Vec<(Uuid, Open)> = {
            let mut open = sale.open();
            let due =
                open.iter_mut().filter(|(_, open)| open.operation % of == me && open.next <= now);
            due.map(|(job, open)| {
                open.next = now + (now - open.since).clamp(POLL_INTERVALS.0, POLL_INTERVALS.1);
                (*job, *open)
            })
            .collect()
        };
        for (job, open) in mine {
            poll_once(sale, &mut client, job, open).await;
        }
        sleep(POLL_INTERVALS.0 / 2).await;
    }
}

async fn poll_once(
    sale: &Sale,
    client: &mut firstcome_rig::http::Client,
    job: Uuid,
    Open { operation, user, .. }: Open,
) {
    let Some(bearer) = sale.bearer(user) else { return };
    let Ok(path) = Uri::try_from(format!("/api/jobs/{job}")) else { return };
    let asked = Utc::now();
    // What was not answered has told nothing.
    let Ok(answer) = client.send(call(Method::GET, path, Some(bearer))).await else { return };
    let accepted = Accepted { intent: 0, job, user, at: Duration::ZERO };
    let mut is_settled = false;
    let state = match answers::read_poll(&accepted, &answer) {
        Poll::Settled(settled) => {
            if let Some(order) = settled.outcome.order() {
                sale.placed(user, order.order_id.get());
            }
            is_settled = true;
            State::Settled(settled.outcome)
        }
        Poll::Queued => State::Queued { position: None },
        Poll::Unavailable => return,
        // Nobody was promised such an answer: the checker's to judge.
        Poll::Unexpected(_) => State::Missing { status: answer.status.as_u16() },
    };
    sale.log.note(operation, What::Poll { job, asked, state });
    if is_settled {
        sale.settled(job);
    }
}
