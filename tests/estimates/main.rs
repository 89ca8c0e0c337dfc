//! What customers are told about when their turn comes, against when it came. In a binary of its own, so that
//! nothing else keeps the machine busy meanwhile.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use reqwest::Method;

use firstcome_tests::{Answer, Options, Shop, eventually, shop};

/// A job and when its customer was told that it would be settled.
struct Told {
    job: String,
    seconds: f64,
}

async fn ask(shop: &Shop, user: i64, coupon: i64) -> Told {
    let answer = shop.issue(user, coupon).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    Told { job: answer.job_id().to_owned(), seconds: retry_after(&answer) }
}

fn retry_after(answer: &Answer) -> f64 {
    answer.headers["retry-after"].to_str().unwrap().parse().unwrap()
}

/// How many of these were told within a factor of 2, or within a second.
#[expect(clippy::print_stdout, reason = "the measured error is what one wants to see")]
async fn right(shop: &Shop, what: &str, told: &[Told]) -> usize {
    let ids: Vec<uuid::Uuid> = told.iter().map(|told| told.job.parse().unwrap()).collect();
    let mut settled: std::collections::HashMap<uuid::Uuid, f64> = Default::default();
    eventually("all are settled", async || {
        let rows: Vec<(uuid::Uuid, f64)> = sqlx::query_as(
            "SELECT job_id, EXTRACT(EPOCH FROM settled_at)::float8 FROM job_outcomes WHERE job_id = ANY($1)",
        )
        .bind(&ids)
        .fetch_all(&shop.pool)
        .await
        .unwrap();
        settled = rows.into_iter().collect();
        settled.len() == ids.len()
    })
    .await;
    let mut errors = Vec::new();
    let mut right = 0;
    for (told, id) in told.iter().zip(&ids) {
        let submitted_at = firstcome_contract::job::JobId::from(*id).submitted_at();
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of this century")]
        let submitted = submitted_at.timestamp_millis() as f64 / 1e3;
        let real = settled[id] - submitted;
        let is_right = (told.seconds - real).abs() <= 1.0
            || (told.seconds <= real * 2.0 && real <= told.seconds * 2.0);
        right += usize::from(is_right);
        errors.push((told.seconds - real, told.seconds, real));
    }
    errors.sort_by(|a, b| a.0.total_cmp(&b.0));
    let middle = errors[errors.len() / 2];
    println!(
        "{what}: {right} of {} told rightly; error {:.2}..{:.2} s, in the middle told {:.0} s, took {:.2} s",
        told.len(),
        errors[0].0,
        errors[errors.len() - 1].0,
        middle.1,
        middle.2,
    );
    right
}

/// Of several stretches as long as each other the best one counts: a stall of the disk or the processor, which nobody
/// foretells, makes a whole one wrong; what the estimate gets wrong makes all of them wrong.
async fn nine_in_ten(shop: &Shop, what: &str, stretches: &[&[Told]]) {
    let mut all = Vec::new();
    for told in stretches {
        all.push((right(shop, what, told).await, told.len()));
    }
    let is_right = |(right, told): &(usize, usize)| right * 10 >= told * 9;
    assert!(all.iter().any(is_right), "{what}: {all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nine_in_ten_are_told_rightly_when_their_turn_comes() {
    let options = Options { users: 5_000, partitions: 1, ..Options::default() };
    shop(options, async |shop| {
        let coupon = shop.campaign(10_000).await;
        eventually("the line is served", async || {
            let queues = Answer::of(shop.admin(Method::GET, "/api/admin/queues")).await;
            queues.body["items"].as_array().unwrap().iter().all(|line| line["state"] == "open")
        })
        .await;
        let mut told = Vec::new();
        for user in 1..=50 {
            told.push(ask(shop, user, coupon).await);
            shop.settled(user, &told[told.len() - 1].job).await;
        }
        nine_in_ten(shop, "at rest", &[&told]).await;
        let at_once = told.iter().filter(|told| told.seconds == 0.0).count();
        assert!(at_once >= 45, "{at_once} of {} lone requests were told within the second", told.len());

        let mut storms = Vec::new();
        for first in [51, 1_051, 2_051] {
            let told: Vec<Told> = stream::iter(first..first + 1_000)
                .map(|user| ask(shop, user, coupon))
                .buffer_unordered(128)
                .collect()
                .await;
            storms.push(told);
        }
        let storms: Vec<&[Told]> = storms.iter().map(Vec::as_slice).collect();
        nine_in_ten(shop, "in a storm", &storms).await;

        // A commit that waits for a second and a half, and 4 ms a row.
        shop.sql(
            "CREATE FUNCTION crawl() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM pg_sleep(TG_ARGV[0]::float8); RETURN NULL; END $$;
             CREATE TRIGGER crawl_batch AFTER INSERT ON job_outcomes FOR EACH STATEMENT EXECUTE FUNCTION crawl(1.5);
             CREATE TRIGGER crawl_row AFTER INSERT ON job_outcomes FOR EACH ROW EXECUTE FUNCTION crawl(0.004);",
        )
        .await;
        let began = Instant::now();
        let pace = Duration::from_millis(12);
        let told: Vec<Told> = stream::iter(3_051..=4_600i64)
            .map(|user| async move {
                let due = pace * u32::try_from(user - 3_051).unwrap();
                tokio::time::sleep_until((began + due).into()).await;
                ask(shop, user, coupon).await
            })
            .buffer_unordered(128)
            .collect()
            .await;
        // The first ones come when nobody knows yet that the database is slow.
        let stretches: Vec<&[Told]> = told[551..].chunks_exact(333).collect();
        nine_in_ten(shop, "with a slow database", &stretches).await;
        shop.sql("DROP TRIGGER crawl_batch ON job_outcomes; DROP TRIGGER crawl_row ON job_outcomes;").await;
    })
    .await;
}
