//! Messages that cannot be processed harm nobody else.

use firstcome_broker::{
    connect,
    publish::{Address, ConfirmedPublisher, MessageType},
};
use firstcome_contract::{
    ids::{CouponId, UserId},
    job::{Envelope, Idempotency, IssueCoupon, Job, JobId, JobKind},
    line::Place,
};
use lapin::{
    BasicProperties,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable},
};
use sqlx::AssertSqlSafe;

use firstcome_tests::{Options, Shop, eventually, shop};

fn line(user: i64, coupon: i64) -> (JobId, Vec<u8>) {
    let millis = u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap();
    let sequence = u32::try_from(user).unwrap();
    let id = JobId::compose(millis, JobKind::IssueCoupon, Place::UNKNOWN, sequence, 0);
    let job = Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) });
    let envelope = Envelope {
        id,
        user_id: UserId::new(user),
        idempotency: None,
        trace: None,
        request_id: None,
        job,
    };
    let mut line = Vec::new();
    envelope.encode(&mut line).unwrap();
    (id, line)
}

/// A parcel of these users' jobs.
pub(super) fn parcel_of(
    users: impl IntoIterator<Item = i64>,
    coupon: i64,
) -> (Vec<JobId>, Vec<u8>) {
    let lines = users.into_iter().map(|user| line(user, coupon));
    let (ids, lines): (Vec<JobId>, Vec<Vec<u8>>) = lines.unzip();
    (ids, lines.concat())
}

pub(super) async fn publish(shop: &Shop, coupon: i64, parcel: Vec<u8>) {
    let queue = shop.queue_of(&Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) }));
    publish_to(shop, &queue, parcel).await;
}

pub(crate) async fn publish_to(shop: &Shop, queue: &str, parcel: Vec<u8>) {
    let connection = connect::connect(&shop.broker.as_broker(), "test").await.unwrap();
    let mut publisher = ConfirmedPublisher::open(&connection).await.unwrap();
    publisher.publish(Address::Queue(queue), MessageType::Jobs, parcel, ());
    publisher.verdicts().await;
    connect::close(&connection).await;
}

/// Line, job, user, payload.
type Letter = (i32, Option<uuid::Uuid>, Option<i64>, Vec<u8>);

pub(crate) async fn outcome(shop: &Shop, id: JobId) -> (String, Option<String>) {
    let found = async || {
        sqlx::query_as("SELECT status, code FROM job_outcomes WHERE job_id = $1")
            .bind(id.get())
            .fetch_optional(&shop.pool)
            .await
            .unwrap()
    };
    eventually("the job is settled", async || found().await.is_some()).await;
    found().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_undecodable_job_inside_a_parcel() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(10).await;
        let (first, first_line) = line(1, coupon);
        let (broken, broken_line) = line(2, coupon);
        let (last, last_line) = line(3, coupon);
        let broken_line = String::from_utf8(broken_line).unwrap().replace("couponId", "coupon");
        let parcel =
            [&first_line, broken_line.as_bytes(), b"\xff\x00 garbage\n", &last_line].concat();
        publish(shop, coupon, parcel).await;

        assert_eq!(outcome(shop, first).await.0, "succeeded");
        assert_eq!(outcome(shop, last).await.0, "succeeded");
        // Whose job it was can still be read: it gets its outcome.
        assert_eq!(
            outcome(shop, broken).await,
            ("failed".to_owned(), Some("job-undecodable".to_owned()))
        );
        let letters: Vec<Letter> =
            sqlx::query_as("SELECT line, job_id, user_id, payload FROM dead_letters ORDER BY line")
                .fetch_all(&shop.pool)
                .await
                .unwrap();
        assert_eq!(
            letters,
            [
                (1, Some(broken.get()), Some(2), broken_line.trim_end().as_bytes().to_vec()),
                (2, None, None, b"\xff\x00 garbage".to_vec()),
            ]
        );
    })
    .await;
}

