//! The request mix of the product sale: which orders, from whom, and on which terms.
//!
//! The same arguments make the same mix; what becomes of them is decided by who comes first.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use firstcome_contract::{
    ids::{CouponId, ProductId},
    job::PlaceOrder,
    order::{Fulfilment, Item},
};
use firstcome_rig::{answers::IDEMPOTENCY_KEY, http::call_with};
use http::{Method, Uri};
use serde_json::json;

use crate::load::{Click, Customer};

/// The most of one product in an order.
pub(crate) const MOST_OF_ONE: i64 = 3;
/// Every how many orders one is sent twice under one key.
const IMPATIENT: usize = 10;

/// A product of the sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Product {
    /// Its part in the sale.
    pub(crate) role: Role,
    pub(crate) id: i64,
    pub(crate) name: &'static str,
    /// Its price in won.
    pub(crate) price: i64,
    /// How many there are when the sale opens.
    pub(crate) stock: i64,
}

/// The products, in the order of their ids, with names and prices. Only the console is scarce; it is
/// not the first, so that orders for it stand in more than one line.
pub(crate) const RANGE: [(Role, &str, i64); 6] = [
    (Role::Poster, "poster", 5_000),
    (Role::Console, "console", 400_000),
    (Role::Controller, "controller", 50_000),
    (Role::Game, "game", 60_000),
    (Role::Television, "television", 600_000),
    (Role::Projector, "projector", 600_000),
];

/// A product's part in the sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// So cheap that everybody can pay for it.
    Poster,
    /// What everybody wants, and what is scarce.
    Console,
    /// Goes with the console.
    Controller,
    /// Goes with the console, too.
    Game,
    /// More than half of what a customer has.
    Television,
    /// As dear as the television: one of the two is all that a customer can pay.
    Projector,
}

/// What is special about an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// The scarce product and nothing else.
    Console,
    /// With extras; any shortage rejects it.
    Bundle,
    /// With extras; what is short is left out.
    Partial,
    /// Takes the coupon won in act 1.
    Coupon,
    /// Two orders at once that both name the coupon won in act 1.
    CouponTwice,
    /// Names the coupon of act 1 though the customer holds none.
    ForeignCoupon,
    /// Two orders at once, and money for one.
    OnePurse,
}

impl Kind {
    /// All, in the order of the report.
    pub(crate) const ALL: [Self; 7] = [
        Self::Console,
        Self::Bundle,
        Self::Partial,
        Self::Coupon,
        Self::CouponTwice,
        Self::ForeignCoupon,
        Self::OnePurse,
    ];

    /// As the report calls it.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Console => "one console",
            Self::Bundle => "console and extras, all or nothing",
            Self::Partial => "console and extras, whatever there is",
            Self::Coupon => "with the coupon won in act 1",
            Self::CouponTwice => "two orders with one coupon, at once",
            Self::ForeignCoupon => "with a coupon that was not won",
            Self::OnePurse => "two orders, money for one, at once",
        }
    }
}

/// An order that somebody is going to place.
#[derive(Debug, Clone)]
pub(crate) struct PlannedOrder {
    /// The index of the customer.
    pub(crate) customer: usize,
    /// What is special about it.
    pub(crate) kind: Kind,
    pub(crate) order: PlaceOrder,
}

/// The sale as it was before it opened.
#[derive(Debug)]
pub(crate) struct Offer {
    /// What was for sale.
    pub(crate) products: Vec<Product>,
    /// The orders that were going to be placed.
    pub(crate) orders: Vec<PlannedOrder>,
    /// How many requests placed them, repeats included.
    pub(crate) clicks: usize,
    /// What every user had.
    pub(crate) balances: HashMap<i64, i64>,
    /// The users who held a coupon of the campaign.
    pub(crate) winners: HashSet<i64>,
    pub(crate) campaign: i64,
}

/// `size` orders of so many customers; `winners` (indexes) hold a coupon of `campaign`.
#[must_use]
pub(crate) fn orders(
    products: &[Product],
    customers: usize,
    winners: &HashSet<usize>,
    campaign: i64,
    size: usize,
) -> Vec<PlannedOrder> {
    // Winners were quick in act 1; shuffled, they are not all at the head of the queue again.
    let mut queue: Vec<usize> = (0..customers).collect();
    queue.sort_unstable_by_key(|customer| customer.reverse_bits());

    let mut orders = Vec::with_capacity(size + 1);
    if queue.is_empty() {
        return orders;
    }
    let mut visits = (0..).flat_map(|round| queue.iter().enumerate().map(move |at| (round, at)));
    while orders.len() < size
        && let Some((round, (place, customer))) = visits.next()
    {
        let kind = kind(round, place, winners.contains(customer));
        for wanted in baskets(kind, place) {
            let item = |(role, quantity): &(Role, i64)| {
                let product = products.iter().find(|product| product.role == *role)?;
                Some(Item { product_id: ProductId::new(product.id), quantity: *quantity })
            };
            let names_coupon =
                matches!(kind, Kind::Coupon | Kind::CouponTwice | Kind::ForeignCoupon);
            let partial = kind == Kind::Partial;
            let order = PlaceOrder {
                items: wanted.iter().filter_map(item).collect(),
                coupon_id: names_coupon.then(|| CouponId::new(campaign)),
                fulfilment: if partial { Fulfilment::Partial } else { Fulfilment::All },
                from_cart: false,
            };
            orders.push(PlannedOrder { customer: *customer, kind, order });
        }
    }
    orders.truncate(size);
    orders
}

