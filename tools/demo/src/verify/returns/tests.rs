//! What is stored wrongly must give a violation.

use chrono::TimeDelta;
use firstcome_contract::{
    event::ProductSoldOut,
    ids::{CouponId, OrderId, ProductId, UserId},
    job::{
        PlaceOrder,
        place_order::{OrderPlaced, ShortItem},
    },
    money::Money,
    order::Fulfilment,
};
use firstcome_rig::answers::{Accepted, Detail, Outcome, Success};
use std::time::Duration;

use super::*;
use crate::{
    mix::{Kind, PlannedOrder, Role},
    setup::DISCOUNT,
    stored::StoredOrder,
};

const CAMPAIGN: i64 = 5;
const CONSOLE: i64 = 1;
const PRICE: i64 = 4_000;
const DAY: NaiveDate = NaiveDate::MIN;

/// Act 3, what was before it, what it leaves, and the events.
struct Held {
    record: Record,
    plan: Plan,
    before: StoredSale,
    after: StoredSale,
    received: Vec<Received>,
    now: DateTime<Utc>,
}

fn consoles(quantity: i64) -> Vec<Item> {
    vec![Item { product_id: ProductId::new(CONSOLE), quantity }]
}

fn sold_items(quantity: i64) -> Vec<SoldItem> {
    let (product_id, unit_price) = (ProductId::new(CONSOLE), Money::new(PRICE));
    vec![SoldItem { product_id, quantity, unit_price }]
}

fn stored_order(job: u128, user: i64, quantity: i64, with_coupon: bool) -> StoredOrder {
    let discount = if with_coupon { DISCOUNT } else { 0 };
    let paid = PRICE * quantity - discount;
    StoredOrder {
        job: Uuid::from_u128(job),
        user,
        campaign: with_coupon.then_some(CAMPAIGN),
        amounts: (PRICE * quantity, discount, paid),
        items: vec![(CONSOLE, PRICE, quantity)],
        payments: vec![paid],
        day: DAY,
    }
}

impl Held {
    /// In act 2 user 1 bought two consoles with a coupon (order 100), user 2 one without (order 101). Now user 1 gives
    /// them back, twice, and users 3 to 5 want one each; none was left.
    fn opened() -> Self {
        let product =
            Product { role: Role::Console, id: CONSOLE, name: "console", price: PRICE, stock: 0 };
        let planned = |customer| {
            let order = PlaceOrder {
                items: consoles(1),
                coupon_id: None,
                fulfilment: Fulfilment::All,
                from_cart: false,
            };
            PlannedOrder { customer, kind: Kind::Console, order }
        };
        let balances =
            HashMap::from([(1, 3_000), (2, 6_000), (3, 10_000), (4, 10_000), (5, 10_000)]);
        let offer = Offer {
            products: vec![product],
            orders: vec![planned(2), planned(3), planned(4)],
            clicks: 0,
            balances: balances.clone(),
            winners: HashSet::new(),
            campaign: CAMPAIGN,
        };
        let back = Return {
            customer: 0,
            user: 1,
            order: 100,
            items: consoles(2),
            paid: 7_000,
            with_coupon: true,
        };
        let before = || StoredSale {
            orders: BTreeMap::from([
                (100, stored_order(90, 1, 2, true)),
                (101, stored_order(91, 2, 1, false)),
            ]),
            stocks: HashMap::from([(CONSOLE, 0)]),
            balances: balances.clone(),
            used: vec![(1, 100)],
            statistics: BTreeMap::from([((DAY, CONSOLE), (3, 3 * PRICE))]),
            ..StoredSale::default()
        };
        let completed = |job: u128, user: i64, order: i64| {
            let data = OrderCompleted {
                order_id: OrderId::new(order),
                user_id: UserId::new(user),
                items: sold_items(1),
                items_amount: Money::new(PRICE),
                discount: Money::ZERO,
                paid: Money::new(PRICE),
                coupon_id: None,
            };
            let event = Event::new(Uuid::from_u128(job), Utc::now(), Data::OrderCompleted(data));
            Received { times: 1, event }
        };
        Self {
            record: Record::default(),
            plan: Plan { offer, returns: vec![back], asked: vec![0, 0] },
            before: before(),
            after: before(),
            received: vec![completed(90, 1, 100), completed(91, 2, 101)],
            now: Utc::now(),
        }
    }

