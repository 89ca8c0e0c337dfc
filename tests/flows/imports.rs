//! Users, products and campaigns that come by the thousand.

use std::fmt::Write;

use reqwest::Method;
use serde_json::{Value, json};

use firstcome_tests::{Answer, Options, Shop, eventually, sale::one, shop};

pub(crate) const CSV: &str = "text/csv";
pub(crate) const NDJSON: &str = "application/x-ndjson";

pub(crate) async fn import(
    shop: &Shop,
    what: &str,
    content_type: &str,
    body: impl Into<Vec<u8>>,
) -> Answer {
    let request = shop.admin(Method::POST, &format!("/api/admin/imports/{what}"));
    Answer::of(request.header("Content-Type", content_type).body(body.into())).await
}

/// The counts of a report: created, updated, unchanged, faulty; and the faulty lines.
#[track_caller]
pub(crate) fn counts(answer: &Answer) -> ([u64; 4], Vec<u64>) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let count = |name: &str| answer.body[name].as_u64().unwrap();
    let lines = answer.body["errors"].as_array().unwrap().iter();
    let lines = lines.map(|error| error["line"].as_u64().unwrap()).collect();
    (["created", "updated", "unchanged", "faulty"].map(count), lines)
}

pub(crate) fn reason(answer: &Answer, error: usize) -> &str {
    answer.body["errors"][error]["reasons"][0].as_str().unwrap()
}

async fn user(shop: &Shop, id: i64) -> (String, String) {
    sqlx::query_as("SELECT name, email FROM users WHERE id = $1")
        .bind(id)
        .fetch_one(&shop.pool)
        .await
        .unwrap()
}

