//! Events: what happened, for whoever wants to know. Each is a CloudEvent (CNCF specification 1.0, JSON format).

mod coupon;
mod order;
mod product;

pub use coupon::{CouponIssued, CouponSoldOut};
pub use order::{OrderCancelled, OrderCompleted, SoldItem};
pub use product::ProductSoldOut;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    codes::codes,
    reason::bounded,
    trace::{Trace, TraceParent, TraceState},
};

codes! {
    /// What happened; the code is the CloudEvents `type` and the routing key. Never renamed: messages outlive deploys.
    pub enum EventType {
        /// An order was placed.
        OrderCompleted = "order.completed",
        /// An order was cancelled.
        OrderCancelled = "order.cancelled",
        /// A user got a coupon.
        CouponIssued = "coupon.issued",
        /// The last coupon of a campaign was issued.
        CouponSoldOut = "coupon.sold-out",
        /// The last unit of a product was sold.
        ProductSoldOut = "product.sold-out",
    }
}

impl EventType {
    /// The CloudEvents `source`: what tells our events from those of other systems.
    #[must_use]
    pub const fn source(self) -> &'static str {
        match self {
            Self::OrderCompleted | Self::OrderCancelled => "/firstcome/orders",
            Self::CouponIssued | Self::CouponSoldOut => "/firstcome/coupons",
            Self::ProductSoldOut => "/firstcome/products",
        }
    }
}

/// What an event tells: its consumers need not ask for more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// See [`EventType::OrderCompleted`].
    OrderCompleted(OrderCompleted),
    /// See [`EventType::OrderCancelled`].
    OrderCancelled(OrderCancelled),
    /// See [`EventType::CouponIssued`].
    CouponIssued(CouponIssued),
    /// See [`EventType::CouponSoldOut`].
    CouponSoldOut(CouponSoldOut),
    /// See [`EventType::ProductSoldOut`].
    ProductSoldOut(ProductSoldOut),
}

/// An event. Consumers tell a duplicate by `id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The same for every delivery of this event; of what a job did to its caller, the id of the job.
    pub id: Uuid,
    /// When it happened: the instant of the settlement.
    pub time: DateTime<Utc>,
    /// The trace of the request that led to it (the extension *Distributed Tracing* of CloudEvents).
    pub trace: Option<Trace>,
    /// What happened.
    pub data: Data,
}

#[derive(Serialize)]
struct Told<'a, T> {
    specversion: &'static str,
    id: Uuid,
    source: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    time: DateTime<Utc>,
    subject: String,
    datacontenttype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
    data: &'a T,
}

#[derive(Deserialize)]
struct Heard<'a> {
    id: Uuid,
    #[serde(rename = "type")]
    kind: std::borrow::Cow<'a, str>,
    time: DateTime<Utc>,
    /// Read as it is: what is no trace is none.
    #[serde(default, borrow)]
    traceparent: Option<&'a RawValue>,
    #[serde(default, borrow)]
    tracestate: Option<&'a RawValue>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Heard<'_> {
    fn trace(&self) -> Option<Trace> {
        let text = |value: Option<&RawValue>| serde_json::from_str::<String>(value?.get()).ok();
        let parent = TraceParent::parse(&text(self.traceparent)?)?;
        let state = text(self.tracestate).and_then(|state| TraceState::parse(&state));
        Some(Trace { parent, state })
    }
}

impl Event {
    /// An event that belongs to no trace.
    #[must_use]
    pub const fn new(id: Uuid, time: DateTime<Utc>, data: Data) -> Self {
        Self { id, time, trace: None, data }
    }

    /// The same event as a part of this trace, if there is one.
    #[must_use]
    pub fn in_trace(self, trace: Option<&Trace>) -> Self {
        Self { trace: trace.cloned(), ..self }
    }

    /// What kind of event it is.
    #[must_use]
    pub const fn kind(&self) -> EventType {
        match &self.data {
            Data::OrderCompleted(_) => EventType::OrderCompleted,
            Data::OrderCancelled(_) => EventType::OrderCancelled,
            Data::CouponIssued(_) => EventType::CouponIssued,
            Data::CouponSoldOut(_) => EventType::CouponSoldOut,
            Data::ProductSoldOut(_) => EventType::ProductSoldOut,
        }
    }

    /// Reads an event, as far as it tells what can have happened.
    ///
    /// # Errors
    /// Why it is none that this release knows, for people, in at most 500 characters.
    pub fn decode(json: &[u8]) -> Result<Self, String> {
        let heard = serde_json::from_slice(json).map_err(|error| error.to_string());
        heard.and_then(Self::of).map_err(bounded)
    }

