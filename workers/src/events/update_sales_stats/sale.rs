//! What an event adds to the statistics.

use chrono::{DateTime, Utc};
use firstcome_contract::event::{Data, Event, SoldItem};
use uuid::Uuid;

/// An item of an order that was completed, or, with a negative quantity and amount, of one that was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sale {
    /// The event's id, which is that of the job.
    pub(super) event: Uuid,
    /// When the order was completed, also if it was cancelled later.
    pub(super) at: DateTime<Utc>,
    pub(super) product: i64,
    pub(super) quantity: i64,
    pub(super) amount: i64,
}

impl Sale {
    /// What is counted of an event; nothing, unless it is of an order.
    pub(super) fn all_of(event: &Event) -> Vec<Self> {
        match &event.data {
            Data::OrderCompleted(order) => Self::of(event.id, event.time, &order.items, 1),
            Data::OrderCancelled(order) => Self::of(event.id, order.completed_at, &order.items, -1),
            Data::CouponIssued(_) | Data::CouponSoldOut(_) | Data::ProductSoldOut(_) => Vec::new(),
        }
    }

    fn of(event: Uuid, at: DateTime<Utc>, items: &[SoldItem], times: i64) -> Vec<Self> {
        let sales = items.iter().map(|item| Self {
            event,
            at,
            product: item.product_id.get(),
            quantity: times * item.quantity,
            amount: times * item.unit_price.times(item.quantity).get(),
        });
        sales.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use firstcome_contract::{
        event::{CouponIssued, CouponSoldOut, OrderCancelled, OrderCompleted, ProductSoldOut},
        ids::{CouponId, OrderId, ProductId, UserCouponId, UserId},
        money::Money,
        order::{MAX_ITEMS, MAX_PRICE, MAX_QUANTITY},
    };
    use proptest::{collection, prelude::*};

    use super::*;

    fn item((product, quantity, price): (i64, i64, i64)) -> SoldItem {
        let (product_id, unit_price) = (ProductId::new(product), Money::new(price));
        SoldItem { product_id, quantity, unit_price }
    }

    /// An order, and that it was cancelled some seconds later.
    fn events(number: u32, items: &[SoldItem], later: i64) -> [Event; 2] {
        let completed_at = DateTime::UNIX_EPOCH;
        let (order_id, user_id) = (OrderId::new(number.into()), UserId::new(7));
        let id = |which: u128| Uuid::from_u128(u128::from(number) * 2 + which);
        let completed = OrderCompleted {
            order_id,
            user_id,
            items: items.to_vec(),
            items_amount: Money::ZERO,
            discount: Money::ZERO,
            paid: Money::ZERO,
            coupon_id: None,
        };
        let cancelled = OrderCancelled {
            order_id,
            user_id,
            items: items.to_vec(),
            refunded: Money::ZERO,
            coupon_id: None,
            completed_at,
            reason: None,
            by_operator: false,
        };
        [
            Event::new(id(0), completed_at, Data::OrderCompleted(completed)),
            Event::new(
                id(1),
                completed_at + chrono::TimeDelta::seconds(later),
                Data::OrderCancelled(cancelled),
            ),
        ]
    }

    fn items() -> impl Strategy<Value = Vec<SoldItem>> {
        let item = (1..6i64, 1..=MAX_QUANTITY, 0..=MAX_PRICE).prop_map(item);
        collection::vec(item, 1..=MAX_ITEMS)
    }

    proptest! {
        /// Whatever the order in which they come, an order that was cancelled leaves nothing, on the day of the order.
        #[test]
        fn completed_and_cancelled_add_up_to_nothing(
            orders in collection::vec((items(), 0..1_000_000i64, any::<bool>()), 1..8),
            places in collection::vec(any::<u64>(), 16),
        ) {
            let (mut told, mut expected) = (Vec::new(), BTreeMap::<_, (i64, i64)>::new());
            for (number, (items, later, is_cancelled)) in (0..).zip(&orders) {
                let [completed, cancelled] = events(number, items, *later);
                if !is_cancelled {
                    for item in items {
                        let sum = expected.entry((completed.time, item.product_id.get())).or_default();
                        sum.0 += item.quantity;
                        sum.1 += item.unit_price.get() * item.quantity;
                    }
                }
                told.push(completed);
                told.extend(is_cancelled.then_some(cancelled));
            }
            let mut told: Vec<_> = told.into_iter().zip(places).collect();
            told.sort_by_key(|(_, place)| *place);
            let mut sums = BTreeMap::<_, (i64, i64)>::new();
            for sale in told.iter().flat_map(|(event, _)| Sale::all_of(event)) {
                let sum = sums.entry((sale.at, sale.product)).or_default();
                sum.0 += sale.quantity;
                sum.1 += sale.amount;
            }
            sums.retain(|_, sum| *sum != (0, 0));
            prop_assert_eq!(sums, expected);
        }
    }

    #[test]
    fn other_events_count_nothing() {
        let (coupon_id, product_id) = (CouponId::new(1), ProductId::new(1));
        let others = [
            Data::CouponIssued(CouponIssued {
                coupon_id,
                user_id: UserId::new(7),
                user_coupon_id: UserCouponId::new(1),
                issue_number: 1,
            }),
            Data::CouponSoldOut(CouponSoldOut { coupon_id, total: 1 }),
            Data::ProductSoldOut(ProductSoldOut { product_id }),
        ];
        for data in others {
            let event = Event::new(Uuid::nil(), DateTime::UNIX_EPOCH, data);
            assert_eq!(Sale::all_of(&event), []);
        }
    }
}
