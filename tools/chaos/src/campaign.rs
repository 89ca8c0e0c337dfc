//! The campaign: a fault, its end, and how long until everything is as it was; again and again.

use std::time::Duration;

use anyhow::ensure;
use firstcome_check::history::{Edge, Item, Request, What};
use firstcome_contract::event::{Data, Event};
use firstcome_rig::screen::Screen;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::{
    args::Args,
    faults::{Deck, Fault},
    sale::{Probes, Reply, Sale, USERS},
    world::World,
};

/// How long what can last does last.
const LASTS: std::ops::RangeInclusive<u64> = 1_000..=4_000;
/// How soon everything must be as it was.
pub(crate) const RECOVERY_LIMIT: Duration = Duration::from_secs(15);
/// When it is given up.
const GIVE_UP: Duration = Duration::from_secs(90);
/// How often it is looked.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often it is noted how many jobs wait.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How long the sale goes on undisturbed between two faults.
const CALM: Duration = Duration::from_millis(1_500);
/// After how many faults the next campaign is opened.
pub(crate) const CYCLES_PER_DROP: usize = 6;

/// One fault, or two that strike together, and what it cost.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cycle {
    pub(crate) faults: Vec<String>,
    /// From its beginning to its end.
    pub(crate) lasted_ms: u64,
    /// From its end until whatever was accepted before was settled, and a coupon and an order that were asked for
    /// after it, too, and the order's event was delivered.
    pub(crate) recovered_ms: u64,
    pub(crate) is_recovered: bool,
    /// Faults that could not be caused, or not put right.
    pub(crate) troubles: Vec<String>,
    /// What else had to be done to put them right.
    pub(crate) remarks: Vec<String>,
    /// Requests meanwhile that got an answer, and those that did not.
    pub(crate) answered: u64,
    pub(crate) unanswered: u64,
    /// For how long no job was accepted, at the longest.
    pub(crate) downtime_ms: u64,
}