async fn created(shop: &Shop, what: &str, body: Value) -> i64 {
    let answer =
        Answer::of(shop.admin(Method::POST, &format!("/api/admin/{what}")).json(&body)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.body["id"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_created_and_edited_by_id_or_by_address() {
    shop(Options { users: 5, ..Options::default() }, async |shop| {
        let table = "\u{feff}id,name,email,balance\r\n\
                     8,\"Kim, \"\"Min\"\"\",min@example.com,5000\r\n\
                     \r\n\
                     2,Renamed,user2@example.com,7\r\n\
                     3,User 3,user3@example.com,\r\n\
                     ,New,new@example.com,0\r\n\
                     ,By address,USER4@example.com,\r\n\
                     9,Taken,Min@Example.com,\r\n";
        let answer = import(shop, "users", "text/csv; charset=UTF-8; header=present", table).await;
        assert_eq!(counts(&answer), ([2, 2, 1, 1], vec![8]));
        assert_eq!(reason(&answer, 0), "email: is another user's (email-taken)");
        let named = |name: &str, email: &str| (name.to_owned(), email.to_owned());
        assert_eq!(user(shop, 8).await, named("Kim, \"Min\"", "min@example.com"));
        assert_eq!(user(shop, 2).await, named("Renamed", "user2@example.com"));
        assert_eq!(user(shop, 4).await, named("By address", "USER4@example.com"));
        // The balance is what a new user begins with; the audit adds the history up.
        assert_eq!((shop.balance(8).await, shop.balance(2).await), (5_000, 1_000_000));
        let history = Answer::of(shop.get(8, "/api/users/balance/history")).await;
        assert_eq!(history.body["items"][0]["amount"], 5_000, "{history:?}");

        // The same once more, as another format has it.
        let lines = "{\"id\": 8, \"name\": \"Kim, \\\"Min\\\"\", \"email\": \"min@example.com\", \"balance\": 1}\n\
                     {\"name\": \"New\", \"email\": \"new@example.com\"}\n\
                     {\"id\": 10, \"name\": \"Odd\", \"email\": \"odd@example.com\", \"colour\": \"red\"}\n\
                     {\"id\": 11, \"name\": \"Rich\", \"email\": \"rich@example.com\", \"balance\": 1000000000001}\n\
                     {\"id\": 10, \"name\": \"First\", \"email\": \"ten@example.com\"}\n\
                     {\"id\": 10, \"name\": \"Last\", \"email\": \"ten@example.com\"}";
        let answer = import(shop, "users", NDJSON, lines).await;
        assert_eq!(counts(&answer), ([1, 1, 2, 2], vec![3, 4]));
        assert_eq!(reason(&answer, 0), "colour: is not a known field");
        assert_eq!(user(shop, 10).await.0, "Last");
        assert_eq!(counts(&import(shop, "users", NDJSON, "").await), ([0; 4], vec![]));

        // What one gives up, another one can have.
        let table = "id,name,email\n3,User 3,moved@example.com\n,Heir,user3@example.com\n";
        assert_eq!(counts(&import(shop, "users", CSV, table).await).0, [1, 1, 0, 0]);

        // Whoever comes next gets an id that is free.
        for n in 0..6 {
            let body = json!({"name": "Next", "email": format!("next{n}@example.com")});
            created(shop, "users", body).await;
        }
        let coupon = shop.campaign(1).await;
        let job = shop.accepted_issue(8, coupon).await;
        assert_eq!(shop.settled(8, &job).await["status"], "succeeded");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_table_of_these_changes_nothing() {
    shop(Options { users: 5, ..Options::default() }, async |shop| {
        for (header, field) in [
            ("id,name,email,colour", "colour"),
            ("id,name", "email"),
            ("name,email,name", "name"),
            ("", "header"),
        ] {
            let answer =
                import(shop, "users", CSV, format!("{header}\n7,Ann,ann@example.com,x\n")).await;
            answer.is_problem(400, "validation-failed");
            if !header.is_empty() {
                assert_eq!(answer.body["errors"][0]["field"], field, "{answer:?}");
            }
        }
        for other in
            ["application/json", "text/plain", "text/csv; charset=euc-kr", "multipart/form-data"]
        {
            import(shop, "users", other, "name,email\n")
                .await
                .is_problem(415, "unsupported-media-type");
        }
        let path = "/api/admin/imports/users";
        let compressed = shop.admin(Method::POST, path).header("Content-Type", CSV);
        Answer::of(compressed.header("Content-Encoding", "gzip").body("name,email\n"))
            .await
            .is_problem(415, "unsupported-media-type");
        import(shop, "orders", CSV, "id\n").await.is_problem(404, "route-not-found");
        Answer::of(shop.post(7, path).header("Content-Type", CSV).body("name,email\n"))
            .await
            .is_problem(403, "forbidden");
        let users: i64 =
            sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&shop.pool).await.unwrap();
        assert_eq!(users, 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_row_harms_no_other() {
    shop(Options { users: 0, ..Options::default() }, async |shop| {
        // More faults than are told of, and more rows than a batch; each third row is good.
        let mut table = b"id,name,email\n".to_vec();
        for id in 1..=2_400 {
            let row = match id % 9 {
                0 | 3 | 6 => format!("{id},Name {id},{id}@example.com"),
                1 => format!("{id},\"Name {id},{id}@example.com"),
                2 => format!("{id},Name {id}"),
                4 => format!("{id},Name {id},{id}@"),
                5 => format!("-{id},Name {id},{id}@example.com"),
                7 => format!("{id},Na\0me {id},{id}@example.com"),
                _ => format!("{id},{},{id}@example.com", "x".repeat(70_000)),
            };
            table.extend(row.bytes());
            if id % 90 == 1 {
                table.push(0xff);
            }
            table.push(b'\n');
        }
        let answer = import(shop, "users", CSV, table).await;
        let (counted, lines) = counts(&answer);
        assert_eq!(counted, [800, 0, 0, 1_600]);
        let faulty = (1..=2_400).filter(|id| id % 3 != 0).map(|id| id + 1);
        assert_eq!(lines, faulty.take(1_000).collect::<Vec<u64>>());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_products_are_on_sale_as_they_are_written() {
    shop(Options::default(), async |shop| {
        let other = shop.start_api(|_| {}).await;
        let listed = async |api: &str, id: i64| {
            let page =
                Answer::of(shop.anonymous(Method::GET, &format!("{api}/api/products?limit=100")))
                    .await;
            let next = page.body["next"].as_str().map(str::to_owned);
            let items = page.body["items"].as_array().unwrap().clone();
            let later = match next {
                Some(next) => {
                    let path = format!("{api}/api/products?limit=100&cursor={next}");
                    Answer::of(shop.anonymous(Method::GET, &path)).await.body["items"]
                        .as_array()
                        .unwrap()
                        .clone()
                }
                None => Vec::new(),
            };
            items.into_iter().chain(later).find(|item| item["id"] == id)
        };
        let product = shop
            .product_with(
                &json!({"stock": 1, "perCustomer": 3, "onSaleUntil": "2099-01-01T00:00:00Z"}),
            )
            .await;
        shop.bought(7, &one(product, 1)).await;
        assert_eq!(listed(&other.url, product).await.unwrap()["soldOut"], true);

        let deleted = shop.product(1, 1).await;
        shop.edited(&format!("products/{deleted}"), &json!({"deleted": true})).await;
        let free = deleted + 1;
        let table = format!(
            "id,name,price,stock,onSaleFrom\n\
             {product},Again,2,5,\n\
             {deleted},Gone,1,1,\n\
             {free},By hand,3,4,2099-01-01T00:00:00Z\n\
             ,Without,3,4,\n\
             {product},Late,2,5,2099-01-01T00:00:00Z\n\
             {product},Huge,2,1000000001,\n"
        );
        let answer = import(shop, "products", CSV, table).await;
        assert_eq!(counts(&answer), ([2, 1, 0, 3], vec![3, 6, 7]));
        for (error, expected) in [
            "id: is of a product that was deleted: restore it first",
            "onSaleUntil: must be after onSaleFrom",
            "stock: must be an integer from 0 to 1000000000",
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(reason(&answer, error), expected);
        }
        // What had no column is as it was, and both APIs know.
        let read =
            Answer::of(shop.anonymous(Method::GET, &format!("/api/products/{product}"))).await;
        assert_eq!(
            (&read.body["stock"], &read.body["perCustomer"], &read.body["onSaleUntil"]),
            (&json!(5), &json!(3), &json!("2099-01-01T00:00:00Z"))
        );
        for api in [&shop.api.url, &other.url] {
            eventually("the list tells of it", async || {
                listed(api, product)
                    .await
                    .is_some_and(|item| item["soldOut"] == false && item["name"] == "Again")
            })
            .await;
        }
        let url = format!("{}/api/orders", other.url);
        eventually("what is not on sale yet is refused there", async || {
            let request = shop.post(7, &url).json(&one(free, 1));
            shop.submit(7, request).await.code() == "product-not-on-sale"
        })
        .await;
        shop.bought(7, &one(product, 2)).await;
        assert_eq!(shop.stock(product).await, 3);
        // A cell that is empty takes the bound away.
        let table = format!("id,name,price,stock,perCustomer\n{product},Again,2,5,\n");
        assert_eq!(counts(&import(shop, "products", CSV, table).await).0, [0, 1, 0, 0]);
        shop.bought(7, &one(product, 4)).await;
        // Ids that were given by hand are passed, however many there are.
        let first = shop.product(1, 1).await;
        let rows: String = (first + 1..first + 1_500)
            .map(|id| format!("{{\"id\":{id},\"name\":\"x\",\"price\":1,\"stock\":1}}\n"))
            .collect();
        assert_eq!(counts(&import(shop, "products", NDJSON, rows).await).0, [1_499, 0, 0, 0]);
        for _ in 0..3 {
            assert!(shop.product(1, 1).await >= first + 1_500);
        }
        other.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_campaigns_end_a_sold_out_and_take_nothing_back() {
    shop(Options::default(), async |shop| {
        let other = shop.start_api(|_| {}).await;
        let coupon = shop.campaign(2).await;
        for user in [7, 8] {
            let job = shop.accepted_issue(user, coupon).await;
            shop.settled(user, &job).await;
        }
        let url = format!("{}/api/coupons/{coupon}/issue", other.url);
        let at_other = |user: i64| shop.submit(user, shop.post(user, &url));
        eventually("it is sold out", async || at_other(9).await.code() == "coupon-sold-out").await;
        let row = |id: i64, total: i64, ends: &str| {
            format!("{id},A drop,percent,10,{total},2020-01-01T00:00:00Z,{ends}\n")
        };
        let head = "id,name,discountType,discountValue,total,startsAt,endsAt\n";
        let (early, late) = ("2098-01-01T00:00:00Z", "2100-01-01T00:00:00Z");
        let table = [
            head.to_owned(),
            row(coupon, 1, late),
            row(coupon, 3, early),
            row(coupon + 10, 5, "2019-01-01T00:00:00Z"),
            row(coupon + 10, 5, early),
            row(coupon, 3, early),
        ];
        let answer = import(shop, "coupons", CSV, table.concat()).await;
        assert_eq!(counts(&answer), ([1, 1, 1, 2], vec![2, 4]));
        assert_eq!(
            reason(&answer, 0),
            "total: must not be below the 2 that are issued (total-below-issued)"
        );
        eventually("the other API accepts again", async || at_other(9).await.status == 202).await;
        shop.settle_and_audit().await;
        let read =
            Answer::of(shop.anonymous(Method::GET, &format!("/api/coupons/{coupon}"))).await.body;
        assert_eq!((&read["remaining"], &read["endsAt"]), (&json!(0), &json!(early)));
        assert_eq!(read["validUntil"], late, "issued ones are as good as they were");
        for _ in 0..12 {
            shop.campaign(1).await;
        }
        other.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_of_the_same_rows_take_turns() {
    shop(Options { users: 0, ..Options::default() }, async |shop| {
        const ROWS: i64 = 2_500;
        let table = |ids: Vec<i64>, with_ids: bool, name: &str| {
            let mut table = "id,name,email,balance\n".to_owned();
            for id in ids {
                let shown = if with_ids { id.to_string() } else { String::new() };
                writeln!(table, "{shown},{name},u{id}@example.com,10").unwrap();
            }
            table
        };
        // In either order; and others in one file are others in the next.
        let up = table((1..=ROWS).collect(), true, "up");
        let down = table((1..=ROWS).rev().collect(), true, "down");
        let (up, down) =
            tokio::join!(import(shop, "users", CSV, up), import(shop, "users", CSV, down));
        let (up, down) = (counts(&up).0, counts(&down).0);
        let rows = u64::try_from(ROWS).unwrap();
        assert_eq!(up[0] + down[0], rows, "each is created once: {up:?} {down:?}");
        assert_eq!(up[1] + down[1], rows, "and edited once: {up:?} {down:?}");
        let (first, second) = tokio::join!(
            import(shop, "users", CSV, table((ROWS..2 * ROWS).collect(), false, "by address")),
            import(
                shop,
                "users",
                CSV,
                table((ROWS..2 * ROWS).rev().collect(), false, "by address")
            ),
        );
        let (first, second) = (counts(&first).0, counts(&second).0);
        assert_eq!(first[0] + second[0], rows - 1, "{first:?} {second:?}");
        assert_eq!(first[3] + second[3], 0, "{first:?} {second:?}");
        let users: i64 =
            sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&shop.pool).await.unwrap();
        assert_eq!(users, 2 * ROWS - 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_imported_during_a_sale_leaves_clean_books() {
    shop(Options { users: 100, ..Options::default() }, async |shop| {
        let product = shop.product(1, 50).await;
        let coupon = shop.campaign(30).await;
        let order = one(product, 1);
        let selling = async {
            for user in 1..=100 {
                assert_eq!(shop.order(user, &order).await.status, 202);
                // Or it is sold out, for as long as an import has not raised the total.
                shop.issue(user, coupon).await;
            }
        };
        let importing = async {
            for stock in [40, 60, 30, 20] {
                let table = format!("id,name,price,stock\n{product},A product,1,{stock}\n");
                let answer = import(shop, "products", CSV, table).await;
                assert_eq!(counts(&answer).0[3], 0, "{answer:?}");
                // A fault where more are issued already.
                let row = json!({"id": coupon, "name": "A drop", "discountType": "fixed", "discountValue": 1,
                    "total": stock, "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2099-01-01T00:00:00Z"});
                let answer = import(shop, "coupons", NDJSON, row.to_string()).await;
                assert_eq!(counts(&answer).0.iter().sum::<u64>(), 1, "{answer:?}");
            }
        };
        tokio::join!(selling, importing);
        shop.settle_and_audit().await;
    })
    .await;
}
