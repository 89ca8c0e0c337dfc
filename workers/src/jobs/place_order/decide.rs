//! The rules of an order, pure.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use firstcome_contract::{
    discount::Discount,
    ids::{CouponId, ProductId, UserCouponId, UserId},
    job::{
        JobId, PlaceOrder,
        place_order::{LimitedItem, ShortItem},
    },
    money::Money,
    order::{Fulfilment, Item},
    rejection::Rejection,
    sale::{Sale, first_rejection},
    trace::Trace,
};

/// One user's order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) job_id: JobId,
    pub(super) trace: Option<&'a Trace>,
    pub(super) user_id: UserId,
    pub(super) submitted_at: DateTime<Utc>,
    pub(super) order: &'a PlaceOrder,
}

/// A product that was not deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Product {
    pub(super) name: String,
    pub(super) price: Money,
    pub(super) stock: i64,
    pub(super) sale: Sale,
    pub(super) limit: Option<Limit>,
}

/// How many units of a product a customer may have for life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) per_customer: i64,
    /// Which of the counts in `purchases` are complete.
    pub(super) epoch: i32,
}

/// How many units of a product with a limit a customer has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bought {
    pub(super) quantity: i64,
    /// How many by what is stored; `None` if that says nothing yet.
    pub(super) stored: Option<i64>,
}

/// A coupon in a user's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeldCoupon {
    pub(super) id: UserCouponId,
    pub(super) discount: Discount,
    pub(super) valid_until: DateTime<Utc>,
    pub(super) used: bool,
}

/// What a batch of orders is decided against; deciding moves it forward. Ordered maps, so that
/// whatever is written from them is written in the global lock order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct World {
    pub(super) products: BTreeMap<ProductId, Product>,
    /// Of the users that exist.
    pub(super) balances: BTreeMap<UserId, Money>,
    pub(super) coupons: HashMap<(UserId, CouponId), HeldCoupon>,
    /// Of products with a limit, by orders that were not cancelled.
    pub(super) bought: BTreeMap<(UserId, ProductId), Bought>,
}

/// One item of a placed order, at the price of the settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SoldItem {
    pub(super) product_id: ProductId,
    pub(super) name: String,
    pub(super) unit_price: Money,
    pub(super) quantity: i64,
}

/// An order that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) items: Vec<SoldItem>,
    pub(super) dropped: Vec<Item>,
    pub(super) items_amount: Money,
    pub(super) discount: Money,
    pub(super) coupon: Option<UserCouponId>,
    pub(super) balance_after: Money,
}

impl Placed {
    /// What is deducted from the balance.
    pub(super) fn paid(&self) -> Money {
        self.items_amount - self.discount
    }
}

/// Why an order is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Denial {
    LimitExceeded(Vec<LimitedItem>),
    OutOfStock(Vec<ShortItem>),
    Plain(Rejection),
}

impl From<Rejection> for Denial {
    fn from(rejection: Rejection) -> Self {
        Self::Plain(rejection)
    }
}

impl World {
    /// Decides the next order of the line. The order of the checks is the contract's precedence;
    /// nothing changes before the last one has passed.
    pub(super) fn decide(&mut self, request: &Request<'_>) -> Result<Placed, Denial> {
        let Request { user_id, order, submitted_at, .. } = *request;
        let balance = *self.balances.get(&user_id).ok_or(Rejection::UserNotFound)?;
        let (items, dropped) = self.available(request)?;
        let coupon = match order.coupon_id {
            Some(campaign) => Some(self.usable(user_id, campaign, submitted_at)?),
            None => None,
        };
        let items_amount = items.iter().map(|item| item.unit_price.times(item.quantity)).sum();
        let discount = coupon.map_or(Money::ZERO, |coupon| coupon.discount.off(items_amount));
        let paid = items_amount - discount;
        if paid > balance {
            return Err(Rejection::InsufficientBalance.into());
        }

        for item in &items {
            if let Some(product) = self.products.get_mut(&item.product_id) {
                product.stock -= item.quantity;
                if product.limit.is_some() {
                    let bought = self.bought.entry((user_id, item.product_id)).or_default();
                    bought.quantity += item.quantity;
                }
            }
        }
        if let Some(held) =
            order.coupon_id.and_then(|campaign| self.coupons.get_mut(&(user_id, campaign)))
        {
            held.used = true;
        }
        let balance_after = balance - paid;
        self.balances.insert(user_id, balance_after);
        let coupon = coupon.map(|coupon| coupon.id);
        Ok(Placed { items, dropped, items_amount, discount, coupon, balance_after })
    }

