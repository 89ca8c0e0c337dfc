//! What is stored wrongly must give a violation.

use chrono::{NaiveDate, Utc};
use firstcome_contract::{
    event::{Data, Event, OrderCompleted, ProductSoldOut, SoldItem},
    ids::{CouponId, OrderId, ProductId, UserId},
    job::PlaceOrder,
    money::Money,
};
use firstcome_rig::answers::{Accepted, Detail, Success};
use std::time::Duration;

use super::*;
use crate::{
    mix::{Kind, Product, Role},
    stored::StoredOrder,
};

const CAMPAIGN: i64 = 5;
const DAY: NaiveDate = NaiveDate::MIN;

/// A sale, what it leaves in the database, and the events.
struct Held {
    record: Record,
    offer: Offer,
    stored: StoredSale,
    received: Vec<Received>,
}

fn item((product, quantity): (i64, i64)) -> Item {
    Item { product_id: ProductId::new(product), quantity }
}

impl Held {
    /// Products 1 (one left of two in the end) and 2; users 1 and 2, of whom 1 holds a coupon.
    fn empty() -> Self {
        let product = |role, id, price, stock| Product { role, id, name: "thing", price, stock };
        let offer = Offer {
            products: vec![
                product(Role::Console, 1, 4_000, 2),
                product(Role::Poster, 2, 2_500, 10),
            ],
            orders: Vec::new(),
            clicks: 0,
            balances: HashMap::from([(1, 10_000), (2, 4_100)]),
            winners: HashSet::from([1]),
            campaign: CAMPAIGN,
        };
        let stored = StoredSale {
            stocks: HashMap::from([(1, 2), (2, 10)]),
            balances: offer.balances.clone(),
            ..StoredSale::default()
        };
        Self { record: Record::default(), offer, stored, received: Vec::new() }
    }

    fn plans(&mut self, user: i64, items: &[(i64, i64)], coupon: bool, partial: bool) -> usize {
        let order = PlaceOrder {
            items: items.iter().copied().map(item).collect(),
            coupon_id: coupon.then(|| CouponId::new(CAMPAIGN)),
            fulfilment: if partial { Fulfilment::Partial } else { Fulfilment::All },
            from_cart: false,
        };
        let customer = usize::try_from(user).unwrap();
        self.offer.orders.push(PlannedOrder { customer, kind: Kind::Console, order });
        self.offer.orders.len() - 1
    }

    /// Its job is `intent + 1`.
    fn ends(
        &mut self,
        user: i64,
        intent: usize,
        code: Option<&str>,
        result: Option<Success>,
        detail: Detail,
    ) {
        let job = Uuid::from_u128(u128::try_from(intent).unwrap() + 1);
        let status = if code.is_some() { "rejected" } else { "succeeded" }.to_owned();
        let code = code.map(ToOwned::to_owned);
        let now = Utc::now();
        let outcome = Outcome { status, code, detail, result, settled_at: now };
        self.offer.clicks += 1;
        self.record.clicks += 1;
        self.record.accepted.push(Accepted { intent, job, user, at: Duration::ZERO });
        self.stored.outcomes.0.insert(job, outcome.clone());
        self.record.settled.push(SettledJob { intent, job, user, submitted_at: now, outcome });
    }

    /// Completes as order `intent + 100`, with all its effects.
    fn buys(&mut self, user: i64, items: &[(i64, i64)], dropped: &[(i64, i64)], coupon: bool) {
        let asked: Vec<(i64, i64)> = items.iter().chain(dropped).copied().collect();
        let intent = self.plans(user, &asked, coupon, !dropped.is_empty());
        let id = i64::try_from(intent).unwrap() + 100;
        let price = |product: i64| {
            self.offer.products.iter().find(|other| other.id == product).unwrap().price
        };
        let items_amount: i64 =
            items.iter().map(|(product, quantity)| price(*product) * quantity).sum();
        let discount = if coupon { DISCOUNT } else { 0 };
        let paid = items_amount - discount;
        let placed = OrderPlaced {
            order_id: OrderId::new(id),
            items_amount: Money::new(items_amount),
            discount: Money::new(discount),
            paid: Money::new(paid),
            dropped: dropped.iter().copied().map(item).collect(),
        };
        let stored: Vec<_> = items
            .iter()
            .map(|(product, quantity)| (*product, price(*product), *quantity))
            .collect();
        let campaign = coupon.then_some(CAMPAIGN);
        let job = Uuid::from_u128(u128::try_from(intent).unwrap() + 1);
        let told = OrderCompleted {
            order_id: OrderId::new(id),
            user_id: UserId::new(user),
            items: stored
                .iter()
                .map(|(product, price, quantity)| SoldItem {
                    product_id: ProductId::new(*product),
                    quantity: *quantity,
                    unit_price: Money::new(*price),
                })
                .collect(),
            items_amount: Money::new(items_amount),
            discount: Money::new(discount),
            paid: Money::new(paid),
            coupon_id: campaign.map(CouponId::new),
        };
        let event = Event::new(job, Utc::now(), Data::OrderCompleted(told));
        self.received.push(Received { times: 1, event });
        for (product, price, quantity) in &stored {
            *self.stored.stocks.get_mut(product).unwrap() -= quantity;
            let sum = self.stored.statistics.entry((DAY, *product)).or_default();
            *sum = (sum.0 + quantity, sum.1 + price * quantity);
        }
        *self.stored.balances.get_mut(&user).unwrap() -= paid;
        self.stored.used.extend(coupon.then_some((user, id)));
        let order = StoredOrder {
            job,
            user,
            campaign,
            amounts: (items_amount, discount, paid),
            items: stored,
            payments: vec![paid],
            day: DAY,
        };
        self.stored.orders.insert(id, order);
        self.ends(user, intent, None, Some(Success::Order(placed)), Detail::default());
    }

