//! Each promise, broken in a sale that is right but for that.

use chrono::TimeDelta;
use serde_json::{Value, json};
use uuid::Uuid;

use super::shop::{Shop, Way};
use crate::history::{Edge, Item, Request, State, What};

/// The rules, by a part of their sentences.
const ACCEPTED: &str = "every 202";
const TOLD: &str = "what the polls told";
const ASKED: &str = "was asked for";
const KEYS: &str = "a key has one effect";
const FAILED: &str = "no job failed";
const COUPONS: &str = "no coupon is oversold";
const STOCKS: &str = "a stock is what it was";
const LIMITS: &str = "nobody has more";
const MONEY: &str = "a balance is what it was";
const STATISTICS: &str = "the statistics are";
const DELIVERED: &str = "each event is delivered";
const ORDER: &str = "who asks later";
const LIVENESS: &str = "no line is idle";
const SOLD_OUT: &str = "sold out is said";
const ISSUED: &str = "already issued is said";
const STOCK: &str = "out of stock is said";
const LIMIT: &str = "a limit is said";
const BALANCE: &str = "a balance is said";
const OTHER: &str = "every other no";

fn issue(coupon: i64) -> Request {
    Request::IssueCoupon { coupon }
}

fn order(items: &[(i64, i64)], coupon: Option<i64>, partial: bool) -> Request {
    let items =
        items.iter().map(|(product, quantity)| Item { product: *product, quantity: *quantity });
    Request::PlaceOrder { items: items.collect(), coupon, partial }
}

fn cancel(order: i64) -> Request {
    Request::CancelOrder { order }
}

impl Shop {
    /// From the request to the outcome, with polls and looks.
    fn serve(&mut self, user: i64, request: Request) -> Uuid {
        let job = self.accept(user, request);
        self.poll(job);
        self.look();
        self.settle();
        self.look();
        self.poll(job);
        job
    }

    fn accept(&mut self, user: i64, request: Request) -> Uuid {
        self.send(user, request, None, Way::Answered).unwrap()
    }

    /// The next one in the line is told a "no", whatever is so.
    fn refuse(&mut self, code: &'static str, lines: Value) {
        let (job, user, request, key) = self.line.pop_front().unwrap();
        let now = self.now;
        self.end(job, user, request.kind(), Err((code, lines)), now, key);
    }

    fn refuse_at_once(&mut self, user: i64, request: Request, status: u16, code: &str) {
        let operation = self.invoke(user, request, None);
        self.note(operation, What::Rejected { status, code: Some(code.to_owned()) });
    }

    fn wait(&mut self, seconds: i64) {
        self.now += TimeDelta::seconds(seconds);
    }

    fn fault(&mut self, edge: Edge) {
        self.note(0, What::Fault { name: "broker".to_owned(), edge });
    }

    fn code(&self, job: Uuid) -> &str {
        self.stored.jobs[&job].outcome.name()
    }

    /// The last poll that told how a job ended.
    fn last_told(&mut self) -> &mut crate::history::Outcome {
        let polls = self.events.iter_mut().rev().filter_map(|event| match &mut event.what {
            What::Poll { state: State::Settled(outcome), .. } => Some(outcome),
            _ => None,
        });
        polls.into_iter().next().unwrap()
    }
}

