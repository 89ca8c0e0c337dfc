//! The rules by which an order is taken back: no database, no clock.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use firstcome_contract::{
    event::SoldItem,
    ids::{CouponId, OrderId, ProductId, UserCouponId, UserId},
    job::{CancelOrder, JobId},
    money::Money,
    rejection::Rejection,
    trace::Trace,
};

/// The request of a customer, or of an operator, to cancel an order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) job_id: JobId,
    pub(super) trace: Option<&'a Trace>,
    pub(super) caller: UserId,
    pub(super) submitted_at: DateTime<Utc>,
    pub(super) cancel: &'a CancelOrder,
}

/// A product of an order, deleted or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Product {
    pub(super) stock: i64,
    /// The epoch of its limit per customer, if it has one.
    pub(super) limit_epoch: Option<i32>,
}

/// An order as it was completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) customer: UserId,
    pub(super) items: Vec<SoldItem>,
    pub(super) paid: Money,
    pub(super) coupon: Option<UsedCoupon>,
    pub(super) completed_at: DateTime<Utc>,
    pub(super) is_cancelled: bool,
}

/// The coupon that an order used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UsedCoupon {
    pub(super) id: UserCouponId,
    pub(super) campaign: CouponId,
}

/// What a batch of cancels is decided against; deciding moves it forward. Ordered maps, so that whatever is written
/// from them is written in the global lock order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct World {
    pub(super) orders: HashMap<OrderId, Order>,
    pub(super) products: BTreeMap<ProductId, Product>,
    pub(super) balances: BTreeMap<UserId, Money>,
    /// Units of products with a limit that no longer count.
    pub(super) freed: BTreeMap<(UserId, ProductId), i64>,
}

/// A cancellation that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cancelled {
    pub(super) order: Order,
    pub(super) balance_after: Money,
}

impl World {
    /// Decides the next cancel of the line. The order of the checks is the contract's precedence.
    pub(super) fn decide(&mut self, request: &Request<'_>) -> Result<Cancelled, Rejection> {
        let Request { caller, submitted_at, cancel, .. } = *request;
        let customer = cancel.customer_id;
        let may_cancel = cancel.by_operator || caller == customer;
        let order = self.orders.get_mut(&cancel.order_id);
        let order = order.filter(|order| may_cancel && order.customer == customer);
        let order = order.ok_or(Rejection::OrderNotFound)?;
        if order.is_cancelled {
            return Err(Rejection::OrderAlreadyCancelled);
        }
        let max_age = cancel.max_age_seconds.map(|max| TimeDelta::seconds(max.into()));
        if max_age.is_some_and(|max| submitted_at - order.completed_at > max) {
            return Err(Rejection::OrderNotCancellable);
        }

        order.is_cancelled = true;
        let order = order.clone();
        for item in &order.items {
            if let Some(product) = self.products.get_mut(&item.product_id) {
                product.stock += item.quantity;
                if product.limit_epoch.is_some() {
                    *self.freed.entry((customer, item.product_id)).or_default() += item.quantity;
                }
            }
        }
        let balance = self.balances.entry(customer).or_default();
        *balance = *balance + order.paid;
        Ok(Cancelled { balance_after: *balance, order })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firstcome_contract::{job::JobKind, line::Place};
    use proptest::prelude::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    prop_compose! {
        fn order()(
            customer in 1i64..=3,
            items in prop::collection::btree_map(1i64..=4, (1i64..8, 0i64..100), 1..4),
            discount in 0i64..100,
            campaign in prop::option::of(1i64..=2),
            completed in 0i64..100,
            is_cancelled in prop::bool::weighted(0.2),
        ) -> Order {
            let items: Vec<SoldItem> = items.into_iter().map(|(product, (quantity, price))| SoldItem {
                product_id: ProductId::new(product), quantity, unit_price: Money::new(price),
            }).collect();
            let amount: i64 = items.iter().map(|item| item.unit_price.get() * item.quantity).sum();
            let coupon = campaign.map(|id| UsedCoupon { id: UserCouponId::new(10 * customer + id), campaign: CouponId::new(id) });
            Order {
                customer: UserId::new(customer),
                items,
                paid: Money::new((amount - discount).max(0)),
                coupon,
                completed_at: at(completed),
                is_cancelled,
            }
        }
    }

    prop_compose! {
        fn world()(
            orders in prop::collection::vec(order(), 1..8),
            products in prop::collection::vec((0i64..20, prop::option::of(0i32..3)), 4),
            balances in prop::collection::vec(0i64..3_000, 3),
        ) -> World {
            let product = |(stock, limit_epoch)| Product { stock, limit_epoch };
            World {
                orders: (1..).zip(orders).map(|(id, order)| (OrderId::new(id), order)).collect(),
                products: (1..).zip(products.into_iter().map(product)).map(|(id, product)| (ProductId::new(id), product)).collect(),
                balances: (1..).zip(balances).map(|(id, amount)| (UserId::new(id), Money::new(amount))).collect(),
                freed: BTreeMap::new(),
            }
        }
    }

    prop_compose! {
        /// Who asks, when, and for what.
        fn cancel()(
            caller in 1i64..=3,
            seconds in 0i64..200,
            order in 1i64..=9,
            customer in 1i64..=3,
            by_operator in prop::bool::weighted(0.3),
            max_age_seconds in prop::option::weighted(0.7, 0u32..150),
        ) -> (i64, i64, CancelOrder) {
            // The API fills in whose order it is; who lies about it gets no further.
            let cancel = CancelOrder {
                order_id: OrderId::new(order),
                customer_id: UserId::new(customer),
                product_ids: (1..=4).map(ProductId::new).collect(),
                reason: None,
                by_operator,
                max_age_seconds,
                request_id: None,
            };
            (caller, seconds, cancel)
        }
    }

    /// The contract, written down once more as plainly as possible: one cancel at a time, on copies.
    fn model(
        world: &World,
        caller: i64,
        seconds: i64,
        cancel: &CancelOrder,
    ) -> Result<World, &'static str> {
        let mut after = world.clone();
        let Some(order) = world.orders.get(&cancel.order_id) else { return Err("order-not-found") };
        if order.customer != cancel.customer_id {
            return Err("order-not-found");
        }
        if !cancel.by_operator && order.customer.get() != caller {
            return Err("order-not-found");
        }
        if order.is_cancelled {
            return Err("order-already-cancelled");
        }
        if let Some(max) = cancel.max_age_seconds
            && at(seconds) > order.completed_at + TimeDelta::seconds(i64::from(max))
        {
            return Err("order-not-cancellable");
        }
        after.orders.get_mut(&cancel.order_id).unwrap().is_cancelled = true;
        for item in &order.items {
            let product = after.products.get_mut(&item.product_id).unwrap();
            product.stock += item.quantity;
            if product.limit_epoch.is_some() {
                *after.freed.entry((order.customer, item.product_id)).or_insert(0) += item.quantity;
            }
        }
        let balance = world.balances[&order.customer].get() + order.paid.get();
        after.balances.insert(order.customer, Money::new(balance));
        Ok(after)
    }

