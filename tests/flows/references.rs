//! What the batches add refers to rows that exist, and goes on doing so (`migrations/0006`, `0014`, `0020`).

use serde_json::json;

use firstcome_tests::{Options, shop};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_refers_to_what_does_not_exist() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(5).await;
        let job = shop.accepted_issue(1, coupon).await;
        shop.settled(1, &job).await;
        let order = json!({"couponId": coupon, "items": [{"productId": 1, "quantity": 1}]});
        assert_eq!(shop.ordered(1, &order).await["status"], "succeeded");
        for statement in [
            "INSERT INTO user_coupons (user_id, coupon_id, issue_number) VALUES (1, 2, 901), (99999, 2, 902)",
            "INSERT INTO user_coupons (user_id, coupon_id, issue_number) VALUES (1, 2, 901), (2, 99999, 1)",
            "INSERT INTO user_coupons (user_id, coupon_id, issue_number, used_at, order_id) VALUES (1, 2, 901, now(), 99999)",
            "UPDATE user_coupons SET order_id = 99999",
            "INSERT INTO orders (job_id, user_id, items_amount, discount, paid, created_at, completed_at)
             VALUES (gen_random_uuid(), 99999, 0, 0, 0, now(), now())",
            "INSERT INTO orders (job_id, user_id, coupon_id, items_amount, discount, paid, created_at, completed_at)
             VALUES (gen_random_uuid(), 1, 99999, 0, 0, 0, now(), now())",
            "INSERT INTO order_items SELECT 99999, product_id, name, unit_price, quantity FROM order_items",
            "INSERT INTO order_items SELECT order_id, 99999, name, unit_price, quantity FROM order_items",
            "INSERT INTO payments SELECT 99999, user_id, amount, paid_at FROM payments",
            "INSERT INTO balance_transactions (user_id, kind, amount, balance_after) VALUES (99999, 'charge', 1, 1)",
            "INSERT INTO balance_transactions (user_id, kind, amount, balance_after, order_id) VALUES (1, 'payment', 1, 1, 99999)",
            "INSERT INTO cancellations (order_id, job_id, by_operator, submitted_at, cancelled_at)
             VALUES (99999, gen_random_uuid(), false, now(), now())",
            "UPDATE user_coupons SET user_id = 2",
            "UPDATE user_coupons SET coupon_id = 99999",
            "UPDATE orders SET user_id = 2",
            "UPDATE order_items SET product_id = 2",
            "UPDATE payments SET order_id = 99999",
            "UPDATE balance_transactions SET order_id = NULL",
            "UPDATE cancellations SET order_id = 99999",
            "UPDATE products SET id = id + 1000000",
            "DELETE FROM users WHERE id = 1",
            "DELETE FROM coupons",
            "DELETE FROM products",
            "DELETE FROM orders",
            "TRUNCATE orders CASCADE",
        ] {
            let refused = sqlx::query(statement).execute(&shop.pool).await.expect_err(statement);
            let code = refused.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
            assert_eq!(code.as_deref(), Some("23503"), "{statement}: {refused}");
        }
        shop.settle_and_audit().await;
    })
    .await;
}
