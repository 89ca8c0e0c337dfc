//! The audit: clean after a sale (every test ends with it), and not blind.

use firstcome_workers::commands::audit::audit;
use reqwest::Method;
use serde_json::json;

use super::events::counted;
use firstcome_tests::{Answer, Options, Shop, sale::one, shop};

async fn violated(shop: &Shop) -> Vec<&'static str> {
    let findings = audit(&shop.pool).await.unwrap();
    findings.iter().filter(|found| found.violations > 0).map(|found| found.invariant).collect()
}

/// Cancels the customer's last order.
async fn cancelled(shop: &Shop, user: i64) {
    let order: i64 = sqlx::query_scalar("SELECT max(id) FROM orders WHERE user_id = $1")
        .bind(user)
        .fetch_one(&shop.pool)
        .await
        .unwrap();
    let answer = shop.submit(user, shop.post(user, &format!("/api/orders/{order}/cancel"))).await;
    assert_eq!(shop.settled(user, answer.job_id()).await["status"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_invariant_can_fail() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(5).await;
        let job = shop.accepted_issue(7, coupon).await;
        shop.settled(7, &job).await;
        let order = json!({"items": [{"productId": 1, "quantity": 2}], "couponId": coupon});
        assert_eq!(shop.ordered(7, &order).await["status"], "succeeded");
        let limited = shop.product(500, 10).await;
        let path = format!("/api/admin/products/{limited}");
        let edit = shop.admin(Method::PATCH, &path).json(&json!({"perCustomer": 4}));
        assert_eq!(Answer::of(edit).await.status, 200);
        let order = json!({"items": [{"productId": limited, "quantity": 2}]});
        for _ in 0..2 {
            assert_eq!(shop.ordered(8, &order).await["status"], "succeeded");
        }
        cancelled(shop, 8).await;
        let always = shop.product_with(&json!({"perCustomer": 5})).await;
        shop.bought(9, &one(always, 1)).await;
        counted(shop).await;

        // What is done, how it is undone, and what the audit says in between.
        for (tamper, undo, invariant) in [
            (
                "UPDATE coupons SET issued = issued + 1",
                "UPDATE coupons SET issued = issued - 1",
                "a coupon's issued count equals the coupons in users' hands",
            ),
            (
                "UPDATE user_coupons SET issue_number = 2",
                "UPDATE user_coupons SET issue_number = 1",
                "issue numbers run from 1 without a gap",
            ),
            (
                "UPDATE job_outcomes SET user_id = 8 WHERE kind = 'issue-coupon'",
                "UPDATE job_outcomes SET user_id = 7 WHERE kind = 'issue-coupon'",
                "every issued coupon is the result of exactly one job",
            ),
            (
                "UPDATE job_outcomes SET user_id = 8 WHERE kind = 'issue-coupon'",
                "UPDATE job_outcomes SET user_id = 7 WHERE kind = 'issue-coupon'",
                "every succeeded job has its coupon",
            ),
            (
                "INSERT INTO job_outcomes (job_id, user_id, kind, status, code)
                 VALUES (gen_random_uuid(), 7, 'issue-coupon', 'failed', 'job-unprocessable')",
                "DELETE FROM job_outcomes WHERE status = 'failed'",
                "every failed job has its dead letter",
            ),
            (
                "INSERT INTO users (id, name, email) VALUES (4711, 'x', 'x@y')",
                "INSERT INTO balances (user_id) VALUES (4711)",
                "every user has a balance",
            ),
            (
                "UPDATE balances SET amount = amount + 1 WHERE user_id = 7",
                "UPDATE balances SET amount = amount - 1 WHERE user_id = 7",
                "a balance is the sum of its history, and never negative",
            ),
            (
                "UPDATE products SET stock = stock - 1 WHERE id = 1",
                "UPDATE products SET stock = stock + 1 WHERE id = 1",
                "what is gone from a stock is the sum of its completed lines",
            ),
            (
                "UPDATE products SET stocked = stocked + 1 WHERE id = 2",
                "UPDATE products SET stocked = stocked - 1 WHERE id = 2",
                "what is gone from a stock is the sum of its completed lines",
            ),
            (
                "UPDATE job_outcomes SET kind = 'other' WHERE kind = 'place-order'",
                "UPDATE job_outcomes SET kind = 'place-order' WHERE kind = 'other'",
                "every succeeded order job has its order, and every order its job",
            ),
            (
                "UPDATE job_outcomes SET kind = 'other' WHERE kind = 'cancel-order'",
                "UPDATE job_outcomes SET kind = 'cancel-order' WHERE kind = 'other'",
                "every succeeded cancel job has its cancellation, and every cancellation its job",
            ),
            (
                "UPDATE cancellations SET job_id = gen_random_uuid()",
                "UPDATE cancellations SET job_id = (SELECT job_id FROM job_outcomes WHERE kind = 'cancel-order')",
                "every succeeded cancel job has its cancellation, and every cancellation its job",
            ),
            (
                "UPDATE balance_transactions SET amount = amount + 1 WHERE kind = 'refund'",
                "UPDATE balance_transactions SET amount = amount - 1 WHERE kind = 'refund'",
                "what was paid for an order is paid back once if it is cancelled, else never",
            ),
            (
                "UPDATE purchases SET quantity = quantity + 1",
                "UPDATE purchases SET quantity = quantity - 1",
                "what counts against a limit is the sum of the customer's orders that are not cancelled",
            ),
            // The row of who bought what always had a limit.
            (
                "DELETE FROM purchases WHERE limit_epoch = 0",
                "INSERT INTO purchases (user_id, product_id, limit_epoch, quantity)
                 SELECT 9, id, 0, 1 FROM products WHERE per_customer = 5",
                "what counts against a limit is the sum of the customer's orders that are not cancelled",
            ),
            (
                "UPDATE order_items SET unit_price = unit_price + 1",
                "UPDATE order_items SET unit_price = unit_price - 1",
                "an order's amount is the sum of its lines",
            ),
            (
                "UPDATE payments SET amount = amount + 1",
                "UPDATE payments SET amount = amount - 1",
                "an order is paid once, and deducted from the balance unless it cost nothing",
            ),
            (
                "UPDATE product_sales SET quantity = quantity + 1",
                "UPDATE product_sales SET quantity = quantity - 1",
                "the sales statistics are the lines of the orders that were counted",
            ),
            (
                "UPDATE user_coupons SET used_at = NULL, order_id = NULL",
                "UPDATE user_coupons SET used_at = now(), order_id = (SELECT id FROM orders WHERE coupon_id IS NOT NULL)",
                "a coupon is used by one order, the one that names it, unless that is cancelled",
            ),
        ] {
            shop.sql(tamper).await;
            let found = violated(shop).await;
            assert!(found.contains(&invariant), "{tamper}: {found:?}");
            shop.sql(undo).await;
            assert_eq!(violated(shop).await, [""; 0], "after {undo}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_violations_are_named() {
    shop(Options { users: 30, ..Options::default() }, async |shop| {
        shop.sql("UPDATE balances SET amount = amount + 1 WHERE user_id BETWEEN 8 AND 20").await;
        let findings = audit(&shop.pool).await.unwrap();
        let found: Vec<_> = findings.iter().filter(|found| found.violations > 0).collect();
        let [found] = found[..] else { panic!("{found:?}") };
        assert_eq!(found.violations, 13);
        let named: Vec<String> = (8..18).map(|user| format!("user {user}")).collect();
        assert_eq!(found.violating, named);
        shop.sql("UPDATE balances SET amount = amount - 1 WHERE user_id BETWEEN 8 AND 20").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_that_operators_set_is_accounted_for() {
    shop(Options::default(), async |shop| {
        let product = shop.product(1, 10).await;
        let order = json!({"items": [{"productId": product, "quantity": 3}]});
        for stock in [20, 0, 5, 5] {
            shop.ordered(7, &order).await;
            let path = format!("/api/admin/products/{product}");
            let edit = shop.admin(Method::PATCH, &path).json(&json!({"stock": stock}));
            assert_eq!(Answer::of(edit).await.body["stock"], stock);
            assert_eq!(violated(shop).await, [""; 0]);
        }
        // 10; 20 where 7 were left; 0 where 17 were, which rejects the next; 5; 5 where 2 were.
        let stocked: i64 = sqlx::query_scalar("SELECT stocked FROM products WHERE id = $1")
            .bind(product)
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!(stocked, 10 + 13 - 17 + 5 + 3);
    })
    .await;
}
