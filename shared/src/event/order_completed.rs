//! `order.completed`: a CloudEvent (CNCF specification 1.0, JSON format).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    ids::{CouponId, OrderId, ProductId, UserId},
    money::Money,
};

/// The kind; also its routing key. Never renamed: messages outlive deploys.
pub const TYPE: &str = "order.completed";
/// Where it comes from.
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
    /// The order.
    pub data: Order,
}

/// A completed order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Its id.
    pub order_id: OrderId,
    /// Who bought.
    pub user_id: UserId,
    /// What was bought.
    pub lines: Vec<Line>,
    /// What the lines cost.
    pub items_amount: Money,
    /// What the coupon took off.
    pub discount: Money,
    /// What was paid.
    pub paid: Money,
    /// The campaign of the coupon.
    pub coupon_id: Option<CouponId>,
}

/// A line of a completed order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// The product.
    pub product_id: ProductId,
    /// How many.
    pub quantity: i64,
    /// The price of one at settlement.
    pub unit_price: Money,
}

impl OrderCompleted {
    /// The event of this order.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_never_changes() {
        let line = Line { product_id: ProductId::new(3), quantity: 2, unit_price: Money::new(50) };
        let data = Order {
            order_id: OrderId::new(1),
            user_id: UserId::new(7),
            lines: vec![line],
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
        assert_eq!(serde_json::from_str::<OrderCompleted>(&json).unwrap(), event);
    }
}