/// Lets this many faults strike, or as many as the time allows.
///
/// # Errors
/// Customers cannot ask for anything.
pub(crate) async fn run(
    world: &World,
    sale: &Sale,
    args: &Args,
    until: Option<Instant>,
    screen: &mut Screen,
) -> anyhow::Result<Vec<Cycle>> {
    let Args { seed, cycles, .. } = *args;
    let mut deck = Deck::new(faults(world, args.only.as_deref(), screen).await?, seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut done = Vec::new();
    while done.len() < cycles && until.is_none_or(|until| Instant::now() < until) {
        sleep(CALM).await;
        let faults = deck.draw();
        let lasts = Duration::from_millis(random.u64(LASTS));
        let cycle = cycle(world, sale, &faults, lasts, done.len()).await?;
        screen.line(line(&cycle, done.len() + 1, cycles));
        for line in cycle.troubles.iter().chain(&cycle.remarks) {
            screen.line(format_args!("          {line}"));
        }
        let is_recovered = cycle.is_recovered;
        done.push(cycle);
        if !is_recovered {
            break;
        }
        if done.len() % CYCLES_PER_DROP == 0 {
            sale.next_drop();
        }
    }
    Ok(done)
}

/// Those that were asked for and can strike here; tells of the others.
async fn faults(
    world: &World,
    only: Option<&str>,
    screen: &mut Screen,
) -> anyhow::Result<Vec<Fault>> {
    let mut all = if world.services.are_a_cluster() { Fault::of_cluster() } else { Fault::all() };
    if let Some(only) = only {
        let only = only.to_lowercase();
        let name = |fault: &Fault| fault.to_string().to_lowercase();
        let mut known = all.iter().copied().chain(Fault::on_request());
        match known.find(|fault| name(fault) == only) {
            Some(fault) => all = vec![fault],
            None => all.retain(|fault| name(fault).contains(&only)),
        }
        ensure!(!all.is_empty(), "no fault has `{only}` in its name");
    }
    if all.iter().any(|fault| fault.needs_small_disk())
        && let Err(error) = world.services.have_small_disks().await
    {
        for fault in all.extract_if(.., |fault| fault.needs_small_disk()) {
            screen.line(format_args!("cannot strike here: {fault}"));
        }
        screen.line(format_args!("          {error:#}"));
        ensure!(!all.is_empty(), "no fault that was asked for can strike here");
    }
    Ok(all)
}

async fn cycle(
    world: &World,
    sale: &Sale,
    faults: &[Fault],
    lasts: Duration,
    number: usize,
) -> anyhow::Result<Cycle> {
    let names: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let name = names.join(" and ");
    let before = sale.requests();
    sale.downtime();
    let begun = Instant::now();
    sale.log.note(0, What::Fault { name: name.clone(), edge: Edge::Begins });
    let mut troubles = Vec::new();
    for fault in faults {
        if let Err(error) = fault.strike(world).await {
            troubles.push(format!("{fault} (to strike): {error:#}"));
        }
        if fault.empties_a_line() {
            sale.log.note(0, What::Purged);
        }
    }
    sleep(lasts).await;
    for fault in faults {
        if let Err(error) = fault.mend(world).await {
            troubles.push(format!("{fault} (to mend): {error:#}"));
        }
    }
    let remarks: Vec<String> = world
        .given_up()
        .into_iter()
        .map(|queue| format!("the broker had lost {queue}: it was deleted, to be made again"))
        .collect();
    if !remarks.is_empty() {
        sale.log.note(0, What::Purged);
    }
    let ended = Instant::now();
    sale.log.note(0, What::Fault { name, edge: Edge::Ends });
    let recovered = timeout(GIVE_UP, recovery(world, sale, number, ended)).await;
    let is_recovered = recovered.map_or(Ok(false), |recovered| recovered.map(|()| true))?;
    let after = sale.requests();
    Ok(Cycle {
        faults: names,
        lasted_ms: millis(ended - begun),
        recovered_ms: millis(ended.elapsed()),
        is_recovered,
        troubles,
        remarks,
        answered: after.0 - before.0,
        unanswered: after.1 - before.1,
        downtime_ms: millis(sale.downtime()),
    })
}

/// Returns when everything is as it was before a fault that ended at this instant.
async fn recovery(world: &World, sale: &Sale, number: usize, ended: Instant) -> anyhow::Result<()> {
    let user = i64::try_from(number).unwrap_or_default() % USERS + 1;
    probe(sale, user).await?;
    let is_the_probe = |event: &Event| {
        let Data::OrderCompleted(order) = &event.data else { return false };
        let mut products = order.items.iter().map(|item| item.product_id.get());
        order.user_id.get() == user && products.any(|product| product == sale.probes.product)
    };
    while sale.open_since(ended) > 0 || !world.platform.has(is_the_probe) {
        sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// A coupon and an order, asked for until they are accepted.
async fn probe(sale: &Sale, user: i64) -> anyhow::Result<()> {
    let mut client = sale.client();
    let Probes { coupon, product } = sale.probes;
    let items = vec![Item { product, quantity: 1 }];
    let order = Request::PlaceOrder { items, coupon: None, partial: false };
    for request in [Request::IssueCoupon { coupon }, order] {
        let key = Some(Uuid::from_u128(fastrand::u128(..)).to_string());
        while !matches!(
            sale.ask(&mut client, user, request.clone(), key.clone()).await?,
            Reply::Accepted
        ) {
            sleep(LOOK_INTERVAL).await;
        }
    }
    Ok(())
}

/// Notes again and again of every subject how many of its jobs wait and how many were settled.
pub(crate) async fn watch(sale: &Sale) {
    loop {
        sleep(WATCH_INTERVAL).await;
        for (subject, (waiting, settled)) in sale.progress() {
            let line = Some(subject.to_string());
            sale.log.note(0, What::Look { line, waiting, settled });
        }
    }
}

fn line(cycle: &Cycle, number: usize, of: usize) -> String {
    let seconds = |millis: u64| millis as f64 / 1_000.0;
    format!(
        "{number:>4}/{of} {:<58} {:>5.1} s, down {:>4.1} s, {}",
        cycle.faults.join(" and "),
        seconds(cycle.lasted_ms),
        seconds(cycle.downtime_ms),
        if cycle.is_recovered {
            format!("recovered in {:.1} s", seconds(cycle.recovered_ms))
        } else {
            format!("NOT RECOVERED after {:.0} s", seconds(cycle.recovered_ms))
        },
    )
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
