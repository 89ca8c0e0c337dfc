//! What was done, or told, and should not be.

use chrono::TimeDelta;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    history::{Request, State, What},
    tests::{
        rules::*,
        sale::{issue, order},
        shop::Way,
    },
};

pub(super) const ANOMALIES: &[Anomaly] = &[
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
            shop.wait(1);
            let asked = shop.now;
            shop.note(0, What::Poll { job, asked, state: State::Queued { position: None } });
        },
        &[TOLD],
    ),
    (
        "an accepted job is missing",
        |shop| {
            let job = shop.accept(9, issue(2));
            shop.wait(1);
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
        "none: the line in which a job stood was emptied",
        |shop| {
            let job = shop.accept(9, issue(2));
            shop.note(0, What::Purged);
            shop.refuse("job-lost", Value::Null);
            shop.stored.jobs.get_mut(&job).unwrap().outcome.status = "failed".to_owned();
        },
        &[],
    ),
    (
        "a job is lost, and only a line without it was emptied",
        |shop| {
            shop.note(0, What::Purged);
            shop.wait(1);
            let job = shop.accept(9, issue(2));
            shop.refuse("job-lost", Value::Null);
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
];
