//! What workers write and the API passes on as it is.

use firstcome_contract::{
    ids::{CouponId, OrderId, ProductId, UserCouponId},
    job::{JobKind, Status, cancel_order, issue_coupon, place_order},
    money::Money,
    order,
};
use serde_json::{Value, json};
use utoipa::{ToSchema, openapi::Object};

use crate::http::{
    problem::{Code, Problem},
    schema::{JOB_ID, one_of},
};

pub(super) fn statuses() -> Object {
    let settled = [Status::Succeeded, Status::Rejected, Status::Failed].map(Status::as_str);
    one_of(std::iter::once("queued").chain(settled))
}

/// What a job that succeeded led to, by its kind.
#[derive(ToSchema)]
#[schema(as = JobResult)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what a worker wrote")]
pub(super) enum JobResult {
    CouponIssued(CouponIssued),
    OrderPlaced(OrderPlaced),
    OrderCancelled(OrderCancelled),
}

/// Of `issue-coupon`.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the contract's type of this name")]
pub(super) struct CouponIssued {
    user_coupon_id: i64,
    coupon_id: i64,
    /// Gapless from 1 to the campaign's total, in the order in which the line was settled.
    issue_number: i64,
}

/// Of `place-order`.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the contract's type of this name")]
pub(super) struct OrderPlaced {
    order_id: i64,
    items_amount: i64,
    discount: i64,
    paid: i64,
    /// The lines of a partial order that were short, or over their limit.
    dropped: Vec<Item>,
}

/// Of `cancel-order`.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the contract's type of this name")]
pub(super) struct OrderCancelled {
    order_id: i64,
    /// What is back in the balance: all that was paid.
    refunded: i64,
    /// Whether a coupon is unused again; it may be expired by now.
    coupon_returned: bool,
}

/// So many of a product.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Line, example = json!(order::Item { product_id: ProductId::new(1), quantity: 3 }))]
#[expect(dead_code, reason = "describes the contract's type of this name")]
pub(crate) struct Item {
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991i64)]
    product_id: i64,
    #[schema(minimum = 1, maximum = 10_000)]
    quantity: i64,
}

/// What some codes add to the problem.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what a worker wrote")]
pub(super) struct Detail {
    /// The lines that are short, of `out-of-stock`; those that are over their limit, of `limit-exceeded`.
    #[serde(rename = "lines")]
    items: Option<Vec<RefusedItem>>,
}

/// A line for which an order was rejected.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = RefusedLine)]
#[expect(dead_code, reason = "describes what a worker wrote")]
enum RefusedItem {
    Short(ShortItem),
    Limited(LimitedItem),
}

/// A line that is short of stock.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ShortLine)]
#[expect(dead_code, reason = "describes the contract's type of this name")]
struct ShortItem {
    product_id: i64,
    requested: i64,
    available: i64,
}

/// A line of which the customer may not have that many.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LimitedLine)]
#[expect(dead_code, reason = "describes the contract's type of this name")]
struct LimitedItem {
    product_id: i64,
    requested: i64,
    /// What the customer has by orders that were not cancelled.
    bought: i64,
    limit: i64,
}

/// Jobs in every state, with what workers really write.
pub(super) mod example {
    use super::*;

    fn job(kind: JobKind, status: &str, result: Value, error: Value) -> Value {
        let settled_at = (status != "queued").then_some("2026-03-01T12:00:00.265Z");
        json!({
            "jobId": JOB_ID, "kind": kind.as_str(), "status": status,
            "submittedAt": "2026-03-01T12:00:00.250Z", "settledAt": settled_at,
            "result": result, "error": error,
        })
    }

    pub(crate) fn queued() -> Value {
        job(JobKind::IssueCoupon, "queued", Value::Null, Value::Null)
    }

    pub(crate) fn coupon() -> Value {
        let issued = issue_coupon::CouponIssued {
            user_coupon_id: UserCouponId::new(1),
            coupon_id: CouponId::new(2),
            issue_number: 1,
        };
        job(JobKind::IssueCoupon, Status::Succeeded.as_str(), json!(issued), Value::Null)
    }

    pub(crate) fn order() -> Value {
        let placed = place_order::OrderPlaced {
            order_id: OrderId::new(1),
            items_amount: Money::new(3_000),
            discount: Money::new(300),
            paid: Money::new(2_700),
            dropped: vec![order::Item { product_id: ProductId::new(2), quantity: 10_000 }],
        };
        job(JobKind::PlaceOrder, Status::Succeeded.as_str(), json!(placed), Value::Null)
    }

    pub(crate) fn cancelled() -> Value {
        let cancelled = cancel_order::OrderCancelled {
            order_id: OrderId::new(1),
            refunded: Money::new(2_700),
            coupon_returned: true,
        };
        job(JobKind::CancelOrder, Status::Succeeded.as_str(), json!(cancelled), Value::Null)
    }

    pub(crate) fn out_of_stock() -> Value {
        let short =
            place_order::ShortItem { product_id: ProductId::new(1), requested: 3, available: 2 };
        refused(Code::OutOfStock, json!([short]))
    }

    pub(crate) fn limit_exceeded() -> Value {
        let product_id = ProductId::new(1);
        let limited = place_order::LimitedItem { product_id, requested: 3, bought: 1, limit: 2 };
        refused(Code::LimitExceeded, json!([limited]))
    }

    fn refused(code: Code, items: Value) -> Value {
        let mut error = json!(Problem::new(code));
        if let Some(fields) = error.as_object_mut() {
            fields.insert("lines".to_owned(), items);
        }
        job(JobKind::PlaceOrder, Status::Rejected.as_str(), Value::Null, error)
    }
}
