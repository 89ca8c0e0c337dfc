//! Every invariant of the system, checked from the database alone.

use sqlx::PgPool;

/// An invariant, and how many rows violate it.
#[derive(Debug)]
pub struct Finding {
    /// The invariant, as a sentence.
    pub invariant: &'static str,
    /// How many rows (coupons, users, jobs …) were looked at.
    pub checked: i64,
    /// How many of them violate it.
    pub violations: i64,
    /// The first of these, [`MAX_TOLD`] at most: where to look.
    pub violating: Vec<String>,
}

/// The most violations that are named; their number is told anyhow.
pub const MAX_TOLD: i64 = 10;

/// `$rows`: what is looked at, and whether it violates the invariant; with a key, what of that one is.
macro_rules! invariant {
    (@ $pool:expr, $name:literal, $rows:tt, $($argument:expr),+) => {{
        let found = sqlx::query!(
            r#"SELECT checked AS "checked!", violations AS "violations!",
                      -- Numbers in their order, without parsing them.
                      ARRAY(SELECT subject FROM UNNEST(subjects) AS subject
                            ORDER BY length(subject), subject LIMIT $1) AS "violating!"
               FROM (SELECT count(*) AS checked, count(*) FILTER (WHERE is_violation) AS violations,
                            array_agg(subject) FILTER (WHERE is_violation) AS subjects
                     FROM ("#
                + $rows
                + ") AS looked_at (subject, is_violation)) AS found",
            $($argument),+
        );
        let found = found.fetch_one($pool).await?;
        Finding {
            invariant: $name,
            checked: found.checked,
            violations: found.violations,
            violating: found.violating,
        }
    }};
    ($pool:expr, $name:literal, $rows:tt) => {
        invariant!(@ $pool, $name, $rows, MAX_TOLD)
    };
    ($pool:expr, $key:expr, $name:literal, $rows:tt) => {
        invariant!(@ $pool, $name, $rows, MAX_TOLD, $key)
    };
}

/// Checks everything. Exact on a system at rest; on a live one each finding is one snapshot.
///
/// # Errors
/// The database's.
pub async fn audit(pool: &PgPool) -> Result<Vec<Finding>, sqlx::Error> {
    let mut findings = of_coupons(pool, None).await?;
    findings.extend(of_products(pool, None).await?);
    findings.extend(of_jobs_orders_and_balances(pool).await?);
    Ok(findings)
}

/// What must hold of a coupon and what is issued of it; of all coupons without one.
///
/// # Errors
/// The database's.
pub async fn of_coupons(pool: &PgPool, key: Option<i64>) -> Result<Vec<Finding>, sqlx::Error> {
    Ok(vec![
        invariant!(
            pool,
            key,
            "a coupon is never issued beyond its total",
            "SELECT 'coupon ' || id, issued < 0 OR issued > total FROM coupons
             WHERE $2::bigint IS NULL OR id = $2"
        ),
        invariant!(
            pool,
            key,
            "a coupon's issued count equals the coupons in users' hands",
            "SELECT 'coupon ' || id, issued <> (SELECT count(*) FROM user_coupons WHERE coupon_id = coupons.id)
             FROM coupons WHERE $2::bigint IS NULL OR id = $2"
        ),
        invariant!(
            pool,
            key,
            "issue numbers run from 1 without a gap",
            "SELECT 'coupon ' || coupon_id, lowest <> 1 OR highest <> held OR numbers <> held
             FROM (SELECT coupon_id, min(issue_number) AS lowest, max(issue_number) AS highest,
                          count(DISTINCT issue_number) AS numbers, count(*) AS held
                   FROM user_coupons WHERE $2::bigint IS NULL OR coupon_id = $2
                   GROUP BY coupon_id) AS campaigns"
        ),
        invariant!(
            pool,
            key,
            "a user holds at most one coupon of a campaign",
            "SELECT 'user ' || user_id || ' with coupon ' || coupon_id, count(*) > 1
             FROM user_coupons WHERE $2::bigint IS NULL OR coupon_id = $2 GROUP BY user_id, coupon_id"
        ),
        invariant!(
            pool,
            key,
            "every issued coupon is the result of exactly one job",
            "SELECT 'user coupon ' || user_coupons.id, count(job_id) <> 1
             FROM user_coupons
             LEFT JOIN job_outcomes ON (result->>'userCouponId')::bigint = user_coupons.id
               AND kind = 'issue-coupon' AND status = 'succeeded' AND replay_of IS NULL
               AND job_outcomes.user_id = user_coupons.user_id
               AND (result->>'issueNumber')::bigint = issue_number
             WHERE $2::bigint IS NULL OR user_coupons.coupon_id = $2
             GROUP BY user_coupons.id"
        ),
        invariant!(
            pool,
            key,
            "every succeeded job has its coupon",
            "SELECT 'job ' || job_id, user_coupons.id IS NULL
             FROM job_outcomes
             LEFT JOIN user_coupons ON user_coupons.id = (result->>'userCouponId')::bigint
               AND user_coupons.user_id = job_outcomes.user_id
             WHERE kind = 'issue-coupon' AND status = 'succeeded'
               -- Of a release that did not note what a job is about, none is found by that.
               AND ($2::bigint IS NULL OR subject = $2)"
        ),
    ])
}

/// What must hold of a product and what is sold of it; of all products without one.
///
/// # Errors
/// The database's.
pub async fn of_products(pool: &PgPool, key: Option<i64>) -> Result<Vec<Finding>, sqlx::Error> {
    Ok(vec![
        invariant!(
            pool,
            key,
            "a stock is never negative",
            "SELECT 'product ' || id, stock < 0 FROM products WHERE $2::bigint IS NULL OR id = $2"
        ),
        invariant!(
            pool,
            key,
            "what is gone from a stock is the sum of its completed lines",
            "SELECT 'product ' || id, stocked - stock <> COALESCE(gone, 0)
             FROM products
             LEFT JOIN (SELECT product_id, sum(quantity) AS gone FROM order_items
                        LEFT JOIN cancellations USING (order_id)
                        WHERE cancellations.order_id IS NULL AND ($2::bigint IS NULL OR product_id = $2)
                        GROUP BY product_id) AS sold ON product_id = id
             WHERE $2::bigint IS NULL OR id = $2"
        ),
        invariant!(
            pool,
            key,
            "what counts against a limit is the sum of the customer's orders that are not cancelled",
            "SELECT 'user ' || user_id || ' with product ' || product_id,
                    -- Without a count, what was bought before the limit is still to be summed.
                    COALESCE(counted.quantity, CASE WHEN epoch = 0 THEN 0 ELSE bought END) <> COALESCE(bought, 0)
               FROM (SELECT user_id, product_id, quantity FROM purchases
                     JOIN products ON id = product_id AND products.limit_epoch = purchases.limit_epoch
                     WHERE per_customer IS NOT NULL AND ($2::bigint IS NULL OR product_id = $2)) AS counted
               FULL JOIN (SELECT user_id, product_id, products.limit_epoch AS epoch, sum(quantity) AS bought
                          FROM order_items JOIN products ON products.id = product_id AND per_customer IS NOT NULL
                          JOIN orders ON orders.id = order_id
                          LEFT JOIN cancellations USING (order_id)
                          WHERE cancellations.order_id IS NULL
                            AND ($2::bigint IS NULL OR order_items.product_id = $2)
                          GROUP BY user_id, product_id, products.limit_epoch) AS sold USING (user_id, product_id)"
        ),
    ])
}

async fn of_jobs_orders_and_balances(pool: &PgPool) -> Result<Vec<Finding>, sqlx::Error> {
    Ok(vec![
        invariant!(
            pool,
            "every failed job has its dead letter",
            "SELECT 'job ' || job_id, NOT EXISTS
                    (SELECT FROM dead_letters WHERE dead_letters.job_id = job_outcomes.job_id)
             FROM job_outcomes
             -- Of a lost one there is nothing that could be set aside.
             WHERE status = 'failed' AND code <> 'job-lost' AND replay_of IS NULL AND NOT redriven"
        ),
        invariant!(
            pool,
            "every user has a balance",
            "SELECT 'user ' || id, balances.user_id IS NULL
             FROM users LEFT JOIN balances ON balances.user_id = users.id"
        ),
        invariant!(
            pool,
            "a balance is the sum of its history, and never negative",
            "SELECT 'user ' || user_id, amount < 0 OR amount <>
                    (SELECT COALESCE(sum(t.amount), 0) FROM balance_transactions t WHERE t.user_id = balances.user_id)
             FROM balances"
        ),
        invariant!(
            pool,
            "every succeeded order job has its order, and every order its job",
            "SELECT CASE WHEN orders.id IS NULL THEN 'job ' || outcome.job_id ELSE 'order ' || orders.id END,
                    orders.id IS NULL OR outcome.job_id IS NULL
               FROM orders
               FULL JOIN (SELECT job_id, (result->>'orderId')::bigint AS order_id FROM job_outcomes
                          WHERE kind = 'place-order' AND status = 'succeeded' AND replay_of IS NULL) AS outcome
                 ON outcome.job_id = orders.job_id AND outcome.order_id = orders.id"
        ),
        invariant!(
            pool,
            "every succeeded cancel job has its cancellation, and every cancellation its job",
            "SELECT CASE WHEN cancellations.order_id IS NULL THEN 'job ' || outcome.job_id
                         ELSE 'order ' || cancellations.order_id END,
                    cancellations.order_id IS NULL OR outcome.job_id IS NULL
               FROM cancellations
               FULL JOIN (SELECT job_id, (result->>'orderId')::bigint AS order_id FROM job_outcomes
                          WHERE kind = 'cancel-order' AND status = 'succeeded' AND replay_of IS NULL) AS outcome
                 ON outcome.job_id = cancellations.job_id AND outcome.order_id = cancellations.order_id"
        ),
        invariant!(
            pool,
            "an order's amount is the sum of its lines",
            "SELECT 'order ' || id, items_amount IS DISTINCT FROM
                    (SELECT sum(unit_price * quantity) FROM order_items WHERE order_id = orders.id)
             FROM orders"
        ),
        invariant!(
            pool,
            "an order is paid once, and deducted from the balance unless it cost nothing",
            "SELECT 'order ' || id, paid_out IS DISTINCT FROM paid OR deducted IS DISTINCT FROM NULLIF(-paid, 0)
               FROM (SELECT id, paid, (SELECT amount FROM payments WHERE order_id = orders.id) AS paid_out, deducted
                     FROM orders
                     -- One pass: history has no index by order.
                     LEFT JOIN (SELECT order_id, sum(amount)::bigint AS deducted FROM balance_transactions
                                WHERE order_id IS NOT NULL AND kind <> 'refund' GROUP BY order_id) AS history
                       ON history.order_id = orders.id) AS payments"
        ),
        invariant!(
            pool,
            "what was paid for an order is paid back once if it is cancelled, else never",
            "SELECT 'order ' || COALESCE(order_id, 0), refunded IS DISTINCT FROM NULLIF(paid, 0)
               FROM (SELECT order_id, paid FROM cancellations JOIN orders ON orders.id = order_id) AS cancelled
               FULL JOIN (SELECT order_id, sum(amount)::bigint AS refunded FROM balance_transactions
                          WHERE kind = 'refund' GROUP BY order_id) AS history USING (order_id)"
        ),
        invariant!(
            pool,
            "the sales statistics are the lines of the orders that were counted",
            "SELECT 'product ' || product_id, counted IS DISTINCT FROM sold
               FROM (SELECT product_id, sum(quantity) AS counted FROM product_sales
                     GROUP BY product_id HAVING sum(quantity) <> 0) AS statistics
               FULL JOIN (SELECT product_id, sum(quantity * times) AS sold FROM order_items
                          -- What a cancelled order sold is taken back by an event of its own.
                          JOIN (SELECT id AS order_id, job_id, created_at AS submitted_at, 1 AS times FROM orders
                                UNION ALL
                                SELECT order_id, job_id, submitted_at, -1 FROM cancellations) AS told USING (order_id)
                          LEFT JOIN event_inbox ON event_id = job_id AND consumer = 'sales-stats'
                          WHERE event_id IS NOT NULL OR (submitted_at AT TIME ZONE 'UTC')::date
                                <= (SELECT max(day) FROM daily_runs WHERE job = 'close-day')
                          GROUP BY product_id HAVING sum(quantity * times) <> 0) AS orders USING (product_id)"
        ),
        invariant!(
            pool,
            "a coupon is used by one order, the one that names it, unless that is cancelled",
            "SELECT 'order ' || id, (cancellations.order_id IS NULL)::int <>
                    (SELECT count(*) FROM user_coupons WHERE user_coupons.order_id = orders.id
                     AND user_coupons.coupon_id = orders.coupon_id AND user_coupons.user_id = orders.user_id)
             FROM orders LEFT JOIN cancellations ON cancellations.order_id = id WHERE coupon_id IS NOT NULL"
        ),
    ])
}

/// Prints the findings for people; the exit code says whether all invariants hold.
#[must_use]
#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
pub fn report(findings: &[Finding]) -> std::process::ExitCode {
    for Finding { invariant, checked, violations, violating } in findings {
        let verdict = if *violations == 0 { "ok  " } else { "FAIL" };
        let more = usize::try_from(*violations).is_ok_and(|all| all > violating.len());
        let named = if violating.is_empty() { "" } else { ": " };
        let (violating, more) = (violating.join(", "), if more { ", ..." } else { "" });
        println!(
            "{verdict} {invariant}: {checked} checked, {violations} violations{named}{violating}{more}"
        );
    }
    let violations: i64 = findings.iter().map(|finding| finding.violations).sum();
    println!("audit: {} violations={violations}", if violations == 0 { "PASS" } else { "FAIL" });
    std::process::ExitCode::from(u8::from(violations != 0))
}
