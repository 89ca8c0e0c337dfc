//! A shop that serves one after another, with everything that is to be checked of it.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    History, Report, check,
    history::{Event, Item, Outcome, Request, State, What},
    stored::{Cancellation, Coupon, Holder, Job, Order, Product, Sales, Stored},
};

/// What a coupon takes off.
const DISCOUNT: i64 = 100;

pub(super) struct Shop {
    pub(super) now: DateTime<Utc>,
    /// How long everything takes.
    pub(super) tick: TimeDelta,
    pub(super) events: Vec<Event>,
    pub(super) opening: Stored,
    pub(super) stored: Stored,
    pub(super) delivered: Vec<Uuid>,
    /// Jobs in their line.
    pub(super) line: VecDeque<(Uuid, i64, Request, Option<String>)>,
    keys: BTreeMap<(i64, &'static str, String), Option<Uuid>>,
    pub(super) operations: u64,
    settled: u64,
}

/// How much of a request's answer arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Answered,
    AnswerLost,
    RequestLost,
}

/// A success, or a code and its lines.
type Decision = Result<Value, (&'static str, Value)>;

impl Shop {
    /// Coupon 1 has a total of 2, coupon 2 of 5; products 1 to 3 cost 100 and have a stock of 10, of product 3 a customer
    /// may have 3; users 1 to 9 have 1,000.
    pub(super) fn open() -> Self {
        let coupon = |(id, total)| (id, Coupon { id, total, issued: 0 });
        let product = |id: i64| {
            (id, Product { id, price: 100, stock: 10, per_customer: (id == 3).then_some(3) })
        };
        let opening = Stored {
            coupons: [(1, 2), (2, 5)].map(coupon).into(),
            products: [1, 2, 3].map(product).into(),
            balances: (1..10).map(|user| (user, 1_000)).collect(),
            ..Stored::default()
        };
        Self {
            now: "2030-01-01T00:00:00Z".parse().unwrap(),
            tick: TimeDelta::milliseconds(100),
            events: Vec::new(),
            stored: opening.clone(),
            opening,
            delivered: Vec::new(),
            line: VecDeque::new(),
            keys: BTreeMap::new(),
            operations: 0,
            settled: 0,
        }
    }

    pub(super) fn check(&self) -> Report {
        let history = History::new(self.events.clone()).unwrap();
        check(&history, &self.opening, &self.stored, &self.delivered)
    }

    pub(super) fn note(&mut self, operation: u64, what: What) {
        self.now += self.tick;
        self.events.push(Event { at: self.now, operation, what });
    }

    pub(super) fn look(&mut self) {
        let (waiting, settled) = (self.line.len() as u64, self.settled);
        self.note(0, What::Look { line: None, waiting, settled });
    }

    pub(super) fn poll(&mut self, job: Uuid) {
        let asked = self.now;
        let state = match self.stored.jobs.get(&job) {
            Some(job) => State::Settled(job.outcome.clone()),
            None => State::Queued { position: None },
        };
        self.note(0, What::Poll { job, asked, state });
    }

    pub(super) fn invoke(&mut self, user: i64, request: Request, key: Option<&str>) -> u64 {
        self.operations += 1;
        let key = key.map(str::to_owned);
        self.note(self.operations, What::Invoke { user, request, key });
        self.operations
    }

    /// A request, as far as it gets. The job, if there is one.
    pub(super) fn send(
        &mut self,
        user: i64,
        request: Request,
        key: Option<&str>,
        way: Way,
    ) -> Option<Uuid> {
        let operation = self.invoke(user, request.clone(), key);
        if way == Way::RequestLost {
            self.note(operation, What::Unknown { why: "lost".to_owned() });
            return None;
        }
        let named = key.map(|key| (user, request.kind(), key.to_owned()));
        let known = named.as_ref().and_then(|named| self.keys.get(named)).copied();
        let job = known.unwrap_or_else(|| self.take(user, request, key));
        if let Some(named) = named {
            self.keys.insert(named, job);
        }
        let answer = What::Ok { job };
        let lost = What::Unknown { why: "lost".to_owned() };
        self.note(operation, if way == Way::Answered { answer } else { lost });
        job
    }

    /// Does at once what is done at once, and puts the rest in its line.
    fn take(&mut self, user: i64, request: Request, key: Option<&str>) -> Option<Uuid> {
        match request {
            Request::Charge { amount } => *self.stored.balances.get_mut(&user).unwrap() += amount,
            Request::AddStock { product, delta } => {
                self.stored.products.get_mut(&product).unwrap().stock += delta;
            }
            Request::SetTotal { coupon, total } => {
                self.stored.coupons.get_mut(&coupon).unwrap().total = total;
            }
            Request::IssueCoupon { .. }
            | Request::PlaceOrder { .. }
            | Request::CancelOrder { .. } => {
                let job = Uuid::from_u128(u128::from(self.operations));
                self.line.push_back((job, user, request, key.map(str::to_owned)));
                return Some(job);
            }
        }
        None
    }

    pub(super) fn settle(&mut self) {
        self.settle_batch(1);
    }

    /// One transaction: all begins with it, and ends with it.
    pub(super) fn settle_batch(&mut self, jobs: usize) {
        self.now += self.tick;
        for _ in 0..jobs {
            let Some((job, user, request, key)) = self.line.pop_front() else { break };
            let decision = match &request {
                Request::IssueCoupon { coupon } => self.issue(user, *coupon),
                Request::PlaceOrder { items, coupon, partial } => {
                    self.place(job, user, items, *coupon, *partial)
                }
                Request::CancelOrder { order } => self.cancel(job, user, *order),
                Request::Charge { .. } | Request::AddStock { .. } | Request::SetTotal { .. } => {
                    unreachable!()
                }
            };
            if decision.is_ok() {
                self.delivered.extend([job, job]);
            }
            self.end(job, user, request.kind(), decision, key);
        }
        self.now += self.tick;
    }

    /// Stores an outcome of the transaction that began just now.
    pub(super) fn end(
        &mut self,
        job: Uuid,
        user: i64,
        kind: &str,
        decision: Decision,
        key: Option<String>,
    ) {
        let (taken_up_at, settled_at) = (self.now, self.now + self.tick);
        let status = if decision.is_ok() { "succeeded" } else { "rejected" }.to_owned();
        let (result, code, lines) = match decision {
            Ok(result) => (Some(serde_json::from_value(result).unwrap()), None, Value::Null),
            Err((code, lines)) => (None, Some(code.to_owned()), lines),
        };
        let lines = if lines.is_null() { json!([]) } else { lines };
        let detail = serde_json::from_value(json!({ "lines": lines })).unwrap();
        let outcome = Outcome { status, code, detail, result, settled_at };
        let (kind, taken_up_at) = (kind.to_owned(), Some(taken_up_at));
        let (replay_of, redriven) = (None, false);
        let settled = Job { user, kind, key, replay_of, redriven, taken_up_at, outcome };
        self.stored.jobs.insert(job, settled);
        self.settled += 1;
    }

    fn issue(&mut self, user: i64, id: i64) -> Decision {
        if self.stored.holders.iter().any(|holder| (holder.user, holder.coupon) == (user, id)) {
            return Err(("coupon-already-issued", Value::Null));
        }
        let coupon = self.stored.coupons.get_mut(&id).unwrap();
        if coupon.issued == coupon.total {
            return Err(("coupon-sold-out", Value::Null));
        }
        coupon.issued += 1;
        let (number, issued_at) = (coupon.issued, self.now);
        let held = self.stored.holders.len() as i64 + 1;
        let holder = Holder { id: held, user, coupon: id, number, issued_at, order: None };
        self.stored.holders.push(holder);
        Ok(json!({ "userCouponId": held, "couponId": id, "issueNumber": number }))
    }

    fn place(
        &mut self,
        job: Uuid,
        user: i64,
        items: &[Item],
        coupon: Option<i64>,
        partial: bool,
    ) -> Decision {
        let (mut over, mut short, mut kept, mut dropped) = (vec![], vec![], vec![], vec![]);
        for Item { product, quantity } in items.iter().copied() {
            let shelf = &self.stored.products[&product];
            let bought = self.bought(user, product);
            let line = json!({ "productId": product, "requested": quantity, "bought": bought,
                               "limit": shelf.per_customer, "available": shelf.stock });
            if shelf.per_customer.is_some_and(|limit| bought + quantity > limit) {
                let mut line = line;
                line.as_object_mut().unwrap().remove("available");
                over.push(line);
            } else if shelf.stock < quantity {
                short.push(line);
            } else {
                kept.push(Item { product, quantity });
                continue;
            }
            dropped.push(Item { product, quantity });
        }
        if !over.is_empty() && (!partial || over.len() == items.len()) {
            return Err(("limit-exceeded", json!(over)));
        }
        if !short.is_empty() && (!partial || kept.is_empty()) {
            return Err(("out-of-stock", json!(short)));
        }
        let mut holders = self.stored.holders.iter_mut();
        let mut held = holders.find(|holder| Some(holder.coupon) == coupon && holder.user == user);
        if coupon.is_some() && held.is_none() {
            return Err(("coupon-not-owned", Value::Null));
        }
        if held.as_ref().is_some_and(|held| held.order.is_some()) {
            return Err(("coupon-already-used", Value::Null));
        }
        let items_amount: i64 = kept.iter().map(|item| item.quantity * 100).sum();
        let discount = if held.is_some() { DISCOUNT.min(items_amount) } else { 0 };
        let paid = items_amount - discount;
        let balance = self.stored.balances.get_mut(&user).unwrap();
        if *balance < paid {
            return Err(("insufficient-balance", Value::Null));
        }
        *balance -= paid;
        let id = self.stored.orders.len() as i64 + 1;
        if let Some(held) = &mut held {
            held.order = Some(id);
        }
        for item in &kept {
            self.stored.products.get_mut(&item.product).unwrap().stock -= item.quantity;
        }
        let json = json!({ "orderId": id, "itemsAmount": items_amount, "discount": discount, "paid": paid,
                           "dropped": dropped.iter().map(|item| json!({ "productId": item.product,
                                                                        "quantity": item.quantity })).collect::<Vec<_>>() });
        let (completed_at, day, items) = (self.now, self.now.date_naive(), kept);
        let order =
            Order { job, user, coupon, items_amount, paid, items, dropped, completed_at, day };
        self.count(&order, 1);
        self.stored.orders.insert(id, order);
        Ok(json)
    }

    fn bought(&self, user: i64, product: i64) -> i64 {
        let orders = self.stored.orders.iter();
        let kept = orders.filter(|(id, _)| !self.stored.cancellations.contains_key(id));
        let items =
            kept.filter(|(_, order)| order.user == user).flat_map(|(_, order)| &order.items);
        items.filter(|item| item.product == product).map(|item| item.quantity).sum()
    }

    fn count(&mut self, order: &Order, times: i64) {
        for item in &order.items {
            let (day, product) = (order.day, item.product);
            let (quantity, amount) = (item.quantity * times, item.quantity * times * 100);
            self.stored.statistics.push(Sales { day, product, quantity, amount });
        }
    }

    fn cancel(&mut self, job: Uuid, user: i64, id: i64) -> Decision {
        let Some(order) = self.stored.orders.get(&id).filter(|order| order.user == user).cloned()
        else {
            return Err(("order-not-found", Value::Null));
        };
        if self.stored.cancellations.contains_key(&id) {
            return Err(("order-already-cancelled", Value::Null));
        }
        let cancelled_at = self.now;
        self.stored.cancellations.insert(id, Cancellation { order: id, job, cancelled_at });
        for item in &order.items {
            self.stored.products.get_mut(&item.product).unwrap().stock += item.quantity;
        }
        *self.stored.balances.get_mut(&user).unwrap() += order.paid;
        let mut holders = self.stored.holders.iter_mut();
        let held = holders.find(|holder| holder.order == Some(id));
        let is_returned = held.is_some();
        if let Some(held) = held {
            held.order = None;
        }
        self.count(&order, -1);
        Ok(json!({ "orderId": id, "refunded": order.paid, "couponReturned": is_returned }))
    }
}
