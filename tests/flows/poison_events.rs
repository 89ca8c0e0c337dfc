//! Events that cannot be counted harm nobody else.

use firstcome_broker::topology;
use reqwest::Method;
use serde_json::{Value, json};

use super::{data_platform::sell, events::counted, poison::publish_to, retention::event};
use firstcome_tests::{Answer, Options, Shop, eventually, shop};

async fn number(shop: &Shop, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&shop.pool).await.unwrap()
}

const LETTERS: &str = "SELECT count(*) FROM dead_letters WHERE queue LIKE '%.sales-stats'";
const NOTES: &str = "SELECT count(*) FROM event_inbox";

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_database_refuses_is_set_aside_alone() {
    shop(Options { users: 50, ..Options::default() }, async |shop| {
        shop.sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN IF NEW.product_id = 3 THEN RAISE EXCEPTION ''product 3 is poison''; END IF; RETURN NEW; END';
             CREATE TRIGGER refuse BEFORE INSERT ON product_sales FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
        // Every fifth buys product 3.
        sell(shop, 1..=50).await;
        eventually("its events are set aside", async || number(shop, LETTERS).await == 10).await;
        eventually("the others are counted", async || number(shop, NOTES).await == 40).await;
        let reasons = "SELECT count(*) FROM dead_letters WHERE reason LIKE '%product 3 is poison%'";
        assert_eq!(number(shop, reasons).await, 10);
        shop.settle_and_audit().await;

        shop.sql("DROP FUNCTION refuse CASCADE").await;
        let asked = Answer::of(shop.admin(Method::POST, "/api/admin/dead-letters/redrive")).await;
        assert_eq!((asked.status, &asked.body["requested"]), (202, &json!(10)));
        counted(shop).await;
        assert_eq!(number(shop, "SELECT sum(quantity)::bigint FROM product_sales").await, 50);
    })
    .await;
}

/// Each of them alone would fit, two do not, and what is negative fits always.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_what_nobody_sells_is_set_aside_alone() {
    shop(Options::default(), async |shop| {
        let order = json!({"items": [{"productId": 1, "quantity": 2}]});
        let job = shop.ordered(7, &order).await;
        let real = event(shop, serde_json::from_value(job["jobId"].clone()).unwrap()).await;
        counted(shop).await;
        let forged = |quantity: i64, price: i64| -> Vec<u8> {
            let mut event: Value = serde_json::to_value(&real).unwrap();
            event["id"] = json!(uuid::Uuid::new_v4());
            event["data"]["lines"][0]["quantity"] = json!(quantity);
            event["data"]["lines"][0]["unitPrice"] = json!(price);
            let mut line = serde_json::to_vec(&event).unwrap();
            line.push(b'\n');
            line
        };
        let many: Vec<Value> =
            vec![serde_json::to_value(&real).unwrap()["data"]["lines"][0].clone(); 51];
        let mut too_many: Value = serde_json::to_value(&real).unwrap();
        too_many["data"]["lines"] = json!(many);
        let parcel = [
            forged(i64::MAX, 1),
            forged(i64::MAX, 1),
            forged(-5, 1),
            forged(0, 1),
            forged(1, -1),
            forged(1, i64::MAX),
            too_many.to_string().into_bytes(),
        ];
        publish_to(shop, &topology::sales_stats(&shop.namespace), parcel.concat()).await;
        shop.ordered(8, &order).await;
        eventually("they are set aside", async || number(shop, LETTERS).await == 7).await;
        counted(shop).await;
        assert_eq!(number(shop, "SELECT quantity FROM product_sales").await, 4);
    })
    .await;
}
