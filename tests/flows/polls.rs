//! Polling: right from the instant of the 202, private, patient, and woken across processes.

use std::time::Duration;

use firstcome_tests::{Answer, Options, shop};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_queued_until_it_is_settled() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let coupon = shop.campaign(1).await;
        let id = shop.accepted_issue(7, coupon).await;
        let queued = Answer::of(shop.get(7, &format!("/api/jobs/{id}"))).await;
        assert_eq!((queued.status, &queued.body["status"]), (200, &"queued".into()));
        assert!(
            queued.body["settledAt"].is_null()
                && queued.body["result"].is_null()
                && queued.body["error"].is_null()
        );
        assert!(queued.headers.contains_key("retry-after"));

        // Held as long as asked for, then still queued.
        let held = shop.poll(7, &id, 1).await;
        assert_eq!(held.body["status"], "queued");
        assert_eq!(held.headers["preference-applied"], "wait=1");
        assert!(held.took >= Duration::from_secs(1), "{:?}", held.took);

        // Woken by the settlement.
        let (settled, ()) = tokio::join!(shop.poll(7, &id, 30), async { shop.start_worker() });
        assert_eq!(settled.body["status"], "succeeded");
        assert!(settled.took < Duration::from_secs(20), "{:?}", settled.took);
        assert!(!settled.headers.contains_key("retry-after"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_submitter_can_see_a_job() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(1).await;
        let id = shop.accepted_issue(7, coupon).await;
        shop.settled(7, &id).await;
        shop.poll(8, &id, 0).await.is_problem(404, "job-not-found");
        let as_admin =
            Answer::of(shop.admin(reqwest::Method::GET, &format!("/api/jobs/{id}"))).await;
        as_admin.is_problem(404, "job-not-found");
        let anonymous =
            Answer::of(shop.anonymous(reqwest::Method::GET, &format!("/api/jobs/{id}"))).await;
        anonymous.is_problem(401, "unauthenticated");
        // Never issued: another random part, another version, no UUID at all.
        for forged in [
            id.replace(&id[19..23], "8fff"),
            id.replace("-7", "-4"),
            "7".to_owned(),
            "%FF".to_owned(),
        ] {
            let answer = Answer::of(shop.get(7, &format!("/api/jobs/{forged}"))).await;
            assert!(answer.status == 404 || answer.status == 400, "{forged}: {answer:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_retention_a_job_is_gone() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(1).await;
        let id = shop.accepted_issue(7, coupon).await;
        shop.settled(7, &id).await;
        let forgetful = shop.start_api(|config| config.job_retention = 1).await;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let url = format!("{}/api/jobs/{id}", forgetful.url);
        Answer::of(shop.get(7, &url)).await.is_problem(410, "job-expired");
        forgetful.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_at_one_api_is_woken_by_a_job_of_another() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let other = shop.start_api(|_| {}).await;
        let coupon = shop.campaign(1).await;
        let id = shop.accepted_issue(7, coupon).await;
        let poll = Answer::of(
            shop.get(7, &format!("{}/api/jobs/{id}", other.url)).header("Prefer", "wait=30"),
        );
        let (settled, ()) = tokio::join!(poll, async { shop.start_worker() });
        assert_eq!(settled.body["status"], "succeeded");
        other.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_api_answers_its_waiting_polls() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let other = shop.start_api(|_| {}).await;
        let coupon = shop.campaign(1).await;
        let id = shop.accepted_issue(7, coupon).await;
        let poll = Answer::of(
            shop.get(7, &format!("{}/api/jobs/{id}", other.url)).header("Prefer", "wait=30"),
        );
        let (answer, ()) = tokio::join!(poll, async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            other.stop().await;
        });
        assert_eq!((answer.status, &answer.body["status"]), (200, &"queued".into()));
        assert!(answer.took < Duration::from_secs(10), "{:?}", answer.took);
        shop.start_worker();
    })
    .await;
}
