//! A link to the database through which nothing comes any more, and no end of it is told.

use std::time::{Duration, Instant};

use super::data_platform::{mock, sell};
use firstcome_tests::{eventually, shop};

/// How long nothing comes through.
const FROZEN: Duration = Duration::from_secs(40);
/// How often connections that were opened meanwhile are frozen, too.
const FREEZE_INTERVAL: Duration = Duration::from_millis(100);
/// How long what waited may take afterwards.
const RECOVERY: Duration = Duration::from_secs(20);
/// How many customers buy before.
const BUYERS: i64 = 20;

/// Neither events nor jobs.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_link_to_the_database_holds_up_nothing_for_longer_than_it_lasts() {
    let (platform, options, _stop) = mock().await;
    shop(options, async |shop| {
        // What is sold becomes known while nothing comes through.
        shop.sql(
            "CREATE TABLE held (event_id uuid, event text, type text, events integer);
             CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO held VALUES (NEW.event_id, NEW.event, NEW.type, NEW.events); RETURN NULL; END';
             CREATE TRIGGER hold BEFORE INSERT ON outbox_parcels FOR EACH ROW EXECUTE FUNCTION hold()",
        )
        .await;
        // It counts what it finds without an event.
        eventually("the recount at the start is over", async || {
            let recounts = "SELECT EXISTS (SELECT FROM daily_runs WHERE job = 'rebuild-stats')";
            sqlx::query_scalar(recounts).fetch_one(&shop.pool).await.unwrap()
        })
        .await;
        sell(shop, 1..=BUYERS).await;
        shop.settle_and_audit().await;
        let counted = async || {
            let counted: i64 = sqlx::query_scalar("SELECT count(*) FROM event_inbox")
                .fetch_one(&shop.pool)
                .await
                .unwrap();
            counted
        };
        assert_eq!((counted().await, platform.received().len()), (0, 0));

        let coupon = shop.campaign(10).await;
        let thaw = Instant::now() + FROZEN;
        let freezing = async {
            while Instant::now() < thaw {
                shop.database.proxy.freeze();
                tokio::time::sleep(FREEZE_INTERVAL).await;
            }
        };
        let telling = async {
            // Everybody waits for an answer by now.
            tokio::time::sleep(Duration::from_secs(3)).await;
            shop.sql(
                "BEGIN; SET LOCAL session_replication_role = replica;
                 INSERT INTO outbox_parcels (event_id, event, type, events) SELECT * FROM held; COMMIT",
            )
            .await;
            shop.accepted_issue(7, coupon).await
        };
        let ((), job) = tokio::join!(freezing, telling);
        let told = async {
            eventually("what was sold is counted and told", async || {
                counted().await == BUYERS && i64::try_from(platform.received().len()) == Ok(BUYERS)
            })
            .await;
            thaw.elapsed()
        };
        let settled = async {
            assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
            thaw.elapsed()
        };
        let late = tokio::join!(told, settled);
        assert!(late.0.max(late.1) < RECOVERY, "told and settled after {late:?}");
    })
    .await;
}