    fn is_refused(&mut self, user: i64, items: &[(i64, i64)], coupon: bool, code: &str) {
        let intent = self.plans(user, items, coupon, false);
        self.ends(user, intent, Some(code), None, Detail::default());
    }

    fn is_short(&mut self, user: i64, items: &[(i64, i64)], short: (i64, i64, i64)) {
        let intent = self.plans(user, items, false, false);
        let (product, requested, available) = short;
        let short = ShortItem { product_id: ProductId::new(product), requested, available };
        let detail = Detail { items: vec![short], ..Detail::default() };
        self.ends(user, intent, Some("out-of-stock"), None, detail);
    }

    fn failing(&self) -> Vec<&'static str> {
        checks(&self.record, &self.offer, &self.stored, &self.received)
            .into_iter()
            .filter(|check| check.violations > 0)
            .map(|check| check.what)
            .collect()
    }
}

/// Orders 100 to 102 are completed, each other end happens once.
fn right() -> Held {
    let mut held = Held::empty();
    held.buys(1, &[(2, 2)], &[], true);
    held.buys(1, &[(2, 1)], &[(1, 3)], false);
    held.buys(2, &[(1, 1)], &[], false);
    held.is_refused(1, &[(2, 1)], true, "coupon-already-used");
    held.is_refused(2, &[(2, 1)], true, "coupon-not-owned");
    held.is_refused(2, &[(2, 1)], false, "insufficient-balance");
    held.is_short(2, &[(1, 2), (2, 1)], (1, 2, 1));
    held
}

const ONE_ORDER: &str = "what was sent twice under one key is one order, and no two orders are one";
const AS_ASKED: &str = "every completed order is what was asked for, at its price, less its coupon";
const REASON: &str =
    "every rejection has its reason: what was short, not held, used or unaffordable";
const TOLD: &str = "the orders are those that the customers were told of";
const STOCK: &str =
    "nothing is oversold: what is left of a product is its stock less what was bought";
const BALANCE: &str = "every balance is what it was less what its owner paid, and never negative";
const PAYMENT: &str = "every completed order is paid once, with the amount its customer was told";
const COUPON: &str = "a coupon is used at most once, by its holder, for the order that names it";
const STATISTICS: &str =
    "the sales statistics are the items of the completed orders, by product and day";
const EVENTS: &str = "the data platform got the event of every completed order, and no other";
const POLLS: &str = "what the polls told is what is stored";

#[test]
fn a_right_sale_passes() {
    assert_eq!(right().failing(), [""; 0]);
}

#[test]
fn a_repeat_that_became_a_job_of_its_own_is_fine_if_it_ended_alike() {
    let mut held = right();
    let second = SettledJob { job: Uuid::from_u128(99), ..held.record.settled[0].clone() };
    held.offer.clicks += 1;
    held.record.clicks += 1;
    held.record.accepted.push(Accepted { job: second.job, ..held.record.accepted[0] });
    held.stored.outcomes.0.insert(second.job, second.outcome.clone());
    held.record.settled.push(second);
    assert_eq!(held.failing(), [""; 0]);
    held.record.settled[7].intent = 2;
    assert_eq!(held.failing(), [ONE_ORDER], "one order for two orders");
}

