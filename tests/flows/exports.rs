//! Who won, and who bought: in pages, and as tables.

use reqwest::Method;
use serde_json::{Value, json};

use firstcome_tests::{Answer, Options, Shop, sale::one, shop};

/// All pages of a list.
async fn pages(shop: &Shop, path: &str, limit: usize) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page =
            Answer::of(shop.admin(Method::GET, &format!("{path}?limit={limit}{cursor}"))).await;
        assert_eq!(page.status, 200, "{page:?}");
        items.extend(page.body["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page.body["next"].as_str() else { return items };
        cursor = format!("&cursor={next}");
    }
}

/// A table, row by row; the first one are the names of its columns.
async fn table(shop: &Shop, path: &str) -> Vec<Vec<String>> {
    let request = shop.admin(Method::GET, path).header("Accept", "text/csv");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(header("cache-control"), "no-store");
    assert!(header("content-disposition").starts_with("attachment; filename="));
    let text = answer.text().await.unwrap();
    let lines = text.strip_suffix("\r\n").unwrap().split("\r\n");
    lines.map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// The rows of a list as they stand in a table.
fn as_cells(items: &[Value], columns: &[String]) -> Vec<Vec<String>> {
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    items.iter().map(|item| columns.iter().map(|column| cell(&item[column])).collect()).collect()
}

/// More of them than are read at a time.
#[tokio::test(flavor = "multi_thread")]
async fn winners_stand_in_the_order_of_the_line() {
    const WINNERS: i64 = 1_020;
    shop(Options { users: WINNERS + 30, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(WINNERS).await;
        let path = format!("/api/admin/coupons/{coupon}/winners");
        assert_eq!(table(shop, &path).await.len(), 1, "the names of the columns");
        let mut requests = Vec::new();
        for user in 1..=WINNERS + 30 {
            requests.push((user, coupon));
        }
        shop.storm(requests, 64).await;
        shop.settle_and_audit().await;
        let product = shop.product(5_000, 10).await;
        let winners = pages(shop, &path, 100).await;
        let user = winners[3]["userId"].as_i64().unwrap();
        let order = json!({"items": [{"productId": product, "quantity": 1}], "couponId": coupon});
        let order = shop.bought(user, &order).await;

        let winners = pages(shop, &path, 100).await;
        let numbers: Vec<i64> =
            winners.iter().map(|winner| winner["issueNumber"].as_i64().unwrap()).collect();
        assert_eq!(numbers, (1..=WINNERS).collect::<Vec<_>>());
        assert_eq!((&winners[3]["orderId"], &winners[4]["orderId"]), (&json!(order), &json!(null)));
        assert!(winners[3]["usedAt"].is_string());
        let mut rows = table(shop, &path).await;
        let columns = rows.remove(0);
        assert_eq!(columns.join(","), "userId,userCouponId,issueNumber,issuedAt,usedAt,orderId");
        assert_eq!(rows, as_cells(&winners, &columns));

        // Also of a campaign that was deleted.
        let delete = shop.admin(Method::DELETE, &format!("/api/admin/coupons/{coupon}"));
        assert_eq!(Answer::of(delete).await.status, 204);
        assert_eq!(pages(shop, &path, 100).await.len(), rows.len());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buyers_are_told_with_what_became_of_their_orders() {
    shop(Options::default(), async |shop| {
        let (product, other) = (shop.product(100, 50).await, shop.product(10, 50).await);
        let both = json!({"items": [{"productId": product, "quantity": 2}, {"productId": other, "quantity": 1}]});
        let orders = [
            shop.bought(7, &both).await,
            shop.bought(8, &one(product, 3)).await,
            shop.bought(7, &one(product, 1)).await,
        ];
        shop.bought(9, &one(other, 1)).await;
        shop.cancelled(8, orders[1]).await;
        let path = format!("/api/admin/products/{product}/buyers");
        let buyers = pages(shop, &path, 2).await;
        let told: Vec<_> = buyers
            .iter()
            .map(|buyer| ["userId", "orderId", "quantity", "paid", "status"].map(|name| buyer[name].clone()))
            .collect();
        let expected = [
            [json!(7), json!(orders[0]), json!(2), json!(210), json!("completed")],
            [json!(8), json!(orders[1]), json!(3), json!(300), json!("cancelled")],
            [json!(7), json!(orders[2]), json!(1), json!(100), json!("completed")],
        ];
        assert_eq!(told, expected);
        let mut rows = table(shop, &path).await;
        let columns = rows.remove(0);
        assert_eq!(columns.join(","), "userId,orderId,quantity,paid,status,completedAt");
        assert_eq!(rows, as_cells(&buyers, &columns));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_are_for_operators_and_of_what_there_is() {
    shop(Options::default(), async |shop| {
        let product = shop.product(1, 1).await;
        let path = format!("/api/admin/products/{product}/buyers");
        Answer::of(shop.get(7, &path)).await.is_problem(403, "forbidden");
        for accept in ["application/json", "text/csv"] {
            let missing =
                |path: &str| Answer::of(shop.admin(Method::GET, path).header("Accept", accept));
            missing("/api/admin/products/99999/buyers").await.is_problem(404, "product-not-found");
            missing("/api/admin/coupons/99999/winners").await.is_problem(404, "coupon-not-found");
        }
        // A table has no pages.
        for query in ["limit=5", "cursor=MQ", "user=7"] {
            let request = shop.admin(Method::GET, &format!("{path}?{query}"));
            Answer::of(request.header("Accept", "text/csv"))
                .await
                .is_problem(400, "validation-failed");
        }
    })
    .await;
}
