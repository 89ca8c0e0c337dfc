//! A sale that is right and has everything in it.

use chrono::TimeDelta;
use serde_json::Value;
use uuid::Uuid;

use super::shop::{Shop, Way};
use crate::history::{Edge, Item, Outcome, Request, State, What};

pub(super) fn issue(coupon: i64) -> Request {
    Request::IssueCoupon { coupon }
}

pub(super) fn order(items: &[(i64, i64)], coupon: Option<i64>, partial: bool) -> Request {
    let items =
        items.iter().map(|(product, quantity)| Item { product: *product, quantity: *quantity });
    Request::PlaceOrder { items: items.collect(), coupon, partial }
}

pub(super) fn cancel(order: i64) -> Request {
    Request::CancelOrder { order }
}

impl Shop {
    /// From the request to the outcome, with polls and looks.
    pub(super) fn serve(&mut self, user: i64, request: Request) -> Uuid {
        let job = self.accept(user, request);
        self.poll(job);
        self.look();
        self.settle();
        self.look();
        self.poll(job);
        job
    }

    pub(super) fn accept(&mut self, user: i64, request: Request) -> Uuid {
        self.send(user, request, None, Way::Answered).unwrap()
    }

    /// The next one in the line is told a "no", whatever is so.
    pub(super) fn refuse(&mut self, code: &'static str, lines: Value) {
        let (job, user, request, key) = self.line.pop_front().unwrap();
        self.end(job, user, request.kind(), Err((code, lines)), key);
        self.now += self.tick;
    }

    pub(super) fn refuse_at_once(&mut self, user: i64, request: Request, status: u16, code: &str) {
        let operation = self.invoke(user, request, None);
        self.note(operation, What::Rejected { status, code: Some(code.to_owned()) });
    }

    pub(super) fn wait(&mut self, seconds: i64) {
        self.now += TimeDelta::seconds(seconds);
    }

    pub(super) fn fault(&mut self, edge: Edge) {
        self.note(0, What::Fault { name: "broker".to_owned(), edge });
    }

    pub(super) fn code(&self, job: Uuid) -> &str {
        self.stored.jobs[&job].outcome.name()
    }

    /// The last poll that told how a job ended.
    pub(super) fn last_told(&mut self) -> &mut Outcome {
        let mut polls = self.events.iter_mut().rev().filter_map(|event| {
            let What::Poll { state: State::Settled(outcome), .. } = &mut event.what else {
                return None;
            };
            Some(outcome)
        });
        polls.next().unwrap()
    }
}

/// A sale with everything in it. Order 1 is user 1's, with a coupon, and cancelled; of product 2, 1 is left; of coupon 2,
/// user 3 has number 1.
pub(super) fn sale() -> Shop {
    let mut shop = Shop::open();
    let mut codes = Vec::new();
    for user in [1, 2, 1, 3] {
        let job = shop.serve(user, issue(1));
        codes.push(shop.code(job).to_owned());
    }
    shop.refuse_at_once(4, issue(1), 409, "coupon-sold-out");
    shop.send(9, Request::SetTotal { coupon: 1, total: 3 }, None, Way::Answered);
    // Not every process knows yet.
    shop.refuse_at_once(4, issue(1), 409, "coupon-sold-out");
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
