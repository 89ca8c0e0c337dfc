//! What act 3 asks for: a tenth of act 2's orders are cancelled, while others still go for what comes back.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use firstcome_contract::{
    ids::ProductId,
    job::{PlaceOrder, place_order::OrderPlaced},
    order::{Fulfilment, Item},
};
use firstcome_rig::{
    answers::{IDEMPOTENCY_KEY, cancel_path},
    http::{Call, call},
};
use http::Method;

use crate::{
    load::{Click, Record},
    mix::{self, Kind, Offer, PlannedOrder, Role},
    stored::StoredSale,
};

/// Every how many orders of act 2 one is cancelled.
const REGRETTED: usize = 10;
/// Every how many cancellations one is asked for twice, with a key each: the second one finds nothing to cancel.
const INSISTING: usize = 5;
/// Every how many cancellations one is sent twice under one key.
const IMPATIENT: usize = 7;
/// The most orders for what comes back, for each that is cancelled.
const MAX_TAKERS: usize = 4;
/// Every how many of them one takes a controller, too.
const WITH_EXTRAS: usize = 5;

/// An order of act 2 that its customer does not want any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Return {
    /// The index of the customer.
    pub(crate) customer: usize,
    pub(crate) user: i64,
    pub(crate) order: i64,
    /// What was bought.
    pub(crate) items: Vec<Item>,
    /// What was paid, in won.
    pub(crate) paid: i64,
    pub(crate) with_coupon: bool,
}

/// Act 3 as it was before it opened.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What act 2 left, and the orders for what comes back: their places are the intents of their clicks.
    pub(crate) offer: Offer,
    pub(crate) returns: Vec<Return>,
    /// Which of the returns each further intent asks for.
    pub(crate) asked: Vec<usize>,
}

impl Plan {
    /// Every tenth order that customers were told of in act 2 is cancelled; those who got nothing want it.
    #[must_use]
    pub(crate) fn new(record: &Record, offer: &Offer, left: &StoredSale, customers: usize) -> Self {
        let mut completed = BTreeMap::new();
        for told in &record.settled {
            if let (Some(placed), Some(planned)) =
                (told.outcome.order(), offer.orders.get(told.intent))
            {
                completed.insert(placed.order_id.get(), (told.user, placed, planned));
            }
        }
        let back =
            |(order, (user, placed, planned)): (&i64, &(i64, &OrderPlaced, &PlannedOrder))| {
                let items =
                    planned.order.items.iter().filter(|item| !placed.dropped.contains(item));
                Return {
                    customer: planned.customer,
                    user: *user,
                    order: *order,
                    items: items.copied().collect(),
                    paid: placed.paid.get(),
                    with_coupon: planned.order.coupon_id.is_some(),
                }
            };
        let returns: Vec<Return> = completed.iter().step_by(REGRETTED).map(back).collect();
        let winners: HashSet<usize> =
            completed.values().map(|(.., planned)| planned.customer).collect();
        let others = (0..customers).filter(|customer| !winners.contains(customer));
        let orders = others.take(MAX_TAKERS * returns.len()).enumerate();
        let orders = orders.map(|(place, customer)| order(offer, place, customer)).collect();

        let insists = |index: &usize| index.is_multiple_of(INSISTING);
        let asked: Vec<usize> =
            (0..returns.len()).chain((0..returns.len()).filter(insists)).collect();
        let stock = |product: &mix::Product| mix::Product {
            stock: left.stocks.get(&product.id).copied().unwrap_or_default(),
            ..product.clone()
        };
        let offer = Offer {
            products: offer.products.iter().map(stock).collect(),
            orders,
            clicks: 0,
            balances: left.balances.clone(),
            winners: HashSet::new(),
            campaign: offer.campaign,
        };
        Self { offer, returns, asked }
    }

    /// Which of the returns a click asks for; `None` for one that orders.
    #[must_use]
    pub(crate) fn return_of(&self, intent: usize) -> Option<(usize, &Return)> {
        let index = *self.asked.get(intent.checked_sub(self.offer.orders.len())?)?;
        Some((index, self.returns.get(index)?))
    }

    /// The requests: some customers wait already, then come the cancellations with more of them in between, then the
    /// rest. Notes how many there are.
    ///
    /// # Errors
    /// Never: keys and paths are letters and digits.
    pub(crate) fn clicks(&mut self) -> anyhow::Result<Vec<Click>> {
        let orders = mix::clicks("taker", &self.offer.orders)?;
        let mut cancels = Vec::new();
        for (place, index) in self.asked.iter().enumerate() {
            let Some(back) = self.returns.get(*index) else { continue };
            let mut call: Call = call(Method::POST, cancel_path(back.order)?, None);
            call.headers_mut().insert(IDEMPOTENCY_KEY, format!("return-{place}").parse()?);
            let intent = self.offer.orders.len() + place;
            let click = Click { customer: back.customer, intent, call: Arc::new(call) };
            if place.is_multiple_of(IMPATIENT) {
                cancels.push(click.clone());
            }
            cancels.push(click);
        }
        let clicks = amid(orders, cancels);
        self.offer.clicks = clicks.len();
        Ok(clicks)
    }
}

