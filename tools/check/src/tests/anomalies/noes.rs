//! A "no" that was wrong; and lines that stand still.

use serde_json::{Value, json};

use crate::{
    history::{Edge, Request},
    tests::{
        rules::*,
        sale::{cancel, issue, order},
        shop::{Shop, Way},
    },
};

/// Without a poll, as the history of a client that went away.
fn refused(shop: &mut Shop, user: i64, request: Request, code: &'static str, lines: Value) {
    shop.accept(user, request);
    shop.refuse(code, lines);
}

pub(super) const ANOMALIES: &[Anomaly] = &[
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