    /// The items that can be had, and those that a partial order drops.
    fn available(&self, request: &Request<'_>) -> Result<(Vec<SoldItem>, Vec<Item>), Denial> {
        let wanted = request.order.items.iter();
        let wanted = wanted.map(|item| Some((item, self.products.get(&item.product_id)?)));
        let wanted: Option<Vec<_>> = wanted.collect();
        let wanted = wanted.ok_or(Rejection::ProductNotFound)?;
        let sales = wanted.iter().map(|(_, product)| product.sale);
        if let Some(rejection) = first_rejection(sales, request.submitted_at) {
            return Err(rejection.into());
        }
        let (mut items, mut dropped) = (Vec::new(), Vec::new());
        let (mut limited, mut short) = (Vec::new(), Vec::new());
        for (item, product) in wanted {
            if let Some(over) = self.over_limit(request.user_id, item, product) {
                limited.push(over);
                dropped.push(*item);
            } else if item.quantity > product.stock {
                short.push(ShortItem {
                    product_id: item.product_id,
                    requested: item.quantity,
                    available: product.stock,
                });
                dropped.push(*item);
            } else {
                items.push(SoldItem {
                    product_id: item.product_id,
                    name: product.name.clone(),
                    unit_price: product.price,
                    quantity: item.quantity,
                });
            }
        }
        let (is_acceptable, is_limited) = match request.order.fulfilment {
            Fulfilment::All => (dropped.is_empty(), !limited.is_empty()),
            Fulfilment::Partial => (!items.is_empty(), short.is_empty()),
        };
        if is_acceptable {
            Ok((items, dropped))
        } else if is_limited {
            Err(Denial::LimitExceeded(limited))
        } else {
            Err(Denial::OutOfStock(short))
        }
    }

    /// The item, if the customer may not have that many.
    fn over_limit(&self, user: UserId, item: &Item, product: &Product) -> Option<LimitedItem> {
        let limit = product.limit?.per_customer;
        let bought = self.bought.get(&(user, item.product_id));
        let bought = bought.map_or(0, |bought| bought.quantity);
        let Item { product_id, quantity } = *item;
        let over = LimitedItem { product_id, requested: quantity, bought, limit };
        (bought + quantity > limit).then_some(over)
    }

