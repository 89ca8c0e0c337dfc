//! What workers write and the API passes on as it is.

use firstcome_contract::{
    ids::{CouponId, OrderId, ProductId, UserCouponId},
    job::{JobKind, Status, issue_coupon, place_order},
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
    /// The lines of a partial order that were short.
    dropped: Vec<Item>,
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
    /// The lines that are short, of `out-of-stock`.
    #[serde(rename = "lines")]
    items: Option<Vec<ShortItem>>,
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

    pub(crate) fn out_of_stock() -> Value {
        let short =
            place_order::ShortItem { product_id: ProductId::new(1), requested: 3, available: 2 };
        let mut error = json!(Problem::new(Code::OutOfStock));
        if let Some(fields) = error.as_object_mut() {
            fields.insert("lines".to_owned(), json!([short]));
        }
        job(JobKind::PlaceOrder, Status::Rejected.as_str(), Value::Null, error)
    }
}