/// An order for what everybody still wants.
fn order(offer: &Offer, place: usize, customer: usize) -> PlannedOrder {
    let with_extras = place.is_multiple_of(WITH_EXTRAS);
    let wanted: &[Role] =
        if with_extras { &[Role::Console, Role::Controller] } else { &[Role::Console] };
    let item = |role: &Role| {
        let product = offer.products.iter().find(|product| product.role == *role)?;
        Some(Item { product_id: ProductId::new(product.id), quantity: 1 })
    };
    let order = PlaceOrder {
        items: wanted.iter().filter_map(item).collect(),
        coupon_id: None,
        fulfilment: Fulfilment::All,
        from_cart: false,
    };
    let kind = if with_extras { Kind::Bundle } else { Kind::Console };
    PlannedOrder { customer, kind, order }
}

/// A quarter of the orders, then the cancellations with half of the orders evenly in between, then the last quarter.
fn amid(orders: Vec<Click>, cancels: Vec<Click>) -> Vec<Click> {
    let ahead = orders.len() / 4;
    let between = orders.len() / 2;
    let mut orders = orders.into_iter();
    let mut clicks: Vec<Click> = orders.by_ref().take(ahead).collect();
    let all = cancels.len();
    for (place, cancel) in cancels.into_iter().enumerate() {
        // How many of them stand before the next cancellation.
        let more = between * (place + 1) / all - between * place / all;
        clicks.push(cancel);
        clicks.extend(orders.by_ref().take(more));
    }
    clicks.extend(orders);
    clicks
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Utc;
    use firstcome_contract::{ids::OrderId, money::Money};
    use firstcome_rig::answers::{Detail, Outcome, SettledJob, Success};
    use std::collections::HashMap;
    use uuid::Uuid;

    use crate::mix::{Product, RANGE};

    /// Act 2 with so many orders, each completed, of as many customers.
    fn held(orders: usize) -> (Record, Offer, StoredSale) {
        let product = |(id, (role, name, price))| Product { role, id, name, price, stock: 10 };
        let products: Vec<Product> = (1..).zip(RANGE).map(product).collect();
        let mut offer = Offer {
            products,
            orders: Vec::new(),
            clicks: 0,
            balances: HashMap::new(),
            winners: HashSet::new(),
            campaign: 5,
        };
        offer.orders = (0..orders).map(|customer| order(&offer, customer, customer)).collect();
        let placed = |intent: usize| OrderPlaced {
            order_id: OrderId::new(i64::try_from(intent).unwrap() + 100),
            items_amount: Money::new(400_000),
            discount: Money::ZERO,
            paid: Money::new(400_000),
            dropped: Vec::new(),
        };
        let now = Utc::now();
        let told = |intent: usize| SettledJob {
            intent,
            job: Uuid::from_u128(intent as u128),
            user: i64::try_from(intent).unwrap() + 1,
            submitted_at: now,
            outcome: Outcome {
                status: "succeeded".to_owned(),
                code: None,
                detail: Detail::default(),
                result: Some(Success::Order(placed(intent))),
                settled_at: now,
            },
        };
        let settled = (0..orders).map(told).collect();
        (Record { settled, ..Record::default() }, offer, StoredSale::default())
    }

    #[test]
    fn a_tenth_is_returned_and_those_without_want_it() {
        let (record, offer, left) = held(95);
        let mut plan = Plan::new(&record, &offer, &left, 200);
        assert_eq!((plan.returns.len(), plan.asked.len(), plan.offer.orders.len()), (10, 12, 40));
        assert_eq!((plan.returns[1].order, plan.returns[1].user), (110, 11));
        assert!(plan.offer.orders.iter().all(|order| (95..200).contains(&order.customer)));
        let clicks = plan.clicks().unwrap();
        // Two of the cancellations are sent twice under their key, as are four of the orders.
        assert_eq!((clicks.len(), plan.offer.clicks), (12 + 2 + 44, 58));
        let cancels: Vec<usize> =
            (0..58).filter(|place| plan.return_of(clicks[*place].intent).is_some()).collect();
        assert_eq!((cancels.len(), cancels[0]), (14, 11), "orders wait before the first one");
        assert!(cancels[13] < 58 - 11, "and come after the last one");
        assert!(cancels.windows(2).any(|two| two[1] > two[0] + 1), "and in between");
        let order = plan.return_of(clicks[cancels[13]].intent).unwrap().1.order;
        assert!(clicks[cancels[13]].call.uri().path().contains(&order.to_string()));
    }

    #[test]
    fn where_everybody_won_nobody_waits() {
        let (record, offer, left) = held(10);
        let mut plan = Plan::new(&record, &offer, &left, 10);
        assert_eq!((plan.returns.len(), plan.offer.orders.len()), (1, 0));
        assert_eq!(plan.clicks().unwrap().len(), 3);
        let (record, offer, left) = held(0);
        assert!(Plan::new(&record, &offer, &left, 10).clicks().unwrap().is_empty());
    }
}
