//! Every invariant of the system, checked from the database alone.

use sqlx::PgPool;

/// One invariant and what was found.
#[derive(Debug)]
pub struct Finding {
    /// What must hold.
    pub invariant: &'static str,
    /// How many rows (coupons, users, jobs …) were looked at.
    pub checked: i64,
    /// How many of them violate it.
    pub violations: i64,
}

macro_rules! invariant {
    ($pool:expr, $name:literal, $sql:literal) => {{
        let row = sqlx::query!($sql).fetch_one($pool).await?;
        Finding { invariant: $name, checked: row.checked, violations: row.violations }
    }};
}

/// Checks everything. Exact on a system at rest; on a live one each line is one snapshot.
///
/// # Errors
/// The database's.
pub async fn audit(pool: &PgPool) -> Result<Vec<Finding>, sqlx::Error> {
    Ok(vec![
        invariant!(
            pool,
            "a coupon is never issued beyond its total",
            r#"SELECT count(*) AS "checked!", count(*) FILTER (WHERE issued < 0 OR issued > total) AS "violations!"
               FROM coupons"#
        ),
        invariant!(
            pool,
            "a coupon's issued count equals the coupons in users' hands",
            r#"SELECT count(*) AS "checked!", count(*) FILTER (WHERE issued <> held) AS "violations!"
               FROM (SELECT issued, (SELECT count(*) FROM user_coupons WHERE coupon_id = coupons.id) AS held
                     FROM coupons) AS counts"#
        ),
        invariant!(
            pool,
            "issue numbers run from 1 without a gap",
            r#"SELECT count(*) AS "checked!",
                      count(*) FILTER (WHERE lowest <> 1 OR highest <> held OR numbers <> held) AS "violations!"
               FROM (SELECT min(issue_number) AS lowest, max(issue_number) AS highest,
                            count(DISTINCT issue_number) AS numbers, count(*) AS held
                     FROM user_coupons GROUP BY coupon_id) AS campaigns"#
        ),
        invariant!(
            pool,
            "a user holds at most one coupon of a campaign",
            r#"SELECT count(*) AS "checked!", count(*) FILTER (WHERE held > 1) AS "violations!"
               FROM (SELECT count(*) AS held FROM user_coupons GROUP BY user_id, coupon_id) AS holdings"#
        ),
        invariant!(
            pool,
            "every issued coupon is the result of exactly one job",
            r#"SELECT count(*) AS "checked!", count(*) FILTER (WHERE jobs <> 1) AS "violations!"
               FROM (SELECT count(job_id) AS jobs
                     FROM user_coupons
                     LEFT JOIN job_outcomes ON (result->>'userCouponId')::bigint = user_coupons.id
                       AND kind = 'issue-coupon' AND status = 'succeeded' AND replay_of IS NULL
                       AND job_outcomes.user_id = user_coupons.user_id
                       AND (result->>'issueNumber')::bigint = issue_number
                     GROUP BY user_coupons.id) AS coupons"#
        ),
        invariant!(
            pool,
            "every succeeded job has its coupon",
            r#"SELECT count(*) AS "checked!", count(*) FILTER (WHERE user_coupons.id IS NULL) AS "violations!"
               FROM job_outcomes
               LEFT JOIN user_coupons ON user_coupons.id = (result->>'userCouponId')::bigint
                 AND user_coupons.user_id = job_outcomes.user_id
               WHERE kind = 'issue-coupon' AND status = 'succeeded'"#
        ),
        invariant!(
            pool,
            "every failed job has its dead letter",
            r#"SELECT count(*) AS "checked!", count(*) FILTER (WHERE NOT EXISTS
                      (SELECT FROM dead_letters WHERE dead_letters.job_id = job_outcomes.job_id)) AS "violations!"
               FROM job_outcomes WHERE status = 'failed' AND replay_of IS NULL AND NOT redriven"#
        ),
        invariant!(
            pool,
            "a balance is the sum of its history, and never negative",
            r#"SELECT count(*) AS "checked!", count(*) FILTER (WHERE amount < 0 OR amount <> history) AS "violations!"
               FROM (SELECT amount, (SELECT COALESCE(sum(t.amount), 0) FROM balance_transactions t
                                     WHERE t.user_id = balances.user_id) AS history
                     FROM balances) AS sums"#
        ),
        invariant!(
            pool,
            "a stock is never negative",
            r#"SELECT count(*) AS "checked!", count(*) FILTER (WHERE stock < 0) AS "violations!" FROM products"#
        ),
        invariant!(
            pool,
            "what is gone from a stock is the sum of its completed lines",
            r#"SELECT count(*) AS "checked!", count(*) FILTER (WHERE stocked - stock <> sold) AS "violations!"
               FROM (SELECT stocked, stock, COALESCE(sum(quantity), 0) AS sold
                     FROM products LEFT JOIN order_items ON product_id = products.id
                     GROUP BY products.id) AS sums"#
        ),
        invariant!(
            pool,
            "every succeeded order job has its order, and every order its job",
            r#"SELECT count(*) AS "checked!", count(*) FILTER (WHERE orders.id IS NULL OR outcome.job_id IS NULL) AS "violations!"
               FROM orders
               FULL JOIN (SELECT job_id, (result->>'orderId')::bigint AS order_id FROM job_outcomes
                          WHERE kind = 'place-order' AND status = 'succeeded' AND replay_of IS NULL) AS outcome
                 ON outcome.job_id = orders.job_id AND outcome.order_id = orders.id"#
        ),
        invariant!(
            pool,
            "an order's amount is the sum of its lines",
            r#"SELECT count(*) AS "checked!", count(*) FILTER (WHERE items_amount <> lines OR lines IS NULL) AS "violations!"
               FROM (SELECT items_amount, (SELECT sum(unit_price * quantity) FROM order_items WHERE order_id = orders.id) AS lines
                     FROM orders) AS sums"#
        ),
        invariant!(
            pool,
            "an order is paid once, and deducted from the balance unless it cost nothing",
            r#"SELECT count(*) AS "checked!",
                      count(*) FILTER (WHERE paid_out IS DISTINCT FROM paid OR deducted IS DISTINCT FROM NULLIF(-paid, 0)) AS "violations!"
               FROM (SELECT paid, (SELECT amount FROM payments WHERE order_id = orders.id) AS paid_out, deducted
                     FROM orders
                     -- One pass: history has no index by order.
                     LEFT JOIN (SELECT order_id, sum(amount)::bigint AS deducted FROM balance_transactions
                                WHERE order_id IS NOT NULL GROUP BY order_id) AS history
                       ON history.order_id = orders.id) AS payments"#
        ),
        invariant!(
            pool,
            "the sales statistics are the lines of the orders that were counted",
            r#"SELECT count(*) AS "checked!", count(*) FILTER (WHERE counted IS DISTINCT FROM sold) AS "violations!"
               FROM (SELECT product_id, sum(quantity) AS counted FROM product_sales
                     GROUP BY product_id HAVING sum(quantity) <> 0) AS statistics
               FULL JOIN (SELECT product_id, sum(quantity) AS sold FROM order_items
                          JOIN orders ON orders.id = order_id
                          LEFT JOIN event_inbox ON event_id = job_id AND consumer = 'sales-stats'
                          WHERE event_id IS NOT NULL OR (created_at AT TIME ZONE 'UTC')::date
                                <= (SELECT max(day) FROM daily_runs WHERE job = 'close-day')
                          GROUP BY product_id) AS orders USING (product_id)"#
        ),
        invariant!(
            pool,
            "a coupon is used by one order, the one that names it",
            r#"SELECT count(*) AS "checked!", count(*) FILTER (WHERE used <> 1) AS "violations!"
               FROM (SELECT (SELECT count(*) FROM user_coupons WHERE user_coupons.order_id = orders.id
                             AND user_coupons.coupon_id = orders.coupon_id AND user_coupons.user_id = orders.user_id) AS used
                     FROM orders WHERE coupon_id IS NOT NULL) AS uses"#
        ),
    ])
}

/// Prints the findings for people; the exit code says whether all invariants hold.
#[must_use]
#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
pub fn report(findings: &[Finding]) -> std::process::ExitCode {
    for Finding { invariant, checked, violations } in findings {
        let verdict = if *violations == 0 { "ok  " } else { "FAIL" };
        println!("{verdict} {invariant}: {checked} checked, {violations} violations");
    }
    let violations: i64 = findings.iter().map(|finding| finding.violations).sum();
    println!("audit: {} violations={violations}", if violations == 0 { "PASS" } else { "FAIL" });
    std::process::ExitCode::from(u8::from(violations != 0))
}
