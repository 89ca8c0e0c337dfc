//! Which events there are, and who gets which: our consumers, and whoever binds a queue of their own.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use firstcome_broker::{
    connect::{self, Connection},
    depth::Gauge,
    topology,
};
use firstcome_contract::event::{Data, Event, EventType};
use lapin::{
    Channel,
    options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    cancel_events::{cancelled, one},
    data_platform::mock,
    events::counted,
    retention::event,
};
use firstcome_tests::{Options, Shop, eventually, shop};

/// Does everything once of which there is an event: a coupon that is the last one, an order of the last unit, its
/// cancellation. The order's number.
pub(super) async fn everything(shop: &Shop) -> i64 {
    let coupon = shop.campaign(1).await;
    let job = shop.accepted_issue(7, coupon).await;
    assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
    let product = shop.product(1_000, 2).await;
    let placed = shop.ordered(7, &one(product, 2)).await;
    let order = placed["result"]["orderId"].as_i64().unwrap();
    cancelled(shop, 7, order).await;
    order
}

pub(super) async fn connection(shop: &Shop) -> Arc<Connection> {
    Arc::new(connect::connect(&shop.broker.as_broker(), "test").await.unwrap())
}

/// A queue of this connection alone, bound to everything; and the channel to read it.
pub(super) async fn listen(
    shop: &Shop,
    connection: &Connection,
    bounds: FieldTable,
) -> (Channel, String) {
    let channel = connection.create_channel().await.unwrap();
    let (queue, events) =
        (format!("{}.stranger", shop.namespace), topology::events(&shop.namespace));
    let own = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.as_str().into(), own, bounds).await.unwrap();
    let (to, bind) = (queue.as_str().into(), QueueBindOptions::default());
    channel.queue_bind(to, events.into(), "#".into(), bind, FieldTable::default()).await.unwrap();
    (channel, queue)
}

/// What is in the queue: routing key and line.
async fn take(channel: &Channel, queue: &str) -> Vec<(String, Value)> {
    let mut taken = Vec::new();
    while let Some(message) =
        channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap()
    {
        let properties = &message.properties;
        assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/x-ndjson");
        assert_eq!(properties.kind().as_ref().unwrap().as_str(), "events");
        for line in message.data.trim_ascii_end().split(|byte| *byte == b'\n') {
            let key = message.routing_key.as_str().to_owned();
            taken.push((key, serde_json::from_slice(line).unwrap()));
        }
    }
    taken
}

