//! Who won, and who bought: in pages, and as tables.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use firstcome_tests::{Answer, DEADLINE, Options, Shop, eventually, sale::one, shop, token};

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

/// A client that has read the beginning of a table, and has room for little more.
async fn begin_to_read(shop: &Shop, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let address = shop.api.url.strip_prefix("http://").unwrap().parse().unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let bearer = token(1, true);
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\nAccept: text/csv\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut beginning = [0; 1_000];
    timeout(DEADLINE, stream.read_exact(&mut beginning)).await.unwrap().unwrap();
    assert!(beginning.starts_with(b"HTTP/1.1 200 "));
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_read_as_it_is_taken() {
    const WINNERS: i64 = 100_000;
    shop(Options { users: WINNERS, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(WINNERS).await;
        for statement in [
            "INSERT INTO user_coupons (user_id, coupon_id, issue_number, issued_at) SELECT id, $1, id, now() FROM users",
            "UPDATE coupons SET issued = total WHERE id = $1",
        ] {
            sqlx::query(statement).bind(coupon).execute(&shop.pool).await.unwrap();
        }
        let path = format!("/api/admin/coupons/{coupon}/winners");
        let rows = table(shop, &path).await;
        assert_eq!(rows.len(), 100_001);
        assert_eq!(rows[100_000][2], "100000");

        // Who reads on later holds no connection to the database meanwhile; who goes away none either.
        let mut slow = begin_to_read(shop, &path).await;
        drop(begin_to_read(shop, &path).await);
        eventually("nothing is under way in the database", async || {
            let busy: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND application_name = 'firstcome-api' AND (state <> 'idle' OR xact_start IS NOT NULL)",
            )
            .fetch_one(&shop.pool)
            .await
            .unwrap();
            busy == 0
        })
        .await;
        // What it has not taken was not read ahead: without the database there is no more, and no end.
        shop.database.proxy.cut();
        let mut rest = Vec::new();
        let _ = timeout(DEADLINE, slow.read_to_end(&mut rest)).await.unwrap();
        shop.database.proxy.restore();
        let told = rest.iter().filter(|byte| **byte == b'\n').count();
        assert!(told < 90_000 && !rest.ends_with(b"\r\n0\r\n\r\n"), "{told}");
        // No job had issued them, which the audit would find.
        shop.sql("DELETE FROM user_coupons").await;
        shop.sql("UPDATE coupons SET issued = 0").await;
    })
    .await;
}
