//! A stock that is changed by a difference while it is sold; and edits that know what they edit.

use futures_util::{StreamExt, stream};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use firstcome_tests::{Answer, Options, Shop, sale::one, shop};

#[tokio::test(flavor = "multi_thread")]
async fn differences_and_sales_add_up() {
    shop(Options { users: 200, ..Options::default() }, async |shop| {
        let product = shop.product(1, 30).await;
        let order = one(product, 1);
        let sale = stream::iter(1..=200)
            .map(|user| shop.order(user, &order))
            .buffer_unordered(16)
            .collect::<Vec<_>>();
        let deliveries = stream::iter(0..40)
            .map(async |n: i64| {
                let delta = [7, -3, 11, -20, 1][usize::try_from(n % 5).unwrap()];
                let answer = Answer::of(shop.restocking(product, delta)).await;
                if answer.status == 200 {
                    return delta;
                }
                answer.is_problem(409, "stock-too-low");
                assert!(delta < 0, "{answer:?}");
                0
            })
            .buffer_unordered(4)
            .collect::<Vec<i64>>();
        let (answers, deltas) = tokio::join!(sale, deliveries);
        assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
        shop.settle_and_audit().await;
        let sold = shop.outcomes().await["succeeded"];
        assert_eq!(shop.stock(product).await, 30 + deltas.iter().sum::<i64>() - sold);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_takes_no_more_than_there_is() {
    shop(Options::default(), async |shop| {
        let product = shop.product(1, 5).await;
        let change = async |delta: i64| Answer::of(shop.restocking(product, delta)).await;
        change(-6).await.is_problem(409, "stock-too-low");
        let none = change(-5).await;
        assert_eq!(
            (none.status, &none.body["stock"], &none.body["soldOut"]),
            (200, &json!(0), &json!(true))
        );
        let more = change(8).await;
        assert_eq!((&more.body["stock"], &more.body["soldOut"]), (&json!(8), &json!(false)));
        let shown = shop.anonymous(Method::GET, &format!("/api/products/{product}"));
        assert_eq!(Answer::of(shown).await.body, more.body);
        // What was sold is not there any more.
        shop.bought(7, &one(product, 3)).await;
        change(-6).await.is_problem(409, "stock-too-low");
        assert_eq!(change(-4).await.body["stock"], 1);

        let path = format!("/api/admin/products/{product}/stock");
        for body in [
            json!({}),
            json!({"delta": 0}),
            json!({"delta": 1.0}),
            json!({"delta": "1"}),
            json!({"delta": i64::MAX}),
            json!({"delta": i64::MIN}),
            json!({"delta": null}),
        ] {
            let answer = Answer::of(shop.admin(Method::POST, &path).json(&body)).await;
            answer.is_problem(400, "validation-failed");
            assert_eq!(answer.body["errors"][0]["field"], "delta", "{answer:?}");
        }
        let odd = shop.admin(Method::POST, &path).json(&json!({"delta": 1, "stock": 2}));
        Answer::of(odd).await.is_problem(400, "validation-failed");
        Answer::of(shop.post(7, &path).json(&json!({"delta": 1})))
            .await
            .is_problem(403, "forbidden");
        Answer::of(shop.restocking(99_999, 1)).await.is_problem(404, "product-not-found");
        let delete = shop.admin(Method::DELETE, &format!("/api/admin/products/{product}"));
        assert_eq!(Answer::of(delete).await.status, 204);
        change(1).await.is_problem(404, "product-not-found");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_difference_is_applied_once() {
    shop(Options::default(), async |shop| {
        let product = shop.product(1, 5).await;
        let change =
            |delta: i64| Answer::of(shop.restocking(product, delta).header("Idempotency-Key", "k"));
        let (first, second) = tokio::join!(change(3), change(3));
        assert_eq!((first.status, &first.body["stock"]), (200, &json!(8)));
        assert_eq!(first.body, second.body);
        assert_eq!(Answer::of(shop.restocking(product, 10)).await.body["stock"], 18);
        assert_eq!(change(3).await.body, first.body, "as it was then");
        change(4).await.is_problem(422, "idempotency-key-reused");
        assert_eq!(shop.stock(product).await, 18);
    })
    .await;
}

/// What customers give back has no bound; then there can be less again, but not more.
#[tokio::test(flavor = "multi_thread")]
async fn a_stock_that_is_too_large_can_be_made_less() {
    shop(Options::default(), async |shop| {
        let largest = 1_000_000_000;
        let product = shop.product(1, largest).await;
        let change = async |delta: i64| Answer::of(shop.restocking(product, delta)).await;
        let order = shop.bought(7, &one(product, 5)).await;
        change(6).await.is_problem(400, "validation-failed");
        assert_eq!(change(5).await.body["stock"], largest);
        shop.cancelled(7, order).await;
        assert_eq!(shop.stock(product).await, largest + 5);
        change(1).await.is_problem(400, "validation-failed");
        assert_eq!(change(-1).await.body["stock"], largest + 4);
    })
    .await;
}

/// What is public of a product or a campaign, and its tag.
async fn seen(shop: &Shop, what: &str) -> Answer {
    let answer = Answer::of(shop.anonymous(Method::GET, &format!("/api/{what}"))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.etag().starts_with('"') && answer.etag().ends_with('"'), "{answer:?}");
    answer
}

async fn if_matches(request: RequestBuilder, tags: &str) -> Answer {
    Answer::of(request.header("If-Match", tags)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_what_has_changed_meanwhile_is_refused() {
    shop(Options::default(), async |shop| {
        let (product, coupon) = (shop.product(1, 5).await, shop.campaign(5).await);
        for what in [format!("products/{product}"), format!("coupons/{coupon}")] {
            let edit = |name: &str| shop.editing(&what, &json!({"name": name}));
            let first = seen(shop, &what).await;
            let edited = if_matches(edit("Second"), first.etag()).await;
            assert_eq!((edited.status, &edited.body["name"]), (200, &json!("Second")));
            let second = seen(shop, &what).await;
            assert_eq!((second.etag(), &second.body), (edited.etag(), &edited.body));
            assert_ne!(second.etag(), first.etag());

            if_matches(edit("Third"), first.etag()).await.is_problem(412, "precondition-failed");
            let weak = format!("W/{}", second.etag());
            for tags in [weak.as_str(), "\"nothing-like-it\""] {
                if_matches(edit("Third"), tags).await.is_problem(412, "precondition-failed");
            }
            for malformed in ["nothing-like-it", "\"no end", "*, *"] {
                let answer = if_matches(edit("Third"), malformed).await;
                answer.is_problem(400, "validation-failed");
                assert_eq!(answer.body["errors"][0]["field"], "If-Match", "{answer:?}");
            }
            assert_eq!(seen(shop, &what).await.body, second.body, "nothing has changed");
            let any = format!("\"nothing-like-it\", {weak}, {}", second.etag());
            assert_eq!(if_matches(edit("Third"), &any).await.status, 200);
            assert_eq!(if_matches(edit("Fourth"), "*").await.status, 200);

            // One that changes nothing keeps its tag.
            let fourth = seen(shop, &what).await;
            assert_eq!(if_matches(edit("Fourth"), fourth.etag()).await.etag(), fourth.etag());
            let path = format!("/api/admin/{what}");
            let delete = || shop.admin(Method::DELETE, &path);
            if_matches(delete(), first.etag()).await.is_problem(412, "precondition-failed");
            assert_eq!(if_matches(delete(), fourth.etag()).await.status, 204);
            assert_eq!(if_matches(delete(), "*").await.status, 404);
            assert_eq!(if_matches(edit("Fifth"), fourth.etag()).await.status, 404);
        }
    })
    .await;
}

/// What was sold has changed it, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_sale_changes_what_an_edit_knew() {
    shop(Options::default(), async |shop| {
        let (product, coupon) = (shop.product(1, 5).await, shop.campaign(5).await);
        let (product_path, coupon_path) =
            (format!("products/{product}"), format!("coupons/{coupon}"));
        let before = (seen(shop, &product_path).await, seen(shop, &coupon_path).await);
        let order = shop.bought(7, &one(product, 1)).await;
        let job = shop.accepted_issue(7, coupon).await;
        shop.settled(7, &job).await;
        for change in [
            shop.editing(&product_path, &json!({"stock": 50})),
            shop.restocking(product, 50),
            shop.admin(Method::DELETE, &format!("/api/admin/{product_path}")),
        ] {
            if_matches(change, before.0.etag()).await.is_problem(412, "precondition-failed");
        }
        let total = shop.editing(&coupon_path, &json!({"total": 50}));
        if_matches(total, before.1.etag()).await.is_problem(412, "precondition-failed");
        assert_eq!(shop.stock(product).await, 4);

        let now = seen(shop, &product_path).await;
        let restocked = if_matches(shop.restocking(product, 6), now.etag()).await;
        assert_eq!((restocked.status, &restocked.body["stock"]), (200, &json!(10)));
        assert_eq!(if_matches(shop.restocking(product, 1), "*").await.body["stock"], 11);
        let total = shop.editing(&coupon_path, &json!({"total": 50}));
        let now = seen(shop, &coupon_path).await;
        assert_eq!(if_matches(total, now.etag()).await.body["remaining"], 49);

        // A refused edit does not use up its key.
        let keyed = |tag: &str| {
            let request = shop.restocking(product, -2).header("Idempotency-Key", "k");
            Answer::of(request.header("If-Match", tag))
        };
        keyed(restocked.etag()).await.is_problem(412, "precondition-failed");
        let now = seen(shop, &product_path).await;
        assert_eq!(keyed(now.etag()).await.body["stock"], 9);
        // A cancellation gives back what it was, and the product is as it was.
        let sold = seen(shop, &product_path).await;
        shop.cancelled(7, order).await;
        let given_back = seen(shop, &product_path).await;
        assert_ne!(given_back.etag(), sold.etag());
        assert_eq!(given_back.body["stock"], 10);
        assert_eq!(given_back.etag(), restocked.etag());
    })
    .await;
}
