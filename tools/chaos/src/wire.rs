//! Requests as they are sent.

use firstcome_check::history::Request;
use firstcome_rig::{
    answers::{IDEMPOTENCY_KEY, cancel_path, coupon_path},
    http::{Call, call, call_with},
};
use http::{HeaderValue, Method, Uri};
use serde_json::{Value, json};

/// The request of someone with this token, under this key.
///
/// # Errors
/// Never: ids are digits, and keys are UUIDs.
pub(crate) fn call_of(
    request: &Request,
    token: &HeaderValue,
    key: Option<&str>,
) -> anyhow::Result<Call> {
    let post = Method::POST;
    let (method, path, body) = match request {
        Request::IssueCoupon { coupon } => (post, coupon_path(*coupon)?, None),
        Request::PlaceOrder { items, coupon, partial } => {
            let items = items
                .iter()
                .map(|item| json!({"productId": item.product, "quantity": item.quantity}))
                .collect::<Vec<Value>>();
            let fulfilment = if *partial { "partial" } else { "all" };
            let order = json!({"items": items, "couponId": coupon, "fulfilment": fulfilment});
            (post, Uri::from_static("/api/orders"), Some(order))
        }
        Request::CancelOrder { order } => (post, cancel_path(*order)?, None),
        Request::Charge { amount } => {
            (post, Uri::from_static("/api/balance/charge"), Some(json!({"amount": amount})))
        }
        Request::AddStock { product, delta } => {
            let path = format!("/api/admin/products/{product}/stock");
            (post, path.try_into()?, Some(json!({"delta": delta})))
        }
        Request::SetTotal { coupon, total } => {
            let path = format!("/api/admin/coupons/{coupon}");
            (Method::PATCH, path.try_into()?, Some(json!({"total": total})))
        }
    };
    let mut call = match body {
        Some(body) => call_with(method, path, Some(token), &body),
        None => call(method, path, Some(token)),
    };
    if let Some(key) = key {
        call.headers_mut().insert(IDEMPOTENCY_KEY, HeaderValue::from_str(key)?);
    }
    Ok(call)
}

#[cfg(test)]
mod tests {
    use super::*;
    use firstcome_check::history::Item;

    #[test]
    fn an_order_is_what_the_history_says() {
        let items = vec![Item { product: 3, quantity: 2 }];
        let order = Request::PlaceOrder { items, coupon: None, partial: true };
        let call = call_of(&order, &HeaderValue::from_static("Bearer x"), Some("a-key")).unwrap();
        assert_eq!(call.uri(), "/api/orders");
        assert_eq!(call.headers()["idempotency-key"], "a-key");
        let body: Value = serde_json::from_slice(call.body()).unwrap();
        let items = json!([{"productId": 3, "quantity": 2}]);
        assert_eq!(body, json!({"items": items, "couponId": null, "fulfilment": "partial"}));
    }
}