/// A sale with everything in it. Order 1 is user 1's, with a coupon, and cancelled; of product 2, 1 is left; of coupon 2,
/// user 3 has number 1.
fn sale() -> Shop {
    let mut shop = Shop::open();
    let mut codes = Vec::new();
    for user in [1, 2, 1, 3] {
        let job = shop.serve(user, issue(1));
        codes.push(shop.code(job).to_owned());
    }
    shop.refuse_at_once(4, issue(1), 409, "coupon-sold-out");
    shop.send(9, Request::SetTotal { coupon: 1, total: 3 }, None, Way::Answered);
    shop.wait(5);
    for (user, request) in [
        (5, issue(1)),
        (3, issue(2)),
        (1, order(&[(1, 2)], Some(1), false)),
        (1, order(&[(1, 1)], Some(1), false)),
        (4, order(&[(1, 1)], Some(1), false)),
        (2, order(&[(1, 1), (2, 9)], Some(1), false)),
        (3, order(&[(1, 1), (2, 5)], None, true)),
        (3, order(&[(2, 5)], None, false)),
        (4, order(&[(3, 3)], None, false)),
        (4, order(&[(3, 1)], None, false)),
        (2, order(&[(1, 2)], None, false)),
        (1, cancel(1)),
        (1, cancel(1)),
        (2, cancel(1)),
        (1, order(&[(1, 1)], Some(1), false)),
    ] {
        let job = shop.serve(user, request);
        codes.push(shop.code(job).to_owned());
        shop.wait(1);
    }
    assert_eq!(
        codes.join(" ").replace("coupon-", ""),
        "succeeded succeeded already-issued sold-out succeeded succeeded succeeded already-used not-owned succeeded \
         succeeded out-of-stock succeeded limit-exceeded insufficient-balance succeeded order-already-cancelled \
         order-not-found succeeded"
    );
    shop.refuse_at_once(4, order(&[(99, 1)], None, false), 404, "product-not-found");
    shop.refuse_at_once(4, issue(2), 503, "unavailable");
    for (way, amount) in [(Way::Answered, 10), (Way::AnswerLost, 200), (Way::RequestLost, 3_000)] {
        shop.send(6, Request::Charge { amount }, None, way);
        shop.send(9, Request::AddStock { product: 1, delta: amount }, None, way);
        shop.send(6, Request::Charge { amount: 7 }, Some("charge"), way);
        // The last one repeats what was accepted first.
        shop.send(7, issue(2), Some("again"), way);
        shop.settle();
        shop.send(8, order(&[(1, 1)], None, false), None, way);
        shop.settle();
    }
    shop.fault(Edge::Begins);
    shop.accept(6, issue(2));
    shop.look();
    shop.wait(60);
    shop.look();
    shop.fault(Edge::Ends);
    shop.wait(30);
    shop.look();
    shop.settle();
    shop.look();
    shop
}

#[test]
fn a_clean_history_passes() {
    let report = sale().check();
    assert_eq!(report.violations(), 0, "{report}");
    let idle: Vec<_> = report.verdicts.iter().filter(|verdict| verdict.checked == 0).collect();
    assert!(idle.is_empty(), "rules that looked at nothing: {idle:?}");
}

