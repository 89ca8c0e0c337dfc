//! The customers: what they ask for, and that they poll until they know.

use std::time::Duration;

use chrono::Utc;
use firstcome_check::history::{Item, Request, State, What};
use firstcome_rig::{
    answers::{self, Accepted, Poll},
    http::{Client, call},
};
use http::{Method, Uri};
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

/// One customer after the other, at this pace, until `stop`.
pub(crate) async fn buy(
    sale: &Sale,
    seed: u64,
    pause: Duration,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = sale.client();
    while stop.run_until_cancelled(sleep(pause.mul_f64(2.0 * random.f64()))).await.is_some() {
        let Some((user, request)) = wish(sale, &mut random) else { continue };
        // A charge without a key is refused.
        let has_key = matches!(request, Request::Charge { .. }) || random.u8(0..10) < 6;
        let key = has_key.then(|| Uuid::from_u128(random.u128(..)).to_string());
        // Without a key nobody should ask again: it might be done twice.
        let attempts = if has_key { ATTEMPTS } else { 1 };
        for _ in 0..attempts {
            match sale.ask(&mut client, user, request.clone(), key.clone()).await? {
                Reply::Accepted | Reply::Refused => break,
                Reply::Unknown => sleep(RETRY_DELAY).await,
            }
        }
    }
    Ok(())
}

/// Who asks for what; nobody for anything, as long as there is no order to cancel.
fn wish(sale: &Sale, random: &mut fastrand::Rng) -> Option<(i64, Request)> {
    let user = random.i64(1..=USERS);
    let coupon = random.choice(sale.current()).copied()?;
    Some(match random.u8(0..100) {
        0..45 => (user, Request::IssueCoupon { coupon }),
        45..80 => {
            let coupon = (random.u8(0..3) == 0).then_some(coupon);
            let partial = random.u8(0..4) == 0;
            let mut items: Vec<Item> = Vec::new();
            for _ in 0..random.usize(1..=3) {
                let product = random.choice(&sale.products).copied()?;
                if items.iter().all(|item| item.product != product) {
                    items.push(Item { product, quantity: random.i64(1..=3) });
                }
            }
            (user, Request::PlaceOrder { items, coupon, partial })
        }
        80..92 => {
            let (user, order) = sale.some_order(random)?;
            (user, Request::CancelOrder { order })
        }
        _ => (user, Request::Charge { amount: random.i64(CHARGES) }),
    })
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
    client: &mut Client,
    job: Uuid,
    Open { operation, user, .. }: Open,
) {
    let Some(bearer) = sale.bearer(user) else { return };
    let Ok(path) = Uri::try_from(format!("/api/jobs/{job}")) else { return };
    let asked = Utc::now();
    // What was not answered has told nothing.
    let Ok(answer) = client.send(call(Method::GET, path, Some(bearer))).await else { return };
    let accepted = Accepted { intent: 0, job, user, at: Duration::ZERO };
    let state = match answers::read_poll(&accepted, &answer) {
        Poll::Settled(settled) => {
            if let Some(order) = settled.outcome.order() {
                sale.placed(user, order.order_id.get());
            }
            State::Settled(settled.outcome)
        }
        Poll::Queued => State::Queued { position: None },
        Poll::Unavailable => return,
        // Nobody was promised such an answer: the checker's to judge.
        Poll::Unexpected(_) => State::Missing { status: answer.status.as_u16() },
    };
    let is_settled = matches!(state, State::Settled(_));
    sale.log.note(operation, What::Poll { job, asked, state });
    if is_settled {
        sale.settled(job);
    }
}