    /// The job of a click is `intent + 1`; each is submitted when the one before is settled.
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
        let submitted_at = self.now;
        self.now += TimeDelta::seconds(1);
        let outcome = Outcome { status, code, detail, result, settled_at: submitted_at };
        self.plan.offer.clicks += 1;
        self.record.clicks += 1;
        self.record.accepted.push(Accepted { intent, job, user, at: Duration::ZERO });
        self.after.outcomes.0.insert(job, outcome.clone());
        self.record.settled.push(SettledJob { intent, job, user, submitted_at, outcome });
    }

    /// User `intent + 3` gets one of the consoles.
    fn buys(&mut self, intent: usize) {
        let user = i64::try_from(intent).unwrap() + 3;
        let (id, job) = (user + 197, u128::try_from(intent).unwrap() + 1);
        let placed = OrderPlaced {
            order_id: OrderId::new(id),
            items_amount: Money::new(PRICE),
            discount: Money::ZERO,
            paid: Money::new(PRICE),
            dropped: Vec::new(),
        };
        self.after.orders.insert(id, stored_order(job, user, 1, false));
        *self.after.stocks.get_mut(&CONSOLE).unwrap() -= 1;
        *self.after.balances.get_mut(&user).unwrap() -= PRICE;
        let counted = self.after.statistics.get_mut(&(DAY, CONSOLE)).unwrap();
        *counted = (counted.0 + 1, counted.1 + PRICE);
        let data = Data::OrderCompleted(OrderCompleted {
            order_id: OrderId::new(id),
            user_id: UserId::new(user),
            items: sold_items(1),
            items_amount: Money::new(PRICE),
            discount: Money::ZERO,
            paid: Money::new(PRICE),
            coupon_id: None,
        });
        let event = Event::new(Uuid::from_u128(job), self.now, data);
        self.received.push(Received { times: 1, event });
        self.ends(user, intent, None, Some(Success::Order(placed)), Detail::default());
    }

    fn is_short(&mut self, intent: usize, available: i64) {
        let user = i64::try_from(intent).unwrap() + 3;
        let short = ShortItem { product_id: ProductId::new(CONSOLE), requested: 1, available };
        self.ends(
            user,
            intent,
            Some("out-of-stock"),
            None,
            Detail { items: vec![short], ..Detail::default() },
        );
    }

    fn cancels(&mut self, intent: usize) {
        let job = u128::try_from(intent).unwrap() + 1;
        let told = cancel_order::OrderCancelled {
            order_id: OrderId::new(100),
            refunded: Money::new(7_000),
            coupon_returned: true,
        };
        self.after.cancelled.insert(100, Uuid::from_u128(job));
        self.after.refunds.push((1, 100, 7_000));
        self.after.used.clear();
        *self.after.stocks.get_mut(&CONSOLE).unwrap() += 2;
        *self.after.balances.get_mut(&1).unwrap() += 7_000;
        let counted = self.after.statistics.get_mut(&(DAY, CONSOLE)).unwrap();
        *counted = (counted.0 - 2, counted.1 - 2 * PRICE);
        let data = Data::OrderCancelled(OrderCancelled {
            order_id: OrderId::new(100),
            user_id: UserId::new(1),
            items: sold_items(2),
            refunded: Money::new(7_000),
            coupon_id: Some(CouponId::new(CAMPAIGN)),
            completed_at: self.now,
            reason: None,
            by_operator: false,
        });
        let event = Event::new(Uuid::from_u128(job), self.now, data);
        self.received.push(Received { times: 1, event });
        self.ends(1, intent, None, Some(Success::Cancelled(told)), Detail::default());
    }

    fn failing(&self) -> Vec<&'static str> {
        let books = Books { before: &self.before, after: &self.after, received: &self.received };
        let checks = checks(&self.record, &self.plan, books).into_iter();
        checks.filter(|check| check.violations > 0).map(|check| check.what).collect()
    }
}

/// User 3 comes too early, user 4 gets one of the two consoles that come back, user 5 does not come.
fn right() -> Held {
    let mut held = Held::opened();
    held.is_short(0, 0);
    held.cancels(3);
    held.ends(1, 4, Some("order-already-cancelled"), None, Detail::default());
    held.buys(1);
    held
}