    fn usable(
        &self,
        user: UserId,
        campaign: CouponId,
        submitted_at: DateTime<Utc>,
    ) -> Result<HeldCoupon, Rejection> {
        let coupon = *self.coupons.get(&(user, campaign)).ok_or(Rejection::CouponNotOwned)?;
        if coupon.used {
            Err(Rejection::CouponAlreadyUsed)
        } else if submitted_at >= coupon.valid_until {
            Err(Rejection::CouponExpired)
        } else {
            Ok(coupon)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use proptest::prelude::*;

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds(millis)
    }

    fn discount() -> impl Strategy<Value = Discount> {
        prop_oneof![
            (1i64..500).prop_map(|amount| Discount::Fixed(Money::new(amount))),
            (1i64..=100, prop::option::of(1i64..300))
                .prop_map(|(percent, cap)| Discount::Percent { percent, cap: cap.map(Money::new) }),
        ]
    }

    /// An instant, seldom.
    fn instant() -> impl Strategy<Value = Option<DateTime<Utc>>> {
        prop::option::weighted(0.1, (0i64..150).prop_map(at))
    }

    prop_compose! {
        fn product()(
            price in 1i64..100,
            stock in 0i64..20,
            from in instant(),
            until in instant(),
            paused_at in instant(),
            limit in prop::option::of(1i64..12),
        ) -> Product {
            let limit = limit.map(|per_customer| Limit { per_customer, epoch: 1 });
            let sale = Sale { from, until, paused_at };
            Product { name: format!("at {price}"), price: Money::new(price), stock, sale, limit }
        }
    }

    prop_compose! {
        fn world()(
            products in prop::collection::vec(product(), 4),
            balances in prop::collection::vec(0i64..3_000, 3),
            coupons in prop::collection::vec((1i64..=3, 1i64..=2, discount(), 0i64..150, any::<bool>()), 0..5),
            bought in prop::collection::btree_map((1i64..=3, 1i64..=4), 0i64..8, 0..6),
        ) -> World {
            World {
                products: (1..).zip(products).map(|(id, product)| (ProductId::new(id), product)).collect(),
                balances: (1..).zip(balances).map(|(id, amount)| (UserId::new(id), Money::new(amount))).collect(),
                coupons: (1..).zip(coupons).map(|(id, (user, campaign, discount, until, used))| {
                    let held = HeldCoupon {
                        id: UserCouponId::new(id), discount, valid_until: at(until), used,
                    };
                    ((UserId::new(user), CouponId::new(campaign)), held)
                }).collect(),
                bought: bought.into_iter().map(|((user, product), quantity)| {
                    ((UserId::new(user), ProductId::new(product)), Bought { quantity, stored: Some(quantity) })
                }).collect(),
            }
        }
    }

    prop_compose! {
        fn order()(
            user in 1i64..=4,
            items in prop::collection::btree_map(1i64..=5, 1i64..8, 1..4),
            coupon in prop::option::of(1i64..=2),
            partial: bool,
            millis in 0i64..150,
        ) -> (i64, i64, PlaceOrder) {
            let items = items.into_iter().map(|(product, quantity)| Item { product_id: ProductId::new(product), quantity });
            let fulfilment = if partial { Fulfilment::Partial } else { Fulfilment::All };
            (user, millis, PlaceOrder { items: items.collect(), coupon_id: coupon.map(CouponId::new), fulfilment, from_cart: false })
        }
    }

    /// The contract, written down once more as plainly as possible: one order at a time, on copies.
    fn model(
        world: &World,
        user: i64,
        millis: i64,
        order: &PlaceOrder,
    ) -> Result<(World, i64), &'static str> {
        let mut after = world.clone();
        let user = UserId::new(user);
        if !world.balances.contains_key(&user) {
            return Err("user-not-found");
        }
        if order.items.iter().any(|item| !world.products.contains_key(&item.product_id)) {
            return Err("product-not-found");
        }
        let sales = || order.items.iter().map(|item| world.products[&item.product_id].sale);
        if sales().any(|sale| sale.paused_at.is_some_and(|paused| paused <= at(millis))) {
            return Err("sale-paused");
        }
        if sales().any(|sale| {
            sale.from > Some(at(millis)) || sale.until.is_some_and(|until| until <= at(millis))
        }) {
            return Err("product-not-on-sale");
        }
        let is_over = |item: &Item| {
            let bought = world.bought.get(&(user, item.product_id));
            let wanted = bought.map_or(0, |bought| bought.quantity) + item.quantity;
            let limit = world.products[&item.product_id].limit;
            limit.is_some_and(|limit| wanted > limit.per_customer)
        };
        let is_short = |item: &Item| item.quantity > world.products[&item.product_id].stock;
        let partial = order.fulfilment == Fulfilment::Partial;
        let taken: Vec<&Item> =
            order.items.iter().filter(|item| !is_over(item) && !is_short(item)).collect();
        if order.items.iter().all(is_over) || (!partial && order.items.iter().any(is_over)) {
            return Err("limit-exceeded");
        }
        if taken.is_empty() || (!partial && taken.len() < order.items.len()) {
            return Err("out-of-stock");
        }
        let mut amount = 0;
        for item in taken {
            let product = after.products.get_mut(&item.product_id).unwrap();
            product.stock -= item.quantity;
            amount += product.price.get() * item.quantity;
            if product.limit.is_some() {
                let bought = after.bought.entry((user, item.product_id)).or_default();
                bought.quantity += item.quantity;
            }
        }
        if let Some(campaign) = order.coupon_id {
            let Some(held) = after.coupons.get_mut(&(user, campaign)) else {
                return Err("coupon-not-owned");
            };
            if held.used {
                return Err("coupon-already-used");
            }
            if at(millis) >= held.valid_until {
                return Err("coupon-expired");
            }
            held.used = true;
            let off = match held.discount {
                Discount::Fixed(fixed) => fixed.get(),
                Discount::Percent { percent, cap } => {
                    (amount * percent / 100).min(cap.map_or(i64::MAX, Money::get))
                }
            };
            amount -= off.min(amount);
        }
        let balance = world.balances[&user].get();
        if balance < amount {
            return Err("insufficient-balance");
        }
        after.balances.insert(user, Money::new(balance - amount));
        Ok((after, amount))
    }

