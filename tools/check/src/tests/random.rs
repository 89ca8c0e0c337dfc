//! Whatever is asked of a shop that serves one after another, and whatever gets lost: nothing is found.

use proptest::prelude::*;

use super::shop::{Shop, Way};
use crate::history::{Item, Request};

#[derive(Debug, Clone)]
enum Act {
    Send(i64, Request, Option<u8>, Way),
    Settle(usize),
    Poll,
}

fn request() -> impl Strategy<Value = Request> {
    let items = prop::collection::btree_map(1..4i64, 1..6i64, 1..3).prop_map(|items| {
        items.into_iter().map(|(product, quantity)| Item { product, quantity }).collect()
    });
    let order = (items, prop::option::of(1..3i64), any::<bool>());
    prop_oneof![
        4 => (1..3i64).prop_map(|coupon| Request::IssueCoupon { coupon }),
        4 => order.prop_map(|(items, coupon, partial)| Request::PlaceOrder { items, coupon, partial }),
        2 => (1..8i64).prop_map(|order| Request::CancelOrder { order }),
        1 => (1..500i64).prop_map(|amount| Request::Charge { amount }),
        1 => (1..4i64, 1..5i64).prop_map(|(product, delta)| Request::AddStock { product, delta }),
        // Never below what was issued: nine users.
        1 => (1..3i64, 9..12i64).prop_map(|(coupon, total)| Request::SetTotal { coupon, total }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let way = prop_oneof![
        6 => Just(Way::Answered),
        1 => Just(Way::AnswerLost),
        1 => Just(Way::RequestLost),
    ];
    prop_oneof![
        5 => (1..10i64, request(), prop::option::of(0..3u8), way)
            .prop_map(|(user, request, key, way)| Act::Send(user, request, key, way)),
        4 => (1..4usize).prop_map(Act::Settle),
        2 => Just(Act::Poll),
    ]
}

proptest! {
    #[test]
    fn a_shop_that_serves_one_after_another_passes(acts in prop::collection::vec(act(), 1..80), tick in 1..5_000i64) {
        let mut shop = Shop::open();
        shop.tick = chrono::TimeDelta::milliseconds(tick);
        let (mut jobs, mut bodies) = (Vec::new(), std::collections::BTreeMap::new());
        for act in acts {
            match act {
                Act::Send(user, request, key, way) => {
                    let key = key.map(|key| key.to_string());
                    // The same key comes with the same body.
                    let body = bodies.entry((user, request.kind(), key.clone()));
                    let request = if key.is_some() { body.or_insert(request).clone() } else { request };
                    jobs.extend(shop.send(user, request, key.as_deref(), way));
                }
                Act::Settle(jobs) => {
                    shop.settle_batch(jobs);
                    shop.look();
                }
                Act::Poll => jobs.last().into_iter().for_each(|job| shop.poll(*job)),
            }
        }
        while !shop.line.is_empty() {
            shop.settle();
        }
        jobs.into_iter().for_each(|job| shop.poll(job));
        let report = shop.check();
        prop_assert!(report.violations() == 0, "{report}");
    }
}