    fn of(heard: Heard<'_>) -> Result<Self, String> {
        let kind = EventType::from_code(&heard.kind);
        let kind = kind.ok_or_else(|| format!("unknown event type {:?}", heard.kind))?;
        let (trace, data) = (heard.trace(), heard.data.get());
        let data = match kind {
            EventType::OrderCompleted => serde_json::from_str(data).map(Data::OrderCompleted),
            EventType::OrderCancelled => serde_json::from_str(data).map(Data::OrderCancelled),
            EventType::CouponIssued => serde_json::from_str(data).map(Data::CouponIssued),
            EventType::CouponSoldOut => serde_json::from_str(data).map(Data::CouponSoldOut),
            EventType::ProductSoldOut => serde_json::from_str(data).map(Data::ProductSoldOut),
        };
        let data = data.map_err(|error| error.to_string())?;
        match &data {
            Data::OrderCompleted(order) => order::check(&order.items)?,
            Data::OrderCancelled(order) => order::check(&order.items)?,
            Data::CouponIssued(_) | Data::CouponSoldOut(_) | Data::ProductSoldOut(_) => {}
        }
        Ok(Self { id: heard.id, time: heard.time, trace, data })
    }

    fn tell<S: Serializer>(
        &self,
        serializer: S,
        subject: impl ToString,
        data: &impl Serialize,
    ) -> Result<S::Ok, S::Error> {
        let kind = self.kind();
        let told = Told {
            specversion: "1.0",
            id: self.id,
            source: kind.source(),
            kind: kind.code(),
            time: self.time,
            subject: subject.to_string(),
            datacontenttype: "application/json",
            traceparent: self.trace.as_ref().map(|trace| trace.parent.to_string()),
            tracestate: self.trace.as_ref().and_then(|trace| Some(trace.state.as_ref()?.as_str())),
            data,
        };
        told.serialize(serializer)
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.data {
            Data::OrderCompleted(order) => self.tell(serializer, order.order_id, order),
            Data::OrderCancelled(order) => self.tell(serializer, order.order_id, order),
            Data::CouponIssued(coupon) => self.tell(serializer, coupon.user_coupon_id, coupon),
            Data::CouponSoldOut(coupon) => self.tell(serializer, coupon.coupon_id, coupon),
            Data::ProductSoldOut(product) => self.tell(serializer, product.product_id, product),
        }
    }
}

