//! What came of the product sale: who wanted what, and who got it.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use firstcome_rig::figures::{amount, count, duration};

use super::{Report, chart::bar};
use crate::{
    consumers::CaughtUp,
    mix::{Kind, Offer, Product, Role},
};

#[must_use]
pub(crate) fn lines(
    report: &Report<'_>,
    offer: &Offer,
    stocks: &HashMap<i64, i64>,
    caught_up: CaughtUp,
) -> Vec<String> {
    let mut lines = headline(report, offer, stocks);
    lines.extend(report.speed());
    lines.extend(kinds(report, offer));
    lines.extend(shelf(offer, stocks));
    lines.extend(report.pictures());
    lines.push(after_the_last_outcome(caught_up));
    lines
}

/// How far behind the consumers of the events were.
pub(super) fn after_the_last_outcome(caught_up: CaughtUp) -> String {
    format!(
        "  after the last outcome the sales statistics took {}, the data platform {} ({} requests)",
        duration(caught_up.statistics),
        duration(caught_up.data_platform),
        count(usize::try_from(caught_up.requests).unwrap_or_default()),
    )
}

/// When the last console was sold.
fn last_sold(report: &Report<'_>, offer: &Offer) -> Option<DateTime<Utc>> {
    let console = offer.products.iter().find(|product| product.role == Role::Console)?.id;
    let sales = report.record.settled.iter().filter(|told| {
        let planned = offer.orders.get(told.intent);
        let items = planned.into_iter().flat_map(|planned| &planned.order.items);
        told.outcome.order().is_some_and(|order| {
            items
                .filter(|item| !order.dropped.contains(item))
                .any(|item| item.product_id.get() == console)
        })
    });
    sales.map(|told| told.outcome.settled_at).max()
}

fn headline(report: &Report<'_>, offer: &Offer, stocks: &HashMap<i64, i64>) -> Vec<String> {
    let customers: HashSet<usize> = offer.orders.iter().map(|planned| planned.customer).collect();
    let consoles = offer.products.iter().find(|product| product.role == Role::Console);
    let (stock, left) = consoles.map_or((0, 0), |product| {
        (product.stock, stocks.get(&product.id).copied().unwrap_or_default())
    });
    let (last_settled, _) = report.outcomes.ends();
    vec![format!(
        "{} customers placed {} orders, {} of them twice under one key: {} of {} consoles were sold within {}, the last order was settled after {}.",
        count(customers.len()),
        count(offer.orders.len()),
        count(offer.clicks.saturating_sub(offer.orders.len())),
        amount(stock - left),
        amount(stock),
        duration(report.since_opening(last_sold(report, offer))),
        duration(report.since_opening(last_settled)),
    )]
}

/// A table: kinds of orders by how they ended.
fn kinds(report: &Report<'_>, offer: &Offer) -> Vec<String> {
    // An order that was sent twice is one.
    let endings: BTreeMap<usize, &str> =
        report.record.settled.iter().map(|told| (told.intent, told.outcome.name())).collect();
    let mut cells: HashMap<(Kind, &str), usize> = HashMap::new();
    let mut wanted: HashMap<Kind, usize> = HashMap::new();
    for (index, planned) in offer.orders.iter().enumerate() {
        *wanted.entry(planned.kind).or_default() += 1;
        if let Some(ending) = endings.get(&index) {
            *cells.entry((planned.kind, ending)).or_default() += 1;
        }
    }
    let columns = [
        ("succeeded", "completed"),
        ("out-of-stock", "out of stock"),
        ("coupon-not-owned", "no coupon"),
        ("coupon-already-used", "coupon used"),
        ("insufficient-balance", "no money"),
    ];
    let heading: String = columns.iter().map(|(_, name)| format!("{name:>14}")).collect();
    let row = |kind: &Kind| {
        let cell = |(ending, _): &(&str, &str)| match cells.get(&(*kind, *ending)) {
            Some(times) => format!("{:>14}", count(*times)),
            None => format!("{:>14}", "·"),
        };
        let wanted = count(wanted.get(kind).copied().unwrap_or_default());
        format!("  {:<38}{wanted:>8}{}", kind.name(), columns.iter().map(cell).collect::<String>())
    };
    std::iter::once(format!(
        "  {:<38}{:>8}{heading}",
        "orders by what is special about them", "wanted"
    ))
    .chain(Kind::ALL.iter().map(row))
    .chain([String::new()])
    .collect()
}

/// What was sold of each product; of the scarce one, how much of what there was.
fn shelf(offer: &Offer, stocks: &HashMap<i64, i64>) -> Vec<String> {
    let row = |product: &Product| {
        let left = stocks.get(&product.id).copied().unwrap_or(product.stock);
        let sold = product.stock - left;
        let units = |units: i64| usize::try_from(units).unwrap_or_default();
        let picture = match product.role {
            Role::Console => {
                format!("{} of {}", bar(units(sold), units(product.stock)), amount(product.stock))
            }
            Role::Poster | Role::Controller | Role::Game | Role::Television | Role::Projector => {
                "of plenty".to_owned()
            }
        };
        let (price, sold) = (amount(product.price), amount(sold));
        format!("  {:<12}{price:>12} won{sold:>10} sold  {picture}", product.name)
    };
    offer.products.iter().map(row).chain([String::new()]).collect()
}