    /// Units that a customer holds or that are for sale; and money that is in a balance or was paid for what stays
    /// bought. No cancel changes either.
    fn sums(world: &World) -> (i64, i64) {
        let bought = || world.orders.values().filter(|order| !order.is_cancelled);
        let units: i64 = bought().flat_map(|order| &order.items).map(|item| item.quantity).sum();
        let paid: i64 = bought().map(|order| order.paid.get()).sum();
        let stock: i64 = world.products.values().map(|product| product.stock).sum();
        let balances: i64 = world.balances.values().map(|balance| balance.get()).sum();
        (units + stock, paid + balances)
    }

    proptest! {
        /// Random cancels of random orders, some of them again and again, against the model.
        #[test]
        fn a_batch_is_its_cancels_one_after_the_other(
            start in world(),
            line in prop::collection::vec(cancel(), 0..60),
        ) {
            let mut world = start.clone();
            let mut expected = start.clone();
            let mut returned = Vec::new();
            for (caller, seconds, cancel) in &line {
                let request = Request {
                    job_id: JobId::compose(0, JobKind::CancelOrder, Place::UNKNOWN, 0, 0),
                    trace: None,
                    caller: UserId::new(*caller),
                    submitted_at: at(*seconds),
                    cancel,
                };
                match (world.decide(&request), model(&expected, *caller, *seconds, cancel)) {
                    (Ok(cancelled), Ok(after)) => {
                        let order = &start.orders[&cancel.order_id];
                        prop_assert!(!returned.contains(&cancel.order_id), "twice");
                        prop_assert_eq!(&cancelled.order.items, &order.items);
                        prop_assert_eq!(cancelled.order.coupon, order.coupon);
                        prop_assert_eq!(cancelled.balance_after, after.balances[&order.customer]);
                        returned.push(cancel.order_id);
                        expected = after;
                    }
                    (Err(rejection), Err(code)) => prop_assert_eq!(rejection.code(), code),
                    (decision, model) => prop_assert!(false, "{:?} but {:?}", decision, model.err()),
                }
                prop_assert_eq!(&world, &expected);
                prop_assert_eq!(sums(&world), sums(&start));
            }
        }
    }
}
