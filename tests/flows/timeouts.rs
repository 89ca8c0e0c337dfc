//! What the database cannot do in time, it does in parts; what takes many rows takes few statements.

use firstcome_broker::topology;
use firstcome_contract::job::JobId;
use serde_json::json;

use super::{
    events,
    poison::{outcome, parcel_of, publish, publish_to},
};
use firstcome_tests::{Options, Shop, eventually, shop};

/// How often the trigger behind this sequence has counted. Sequences are not rolled back.
async fn counted(shop: &Shop) -> i64 {
    let value =
        sqlx::query_scalar("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM counted");
    value.fetch_one(&shop.pool).await.unwrap()
}

/// Counts the statements that add to the dead letters.
async fn count_statements(shop: &Shop) {
    shop.sql(
        "CREATE SEQUENCE counted;
         CREATE FUNCTION count_one() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM nextval(''counted''); RETURN NULL; END';
         CREATE TRIGGER count AFTER INSERT ON dead_letters FOR EACH STATEMENT EXECUTE FUNCTION count_one()",
    )
    .await;
}

async fn letters(shop: &Shop) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM dead_letters").fetch_one(&shop.pool).await.unwrap()
}

/// As with a statement that is cancelled for its time, or that waits too long for a lock.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_takes_too_long_is_settled_in_parts_and_in_order() {
    const USERS: i64 = 300;
    shop(Options { users: USERS, worker: false, ..Options::default() }, async |shop| {
        shop.sql(
            "CREATE SEQUENCE counted;
             CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN IF (SELECT count(*) FROM added) > 40 THEN
                      RAISE EXCEPTION ''too slow'' USING ERRCODE = CASE nextval(''counted'') % 2 WHEN 0 THEN ''57014'' ELSE ''55P03'' END;
                  END IF; RETURN NULL; END';
             CREATE TRIGGER dawdle AFTER INSERT ON user_coupons REFERENCING NEW TABLE AS added
                 FOR EACH STATEMENT EXECUTE FUNCTION dawdle()",
        )
        .await;
        let coupon = shop.campaign(USERS).await;
        for user in 1..=USERS {
            shop.accepted_issue(user, coupon).await;
        }
        shop.start_worker();
        shop.settle_and_audit().await;
        let numbers: Vec<(i64, i64)> =
            sqlx::query_as("SELECT user_id, issue_number FROM user_coupons ORDER BY issue_number")
                .fetch_all(&shop.pool)
                .await
                .unwrap();
        assert_eq!(numbers, (1..=USERS).map(|user| (user, user)).collect::<Vec<_>>());
        // Eight parts at least: the size is kept from one to the next, and carefully tried anew.
        let refused = counted(shop).await;
        assert!((1..30).contains(&refused), "{refused} attempts were too large");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_many_undecodable_records_takes_few_statements() {
    const RECORDS: i64 = 20_000;
    shop(Options::default(), async |shop| {
        count_statements(shop).await;
        let coupon = shop.campaign(10).await;
        let records = usize::try_from(RECORDS).unwrap();
        publish(shop, coupon, b"x\n".repeat(records)).await;
        let job = shop.accepted_issue(7, coupon).await;
        assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
        assert_eq!(letters(shop).await, RECORDS);
        let statements = counted(shop).await;
        assert!(statements <= 10, "{statements} statements");
    })
    .await;
}

/// A letter that cannot be stored for now keeps none of its neighbours waiting for theirs.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_refused_is_found_alone() {
    shop(Options::default(), async |shop| {
        shop.sql("ALTER TABLE dead_letters ADD CONSTRAINT no_42 CHECK (payload <> '42')").await;
        let coupon = shop.campaign(10).await;
        let records: Vec<u8> = (0..100).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        publish(shop, coupon, records).await;
        eventually("those before it are stored", async || letters(shop).await == 42).await;
        shop.sql("ALTER TABLE dead_letters DROP CONSTRAINT no_42").await;
        eventually("all are stored", async || letters(shop).await == 100).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overdue_jobs_are_set_aside_with_one_statement() {
    shop(Options { users: 100, ..Options::default() }, async |shop| {
        count_statements(shop).await;
        shop.sql("INSERT INTO daily_runs (job, day) VALUES ('close-day', (now() AT TIME ZONE 'UTC')::date + 1)").await;
        let coupon = shop.campaign(100).await;
        let (ids, parcel): (Vec<JobId>, Vec<u8>) = parcel_of(1..=100, coupon);
        publish(shop, coupon, parcel).await;
        for id in ids {
            let ended = outcome(shop, id).await;
            assert_eq!(ended, ("failed".to_owned(), Some("job-overdue".to_owned())));
        }
        assert_eq!((letters(shop).await, counted(shop).await), (100, 1));
    })
    .await;
}

/// Events that nobody can read are set aside together, too.
#[tokio::test(flavor = "multi_thread")]
async fn undecodable_events_take_one_statement() {
    shop(Options::default(), async |shop| {
        count_statements(shop).await;
        let queue = topology::sales_stats(&shop.namespace);
        let order = json!({"items": [{"productId": 1, "quantity": 1}]});
        publish_to(shop, &queue, b"x\n".repeat(1_000)).await;
        eventually("they are set aside", async || letters(shop).await == 1_000).await;
        assert_eq!(counted(shop).await, 1);
        assert_eq!(shop.ordered(7, &order).await["status"], "succeeded");
        events::counted(shop).await;
    })
    .await;
}
