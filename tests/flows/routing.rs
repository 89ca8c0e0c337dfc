//! The routing changes while jobs come in: nobody is lost, nobody overtakes.

use std::collections::BTreeMap;

use firstcome_contract::{
    family::Family,
    ids::CouponId,
    job::{IssueCoupon, Job},
    line::LineName,
};
use firstcome_workers::crew::set_partitions;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::scaling::{campaigns, nobody_overtook, queue_up};
use firstcome_tests::{Answer, Options, Shop, eventually, shop};

async fn queues(shop: &Shop) -> Vec<Value> {
    let answer = Answer::of(shop.admin(Method::GET, "/api/admin/queues")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["items"].as_array().unwrap().clone()
}

pub(super) async fn pin(shop: &Shop, kind: &str, key: i64) -> Answer {
    Answer::of(shop.admin(Method::PUT, &format!("/api/admin/pins/{kind}/{key}"))).await
}

async fn pins(shop: &Shop) -> Value {
    Answer::of(shop.admin(Method::GET, "/api/admin/pins")).await.body["items"].clone()
}

/// Waits until exactly these lines of coupons take jobs and are consumed, and nothing else is left.
async fn only_lines(shop: &Shop, wanted: &[LineName]) {
    eventually(&format!("the lines are {wanted:?}"), async || {
        let rows: Vec<(String, bool)> = sqlx::query_as(
            "SELECT line, opened_at IS NOT NULL FROM partition_leases JOIN routing USING (family, generation)
             WHERE family = 'coupon' ORDER BY generation, line",
        )
        .fetch_all(&shop.pool)
        .await
        .unwrap();
        let lines: Vec<LineName> = rows.iter().map(|(line, _)| line.parse().unwrap()).collect();
        rows.iter().all(|(_, is_open)| *is_open) && lines == wanted
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_partitions_changes_under_load() {
    // Beside other tests the broker takes its time to change the bindings of up to sixteen lines.
    let options =
        Options { users: 20_000, partitions: 4, confirm_deadline_ms: 15_000, ..Options::default() };
    shop(options, async |shop| {
        let coupons = campaigns(shop, 12).await;
        shop.start_worker();
        let stop = CancellationToken::new();
        let changing = async {
            for count in [7u16, 2, 16, 1, 4] {
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                set_partitions(&shop.pool, Family::Coupon, count).await.unwrap();
                only_lines(shop, &(0..count).map(LineName::Partition).collect::<Vec<_>>()).await;
            }
            stop.cancel();
        };
        let (issued, ()) = tokio::join!(queue_up(shop, &coupons, &stop), changing);
        shop.settle_and_audit().await;
        assert!(issued.values().all(|users| *users > 10), "{issued:?}");
        nobody_overtook(shop, &issued).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_coupon_gets_a_line_of_its_own_and_gives_it_back() {
    shop(Options { users: 20_000, partitions: 2, ..Options::default() }, async |shop| {
        let coupons = campaigns(shop, 6).await;
        let hot = coupons[2];
        let stop = CancellationToken::new();
        let pinning = async {
            for _ in 0..2 {
                let answer = pin(shop, "coupon", hot).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                only_lines(
                    shop,
                    &[LineName::Partition(0), LineName::Partition(1), LineName::Pin(hot)],
                )
                .await;
                eventually("the pin is active", async || pins(shop).await[0]["state"] == "active")
                    .await;
                eventually("its line is busy with it", async || {
                    queues(shop).await.iter().any(|queue| {
                        queue["pinnedKey"] == hot
                            && queue["state"] == "open"
                            && queue["hottest"][0]["key"] == hot
                    })
                })
                .await;
                let path = format!("/api/admin/pins/coupon/{hot}");
                assert_eq!(Answer::of(shop.admin(Method::DELETE, &path)).await.status, 204);
                only_lines(shop, &[LineName::Partition(0), LineName::Partition(1)]).await;
                assert_eq!(pins(shop).await, json!([]));
            }
            stop.cancel();
        };
        let (issued, ()) = tokio::join!(queue_up(shop, &coupons, &stop), pinning);
        shop.settle_and_audit().await;
        nobody_overtook(shop, &issued).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_stands_in_the_line_of_a_pinned_product() {
    shop(Options { users: 50, ..Options::default() }, async |shop| {
        let (plain, hot) = (shop.product(100, 1_000).await, shop.product(100, 30).await);
        assert_eq!(pin(shop, "product", hot).await.status, 200);
        eventually("the pin is active", async || pins(shop).await[0]["state"] == "active").await;
        let order = json!({"items": [{"productId": plain, "quantity": 1}, {"productId": hot, "quantity": 1}]});
        for user in 1..=50 {
            assert_eq!(shop.order(user, &order).await.status, 202);
        }
        shop.settle_and_audit().await;
        let outcomes = shop.outcomes().await;
        assert_eq!((outcomes["succeeded"], outcomes["out-of-stock"]), (30, 20));
        let key = async || {
            let queues = queues(shop).await;
            let pinned = queues.iter().find(|queue| queue["pinnedKey"] == hot).unwrap();
            pinned["lastProgressAt"].is_string()
        };
        eventually("its line tells of progress", key).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pinned_is_refused() {
    shop(Options::default(), async |shop| {
        pin(shop, "coupon", 999_999).await.is_problem(404, "coupon-not-found");
        pin(shop, "product", 999_999).await.is_problem(404, "product-not-found");
        // The former names are understood.
        pin(shop, "issue-coupon", 999_999).await.is_problem(404, "coupon-not-found");
        pin(shop, "place-order", 999_999).await.is_problem(404, "product-not-found");
        let wrong = pin(shop, "make-coffee", 1).await;
        wrong.is_problem(400, "validation-failed");
        let path = "/api/admin/pins/coupon/one";
        let wrong = Answer::of(shop.admin(Method::PUT, path)).await;
        wrong.is_problem(400, "validation-failed");
        let path = "/api/admin/pins/coupon/1";
        Answer::of(shop.admin(Method::DELETE, path)).await.is_problem(404, "pin-not-found");
        sqlx::query("INSERT INTO pins (family, key, number) SELECT 'coupon', -n, n FROM generate_series(0, 62) AS n")
            .execute(&shop.pool)
            .await
            .unwrap();
        pin(shop, "coupon", 1).await.is_problem(409, "too-many-pins");
        shop.sql("DELETE FROM pins WHERE key <= 0").await;
    })
    .await;
}

/// Without a worker the line stands still, and everyone can see where.
#[tokio::test(flavor = "multi_thread")]
async fn depth_and_place_in_line_are_told() {
    let options = Options { users: 3_000, partitions: 1, worker: false, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(10_000).await;
        let mut jobs = BTreeMap::new();
        for user in 1..=200 {
            jobs.insert(user, shop.accepted_issue(user, coupon).await);
        }
        let line = async || {
            let queues = queues(shop).await;
            queues.into_iter().find(|queue| queue["family"] == "coupon").unwrap()
        };
        eventually("the line is seen", async || line().await["ready"].as_u64() == Some(200)).await;
        let seen = line().await;
        assert_eq!(
            (&seen["unacked"], &seen["owner"], &seen["consumers"]),
            (&json!(0), &json!(null), &json!(0))
        );
        // One after the other: every job is a message.
        assert_eq!(seen["waitingJobs"], 200);
        eventually("it grows old", async || line().await["oldestSeconds"].as_i64() >= Some(2))
            .await;

        let place = async |user: i64| {
            shop.poll(user, &jobs[&user], 0).await.body["position"].as_u64().unwrap()
        };
        let places = [place(1).await, place(100).await, place(200).await];
        assert!(places.is_sorted() && places[0] < 60 && places[2] > 100, "{places:?}");
        let stuck = shop.poll(200, &jobs[&200], 0).await;
        // It does not move, so nobody can tell.
        assert!(stuck.body["estimatedSeconds"].is_null(), "{stuck:?}");

        shop.start_worker();
        shop.settle_and_audit().await;
        eventually("the owner tells of it", async || {
            let line = line().await;
            line["ready"] == 0
                && line["owner"].is_string()
                && line["oldestSeconds"] == 0
                && line["consumers"] == 1
        })
        .await;
        let settled = shop.poll(1, &jobs[&1], 0).await;
        assert!(settled.body.get("position").is_none(), "{settled:?}");
    })
    .await;
}

/// A campaign's row, held as a batch that waits for it.
pub(super) async fn hold(shop: &Shop, coupon: i64) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut held = shop.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM coupons WHERE id = $1 FOR UPDATE")
        .bind(coupon)
        .execute(&mut *held)
        .await
        .unwrap();
    held
}

/// Longer than a line may make others wait.
const LONG: std::time::Duration = std::time::Duration::from_secs(3);

/// A campaign that stands in another line than all of these.
pub(super) async fn apart(shop: &Shop, from: &[i64]) -> i64 {
    let line = |coupon: i64| {
        let job = Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) });
        shop.queue_of(&job)
    };
    loop {
        let coupon = shop.campaign(10_000).await;
        if from.iter().all(|other| line(*other) != line(coupon)) {
            return coupon;
        }
    }
}

async fn settles(shop: &Shop, user: i64, coupon: i64, when: &str) {
    let job = shop.accepted_issue(user, coupon).await;
    eventually(&format!("an unrelated key is settled {when}"), async || {
        shop.poll(user, &job, 1).await.body["status"] == "succeeded"
    })
    .await;
}

/// A pinned line stands still with all that waits in it: whatever is changed about the others meanwhile,
/// they go on, and its own come in their order afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_backlog_holds_up_no_other_key() {
    shop(Options { users: 200, partitions: 4, ..Options::default() }, async |shop| {
        let [hot, other] = [shop.campaign(1_000).await, shop.campaign(1_000).await];
        let unrelated = apart(shop, &[hot]).await;
        let is_active = async |key: i64| {
            eventually("the pin is active", async || {
                let pins = pins(shop).await;
                let mut pins = pins.as_array().unwrap().iter();
                pins.any(|pin| pin["key"] == key && pin["state"] == "active")
            })
            .await;
        };
        assert_eq!(pin(shop, "coupon", hot).await.status, 200);
        is_active(hot).await;
        settles(shop, 1, hot, "on the pinned line").await;
        let held = hold(shop, hot).await;
        let mut jobs = Vec::new();
        for user in 2..=60 {
            jobs.push(shop.accepted_issue(user, hot).await);
        }
        tokio::time::sleep(LONG).await;

        assert_eq!(pin(shop, "coupon", other).await.status, 200);
        is_active(other).await;
        settles(shop, 1, unrelated, "after another one was pinned").await;
        settles(shop, 1, other, "once it is pinned").await;
        set_partitions(&shop.pool, Family::Coupon, 7).await.unwrap();
        let pinned = [LineName::Pin(hot.min(other)), LineName::Pin(hot.max(other))];
        let lines: Vec<LineName> = (0..7).map(LineName::Partition).chain(pinned).collect();
        let dealt = async |lines: &[LineName]| {
            eventually(&format!("jobs are dealt out to {lines:?}"), async || {
                let now: Vec<String> = sqlx::query_scalar(
                    "SELECT line FROM partition_leases JOIN routing USING (family, generation)
                     WHERE family = 'coupon' ORDER BY line",
                )
                .fetch_all(&shop.pool)
                .await
                .unwrap();
                let mut wanted: Vec<String> = lines.iter().map(LineName::to_string).collect();
                wanted.sort();
                now == wanted
            })
            .await;
        };
        dealt(&lines).await;
        settles(shop, 2, unrelated, "after the partitions were changed").await;
        // Its place is told from the line where it waits.
        let told = shop.poll(60, jobs.last().unwrap(), 0).await;
        let place = told.body["position"].as_i64().unwrap_or_default();
        assert!((50..=59).contains(&place) && told.retry_after() >= 1, "{told:?}");

        let path = format!("/api/admin/pins/coupon/{hot}");
        assert_eq!(Answer::of(shop.admin(Method::DELETE, &path)).await.status, 204);
        tokio::time::sleep(LONG).await;
        let neighbour = async |user: i64| {
            // Of each line that the key could go to.
            for coupon in [unrelated, other] {
                settles(shop, user, coupon, "after the pin was taken away").await;
            }
        };
        neighbour(3).await;
        // Those that come now are later than those that wait.
        for user in 61..=80 {
            jobs.push(shop.accepted_issue(user, hot).await);
        }
        held.rollback().await.unwrap();
        shop.settle_and_audit().await;
        nobody_overtook(shop, &BTreeMap::from([(hot, 80)])).await;
        let lines: Vec<LineName> =
            (0..7).map(LineName::Partition).chain([LineName::Pin(other)]).collect();
        only_lines(shop, &lines).await;
    })
    .await;
}

/// A batch that waits for a row holds its line's row: a change of the routing does not wait for it, and
/// nobody is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_batch_holds_up_no_change() {
    shop(Options { users: 200, partitions: 4, ..Options::default() }, async |shop| {
        let held_up = shop.campaign(1_000).await;
        let unrelated = apart(shop, &[held_up]).await;
        let other = apart(shop, &[held_up, unrelated]).await;
        let held = hold(shop, held_up).await;
        shop.accepted_issue(1, held_up).await;
        shop.is_waiting_for_a_row().await;
        assert_eq!(pin(shop, "coupon", other).await.status, 200);
        let mut user = 1;
        eventually("the pin is active", async || {
            user += 1;
            for coupon in [held_up, unrelated, other] {
                // Accepted, all the time.
                shop.accepted_issue(user, coupon).await;
            }
            pins(shop).await[0]["state"] == "active"
        })
        .await;
        for coupon in [unrelated, other] {
            settles(shop, user + 1, coupon, "while a batch is held").await;
        }
        held.rollback().await.unwrap();
        shop.settle_and_audit().await;
        nobody_overtook(shop, &BTreeMap::from([(held_up, user)])).await;
    })
    .await;
}

/// The last message of an old line is lost, with its queue or by hand: the new lines open all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_last_message_is_sent_again() {
    shop(Options { partitions: 2, ..Options::default() }, async |shop| {
        set_partitions(&shop.pool, Family::Coupon, 3).await.unwrap();
        only_lines(shop, &(0..3).map(LineName::Partition).collect::<Vec<_>>()).await;
        // As if it had not come out yet.
        shop.sql(
            "SET LOCAL firstcome.naming = 'family';
             UPDATE partition_leases SET opened_at = NULL WHERE family = 'coupon' AND generation = 2;
             UPDATE partition_leases SET drained_at = NULL, ended_at = clock_timestamp() - interval '1 minute'
             WHERE family = 'coupon' AND generation = 1",
        )
        .await;
        only_lines(shop, &(0..3).map(LineName::Partition).collect::<Vec<_>>()).await;
        let coupon = shop.campaign(10).await;
        let job = shop.accepted_issue(7, coupon).await;
        assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
    })
    .await;
}

/// A queue's bound never changes: lines with another one take over, and workers come and go.
#[tokio::test(flavor = "multi_thread")]
async fn the_capacity_of_the_lines_changes() {
    shop(Options { partitions: 2, ..Options::default() }, async |shop| {
        let lines = [LineName::Partition(0), LineName::Partition(1)];
        only_lines(shop, &lines).await;
        shop.sql("UPDATE routing SET line_capacity = 500 WHERE family = 'coupon'").await;
        eventually("new lines took over", async || {
            let generation: i32 =
                sqlx::query_scalar("SELECT generation FROM routing WHERE family = 'coupon'")
                    .fetch_one(&shop.pool)
                    .await
                    .unwrap();
            generation == 2
        })
        .await;
        shop.stop_workers().await;
        shop.start_worker();
        only_lines(shop, &lines).await;
        let coupon = shop.campaign(10).await;
        let job = shop.accepted_issue(7, coupon).await;
        assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
    })
    .await;
}

/// A line whose last owner crashed when it was drained already.
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_line_of_a_dead_worker_is_deleted() {
    shop(Options { partitions: 2, ..Options::default() }, async |shop| {
        set_partitions(&shop.pool, Family::Coupon, 1).await.unwrap();
        only_lines(shop, &[LineName::Partition(0)]).await;
        shop.sql(
            "INSERT INTO workers (id, family, name, naming, expires_at)
             VALUES ('00000000-0000-4000-8000-000000000001', 'coupon', 'dead', 'family', now() - interval '1 minute');
             UPDATE partition_leases SET drained_at = drained_at - interval '1 minute',
                                         owner = '00000000-0000-4000-8000-000000000001'
             WHERE family = 'coupon' AND generation = 1",
        )
        .await;
        eventually("the old lines are deleted", async || {
            let left: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM partition_leases WHERE family = 'coupon' AND generation = 1",
            )
            .fetch_one(&shop.pool)
            .await
            .unwrap();
            left == 0
        })
        .await;
    })
    .await;
}