/// As [`Event::decode`] reads it: out of JSON that is in memory, and nothing else.
impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of(Heard::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{CouponId, OrderId, ProductId, UserCouponId, UserId},
        money::Money,
        order::{MAX_ITEMS, MAX_PRICE, MAX_QUANTITY},
        reason::LONGEST,
    };

    fn event(data: Data) -> Event {
        Event::new(Uuid::nil(), DateTime::UNIX_EPOCH, data)
    }

    fn item(quantity: i64, unit_price: i64) -> SoldItem {
        SoldItem { product_id: ProductId::new(3), quantity, unit_price: Money::new(unit_price) }
    }

    fn completed(items: Vec<SoldItem>) -> Event {
        event(Data::OrderCompleted(OrderCompleted {
            order_id: OrderId::new(1),
            user_id: UserId::new(7),
            items,
            items_amount: Money::new(100),
            discount: Money::ZERO,
            paid: Money::new(100),
            coupon_id: None,
        }))
    }

    fn cancelled(items: Vec<SoldItem>) -> Event {
        event(Data::OrderCancelled(OrderCancelled {
            order_id: OrderId::new(1),
            user_id: UserId::new(7),
            items,
            refunded: Money::new(100),
            coupon_id: None,
            completed_at: DateTime::UNIX_EPOCH,
            reason: None,
            by_operator: false,
        }))
    }

    #[test]
    fn the_wire_form_never_changes() {
        let forms = [
            (
                completed(vec![item(2, 50)]),
                r#""source":"/firstcome/orders","type":"order.completed","time":"1970-01-01T00:00:00Z","subject":"1","datacontenttype":"application/json","data":{"orderId":1,"userId":7,"lines":[{"productId":3,"quantity":2,"unitPrice":50}],"itemsAmount":100,"discount":0,"paid":100,"couponId":null}"#,
            ),
            (
                cancelled(vec![item(2, 50)]),
                r#""source":"/firstcome/orders","type":"order.cancelled","time":"1970-01-01T00:00:00Z","subject":"1","datacontenttype":"application/json","data":{"orderId":1,"userId":7,"lines":[{"productId":3,"quantity":2,"unitPrice":50}],"refunded":100,"couponId":null,"completedAt":"1970-01-01T00:00:00Z","reason":null,"byOperator":false}"#,
            ),
            (
                event(Data::CouponIssued(CouponIssued {
                    coupon_id: CouponId::new(2),
                    user_id: UserId::new(7),
                    user_coupon_id: UserCouponId::new(5),
                    issue_number: 4,
                })),
                r#""source":"/firstcome/coupons","type":"coupon.issued","time":"1970-01-01T00:00:00Z","subject":"5","datacontenttype":"application/json","data":{"couponId":2,"userId":7,"userCouponId":5,"issueNumber":4}"#,
            ),
            (
                event(Data::CouponSoldOut(CouponSoldOut { coupon_id: CouponId::new(2), total: 9 })),
                r#""source":"/firstcome/coupons","type":"coupon.sold-out","time":"1970-01-01T00:00:00Z","subject":"2","datacontenttype":"application/json","data":{"couponId":2,"total":9}"#,
            ),
            (
                event(Data::ProductSoldOut(ProductSoldOut { product_id: ProductId::new(3) })),
                r#""source":"/firstcome/products","type":"product.sold-out","time":"1970-01-01T00:00:00Z","subject":"3","datacontenttype":"application/json","data":{"productId":3}"#,
            ),
        ];
        assert_eq!(forms.each_ref().map(|(event, _)| event.kind()), EventType::ALL);
        for (event, form) in forms {
            let json = serde_json::to_string(&event).unwrap();
            let head = r#"{"specversion":"1.0","id":"00000000-0000-0000-0000-000000000000","#;
            assert_eq!(json, format!("{head}{form}}}"));
            let both = format!("[{json},{json}]");
            let read: Vec<Event> = serde_json::from_str(&both).unwrap();
            assert_eq!(read, [event.clone(), event.clone()]);
            assert_eq!(Event::decode(json.as_bytes()), Ok(event));
        }
        // Of a request with a trace; what is no trace hides nothing.
        let trace =
            TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let trace = Trace { parent: trace, state: TraceState::parse("congo=t61rcWkgMzE") };
        let traced = completed(vec![item(2, 50)]).in_trace(Some(&trace));
        let json = serde_json::to_string(&traced).unwrap();
        let form = r#""datacontenttype":"application/json","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"congo=t61rcWkgMzE","data""#;
        assert!(json.contains(form), "{json}");
        assert_eq!(Event::decode(json.as_bytes()), Ok(traced));
        for none in ["7", "\"00-no-trace\"", "null"] {
            let json =
                json.replace("\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"", none);
            assert_eq!(Event::decode(json.as_bytes()), Ok(completed(vec![item(2, 50)])));
        }
        let unknown = r#"{"id":"00000000-0000-0000-0000-000000000000","type":"order.lost","time":"1970-01-01T00:00:00Z","data":{}}"#;
        let error = Event::decode(unknown.as_bytes()).unwrap_err();
        assert_eq!(error, "unknown event type \"order.lost\"");
    }

    #[test]
    fn a_reason_is_short_however_long_the_event_is() {
        let json = serde_json::to_string(&completed(vec![item(2, 50)])).unwrap();
        let long = "é".repeat(1_000_000);
        for (what, wrong) in [
            ("order.completed\"", format!("{long}\"")),
            ("\"orderId\":1", format!("\"orderId\":\"{long}\"")),
        ] {
            assert!(json.contains(what), "{what}");
            let reason = Event::decode(json.replace(what, &wrong).as_bytes()).unwrap_err();
            assert!(reason.contains("éé"), "{what}");
            assert_eq!(reason.chars().count(), LONGEST + 1, "{what}");
        }
    }

    /// The release before this one looks at no type: it must not count a cancelled order as sold.
    #[test]
    fn a_cancelled_order_does_not_read_as_a_completed_one() {
        let json = serde_json::to_value(cancelled(vec![item(2, 50)])).unwrap();
        assert!(serde_json::from_value::<OrderCompleted>(json["data"].clone()).is_err());
    }

    #[test]
    fn what_nobody_sells_is_no_event() {
        for of in [completed, cancelled] {
            let decode = |items| Event::decode(&serde_json::to_vec(&of(items)).unwrap());
            for sold in [(1, 0), (MAX_QUANTITY, MAX_PRICE)] {
                assert!(decode(vec![item(sold.0, sold.1); MAX_ITEMS]).is_ok());
            }
            let nothing = [
                (0, 1),
                (-5, 1),
                (MAX_QUANTITY + 1, 1),
                (i64::MAX, 1),
                (1, -1),
                (1, MAX_PRICE + 1),
            ];
            for (quantity, unit_price) in nothing {
                let error = decode(vec![item(1, 1), item(quantity, unit_price)]).unwrap_err();
                assert!(error.contains("product 3"), "{error}");
            }
            assert!(decode(vec![item(1, 1); MAX_ITEMS + 1]).is_err());
        }
    }
}
