//! `POST /api/orders`

use axum::{extract::State, http::HeaderMap, response::Response};
use firstcome_contract::{
    ids::{CouponId, ProductId},
    job::{Job, PlaceOrder},
    order::{Fulfilment, Item, MAX_ITEMS, MAX_QUANTITY, merged},
};
use serde::Serialize;
use utoipa::{ToSchema, openapi::Object};

use crate::{
    http::{
        auth::Caller,
        body::Body,
        fields::{Fields, IDS},
        idempotency_key::IdempotencyKey,
        prefer::Prefer,
        problem::{Code, Problem},
        schema::one_of,
        trace::TraceHeader,
    },
    state::AppState,
    submit::{AcceptedAnswer, Request, accept},
};

/// The most items that are read before duplicates are merged.
const MAX_UNMERGED_ITEMS: usize = 1_000;
const FULFILMENTS: [(&str, Fulfilment); 2] =
    [("all", Fulfilment::All), ("partial", Fulfilment::Partial)];

/// What to buy: `items`, or what is in the cart.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = PlaceOrderRequest)]
#[expect(dead_code, reason = "describes what `place` reads")]
struct OrderRequest {
    /// Of at most 50 different products; those of one product count together.
    #[schema(min_items = 1, max_items = 1_000)]
    items: Option<Vec<crate::job::Item>>,
    /// Buys what is in the cart; `items` is left out then.
    from_cart: Option<bool>,
    /// The campaign whose coupon the caller wants to use.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991i64)]
    coupon_id: Option<i64>,
    /// Whether a line that is short, or over its limit, rejects the order (`all`, the default) or is dropped.
    #[schema(schema_with = fulfilments)]
    fulfilment: Option<Fulfilment>,
}

fn fulfilments() -> Object {
    one_of(FULFILMENTS.map(|(name, _)| name))
}

/// Enqueues a `place-order` job.
///
/// # Errors
/// 400, 404 for a product that does not exist, 409 for one that is not on sale, 422, 503.
#[utoipa::path(
    post, path = "/api/orders", operation_id = "placeOrder", tag = "Orders",
    params(IdempotencyKey, Prefer, TraceHeader),
    request_body(content = OrderRequest, examples(
        ("items" = (value = json!({"items": [{"productId": 1, "quantity": 3}, {"productId": 2, "quantity": 1}]}))),
        ("coupon" = (value = json!({"items": [{"productId": 1, "quantity": 3}], "couponId": 2, "fulfilment": "partial"}))),
        ("cart" = (value = json!({"fromCart": true}))),
    )),
    responses(AcceptedAnswer),
    extensions(("x-codes" = json!([
        Code::CartEmpty, Code::ProductNotFound, Code::SalePaused, Code::ProductNotOnSale,
        Code::LineFull, Code::BrokerUnavailable,
    ]))),
)]
pub async fn place(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, .. } = body;
    let order = read_order(&mut fields);
    fields.finish()?;

    let fingerprint = terms(&order).map_err(|_| Problem::new(Code::InternalError))?;
    let request = Request {
        user_id: caller.user_id,
        job: Job::PlaceOrder(order),
        headers: &headers,
        fingerprint: &fingerprint,
    };
    accept(&state, request).await
}

/// What was asked for, in the client's terms, for the request's fingerprint. Running systems hold
/// fingerprints of it, also those of another release: it stays as it is, and a term to come is left
/// out where a request does not have it.
///
/// Of an order from the cart there are no items: what is in the cart may change before the repeat.
fn terms(order: &PlaceOrder) -> serde_json::Result<Vec<u8>> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ItemTerms {
        product_id: i64,
        quantity: i64,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Terms {
        #[serde(rename = "lines")]
        items: Vec<ItemTerms>,
        #[serde(skip_serializing_if = "Option::is_none")]
        coupon_id: Option<i64>,
        fulfilment: &'static str,
        from_cart: bool,
    }
    let item =
        |item: &Item| ItemTerms { product_id: item.product_id.get(), quantity: item.quantity };
    serde_json::to_vec(&Terms {
        items: order.items.iter().map(item).collect(),
        coupon_id: order.coupon_id.map(CouponId::get),
        fulfilment: match order.fulfilment {
            Fulfilment::All => "all",
            Fulfilment::Partial => "partial",
        },
        from_cart: order.from_cart,
    })
}

/// Reads what is asked for; an order from the cart has no items yet.
pub fn read_order(fields: &mut Fields) -> PlaceOrder {
    let items = read_items(fields);
    let from_cart = items.is_none();
    PlaceOrder {
        items: items.unwrap_or_default(),
        coupon_id: fields.optional_integer("couponId", IDS).map(CouponId::new),
        fulfilment: fields.optional_choice("fulfilment", &FULFILMENTS).unwrap_or_default(),
        from_cart,
    }
}

/// The items in the body, merged; `None` if they are to come from the cart.
fn read_items(fields: &mut Fields) -> Option<Vec<Item>> {
    let has_items = fields.has("items");
    if fields.optional_flag("fromCart") == Some(true) {
        if has_items {
            fields.reject("items", "does not go with fromCart");
            fields.optional_objects("items", 0..=MAX_UNMERGED_ITEMS, |_| ());
        }
        return None;
    }
    let items = fields.optional_objects("items", 1..=MAX_UNMERGED_ITEMS, |item| Item {
        product_id: ProductId::new(item.integer("productId", IDS)),
        quantity: item.integer("quantity", 1..=MAX_QUANTITY),
    });
    if items.is_none() {
        fields.reject("items", "is required, unless fromCart is true");
    }
    let items = merged(items.unwrap_or_default());
    if items.len() > MAX_ITEMS {
        fields.reject("items", format!("must not have more than {MAX_ITEMS} different products"));
    }
    if items.iter().any(|item| item.quantity > MAX_QUANTITY) {
        fields.reject("items", format!("must not ask for more than {MAX_QUANTITY} of a product"));
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known::keys::fingerprint;

    #[test]
    fn fingerprints_of_orders_never_change() {
        let of = |items: &[(i64, i64)], coupon_id: Option<i64>, fulfilment, from_cart| {
            let item =
                |&(id, quantity): &(i64, i64)| Item { product_id: ProductId::new(id), quantity };
            let items = items.iter().map(item).collect();
            let coupon_id = coupon_id.map(CouponId::new);
            let order = PlaceOrder { items, coupon_id, fulfilment, from_cart };
            fingerprint(&[b"place-order", &terms(&order).unwrap()])
        };
        assert_eq!(
            [
                of(&[(1, 2)], None, Fulfilment::All, false),
                of(&[(1, 5), (2, 1)], Some(2), Fulfilment::Partial, false),
                of(&[], Some(2), Fulfilment::All, true),
            ],
            [
                "ac788acce48136791669097bdfdf6780",
                "7e52ca069867f7c70deacc53b7ba2c0b",
                "916a1795f2843d6d78e5f18de5091cf8",
            ]
        );
    }
}