/// Its key is longer than an index can hold: refused for ever, so it is no state of the system.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_too_large_for_an_index_fails_alone() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(10).await;
        let (_, plain) = line(2, coupon);
        let mut envelope = Envelope::decode(plain.trim_ascii_end()).unwrap();
        // What repeats would be compressed.
        let key = (0..600).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
        envelope.idempotency = Some(Idempotency { key, fingerprint: "x".to_owned() });
        let mut parcel = Vec::new();
        envelope.encode(&mut parcel).unwrap();
        let (good, good_line) = line(3, coupon);
        publish(shop, coupon, [parcel, good_line].concat()).await;
        assert_eq!(outcome(shop, good).await.0, "succeeded");
        assert_eq!(outcome(shop, envelope.id).await.1.as_deref(), Some("job-unprocessable"));
    })
    .await;
}

/// PostgreSQL's text holds no NUL, and where a message died is told by whoever sent it.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_header_with_a_nul_does_not_stop_the_line() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(10).await;
        let job = Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) });
        let queue = shop.queue_of(&job);
        let connection = connect::connect(&shop.broker.as_broker(), "test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let mut headers = FieldTable::default();
        headers.insert("x-first-death-queue".into(), AMQPValue::LongString("a\0b".into()));
        headers.insert("x-attempts".into(), AMQPValue::LongInt(i32::MAX));
        let properties = BasicProperties::default().with_headers(headers);
        let (queue, options) = (queue.as_str().into(), BasicPublishOptions::default());
        channel.basic_publish("".into(), queue, options, b"garbage", properties).await.unwrap();
        connect::close(&connection).await;
        let job = shop.accepted_issue(7, coupon).await;
        assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
        let letter: (String, i32) = sqlx::query_as("SELECT queue, attempts FROM dead_letters")
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!(letter, ("a\u{fffd}b".to_owned(), i32::MAX));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_nothing_but_garbage_does_not_stop_the_line() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(10).await;
        publish(shop, coupon, b"garbage".to_vec()).await;
        publish(shop, coupon, Vec::new()).await;
        let job = shop.accepted_issue(7, coupon).await;
        assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
        let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!(letters, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_the_database_refuses_is_found_and_set_aside_alone() {
    shop(Options { users: 100, worker: false, ..Options::default() }, async |shop| {
        shop.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN IF NEW.user_id = 42 THEN RAISE EXCEPTION ''user 42 is poison''; END IF; RETURN NEW; END';
             CREATE TRIGGER refuse BEFORE INSERT ON user_coupons FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
        let coupon = shop.campaign(1_000).await;
        let mut poison = None;
        for user in 1..=100 {
            let job = shop.accepted_issue(user, coupon).await;
            poison = if user == 42 { Some(job) } else { poison };
        }
        shop.start_worker();
        shop.settle_and_audit().await;
        let outcomes = shop.outcomes().await;
        assert_eq!((outcomes["succeeded"], outcomes["job-unprocessable"], outcomes.len()), (99, 1, 2));
        let job = shop.settled(42, &poison.unwrap()).await;
        assert_eq!((&job["status"], &job["error"]["status"]), (&"failed".into(), &500.into()));
        // The database's words are for the operator, not for the client.
        assert!(!job.to_string().contains("poison"), "{job}");
        let reason: String = sqlx::query_scalar("SELECT reason FROM dead_letters").fetch_one(&shop.pool).await.unwrap();
        assert!(reason.contains("user 42 is poison"), "{reason}");
        // In the order of the line, without a gap.
        let numbers: Vec<(i64, i64)> = sqlx::query_as("SELECT user_id, issue_number FROM user_coupons ORDER BY issue_number").fetch_all(&shop.pool).await.unwrap();
        let expected: Vec<(i64, i64)> = (1..=100).filter(|user| *user != 42).zip(1..).collect();
        assert_eq!(numbers, expected);
    })
    .await;
}

/// A handler that owes an outcome is broken, which another attempt does not mend.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_handler_owes_its_outcome_fails_alone() {
    shop(Options::default(), async |shop| {
        // A coupon that is not stored, although nothing refused it.
        shop.sql(
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN IF NEW.user_id = 2 THEN RETURN NULL; END IF; RETURN NEW; END';
             CREATE TRIGGER swallow BEFORE INSERT ON user_coupons FOR EACH ROW EXECUTE FUNCTION swallow()",
        )
        .await;
        let coupon = shop.campaign(10).await;
        let (ids, parcel) = parcel_of([1, 2, 3], coupon);
        publish(shop, coupon, parcel).await;
        assert_eq!(outcome(shop, ids[0]).await.0, "succeeded");
        assert_eq!(outcome(shop, ids[1]).await.1.as_deref(), Some("job-unprocessable"));
        assert_eq!(outcome(shop, ids[2]).await.0, "succeeded");
        let reason: String =
            sqlx::query_scalar("SELECT reason FROM dead_letters").fetch_one(&shop.pool).await.unwrap();
        assert!(reason.starts_with("the handler of issue-coupon is broken: "), "{reason}");
    })
    .await;
}

/// A damaged row or index is of those who need it.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_data_stops_nobody_who_does_not_need_it() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(10).await;
        for (code, users) in [("XX001", [1, 2]), ("XX002", [3, 4])] {
            let refuse = format!(
                "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                     'BEGIN IF NEW.user_id = {} THEN RAISE ''damaged'' USING ERRCODE = ''{code}''; END IF; RETURN NEW; END';
                 CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON user_coupons FOR EACH ROW EXECUTE FUNCTION refuse()",
                users[0]
            );
            sqlx::raw_sql(AssertSqlSafe(refuse)).execute(&shop.pool).await.unwrap();
            let (ids, parcel) = parcel_of(users, coupon);
            publish(shop, coupon, parcel).await;
            assert_eq!(outcome(shop, ids[0]).await.1.as_deref(), Some("job-unprocessable"));
            assert_eq!(outcome(shop, ids[1]).await.0, "succeeded");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_line_came_twice_undecodable_fails_once() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(10).await;
        let (broken, broken_line) = line(2, coupon);
        let broken_line = String::from_utf8(broken_line).unwrap().replace("couponId", "coupon");
        let (good, good_line) = line(3, coupon);
        let parcel = [broken_line.as_bytes(), broken_line.as_bytes(), &good_line].concat();
        publish(shop, coupon, parcel).await;
        assert_eq!(outcome(shop, broken).await.0, "failed");
        assert_eq!(outcome(shop, good).await.0, "succeeded");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_job_beside_garbage_stops_nobody() {
    shop(Options::default(), async |shop| {
        shop.sql("ALTER TABLE user_coupons ADD CONSTRAINT no_42 CHECK (user_id <> 42); INSERT INTO users (id, name, email) VALUES (42, 'x', 'x@y'); INSERT INTO balances (user_id) VALUES (42)").await;
        let coupon = shop.campaign(10).await;
        let (poison, poison_line) = line(42, coupon);
        publish(shop, coupon, [&poison_line, &b"garbage\n"[..]].concat()).await;
        assert_eq!(outcome(shop, poison).await, ("failed".to_owned(), Some("job-unprocessable".to_owned())));
        let job = shop.accepted_issue(7, coupon).await;
        assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
    })
    .await;
}

/// What the broker itself sets aside (after too many deliveries) was accepted too.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_in_the_dead_letter_queue_get_their_outcomes() {
    shop(Options::default(), async |shop| {
        let coupon = shop.campaign(10).await;
        let (first, first_line) = line(1, coupon);
        let (broken, broken_line) = line(2, coupon);
        let broken_line = String::from_utf8(broken_line).unwrap().replace("couponId", "coupon");
        let queue = firstcome_broker::topology::dead_letters(&shop.namespace);
        publish_to(shop, &queue, [&first_line, broken_line.as_bytes()].concat()).await;
        assert_eq!(outcome(shop, first).await.0, "succeeded");
        assert_eq!(outcome(shop, broken).await.0, "failed");
    })
    .await;
}

/// A campaign whose count was moved by hand contradicts itself: its jobs fail, the line goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_contradiction_in_the_data_does_not_block_the_line() {
    shop(Options { partitions: 1, ..Options::default() }, async |shop| {
        let (drifted, sound) = (shop.campaign(10).await, shop.campaign(10).await);
        let first = shop.accepted_issue(1, drifted).await;
        shop.settled(1, &first).await;
        shop.sql("UPDATE coupons SET issued = 0 WHERE issued = 1").await;
        let second = shop.accepted_issue(2, drifted).await;
        let neighbour = shop.accepted_issue(3, sound).await;
        assert_eq!(shop.settled(3, &neighbour).await["status"], "succeeded");
        assert_eq!(shop.settled(2, &second).await["status"], "failed");
        shop.sql("UPDATE coupons SET issued = 1 WHERE issued = 0 AND id = (SELECT min(coupon_id) FROM user_coupons)").await;
    })
    .await;
}