/// Of twenty visits, and from winners at their first one.
fn kind(round: usize, place: usize, winner: bool) -> Kind {
    match (winner, round, (place + 7 * round) % 20) {
        (true, 0, part) if part % 2 == 0 => Kind::Coupon,
        (true, 0, _) => Kind::CouponTwice,
        (_, _, 0..10) | (true, _, 10..12) => Kind::Console,
        (_, _, 10..12) => Kind::ForeignCoupon,
        (_, _, 12..15) => Kind::Bundle,
        (_, _, 15..18) => Kind::Partial,
        _ => Kind::OnePurse,
    }
}

/// One order, or two that are sent at once; those stand in different lines.
fn baskets(kind: Kind, place: usize) -> Vec<&'static [(Role, i64)]> {
    use Role::{Console, Controller, Game, Poster, Projector, Television};
    const BUNDLES: [&[(Role, i64)]; 3] = [
        &[(Console, 1), (Controller, 2)],
        &[(Poster, 1), (Console, 1), (Game, 1)],
        &[(Console, 2), (Controller, 1), (Game, 2)],
    ];
    match kind {
        Kind::Console => vec![&[(Console, 1)]],
        Kind::Bundle | Kind::Partial => {
            BUNDLES.get(place % BUNDLES.len()).copied().into_iter().collect()
        }
        Kind::Coupon => vec![&[(Controller, 1), (Game, 1)]],
        Kind::CouponTwice => vec![&[(Controller, 1), (Game, 1)], &[(Poster, 3)]],
        Kind::ForeignCoupon => vec![&[(Poster, 1)]],
        Kind::OnePurse => vec![&[(Television, 1)], &[(Projector, 1)]],
    }
}

/// The requests: each order once, and the impatient ones again at once, under the same key, which begins with `name`.
///
/// # Errors
/// Never: a key is letters and digits.
pub(crate) fn clicks(name: &str, orders: &[PlannedOrder]) -> anyhow::Result<Vec<Click>> {
    let mut clicks = Vec::with_capacity(orders.len() + orders.len() / IMPATIENT + 1);
    for (index, PlannedOrder { customer, order, .. }) in orders.iter().enumerate() {
        let mut body = json!({ "items": order.items, "fulfilment": order.fulfilment });
        if let (Some(coupon), Some(fields)) = (order.coupon_id, body.as_object_mut()) {
            fields.insert("couponId".to_owned(), coupon.get().into());
        }
        let mut call = call_with(Method::POST, Uri::from_static("/api/orders"), None, &body);
        call.headers_mut().insert(IDEMPOTENCY_KEY, format!("{name}-{index}").parse()?);
        let click = Click { customer: *customer, intent: index, call: Arc::new(call) };
        if index.is_multiple_of(IMPATIENT) {
            clicks.push(click.clone());
        }
        clicks.push(click);
    }
    Ok(clicks)
}

/// The indexes of the customers with these user ids.
#[must_use]
pub(crate) fn indexes(customers: &[Customer], users: &HashSet<i64>) -> HashSet<usize> {
    let held = customers.iter().enumerate().filter(|(_, customer)| users.contains(&customer.user));
    held.map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn products() -> Vec<Product> {
        let product = |(id, (role, name, price))| Product { role, id, name, price, stock: 10 };
        (1..).zip(RANGE).map(product).collect()
    }

    #[test]
    fn a_sale_has_orders_of_every_kind() {
        let winners: HashSet<usize> = (0..50).collect();
        let orders = super::orders(&products(), 1_000, &winners, 5, 1_500);
        assert_eq!(orders.len(), 1_500);
        let mut tally = HashMap::new();
        for planned in &orders {
            *tally.entry(planned.kind).or_insert(0) += 1;
            assert!(planned.order.is_valid(), "{planned:?}");
            let holds = winners.contains(&planned.customer);
            let names = planned.order.coupon_id.is_some();
            assert_eq!(names && !holds, planned.kind == Kind::ForeignCoupon);
            assert_eq!(names && holds, matches!(planned.kind, Kind::Coupon | Kind::CouponTwice));
        }
        assert!(Kind::ALL.iter().all(|kind| tally[kind] >= 20), "{tally:?}");
        assert_eq!(tally[&Kind::Coupon] + tally[&Kind::CouponTwice] / 2, 50, "each coupon is used");
    }

    #[test]
    fn few_customers_order_again_and_again() {
        assert_eq!(orders(&products(), 1, &HashSet::new(), 5, 100).len(), 100);
        assert!(orders(&products(), 0, &HashSet::new(), 5, 100).is_empty());
    }

    #[test]
    fn every_tenth_order_is_sent_twice_under_one_key() {
        let clicks = clicks("order", &orders(&products(), 10, &HashSet::new(), 5, 21)).unwrap();
        let keys: Vec<_> =
            clicks.iter().map(|click| &click.call.headers()[IDEMPOTENCY_KEY]).collect();
        assert_eq!((keys.len(), keys[0], keys[1], keys[2]), (24, keys[1], keys[0], keys[2]));
        assert_ne!(keys[1], keys[2]);
    }
}