    proptest! {
        /// Random batches of random orders, against the model.
        #[test]
        fn a_batch_is_its_orders_one_after_the_other(
            start in world(),
            line in prop::collection::vec(order(), 0..40),
        ) {
            let mut world = start.clone();
            let mut expected = start.clone();
            for (user, millis, order) in &line {
                let request = Request {
                    job_id: JobId::compose(0, firstcome_contract::job::JobKind::PlaceOrder, firstcome_contract::line::Place::UNKNOWN, 0, 0),
                    trace: None,
                    user_id: UserId::new(*user),
                    submitted_at: at(*millis),
                    order,
                };
                match (world.decide(&request), model(&expected, *user, *millis, order)) {
                    (Ok(placed), Ok((after, paid))) => {
                        prop_assert_eq!(placed.paid().get(), paid);
                        prop_assert_eq!(placed.items.len() + placed.dropped.len(), order.items.len());
                        expected = after;
                    }
                    (Err(Denial::LimitExceeded(limited)), Err(code)) => {
                        prop_assert_eq!(code, "limit-exceeded");
                        prop_assert!(!limited.is_empty());
                        prop_assert!(limited.iter().all(|item| item.bought + item.requested > item.limit));
                    }
                    (Err(Denial::OutOfStock(short)), Err(code)) => {
                        prop_assert_eq!(code, "out-of-stock");
                        prop_assert!(!short.is_empty());
                        prop_assert!(short.iter().all(|item| item.requested > item.available));
                    }
                    (Err(Denial::Plain(rejection)), Err(code)) => prop_assert_eq!(rejection.code(), code),
                    (decision, model) => prop_assert!(false, "{:?} but {:?}", decision, model.map(|(_, paid)| paid)),
                }
                prop_assert_eq!(&world, &expected);
                prop_assert!(world.products.values().all(|product| product.stock >= 0));
                prop_assert!(world.balances.values().all(|balance| balance.get() >= 0));
            }
            // Nobody got more than the limit, unless it came after.
            for ((user, product), bought) in &world.bought {
                let before = start.bought.get(&(*user, *product)).map_or(0, |bought| bought.quantity);
                let limit = start.products[product].limit.map_or(before, |limit| limit.per_customer);
                prop_assert!(bought.quantity <= before.max(limit));
            }
            // What was sold is what is gone, and what was paid is what was earned.
            let stock = |world: &World| world.products.values().map(|product| product.stock).sum::<i64>();
            prop_assert!(stock(&world) <= stock(&start));
        }
    }
}