#[test]
fn wrong_amounts_are_noticed() {
    for change in [
        (|order: &mut OrderPlaced| order.discount = Money::ZERO) as fn(&mut OrderPlaced),
        |order| order.items_amount = Money::new(1),
        |order| order.dropped = vec![item((2, 2))],
    ] {
        let mut held = right();
        let Some(Success::Order(order)) = &mut held.record.settled[0].outcome.result else {
            panic!()
        };
        change(order);
        let failing = held.failing();
        assert!(failing.contains(&AS_ASKED) && failing.contains(&POLLS), "{failing:?}");
    }
}

#[test]
fn a_rejection_without_reason_is_noticed() {
    type Change = fn(&mut Held);
    let changes: [Change; 7] = [
        |held| held.is_refused(2, &[(2, 1)], true, "coupon-already-used"),
        |held| held.is_refused(1, &[(2, 1)], true, "coupon-not-owned"),
        |held| held.is_refused(1, &[(2, 1)], false, "coupon-not-owned"),
        // User 1 has 3,500 left.
        |held| held.is_refused(1, &[(2, 1)], false, "insufficient-balance"),
        // There is one left of product 1.
        |held| held.is_short(1, &[(1, 1)], (1, 1, 0)),
        |held| held.is_short(1, &[(1, 2)], (1, 2, 2)),
        |held| held.is_refused(1, &[(2, 1)], false, "out-of-stock"),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut held = right();
        change(&mut held);
        assert_eq!(held.failing(), [REASON], "change {index}");
    }
}

#[test]
fn wrong_books_are_noticed() {
    type Change = fn(&mut Held);
    let changes: [(Change, &[&str]); 16] = [
        (|held| *held.stored.stocks.get_mut(&1).unwrap() = 0, &[STOCK]),
        (|held| *held.stored.stocks.get_mut(&1).unwrap() = 2, &[REASON, STOCK]),
        (|held| held.stored.stocks.retain(|product, _| *product == 1), &[STOCK]),
        (|held| held.offer.products[0].stock = 0, &[STOCK]),
        (|held| *held.stored.balances.get_mut(&2).unwrap() = 4_100, &[BALANCE]),
        (|held| held.stored.balances.retain(|user, _| *user == 1), &[BALANCE]),
        (|held| held.stored.orders.get_mut(&100).unwrap().payments.push(4_000), &[PAYMENT]),
        (|held| held.stored.orders.get_mut(&100).unwrap().payments.clear(), &[PAYMENT]),
        (|held| held.stored.orders.get_mut(&100).unwrap().items.clear(), &[TOLD]),
        (|held| held.stored.orders.get_mut(&101).unwrap().user = 2, &[TOLD]),
        (|held| held.stored.used.push((2, 101)), &[COUPON]),
        (|held| held.stored.used.clear(), &[COUPON]),
        (|held| held.offer.winners.clear(), &[COUPON]),
        (|held| held.stored.statistics.get_mut(&(DAY, 2)).unwrap().0 += 1, &[STATISTICS]),
        (|held| held.stored.statistics.get_mut(&(DAY, 2)).unwrap().1 -= 1, &[STATISTICS]),
        (|held| *held.stored.statistics.entry((DAY, 9)).or_default() = (1, 1), &[STATISTICS]),
    ];
    for (index, (change, expected)) in changes.into_iter().enumerate() {
        let mut held = right();
        change(&mut held);
        assert_eq!(held.failing(), expected, "change {index}");
    }
}

#[test]
fn an_order_that_nobody_was_told_of_is_noticed() {
    let mut held = right();
    let copy = held.stored.orders[&100].clone();
    held.stored.orders.insert(200, copy);
    assert_eq!(held.failing(), [TOLD]);
}

fn told(held: &mut Held, at: usize) -> &mut OrderCompleted {
    let Data::OrderCompleted(order) = &mut held.received[at].event.data else { panic!("no order") };
    order
}

#[test]
fn wrong_events_are_noticed_and_duplicates_are_not() {
    let mut held = right();
    held.received[0].times = 3;
    assert_eq!(held.failing(), [""; 0]);

    type Change = fn(&mut Held);
    let changes: [Change; 6] = [
        |held| drop(held.received.pop()),
        |held| told(held, 0).paid = Money::new(1),
        |held| told(held, 1).items.clear(),
        |held| held.received[0].event.id = Uuid::nil(),
        |held| {
            let mut second = held.received[0].clone();
            second.event.id = Uuid::from_u128(4);
            held.received.push(second);
        },
        |held| {
            let product_id = ProductId::new(1);
            let mut other = held.received[0].clone();
            other.event.data = Data::ProductSoldOut(ProductSoldOut { product_id });
            held.received.push(other);
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut held = right();
        change(&mut held);
        assert_eq!(held.failing(), [EVENTS], "change {index}");
    }
}
