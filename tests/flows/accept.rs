//! From a request to a settled job.

use serde_json::json;

use firstcome_tests::{Answer, Options, shop};

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_request_ends_in_a_coupon() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(10).await;
        let answer = shop.issue(7, coupon).await;
        assert_eq!(answer.status, 202);
        let id = answer.job_id();
        assert_eq!(answer.headers["location"], format!("/api/jobs/{id}"));
        answer.retry_after();
        assert_eq!(
            answer.body,
            json!({"jobId": id, "kind": "issue-coupon", "status": "queued", "links": {"self": format!("/api/jobs/{id}")}})
        );

        let job = shop.settled(7, id).await;
        let user_coupon = job["result"]["userCouponId"].clone();
        assert_eq!(job["status"], "succeeded");
        assert_eq!(job["kind"], "issue-coupon");
        assert_eq!(job["result"], json!({"userCouponId": user_coupon, "couponId": coupon, "issueNumber": 1}));
        assert_eq!(job["error"], json!(null));
        assert!(job["submittedAt"].as_str() <= job["settledAt"].as_str());

        let held = Answer::of(shop.get(7, "/api/users/coupons")).await.body;
        assert_eq!(held["next"], json!(null));
        let item = &held["items"][0];
        assert_eq!(item["id"], user_coupon);
        assert_eq!((&item["couponId"], &item["issueNumber"], &item["status"]), (&json!(coupon), &json!(1), &json!("available")));
        assert_eq!((&item["usedAt"], &item["orderId"]), (&json!(null), &json!(null)));
        let campaign = Answer::of(shop.get(7, &format!("/api/coupons/{coupon}"))).await.body;
        assert_eq!((&campaign["total"], &campaign["remaining"]), (&json!(10), &json!(9)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_coupons_are_filtered_and_paged() {
    shop(Options::default(), async |shop| {
        let mut last = 0;
        for _ in 0..3 {
            let coupon = shop.campaign(10).await;
            last = coupon;
            let job = shop.accepted_issue(7, coupon).await;
            shop.settled(7, &job).await;
        }
        shop.sql("UPDATE coupons SET valid_until = now() - interval '1 second' WHERE id = (SELECT coupon_id FROM user_coupons WHERE issue_number = 1 ORDER BY id LIMIT 1)").await;
        let order = json!({"items": [{"productId": 1, "quantity": 1}], "couponId": last});
        assert_eq!(shop.ordered(7, &order).await["status"], "succeeded");
        let list = async |query: &str| Answer::of(shop.get(7, &format!("/api/users/coupons{query}"))).await;
        for (status, count) in [("available", 1), ("used", 1), ("expired", 1)] {
            let items = list(&format!("?status={status}")).await.body["items"].as_array().unwrap().clone();
            assert_eq!(items.len(), count, "{status}");
            assert!(items.iter().all(|item| item["status"] == status));
        }
        let first = list("?limit=2").await.body;
        assert_eq!(first["items"].as_array().unwrap().len(), 2);
        let second = list(&format!("?limit=2&cursor={}", first["next"].as_str().unwrap())).await.body;
        assert_eq!((second["items"].as_array().unwrap().len(), &second["next"]), (1, &json!(null)));
        assert!(first["items"][1]["id"].as_i64() > second["items"][0]["id"].as_i64(), "newest first");
        list("?status=stolen").await.is_problem(400, "validation-failed");
        // Another user sees none of them.
        assert_eq!(Answer::of(shop.get(8, "/api/users/coupons")).await.body["items"], json!([]));
    })
    .await;
}
