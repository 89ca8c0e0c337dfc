//! What is asked for. The n-th request is the n-th user's, so that nobody asks twice. A request has an
//! `Idempotency-Key` where it says so: see [`keyed`].

use std::sync::Arc;

use firstcome_rig::{
    answers::{IDEMPOTENCY_KEY, coupon_path},
    http::{call, call_with},
};
use http::{Method, Uri, header::HeaderValue};
use serde_json::{Value, json};
use uuid::Uuid;

use super::load::Requests;

/// The hot product; the sample data's products are 1 to [`PRODUCTS`].
pub(super) const HOT_PRODUCT: i64 = 1;
/// Products of the sample data.
pub(super) const PRODUCTS: i64 = 100;

/// Nothing but an answer.
pub(super) fn hellos() -> Requests {
    Arc::new(|_| Some((call(Method::GET, Uri::from_static("/hello"), None), 0)))
}

/// One coupon for each user, of these campaigns in turn.
pub(super) fn coupons(bearers: &Arc<[HeaderValue]>, campaigns: &[i64]) -> anyhow::Result<Requests> {
    let paths = paths(campaigns)?;
    let bearers = Arc::clone(bearers);
    Ok(Arc::new(move |index| {
        let path = paths.get(index % paths.len())?;
        Some((call(Method::POST, path.clone(), Some(bearers.get(index)?)), 1))
    }))
}

/// The same, but when all users have asked, they ask again.
pub(super) fn coupons_again_and_again(
    bearers: &Arc<[HeaderValue]>,
    campaign: i64,
) -> anyhow::Result<Requests> {
    let path = coupon_path(campaign)?;
    let bearers = Arc::clone(bearers);
    Ok(Arc::new(move |index| {
        let bearer = bearers.get(index % bearers.len())?;
        Some((call(Method::POST, path.clone(), Some(bearer)), 1))
    }))
}

fn paths(campaigns: &[i64]) -> anyhow::Result<Vec<Uri>> {
    campaigns.iter().map(|campaign| coupon_path(*campaign)).collect()
}

/// The first so many of them, each under a key of its own, random as most clients' keys are. They are made before the
/// load begins, like the tokens: clients make their keys on their own machines.
pub(super) fn keyed(requests: Requests, count: usize) -> anyhow::Result<Requests> {
    let keys = (0..count).map(|_| HeaderValue::try_from(Uuid::new_v4().to_string()));
    let keys: Arc<[HeaderValue]> = keys.collect::<Result<_, _>>()?;
    Ok(Arc::new(move |index| {
        let (mut call, units) = requests(index)?;
        call.headers_mut().insert(IDEMPOTENCY_KEY, keys.get(index)?.clone());
        Some((call, units))
    }))
}

/// One piece of the hot product for each user, who uses a coupon of this campaign for it, if any.
pub(super) fn hot_orders(bearers: &Arc<[HeaderValue]>, campaign: Option<i64>) -> Requests {
    orders(bearers, campaign, |_| vec![HOT_PRODUCT])
}

/// One to three products for each user, all products evenly.
pub(super) fn spread_orders(bearers: &Arc<[HeaderValue]>) -> Requests {
    orders(bearers, None, |index| {
        // Of 100: 37 is coprime to it, and 17 and 34 away are others.
        let first = i64::try_from(index % 100).unwrap_or_default() * 37;
        [0, 17, 34]
            .into_iter()
            .take(1 + index % 3)
            .map(|away| (first + away) % PRODUCTS + 1)
            .collect()
    })
}

fn orders(
    bearers: &Arc<[HeaderValue]>,
    campaign: Option<i64>,
    products: impl Fn(usize) -> Vec<i64> + Send + Sync + 'static,
) -> Requests {
    let bearers = Arc::clone(bearers);
    Arc::new(move |index| {
        let products = products(index);
        let items = products.iter().map(|id| json!({ "productId": id, "quantity": 1 }));
        let coupon = campaign.map(|campaign| ("couponId", json!(campaign)));
        let body = std::iter::once(("items", items.collect::<Value>())).chain(coupon).collect();
        let bearer = Some(bearers.get(index)?);
        let call = call_with(Method::POST, Uri::from_static("/api/orders"), bearer, &body);
        Some((call, i64::try_from(products.len()).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn orders_are_spread_evenly_and_name_no_product_twice() {
        let bearers: Arc<[HeaderValue]> =
            std::iter::repeat_n(HeaderValue::from_static("Bearer x"), 300).collect();
        let requests = spread_orders(&bearers);
        let mut times = std::collections::BTreeMap::new();
        for index in 0..300 {
            let (call, units) = requests(index).unwrap();
            let body: serde_json::Value = serde_json::from_slice(call.body()).unwrap();
            let items = body["items"].as_array().unwrap();
            let products: BTreeSet<i64> =
                items.iter().map(|item| item["productId"].as_i64().unwrap()).collect();
            assert_eq!((products.len(), items.len() as i64), (items.len(), units));
            products.iter().for_each(|product| *times.entry(*product).or_insert(0) += 1);
        }
        assert_eq!(times.len(), 100);
        assert!(times.values().all(|times| *times == 6), "{times:?}");
        assert!(requests(300).is_none());
    }

    #[test]
    fn every_keyed_order_has_a_key_of_its_own_and_names_the_coupon() {
        let bearers: Arc<[HeaderValue]> =
            std::iter::repeat_n(HeaderValue::from_static("Bearer x"), 2).collect();
        let requests = keyed(hot_orders(&bearers, Some(7)), 2).unwrap();
        let calls = [0, 1].map(|index| requests(index).unwrap().0);
        let [first, second] = calls.each_ref().map(|call| &call.headers()[IDEMPOTENCY_KEY]);
        assert_ne!(first, second);
        for call in &calls {
            let body: serde_json::Value = serde_json::from_slice(call.body()).unwrap();
            assert_eq!(body["couponId"], 7);
        }
        let plain = hot_orders(&bearers, None)(0).unwrap().0;
        let body: serde_json::Value = serde_json::from_slice(plain.body()).unwrap();
        assert_eq!((body.get("couponId"), plain.headers().get(IDEMPOTENCY_KEY)), (None, None));
    }
}