async fn number(shop: &Shop, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&shop.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_binds_to_everything_gets_every_type() {
    shop(Options::default(), async |shop| {
        let connection = connection(shop).await;
        let (channel, queue) = listen(shop, &connection, FieldTable::default()).await;
        let order = everything(shop).await;
        counted(shop).await;
        let mut taken: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        eventually("one of each type has come", async || {
            for (key, event) in take(&channel, &queue).await {
                assert_eq!(event["type"], json!(key));
                taken.entry(key).or_default().push(event);
            }
            taken.len() == EventType::ALL.len()
        })
        .await;
        for (key, events) in &taken {
            let ids: HashSet<&str> =
                events.iter().map(|event| event["id"].as_str().unwrap()).collect();
            assert_eq!(ids.len(), 1, "{key}: {events:?}");
        }
        let first = |event: EventType| &taken[event.code()][0];
        let jobs = [
            (EventType::CouponIssued, "issue-coupon"),
            (EventType::OrderCompleted, "place-order"),
            (EventType::OrderCancelled, "cancel-order"),
        ];
        for (event, kind) in jobs {
            let job: Uuid = sqlx::query_scalar("SELECT job_id FROM job_outcomes WHERE kind = $1")
                .bind(kind)
                .fetch_one(&shop.pool)
                .await
                .unwrap();
            assert_eq!(first(event)["id"], json!(job), "{kind}");
        }
        let (completed, cancelled) =
            (first(EventType::OrderCompleted), first(EventType::OrderCancelled));
        assert_eq!(completed["subject"], json!(order.to_string()));
        assert_eq!(cancelled["data"]["orderId"], json!(order));
        assert_eq!(cancelled["data"]["lines"], completed["data"]["lines"]);
        assert_eq!(cancelled["data"]["refunded"], completed["data"]["paid"]);
        assert_eq!(cancelled["data"]["completedAt"], completed["time"]);
        let sold_out = &first(EventType::ProductSoldOut)["data"]["productId"];
        assert_eq!(*sold_out, completed["data"]["lines"][0]["productId"]);
        let coupon = first(EventType::CouponIssued);
        assert_eq!(
            (&coupon["data"]["issueNumber"], &coupon["data"]["userId"]),
            (&json!(1), &json!(7))
        );
        let sold_out = &first(EventType::CouponSoldOut)["data"];
        assert_eq!(*sold_out, json!({"couponId": coupon["data"]["couponId"], "total": 1}));
        connect::close(&connection).await;
    })
    .await;
}

/// Somebody else's queue, which refuses what is more than it may hold, and that to all that the event is for.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_full_holds_up_nobody_else() {
    let (mock, options, _stop) = mock().await;
    shop(options, async |shop| {
        let connection = connection(shop).await;
        let mut bounds = FieldTable::default();
        bounds.insert("x-max-length".into(), AMQPValue::LongInt(1));
        bounds.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        let (channel, queue) = listen(shop, &connection, bounds).await;
        for _ in 0..3 {
            everything(shop).await;
            // The statistics have all, and nothing is in the outbox, also not what nobody of ours gets.
            counted(shop).await;
        }
        eventually("the platform has all", async || mock.received().len() == 6).await;
        assert!(!take(&channel, &queue).await.is_empty());
        connect::close(&connection).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_order_is_told_to_both_consumers() {
    let (mock, options, _stop) = mock().await;
    shop(options, async |shop| {
        let order = everything(shop).await;
        counted(shop).await;
        assert_eq!(number(shop, "SELECT sum(quantity)::bigint FROM product_sales").await, 0);
        assert_eq!(number(shop, "SELECT sum(amount)::bigint FROM product_sales").await, 0);
        assert_eq!(number(shop, "SELECT count(*) FROM event_inbox").await, 2);
        eventually("the platform has both events", async || mock.received().len() == 2).await;
        let told = mock.events();
        let orders = told.iter().filter_map(|event| match &event.data {
            Data::OrderCompleted(told) => Some((told.order_id.get(), told.paid.get())),
            Data::OrderCancelled(told) => Some((told.order_id.get(), -told.refunded.get())),
            Data::CouponIssued(_) | Data::CouponSoldOut(_) | Data::ProductSoldOut(_) => None,
        });
        assert_eq!(orders.collect::<Vec<_>>(), [(order, 2_000), (order, -2_000)]);
        assert_eq!(number(shop, "SELECT count(*) FROM dead_letters").await, 0);
    })
    .await;
}

fn kinds(events: &[Event]) -> HashSet<EventType> {
    events.iter().map(Event::kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_platform_gets_the_types_that_it_asks_for() {
    let (mock, options, _stop) = mock().await;
    let first = [EventType::CouponIssued, EventType::OrderCancelled];
    let second = [EventType::ProductSoldOut];
    shop(Options { data_platform_events: first.to_vec(), ..options }, async |shop| {
        everything(shop).await;
        counted(shop).await;
        eventually("these have come", async || kinds(&mock.events()) == HashSet::from(first)).await;
        assert_eq!(mock.received().len(), 2);

        // Asked for something else: the others are unbound.
        shop.stop_workers().await;
        shop.start_worker_with(|args| args.data_platform_events = second.to_vec());
        everything(shop).await;
        counted(shop).await;
        eventually("it has come", async || {
            kinds(&mock.events()).contains(&EventType::ProductSoldOut)
        })
        .await;
        // Everything is published: nothing more is on its way.
        let connection = connection(shop).await;
        let mut gauge = Gauge::open(Arc::clone(&connection)).await.unwrap();
        let queue = topology::data_platform(&shop.namespace);
        eventually("nothing waits", async || {
            gauge.depth(&queue).await.unwrap().unwrap().ready == 0
        })
        .await;
        assert_eq!(mock.received().len(), 3);
        connect::close(&connection).await;
    })
    .await;
}

/// Nobody else knows what the platform asks for: the relay sees to it, and before it publishes.
#[tokio::test(flavor = "multi_thread")]
async fn a_binding_that_somebody_takes_away_is_made_again() {
    let (mock, options, _stop) = mock().await;
    shop(options, async |shop| {
        assert_eq!(shop.ordered(7, &one(1, 1)).await["status"], "succeeded");
        eventually("its event has come", async || mock.received().len() == 1).await;
        let connection = connection(shop).await;
        let channel = connection.create_channel().await.unwrap();
        let (queue, events) =
            (topology::data_platform(&shop.namespace), topology::events(&shop.namespace));
        let key = EventType::OrderCompleted.code();
        channel
            .queue_unbind(queue.into(), events.into(), key.into(), FieldTable::default())
            .await
            .unwrap();
        connect::close(&connection).await;
        eventually("events come again", async || {
            let placed = shop.ordered(7, &one(1, 1)).await;
            counted(shop).await;
            let job: Uuid = serde_json::from_value(placed["jobId"].clone()).unwrap();
            mock.received().contains_key(&job)
        })
        .await;
    })
    .await;
}

/// As the release before this one writes it, to what it takes for the outbox: one event, of the only type that it knows.
/// Of other types it is shown none.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_the_release_before_is_a_completed_order() {
    let (mock, options, _stop) = mock().await;
    shop(options, async |shop| {
        let placed = shop.ordered(7, &one(1, 2)).await;
        counted(shop).await;
        eventually("its event has come", async || mock.received().len() == 1).await;
        let (before, _) = mock.requests();
        let job = serde_json::from_value(placed["jobId"].clone()).unwrap();
        let event = event(shop, job).await;
        sqlx::query("INSERT INTO outbox (event_id, event) VALUES ($1, $2)")
            .bind(event.id)
            .bind(serde_json::to_string(&event).unwrap())
            .execute(&shop.pool)
            .await
            .unwrap();
        eventually("it has come again", async || mock.requests().0 > before).await;
        assert!(mock.received().contains_key(&event.id));
        counted(shop).await;
        assert_eq!(number(shop, "SELECT sum(quantity)::bigint FROM product_sales").await, 2);

        // As it reads and deletes them.
        shop.stop_workers().await;
        shop.sql(
            "INSERT INTO outbox_parcels (event_id, type, event) VALUES (gen_random_uuid(), 'coupon.issued', 'a coupon');
             INSERT INTO outbox (event_id, event) VALUES (gen_random_uuid(), 'an order')",
        )
        .await;
        let shown = "SELECT event FROM outbox ORDER BY id LIMIT 512 FOR UPDATE SKIP LOCKED";
        let shown: Vec<String> = sqlx::query_scalar(shown).fetch_all(&shop.pool).await.unwrap();
        assert_eq!(shown, ["an order"]);
        shop.sql("DELETE FROM outbox WHERE id = ANY(ARRAY(SELECT id FROM outbox_parcels))").await;
        let left = "SELECT string_agg(event, ',') FROM outbox_parcels";
        let left: String = sqlx::query_scalar(left).fetch_one(&shop.pool).await.unwrap();
        assert_eq!(left, "a coupon");
    })
    .await;
}

/// What a shop's own tools read: every event, and how often it came.
#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_lists_what_it_got() {
    let (mock, options, _stop) = mock().await;
    let url = options.data_platform_url.clone().unwrap();
    shop(options, async |shop| {
        let order = everything(shop).await;
        eventually("both events have come", async || mock.received().len() == 2).await;
        let listed = shop.anonymous(Method::GET, &url).send().await.unwrap();
        let listed: Value = serde_json::from_slice(&listed.bytes().await.unwrap()).unwrap();
        assert_eq!((&listed["distinct"], &listed["received"]), (&json!(2), &json!(2)), "{listed}");
        let items = listed["items"].as_array().unwrap();
        for (item, kind) in items.iter().zip(["order.completed", "order.cancelled"]) {
            assert_eq!(item["times"], 1);
            assert_eq!(item["event"]["type"], kind);
            assert_eq!(item["event"]["specversion"], "1.0");
            assert_eq!(item["event"]["subject"], json!(order.to_string()));
        }
        assert_eq!(items.len(), 2);
    })
    .await;
}
