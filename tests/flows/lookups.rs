//! What support looks up: users, orders and jobs of anybody.

use reqwest::Method;
use serde_json::{Value, json};

use firstcome_tests::{
    Answer, Options, Shop, eventually,
    sale::{instant, one, succeeded},
    shop,
};

async fn look(shop: &Shop, path: &str) -> Answer {
    let answer = Answer::of(shop.audit(&format!("/api/admin/{path}"))).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer
}

/// The items of a list, by one of their fields.
async fn listed(shop: &Shop, path: &str, field: &str) -> Vec<Value> {
    let answer = look(shop, path).await;
    assert_eq!(answer.body["next"], json!(null), "{path}: all of it: {answer:?}");
    answer.body["items"].as_array().unwrap().iter().map(|item| item[field].clone()).collect()
}

async fn jobs(shop: &Shop, query: &str) -> Vec<Value> {
    listed(shop, &format!("jobs?limit=100&{query}"), "jobId").await
}

/// All pages of a list, while something is done between them.
async fn pages(shop: &Shop, path: &str, between: impl AsyncFn()) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = look(shop, &format!("{path}{cursor}")).await;
        items.extend(page.body["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page.body["next"].as_str() else { return items };
        cursor = format!("&cursor={next}");
        between().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_found_by_id_and_address() {
    shop(Options { users: 7, ..Options::default() }, async |shop| {
        assert_eq!(listed(shop, "users", "id").await, [1, 2, 3, 4, 5, 6, 7]);
        let email =
            look(shop, "users?id=3").await.body["items"][0]["email"].as_str().unwrap().to_owned();
        assert_eq!(listed(shop, &format!("users?email={}", email.to_uppercase()), "id").await, [3]);
        assert_eq!(listed(shop, &format!("users?id=4&email={email}"), "id").await, [0; 0]);
        assert_eq!(listed(shop, "users?id=99", "id").await, [0; 0]);
        let all = pages(shop, "users?limit=3", async || ()).await;
        assert_eq!(
            all.iter().map(|user| user["id"].as_i64().unwrap()).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6, 7]
        );

        let product = shop.product(100, 10).await;
        let coupon =
            shop.coupon_of(3, &json!({"discountType": "fixed", "discountValue": 10})).await;
        let balance = shop.balance(3).await;
        let order = shop.bought(3, &one(product, 1)).await;
        shop.cancelled(3, order).await;
        shop.bought(
            3,
            &json!({"items": [{"productId": product, "quantity": 2}], "couponId": coupon}),
        )
        .await;
        let user = look(shop, "users/3").await.body;
        assert_eq!(
            (&user["id"], &user["email"], &user["balance"]),
            (&json!(3), &json!(email), &json!(balance - 190))
        );
        assert_eq!(user["counts"], json!({"coupons": 1, "orders": 2, "jobs": 4}));
        Answer::of(shop.audit("/api/admin/users/99")).await.is_problem(404, "user-not-found");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_of_all_customers_are_found() {
    shop(Options::default(), async |shop| {
        let (product, other) = (shop.product(100, 50).await, shop.product(10, 50).await);
        let coupon = shop.coupon_of(7, &json!({"discountType": "fixed", "discountValue": 10})).await;
        let both = json!({"items": [{"productId": product, "quantity": 1}, {"productId": other, "quantity": 1}], "couponId": coupon});
        let orders = [
            shop.bought(8, &one(product, 1)).await,
            shop.bought(7, &both).await,
            shop.bought(8, &one(other, 1)).await,
            shop.bought(8, &one(product, 2)).await,
        ];
        shop.cancelled(8, orders[3]).await;
        let [a, b, c, d] = orders;
        let found = async |query: &str| listed(shop, &format!("orders?limit=100&{query}"), "id").await;
        assert_eq!(found("").await, [d, c, b, a]);
        assert_eq!(found("user=8").await, [d, c, a]);
        assert_eq!(found(&format!("product={product}")).await, [d, b, a]);
        assert_eq!(found(&format!("coupon={coupon}")).await, [b]);
        assert_eq!(found("status=cancelled").await, [d]);
        assert_eq!(found("status=completed").await, [c, b, a]);
        assert_eq!(found(&format!("user=8&product={product}&status=completed")).await, [a]);
        assert_eq!(found(&format!("coupon={coupon}&product={other}&user=7")).await, [b]);
        assert_eq!(found(&format!("coupon={coupon}&user=8")).await, [0; 0]);
        let detail = look(shop, &format!("orders/{c}")).await.body;
        let at = detail["createdAt"].as_str().unwrap();
        assert_eq!(found(&format!("from={at}")).await, [d, c]);
        assert_eq!(found(&format!("to={at}")).await, [b, a]);
        for query in ["user=8&", &format!("product={product}&"), ""] {
            assert_eq!(found(&format!("{query}to={at}&status=cancelled")).await, [0; 0], "{query}");
        }
        assert_eq!(found(&format!("user=8&from={at}&status=completed")).await, [c]);

        let cancelled = look(shop, &format!("orders/{d}")).await.body;
        assert_eq!((&cancelled["status"], &cancelled["userId"]), (&json!("cancelled"), &json!(8)));
        // From an order to the jobs that it is of.
        let of_it = jobs(shop, &format!("order={d}")).await;
        assert_eq!(of_it, [cancelled["cancelJobId"].clone(), cancelled["jobId"].clone()]);
        Answer::of(shop.audit("/api/admin/orders/99999")).await.is_problem(404, "order-not-found");

        // Page by page while others buy, of each list; a cursor is good for its own only.
        for list in ["orders?limit=1", "orders?limit=1&user=8", "orders?limit=1&status=completed", &format!("orders?limit=1&product={product}")] {
            let ids: Vec<Value> = listed(shop, &list.replace("limit=1", "limit=100"), "id").await;
            let paged = pages(shop, list, async || _ = shop.bought(8, &one(product, 1)).await).await;
            assert_eq!(paged.iter().map(|order| order["id"].clone()).collect::<Vec<_>>(), ids, "{list}");
        }
        let next = look(shop, "orders?limit=1").await.body["next"].as_str().unwrap().to_owned();
        for path in [format!("orders?user=8&cursor={next}"), format!("jobs?cursor={next}"), format!("users?cursor={next}")] {
            Answer::of(shop.audit(&format!("/api/admin/{path}"))).await.is_problem(400, "validation-failed");
        }
        for bad in ["user=0", "status=lost", "from=now", "what=1"] {
            Answer::of(shop.audit(&format!("/api/admin/orders?{bad}"))).await.is_problem(400, "validation-failed");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_all_callers_are_found_by_whatever_is_known() {
    shop(Options::default(), async |shop| {
        let (product, other, third) = (shop.product(100, 1).await, shop.product(10, 50).await, shop.product(10, 50).await);
        let coupon = shop.coupon_of(7, &json!({"discountType": "fixed", "discountValue": 10})).await;
        let issued = jobs(shop, &format!("coupon={coupon}")).await;
        assert_eq!(issued.len(), 1);
        let again = shop.accepted_issue(7, coupon).await;
        assert_eq!(shop.settled(7, &again).await["error"]["code"], "coupon-already-issued");
        // Orders that name it, beside products that are sold out.
        let both = json!({"items": [{"productId": product, "quantity": 2}, {"productId": other, "quantity": 1}], "couponId": coupon});
        let short = shop.order(7, &both).await;
        let short = shop.settled(7, short.job_id()).await;
        assert_eq!(short["error"]["code"], "out-of-stock");
        let bought = shop.submit(8, shop.post(8, "/api/orders").header("Idempotency-Key", "a-key").json(&one(other, 1))).await;
        let bought = shop.settled(8, bought.job_id()).await;
        succeeded(&bought);
        let order = bought["result"]["orderId"].as_i64().unwrap();
        let mut cancels = Vec::new();
        for code in [json!(null), json!("order-already-cancelled")] {
            let cancel = shop.cancelled(8, order).await;
            assert_eq!(cancel["error"]["code"], code);
            cancels.push(cancel["jobId"].clone());
        }
        let id = |job: &Value| job["jobId"].clone();
        let of = async |query: String| jobs(shop, &query).await;
        let no: [Value; 0] = [];

        let all = [cancels[1].clone(), cancels[0].clone(), id(&bought), id(&short), json!(again), issued[0].clone()];
        assert_eq!(of(String::new()).await, all);
        assert_eq!(of("user=8".to_owned()).await, all[..3]);
        assert_eq!(of(format!("coupon={coupon}")).await, all[3..]);
        assert_eq!(of(format!("coupon={coupon}&kind=place-order")).await, [id(&short)]);
        assert_eq!(of(format!("product={product}")).await, [id(&short)]);
        assert_eq!(of(format!("product={other}")).await, all[..4]);
        assert_eq!(of(format!("product={third}")).await, no);
        assert_eq!(of(format!("order={order}")).await, all[..3]);
        assert_eq!(of(format!("order={order}&status=rejected")).await, [cancels[1].clone()]);
        assert_eq!(of("code=out-of-stock".to_owned()).await, [id(&short)]);
        assert_eq!(of("status=rejected".to_owned()).await, [cancels[1].clone(), id(&short), json!(again)]);
        assert_eq!(of("kind=cancel-order&status=succeeded".to_owned()).await, [cancels[0].clone()]);
        assert_eq!(of("status=failed".to_owned()).await, no);
        assert_eq!(of("code=job-unprocessable".to_owned()).await, no);
        assert_eq!(of("user=8&key=a-key".to_owned()).await, [id(&bought)]);
        assert_eq!(of("user=7&key=a-key".to_owned()).await, no);
        assert_eq!(of("user=8&key=a-key&kind=issue-coupon".to_owned()).await, no);
        assert_eq!(of(format!("user=7&coupon={coupon}&product={other}&kind=place-order&status=rejected&code=out-of-stock")).await, [id(&short)]);
        let at = short["submittedAt"].as_str().unwrap();
        assert_eq!(of(format!("from={at}")).await, all[..4]);
        assert_eq!(of(format!("to={at}")).await, all[4..]);
        assert_eq!(of(format!("user=7&from={at}")).await, [id(&short)]);
        assert_eq!(of(format!("coupon={coupon}&to={at}")).await, all[4..]);

        let found = look(shop, &format!("jobs?product={product}")).await.body["items"][0].clone();
        assert_eq!((&found["userId"], &found["couponId"]), (&json!(7), &json!(coupon)));
        assert_eq!(found["productIds"], json!([product, other]));
        assert_eq!(found["error"], short["error"], "what its caller is told");
        let queue = found["queue"].as_str().unwrap();
        assert!(shop.lines().await.iter().any(|line| line.queue(&shop.namespace) == queue), "{queue}");

        for bad in ["key=a", "status=queued", "kind=what", "user=0", "cursor=MTI", "what=1"] {
            Answer::of(shop.audit(&format!("/api/admin/jobs?{bad}"))).await.is_problem(400, "validation-failed");
        }
        let paged = pages(shop, "jobs?limit=1&user=7", async || {
            let job = shop.accepted_issue(7, coupon).await;
            shop.settled(7, &job).await;
        })
        .await;
        assert_eq!(paged.iter().map(id).collect::<Vec<_>>(), all[3..]);
    })
    .await;
}

/// What the filters leave out is passed over within bounds: a page may be empty and lead on.
#[tokio::test(flavor = "multi_thread")]
async fn a_rare_job_is_found_behind_many_others() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(1).await;
        let job = shop.accepted_issue(7, coupon).await;
        succeeded(&shop.settled(7, &job).await);
        sqlx::query(
            "INSERT INTO job_outcomes (job_id, user_id, kind, status, code, subject)
             SELECT ('ff000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 7, 'issue-coupon', 'rejected', 'coupon-sold-out', $1
             FROM generate_series(1, 5000) AS n",
        )
        .bind(coupon)
        .execute(&shop.pool)
        .await
        .unwrap();
        for query in ["status=succeeded", "user=7&status=succeeded", &format!("coupon={coupon}&status=succeeded")] {
            let first = look(shop, &format!("jobs?{query}")).await.body;
            assert_eq!((&first["items"], first["next"].is_string()), (&json!([]), true), "{query}");
            let found = pages(shop, &format!("jobs?{query}"), async || ()).await;
            assert_eq!(found.len(), 1, "{query}");
            assert_eq!(found[0]["jobId"], json!(job), "{query}");
        }
        shop.sql("DELETE FROM job_outcomes WHERE job_id >= 'ff000000-0000-7000-8000-000000000000'").await;
    })
    .await;
}

fn steps(job: &Value) -> Vec<&str> {
    let timeline = job["timeline"].as_array().unwrap();
    assert!(
        timeline.windows(2).all(|pair| instant(&pair[0]["at"]) <= instant(&pair[1]["at"])),
        "{job}"
    );
    timeline.iter().map(|step| step["what"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_told_step_by_step() {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(10).await;
        let request = shop.post(7, &format!("/api/coupons/{coupon}/issue"));
        let accepted = shop
            .submit(7, request.header("traceparent", format!("00-{trace}-b7ad6b7169203331-01")))
            .await;
        let job = accepted.job_id();
        // Nothing is stored of it yet: its id and its caller prove it.
        let path = format!("/api/admin/jobs/{job}");
        Answer::of(shop.audit(&path)).await.is_problem(404, "job-not-found");
        Answer::of(shop.audit(&format!("{path}?user=8"))).await.is_problem(404, "job-not-found");
        let queued = look(shop, &format!("jobs/{job}?user=7")).await.body;
        assert_eq!((&queued["status"], steps(&queued)), (&json!("queued"), vec!["accepted"]));
        assert_eq!(jobs(shop, "user=7").await, [json!(null); 0]);

        shop.start_worker();
        shop.settled(7, job).await;
        let told = look(shop, &format!("jobs/{job}")).await.body;
        assert_eq!(steps(&told), ["accepted", "taken-up", "settled"]);
        assert_eq!(told["traceId"], trace);
        let taken_up = &told["timeline"][1];
        assert!(taken_up["detail"]["waitedSeconds"].is_number(), "{told}");
        assert_eq!(
            (&taken_up["queue"], &taken_up["detail"]["together"]),
            (&told["queue"], &json!(1))
        );
        assert_eq!(told["timeline"][2]["detail"], json!({"status": "succeeded", "code": null}));
        assert_eq!(told["timeline"][0]["at"], told["submittedAt"]);
        for bad in ["what", "00000000-0000-7000-8000-000000000000"] {
            Answer::of(shop.audit(&format!("/api/admin/jobs/{bad}")))
                .await
                .is_problem(404, "job-not-found");
        }
        Answer::of(shop.audit(&format!("{path}?user=8"))).await.is_problem(404, "job-not-found");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_at_a_job_are_told_also_when_they_are_over() {
    shop(Options { users: 50, ..Options::default() }, async |shop| {
        shop.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN IF NEW.user_id = 42 THEN RAISE EXCEPTION ''user 42 is poison''; END IF; RETURN NEW; END';
             CREATE TRIGGER refuse BEFORE INSERT ON user_coupons FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
        let coupon = shop.campaign(10).await;
        let job = shop.accepted_issue(42, coupon).await;
        assert_eq!(shop.settled(42, &job).await["status"], "failed");
        let told = look(shop, &format!("jobs/{job}")).await.body;
        let mut expected = vec!["accepted", "dead-lettered", "settled", "taken-up"];
        let mut seen = steps(&told);
        seen.sort_unstable();
        assert_eq!(seen, expected, "{told}");
        assert_eq!(jobs(shop, "status=failed").await, [json!(job)]);
        assert_eq!(jobs(shop, &format!("coupon={coupon}&code=job-unprocessable")).await, [json!(job)]);

        shop.sql("DROP FUNCTION refuse CASCADE").await;
        let redrive = shop.admin(Method::POST, "/api/admin/dead-letters/redrive");
        assert_eq!(Answer::of(redrive).await.body["requested"], 1);
        eventually("it is done after all", async || {
            look(shop, &format!("jobs/{job}")).await.body["status"] == "succeeded"
        })
        .await;
        let told = look(shop, &format!("jobs/{job}")).await.body;
        expected.push("redriven");
        expected.sort_unstable();
        let mut seen = steps(&told);
        assert_eq!((seen[0], *seen.last().unwrap()), ("accepted", "settled"));
        seen.sort_unstable();
        assert_eq!(seen, expected, "{told}");
        let letter = told["timeline"].as_array().unwrap().iter().find(|step| step["what"] == "dead-lettered").unwrap();
        assert!(letter["detail"]["reason"].as_str().unwrap().contains("user 42 is poison"), "{told}");
        assert_eq!(letter["queue"], told["queue"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_leads_to_the_job_that_it_repeats() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(10).await;
        let first = shop.issue_keyed(7, coupon, "k").await;
        // Redis forgets the key while the job is queued.
        shop.redis.proxy.cut();
        let second = shop.issue_keyed(7, coupon, "k").await;
        assert_ne!(first.job_id(), second.job_id());
        shop.start_worker();
        succeeded(&shop.settled(7, second.job_id()).await);
        let told = look(shop, &format!("jobs/{}", second.job_id())).await.body;
        assert_eq!(told["replayOf"], first.body["jobId"]);
        assert_eq!(steps(&told), ["accepted", "taken-up", "replayed", "settled"]);
        assert_eq!(told["timeline"][2]["detail"]["jobId"], first.body["jobId"]);
        assert_eq!(jobs(shop, "user=7&key=k").await, [first.body["jobId"].clone()]);
        shop.redis.proxy.restore();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_is_reported() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(3).await;
        let path = format!("/api/admin/sales/coupon/{coupon}/report");
        let empty = Answer::of(shop.audit(&path)).await.body;
        assert_eq!((&empty["asked"], &empty["first"], &empty["waitSeconds"]), (&json!(0), &json!(null), &json!(null)));
        for user in [1, 2, 2, 3] {
            let job = shop.accepted_issue(user, coupon).await;
            shop.settled(user, &job).await;
        }
        // Who comes when it is sold out is refused, by the line or at once.
        let (mut asked, mut refused) = (4, 0);
        eventually("it is refused without a job", async || {
            let answer = shop.issue(5, coupon).await;
            if answer.status == 202 {
                shop.settled(5, answer.job_id()).await;
                asked += 1;
            } else {
                answer.is_problem(409, "coupon-sold-out");
                refused += 1;
            }
            refused == 3
        })
        .await;
        let mut report = json!(null);
        eventually("early refusals are told", async || {
            report = Answer::of(shop.audit(&path)).await.body;
            report["refusedEarly"] == json!({"coupon-sold-out": 3})
        })
        .await;
        assert_eq!((&report["kind"], &report["id"], &report["name"], &report["offered"]), (&json!("coupon"), &json!(coupon), &json!("A drop"), &json!(3)));
        assert_eq!(report["asked"], asked);
        assert_eq!((&report["outcomes"]["succeeded"], &report["outcomes"]["coupon-already-issued"]), (&json!(3), &json!(1)));
        let sum = |field: &str| report["perMinute"].as_array().unwrap().iter().map(|minute| minute[field].as_i64().unwrap()).sum::<i64>();
        assert_eq!((sum("asked"), sum("succeeded")), (asked, 3));
        let waits = ["p50", "p90", "p99", "max"].map(|name| report["waitSeconds"][name].as_f64().unwrap());
        assert!(waits.is_sorted() && waits[0] >= 0.0, "{report}");
        let first = report["first"].as_str().unwrap();
        assert!(instant(&report["first"]) <= instant(&report["last"]));
        let part = Answer::of(shop.audit(&format!("{path}?to={first}"))).await.body;
        assert_eq!(part["asked"], 0);

        // Of a product, also the orders that asked for another one beside it; not the cancels.
        let (product, other) = (shop.product(10, 2).await, shop.product(10, 9).await);
        let both = json!({"items": [{"productId": product, "quantity": 1}, {"productId": other, "quantity": 1}]});
        let order = shop.bought(7, &both).await;
        shop.bought(7, &one(other, 1)).await;
        let job = shop.ordered(7, &one(other, 99)).await;
        assert_eq!(job["error"]["code"], "out-of-stock");
        shop.cancelled(7, order).await;
        let report = Answer::of(shop.audit(&format!("/api/admin/sales/product/{other}/report"))).await.body;
        assert_eq!((&report["offered"], &report["asked"]), (&json!(9), &json!(3)));
        assert_eq!(report["outcomes"], json!({"succeeded": 2, "out-of-stock": 1}));
        for (path, code) in [("product/99999", "product-not-found"), ("coupon/99999", "coupon-not-found")] {
            Answer::of(shop.audit(&format!("/api/admin/sales/{path}/report"))).await.is_problem(404, code);
        }
        for bad in ["what/1/report", "coupon/x/report", "coupon/1/report?what=1", "coupon/1/report?from=now"] {
            Answer::of(shop.audit(&format!("/api/admin/sales/{bad}"))).await.is_problem(400, "validation-failed");
        }
    })
    .await;
}