type Anomaly = (&'static str, fn(&mut Shop), &'static [&'static str]);

/// Without a poll, as the history of a client that went away.
fn refused(shop: &mut Shop, user: i64, request: Request, code: &'static str, lines: Value) {
    shop.accept(user, request);
    shop.refuse(code, lines);
}

const ANOMALIES: &[Anomaly] = &[
    (
        "an accepted job has no outcome",
        |shop| {
            shop.accept(9, issue(2));
        },
        &[ACCEPTED],
    ),
    (
        "a job id is given to two users",
        |shop| {
            let job = shop.accept(8, issue(2));
            shop.settle();
            let operation = shop.invoke(9, issue(2), None);
            shop.note(operation, What::Ok { job: Some(job) });
        },
        &[ACCEPTED],
    ),
    (
        "a poll tells another number",
        |shop| {
            shop.last_told().settled_at += TimeDelta::microseconds(1);
        },
        &[TOLD],
    ),
    (
        "a job is queued again",
        |shop| {
            let job = shop.serve(9, issue(2));
            let asked = shop.now;
            shop.note(0, What::Poll { job, asked, state: State::Queued { position: None } });
        },
        &[TOLD],
    ),
    (
        "an accepted job is missing",
        |shop| {
            let job = shop.accept(9, issue(2));
            let asked = shop.now;
            shop.note(0, What::Poll { job, asked, state: State::Missing { status: 404 } });
            shop.settle();
        },
        &[TOLD],
    ),
    (
        "an outcome that nobody asked for",
        |shop| {
            shop.line.push_back((Uuid::from_u128(999), 9, issue(1), None));
            shop.refuse("coupon-sold-out", Value::Null);
        },
        &[ASKED],
    ),
    (
        "an order that nobody asked for",
        |shop| {
            shop.line.push_back((Uuid::from_u128(999), 9, order(&[(1, 1)], None, false), None));
            shop.settle();
        },
        &[ASKED],
    ),
    (
        "a coupon that no job gave",
        |shop| {
            let coupon = shop.stored.coupons.get_mut(&2).unwrap();
            coupon.issued += 1;
            let mut holder = shop.stored.holders[0].clone();
            (holder.id, holder.user, holder.coupon, holder.number) = (999, 9, 2, coupon.issued);
            shop.stored.holders.push(holder);
        },
        &[ASKED],
    ),
    (
        "somebody else gets the coupon",
        |shop| {
            shop.serve(9, issue(2));
            shop.stored.holders.last_mut().unwrap().user = 4;
        },
        &[ASKED],
    ),
    (
        "an order holds what was not asked for",
        |shop| {
            shop.accept(9, order(&[(1, 1)], None, false));
            shop.line[0].2 = order(&[(1, 2)], None, false);
            shop.settle();
        },
        &[ASKED],
    ),
    (
        "a key has two effects",
        |shop| {
            for forgotten in ["first", "second"] {
                shop.send(9, order(&[(1, 1)], None, false), Some(forgotten), Way::Answered);
                shop.settle();
            }
            for event in &mut shop.events {
                if let What::Invoke { key: Some(key), .. } = &mut event.what
                    && key == "second"
                {
                    *key = "first".to_owned();
                }
            }
            shop.stored.jobs.values_mut().for_each(|job| job.key = None);
        },
        &[KEYS],
    ),
    (
        "a job fails",
        |shop| {
            let job = shop.accept(9, issue(2));
            shop.refuse("internal", Value::Null);
            shop.stored.jobs.get_mut(&job).unwrap().outcome.status = "failed".to_owned();
        },
        &[FAILED],
    ),
    (
        "something is dead-lettered",
        |shop| {
            shop.stored.dead_letters.push("line: poison".to_owned());
        },
        &[FAILED],
    ),
    (
        "a coupon is oversold",
        |shop| {
            shop.stored.coupons.get_mut(&1).unwrap().total -= 1;
        },
        &[COUPONS],
    ),
    (
        "a total that nobody set",
        |shop| {
            shop.stored.coupons.get_mut(&1).unwrap().total = 99;
        },
        &[COUPONS],
    ),
    (
        "a number is left out",
        |shop| {
            shop.stored.holders.last_mut().unwrap().number += 1;
        },
        &[COUPONS],
    ),
    (
        "a user has two",
        |shop| {
            shop.serve(9, issue(2));
            let holder = shop.stored.holders.last_mut().unwrap();
            holder.user = 3;
        },
        &[ASKED, COUPONS],
    ),
    (
        "a unit comes from nowhere",
        |shop| {
            shop.stored.products.get_mut(&1).unwrap().stock += 1;
        },
        &[STOCKS],
    ),
    (
        "half of an addition",
        |shop| {
            shop.stored.products.get_mut(&1).unwrap().stock -= 100;
        },
        &[STOCKS],
    ),
    (
        "a stock below 0",
        |shop| {
            let stock = &mut shop.stored.products.get_mut(&3).unwrap().stock;
            let delta = -1 - *stock;
            *stock = -1;
            shop.send(9, Request::AddStock { product: 2, delta }, None, Way::RequestLost);
            shop.events.iter_mut().for_each(|event| {
                if let What::Invoke { request: Request::AddStock { product, delta: of }, .. } =
                    &mut event.what
                    && *of == delta
                {
                    *product = 3;
                }
            });
        },
        &[STOCKS],
    ),
    (
        "a limit is ignored",
        |shop| {
            shop.stored.products.get_mut(&3).unwrap().per_customer = None;
            shop.serve(5, order(&[(3, 4)], None, false));
            shop.stored.products.get_mut(&3).unwrap().per_customer = Some(3);
        },
        &[LIMITS],
    ),
    (
        "money comes from nowhere",
        |shop| {
            *shop.stored.balances.get_mut(&1).unwrap() += 1;
        },
        &[MONEY],
    ),
    (
        "a charge comes twice",
        |shop| {
            *shop.stored.balances.get_mut(&6).unwrap() += 7;
        },
        &[MONEY],
    ),
    (
        "a charge is forgotten",
        |shop| {
            *shop.stored.balances.get_mut(&6).unwrap() -= 10;
        },
        &[MONEY],
    ),
    (
        "an order is counted twice",
        |shop| {
            let row = shop.stored.statistics.last().unwrap().clone();
            shop.stored.statistics.push(row);
        },
        &[STATISTICS],
    ),
    (
        "an amount is not counted",
        |shop| {
            shop.stored.statistics.last_mut().unwrap().amount = 0;
        },
        &[STATISTICS],
    ),
    (
        "an order's event does not arrive",
        |shop| {
            let job = shop.stored.orders[&2].job;
            shop.delivered.retain(|id| *id != job);
        },
        &[DELIVERED],
    ),
    (
        "a coupon's event does not arrive",
        |shop| {
            let job = shop.serve(9, issue(2));
            shop.delivered.retain(|id| *id != job);
        },
        &[DELIVERED],
    ),
    (
        "an event of what did not happen",
        |shop| {
            let job = shop.serve(3, issue(2));
            shop.delivered.push(job);
        },
        &[DELIVERED],
    ),
    (
        "a coupon overtakes",
        |shop| {
            shop.accept(8, issue(2));
            shop.accept(9, issue(2));
            shop.line.swap(0, 1);
            shop.settle();
            shop.settle();
        },
        &[ORDER],
    ),
    (
        "an order overtakes",
        |shop| {
            shop.accept(8, order(&[(1, 1)], None, false));
            shop.accept(9, order(&[(1, 1)], None, false));
            shop.line.swap(0, 1);
            shop.settle();
            shop.settle();
        },
        &[ORDER],
    ),
    (
        "somebody wins after it was sold out",
        |shop| {
            shop.refuse_at_once(8, issue(1), 409, "coupon-sold-out");
            shop.stored.coupons.get_mut(&1).unwrap().total += 1;
            shop.serve(9, issue(1));
        },
        &[COUPONS, ORDER],
    ),
    (
        "sold out too early",
        |shop| {
            refused(shop, 9, issue(2), "coupon-sold-out", Value::Null);
        },
        &[SOLD_OUT],
    ),
    (
        "sold out at once, too early",
        |shop| {
            shop.refuse_at_once(9, issue(2), 409, "coupon-sold-out");
        },
        &[SOLD_OUT],
    ),
    (
        "already issued to who has none",
        |shop| {
            refused(shop, 9, issue(2), "coupon-already-issued", Value::Null);
        },
        &[ISSUED],
    ),
    (
        "out of stock that was there",
        |shop| {
            let short = json!([{ "productId": 1, "requested": 2, "available": 1 }]);
            refused(shop, 9, order(&[(1, 2)], None, false), "out-of-stock", short);
        },
        &[STOCK],
    ),
    (
        "out of stock of nothing",
        |shop| {
            refused(shop, 9, order(&[(1, 2)], None, false), "out-of-stock", Value::Null);
        },
        &[STOCK],
    ),
    (
        "an item is dropped that was there",
        |shop| {
            shop.stored.products.get_mut(&1).unwrap().stock -= 500;
            shop.serve(9, order(&[(1, 1), (3, 1)], None, true));
            shop.stored.products.get_mut(&1).unwrap().stock += 500;
        },
        &[STOCK],
    ),
    (
        "a limit that is not reached",
        |shop| {
            let over = json!([{ "productId": 3, "requested": 1, "bought": 3, "limit": 3 }]);
            refused(shop, 9, order(&[(3, 1)], None, false), "limit-exceeded", over);
        },
        &[LIMIT],
    ),
    (
        "a balance that was enough",
        |shop| {
            refused(shop, 9, order(&[(1, 1)], None, false), "insufficient-balance", Value::Null);
        },
        &[BALANCE],
    ),
    (
        "a charge that was not seen",
        |shop| {
            shop.send(9, Request::Charge { amount: 500 }, None, Way::Answered);
            refused(shop, 9, order(&[(1, 15)], None, false), "insufficient-balance", Value::Null);
        },
        &[BALANCE],
    ),
    (
        "a user is unknown",
        |shop| {
            refused(shop, 9, issue(2), "user-not-found", Value::Null);
        },
        &[OTHER],
    ),
    (
        "a campaign is unknown",
        |shop| {
            shop.refuse_at_once(9, issue(2), 404, "coupon-not-found");
        },
        &[OTHER],
    ),
    (
        "a product is unknown",
        |shop| {
            refused(shop, 9, order(&[(1, 1)], None, false), "product-not-found", Value::Null);
        },
        &[OTHER],
    ),
    (
        "a coupon is not owned by its owner",
        |shop| {
            refused(shop, 3, order(&[(1, 1)], Some(2), false), "coupon-not-owned", Value::Null);
        },
        &[OTHER],
    ),
    (
        "a coupon is used that is not",
        |shop| {
            refused(shop, 3, order(&[(1, 1)], Some(2), false), "coupon-already-used", Value::Null);
        },
        &[OTHER],
    ),
    (
        "an order is unknown",
        |shop| {
            refused(shop, 2, cancel(2), "order-not-found", Value::Null);
        },
        &[OTHER],
    ),
    (
        "an order is cancelled that is not",
        |shop| {
            refused(shop, 2, cancel(2), "order-already-cancelled", Value::Null);
        },
        &[OTHER],
    ),
    (
        "what depends on the user is said at once",
        |shop| {
            shop.refuse_at_once(1, issue(1), 409, "coupon-already-issued");
        },
        &[OTHER],
    ),
    (
        "a line stands still",
        |shop| {
            shop.accept(9, issue(2));
            shop.look();
            shop.wait(21);
            shop.look();
            shop.settle();
        },
        &[LIVENESS],
    ),
    (
        "a line stands still after a fault",
        |shop| {
            shop.accept(9, issue(2));
            shop.fault(Edge::Begins);
            shop.look();
            shop.fault(Edge::Ends);
            shop.wait(36);
            shop.look();
            shop.settle();
        },
        &[LIVENESS],
    ),
];

#[test]
fn a_planted_anomaly_of_every_kind_is_caught() {
    for (name, break_it, rules) in ANOMALIES {
        let mut shop = sale();
        break_it(&mut shop);
        let report = shop.check();
        let complaining: Vec<&str> = report
            .verdicts
            .iter()
            .filter(|verdict| verdict.violations > 0)
            .map(|verdict| verdict.rule)
            .collect();
        let is_as_foreseen = complaining.len() == rules.len()
            && complaining.iter().zip(*rules).all(|(rule, part)| rule.contains(part));
        assert!(is_as_foreseen, "{name}: foreseen {rules:?}\n{report}");
    }
    for verdict in sale().check().verdicts {
        let is_caught =
            |(_, _, rules): &Anomaly| rules.iter().any(|part| verdict.rule.contains(part));
        assert!(ANOMALIES.iter().any(is_caught), "no anomaly against: {}", verdict.rule);
    }
}