const ONCE: &str = "an order is cancelled once, however often that is asked for";
const RETURNED: &str = "a cancelled order gives back all that was paid, and its coupon";
const MARKED: &str =
    "the cancelled orders are those that their customers were told of, and what they were stays";
const NEXT: &str = "what came back went to who was next: nobody was refused what was there";
const REFUNDED: &str =
    "every cancelled order is refunded once, to who paid it, unless it cost nothing";
const STOCK: &str =
    "what is left of a product is what there was, plus what came back, less what was bought";
const BALANCE: &str = "every balance is what it was, plus what came back, less what its owner paid";
const COUPON: &str = "the coupons of cancelled orders are unused again, and no others";
const STATISTICS: &str =
    "the sales statistics are the completed orders less the cancelled ones, by product and day";
const EVENTS: &str =
    "the data platform got the event of every order that was completed or cancelled, and no other";

#[test]
fn right_returns_pass() {
    assert_eq!(right().failing(), [""; 0]);
}

#[test]
fn an_order_that_is_cancelled_never_or_twice_is_noticed() {
    let mut held = right();
    held.record.settled[2].outcome = held.record.settled[1].outcome.clone();
    assert!(held.failing().contains(&ONCE));
    let mut held = right();
    held.record.settled[1].outcome = held.record.settled[2].outcome.clone();
    assert!(held.failing().contains(&ONCE));
}

#[test]
fn wrong_results_are_noticed() {
    for change in [
        (|order: &mut cancel_order::OrderCancelled| order.refunded = Money::new(8_000))
            as fn(&mut cancel_order::OrderCancelled),
        |order| order.coupon_returned = false,
        |order| order.order_id = OrderId::new(101),
    ] {
        let mut held = right();
        let Some(Success::Cancelled(told)) = &mut held.record.settled[1].outcome.result else {
            panic!("not cancelled")
        };
        change(told);
        assert!(held.failing().contains(&RETURNED));
    }
}

#[test]
fn who_is_refused_what_is_there_is_noticed() {
    for available in [0, 1] {
        let mut held = right();
        // One is left since the order was cancelled.
        held.is_short(2, available);
        assert_eq!(held.failing(), [NEXT], "{available} available");
    }
}

#[test]
fn wrong_books_are_noticed() {
    type Change = fn(&mut Held);
    let changes: [(Change, &[&str]); 17] = [
        (|held| held.after.cancelled.clear(), &[MARKED]),
        (|held| held.after.cancelled.extend([(101, Uuid::nil())]), &[MARKED]),
        (|held| held.after.orders.get_mut(&101).unwrap().payments.clear(), &[MARKED]),
        (|held| held.after.refunds.clear(), &[REFUNDED]),
        (|held| held.after.refunds.push((1, 100, 7_000)), &[REFUNDED]),
        (|held| held.after.refunds[0].0 = 2, &[REFUNDED]),
        (|held| *held.after.stocks.get_mut(&CONSOLE).unwrap() = 0, &[STOCK]),
        (|held| held.after.stocks.clear(), &[STOCK]),
        (|held| *held.after.balances.get_mut(&1).unwrap() -= 1, &[BALANCE]),
        (|held| *held.after.balances.get_mut(&2).unwrap() += 1, &[BALANCE]),
        (|held| held.after.used.push((1, 100)), &[COUPON]),
        (|held| held.after.statistics.get_mut(&(DAY, CONSOLE)).unwrap().0 += 2, &[STATISTICS]),
        (|held| held.after.statistics.get_mut(&(DAY, CONSOLE)).unwrap().1 -= 1, &[STATISTICS]),
        (|held| drop(held.received.pop()), &[EVENTS]),
        (|held| drop(held.received.remove(2)), &[EVENTS]),
        (
            |held| {
                let mut second = held.received[2].clone();
                second.event.id = Uuid::from_u128(77);
                held.received.push(second);
            },
            &[EVENTS],
        ),
        (
            |held| {
                let product_id = ProductId::new(CONSOLE);
                held.received[2].event.data = Data::ProductSoldOut(ProductSoldOut { product_id });
            },
            &[EVENTS],
        ),
    ];
    for (index, (change, expected)) in changes.into_iter().enumerate() {
        let mut held = right();
        change(&mut held);
        assert_eq!(held.failing(), expected, "change {index}");
    }
}
