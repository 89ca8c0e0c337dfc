//! `order.completed`: a CloudEvent (CNCF specification 1.0, JSON format).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    ids::{CouponId, OrderId, ProductId, UserId},
    money::Money,
    order::{MAX_ITEMS, MAX_PRICE, MAX_QUANTITY},
};

/// The kind; also its routing key. Never renamed: messages outlive deploys.
pub const TYPE: &str = "order.completed";
/// The CloudEvents `source`: what tells our events from those of other systems.
const SOURCE: &str = "/firstcome/orders";

/// The event as it travels. Consumers tell a duplicate by `id`, which is the id of the order's job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCompleted {
    specversion: String,
    /// The same for every delivery of this event.
    pub id: Uuid,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    /// When the order was completed.
    pub time: DateTime<Utc>,
    subject: String,
    datacontenttype: String,
    /// The order, as it was settled: consumers need not ask for it.
    pub data: Order,
}

/// A completed order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The order's number; also the `subject` of the event.
    pub order_id: OrderId,
    /// The customer who placed the order.
    pub user_id: UserId,
    /// What was bought, by product id; without what a partial order dropped.
    #[serde(rename = "lines")]
    pub items: Vec<Item>,
    /// The sum of price times quantity, before the coupon.
    pub items_amount: Money,
    /// What the coupon took off; 0 without one.
    pub discount: Money,
    /// What was taken from the balance: `items_amount` less `discount`.
    pub paid: Money,
    /// The campaign of the coupon that was used, if any.
    pub coupon_id: Option<CouponId>,
}

/// An item of a completed order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// The product's id; the product itself may change or go.
    pub product_id: ProductId,
    /// How many were bought: 1..=[`MAX_QUANTITY`].
    pub quantity: i64,
    /// The price of one at settlement.
    pub unit_price: Money,
}

impl OrderCompleted {
    /// Makes the event of an order; `id` is the id of its job, so that a repeat is known.
    #[must_use]
    pub fn new(id: Uuid, time: DateTime<Utc>, data: Order) -> Self {
        Self {
            specversion: "1.0".to_owned(),
            id,
            source: SOURCE.to_owned(),
            kind: TYPE.to_owned(),
            time,
            subject: data.order_id.to_string(),
            datacontenttype: "application/json".to_owned(),
            data,
        }
    }

    /// Reads an event, as far as it tells what can have been sold.
    ///
    /// # Errors
    /// Why it is none, for people.
    pub fn decode(json: &[u8]) -> Result<Self, String> {
        let event: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let items = &event.data.items;
        if items.len() > MAX_ITEMS {
            return Err(format!("{} items are more than an order can have", items.len()));
        }
        let is_sold = |item: &&Item| {
            (1..=MAX_QUANTITY).contains(&item.quantity)
                && (0..=MAX_PRICE).contains(&item.unit_price.get())
        };
        match items.iter().find(|item| !is_sold(item)) {
            Some(item) => Err(format!(
                "nothing is sold {} times at {}: product {}",
                item.quantity,
                item.unit_price.get(),
                item.product_id
            )),
            None => Ok(event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_never_changes() {
        let item = Item { product_id: ProductId::new(3), quantity: 2, unit_price: Money::new(50) };
        let data = Order {
            order_id: OrderId::new(1),
            user_id: UserId::new(7),
            items: vec![item],
            items_amount: Money::new(100),
            discount: Money::ZERO,
            paid: Money::new(100),
            coupon_id: None,
        };
        let event = OrderCompleted::new(Uuid::nil(), DateTime::UNIX_EPOCH, data);
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(
            json,
            r#"{"specversion":"1.0","id":"00000000-0000-0000-0000-000000000000","source":"/firstcome/orders","type":"order.completed","time":"1970-01-01T00:00:00Z","subject":"1","datacontenttype":"application/json","data":{"orderId":1,"userId":7,"lines":[{"productId":3,"quantity":2,"unitPrice":50}],"itemsAmount":100,"discount":0,"paid":100,"couponId":null}}"#
        );
        assert_eq!(OrderCompleted::decode(json.as_bytes()).unwrap(), event);
    }

    #[test]
    fn what_nobody_sells_is_no_event() {
        let decode = |items: Vec<Item>| {
            let data = Order {
                order_id: OrderId::new(1),
                user_id: UserId::new(7),
                items,
                items_amount: Money::ZERO,
                discount: Money::ZERO,
                paid: Money::ZERO,
                coupon_id: None,
            };
            let event = OrderCompleted::new(Uuid::nil(), DateTime::UNIX_EPOCH, data);
            OrderCompleted::decode(&serde_json::to_vec(&event).unwrap())
        };
        let item = |quantity, unit_price| Item {
            product_id: ProductId::new(3),
            quantity,
            unit_price: Money::new(unit_price),
        };
        for sold in [(1, 0), (MAX_QUANTITY, MAX_PRICE)] {
            assert!(decode(vec![item(sold.0, sold.1); MAX_ITEMS]).is_ok());
        }
        let nothing =
            [(0, 1), (-5, 1), (MAX_QUANTITY + 1, 1), (i64::MAX, 1), (1, -1), (1, MAX_PRICE + 1)];
        for (quantity, unit_price) in nothing {
            let error = decode(vec![item(1, 1), item(quantity, unit_price)]).unwrap_err();
            assert!(error.contains("product 3"), "{error}");
        }
        assert!(decode(vec![item(1, 1); MAX_ITEMS + 1]).is_err());
    }
}
