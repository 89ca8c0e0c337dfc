//! What the collector gets of the real programs, and where the client's trace goes.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, http::HeaderMap, routing::post};
use firstcome_contract::{
    family::Family,
    line::{Line, LineName, Naming},
};
use firstcome_rig::Process;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use super::{
    data_platform,
    processes::{api_with, environment, free_port, log},
};
use firstcome_tests::{Answer, Options, Shop, eventually, shop};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT_ID: &str = "00f067aa0ba902b7";
const STATE: &str = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7";
const REQUEST_ID: &str = "checkout/13~a";

/// A span, with the service that it comes from.
type Exported = (String, Span);

/// Takes what the programs export.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Exported>>>);

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let take = collector.clone();
        let take = async move |headers: HeaderMap, body: Bytes| take.take(&headers, &body);
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async { axum::serve(listener, router).await });
        (collector, url)
    }

    fn take(&self, headers: &HeaderMap, body: &[u8]) {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["x-tenant"], "shop");
        let mut spans = self.0.lock().unwrap();
        for of_resource in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
            let service = text(&of_resource.resource.unwrap().attributes, "service.name");
            for of_scope in of_resource.scope_spans {
                spans.extend(of_scope.spans.into_iter().map(|span| (service.clone(), span)));
            }
        }
    }

    /// The spans of a service with this name, oldest first.
    fn spans(&self, service: &str, name: &str) -> Vec<Span> {
        let spans = self.0.lock().unwrap();
        let ours = spans.iter().filter(|(of, span)| of == service && span.name == name);
        ours.map(|(_, span)| span.clone()).collect()
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{key}: {other:?} in {attributes:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts a program that exports to this collector.
fn start(shop: &Shop, name: &str, command: &str, port: u16, collector: &str) -> Process {
    let mut variables = environment(shop, port);
    variables.extend([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.to_owned()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop".to_owned()),
        // Spans do not depend on it.
        ("RUST_LOG", "error".to_owned()),
    ]);
    if name == "firstcome-worker" {
        variables.push(("OTEL_SERVICE_NAME", "settling".to_owned()));
        let url = shop.options.data_platform_url.clone();
        variables.extend(url.map(|url| ("DATA_PLATFORM_URL", url)));
    }
    Process::start(name, &[command], variables, &log(shop)).unwrap()
}

async fn ready(shop: &Shop, port: u16) {
    let url = format!("http://127.0.0.1:{port}/health/ready");
    eventually("the API process is ready", async || {
        let answer = shop.anonymous(Method::GET, &url).send().await;
        answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_through_the_shop_to_the_collector() {
    let (collector, url) = Collector::start().await;
    let (platform, options, stop_platform) = data_platform::mock().await;
    shop(Options { worker: false, partitions: 1, ..options }, async |shop| {
        shop.sql("ALTER TABLE user_coupons ADD CONSTRAINT no_13 CHECK (user_id <> 13)").await;
        let coupon = shop.campaign(10).await;
        let port = free_port();
        let api = start(shop, "firstcome-api", "serve", port, &url);
        let worker = start(shop, "firstcome-worker", "all", 0, &url);
        ready(shop, port).await;

        let trace = format!("00-{TRACE_ID}-{PARENT_ID}-01");
        let request = |user, path: &str| {
            let request = shop.post(user, &format!("http://127.0.0.1:{port}{path}"));
            let request = request.header("traceparent", &trace).header("tracestate", STATE);
            request.header("X-Request-Id", REQUEST_ID)
        };
        let order = json!({"items": [{"productId": 1, "quantity": 1}]});
        let ordered = shop.submit(7, request(7, "/api/orders").json(&order)).await;
        assert_eq!(shop.settled(7, ordered.job_id()).await["status"], "succeeded");
        let poison = shop.submit(13, request(13, &format!("/api/coupons/{coupon}/issue"))).await;
        assert_eq!(shop.settled(13, poison.job_id()).await["status"], "failed");
        eventually("the order is delivered", async || platform.received().len() == 1).await;
        // The exporter would wait longer: it is the end that makes it send.
        for program in [worker, api] {
            assert!(program.stop().await.unwrap().success());
        }

        let [accepted] = &collector.spans("firstcome-api", "POST /api/orders")[..] else {
            panic!("not one span of the order: {:?}", collector.0);
        };
        assert_eq!(
            (hex(&accepted.trace_id), hex(&accepted.parent_span_id)),
            (TRACE_ID.into(), PARENT_ID.into())
        );
        assert_eq!(accepted.kind(), SpanKind::Server);
        assert_eq!(text(&accepted.attributes, "http.response.status_code"), "202");
        assert_eq!(text(&accepted.attributes, "job.id"), ordered.job_id());

        let batches = collector.spans("settling", "settle");
        let counts = |span: &Span| {
            ["succeeded", "rejected", "failed"].map(|status| text(&span.attributes, status))
        };
        for (family, outcomes) in
            [(Family::Product, ["1", "0", "0"]), (Family::Coupon, ["0", "0", "1"])]
        {
            let (name, naming) = (LineName::Partition(0), Naming::Family);
            let queue = Line { family, generation: 1, name, naming }.queue(&shop.namespace);
            let batch = batches.iter().find(|span| text(&span.attributes, "queue") == queue);
            let batch = batch.unwrap();
            assert_eq!(counts(batch), outcomes);
            assert_eq!(text(&batch.attributes, "jobs"), "1");
            // It is no part of the client's trace, but tells of it.
            assert_ne!(hex(&batch.trace_id), TRACE_ID);
            let links: Vec<_> = batch.links.iter().map(|link| hex(&link.trace_id)).collect();
            assert_eq!(links, [TRACE_ID]);
        }

        // What a client sees of its order, from its own span to the platform.
        let of_client = |service: &str, name: &str| {
            let spans = collector.spans(service, name);
            let ours = spans.into_iter().filter(|span| hex(&span.trace_id) == TRACE_ID);
            let ours = ours.filter(|span| text(&span.attributes, "job.id") == ordered.job_id());
            ours.collect::<Vec<_>>()
        };
        let published = of_client("firstcome-api", "publish");
        assert_eq!(published.len(), 1, "{:?}", collector.0);
        assert_eq!(published[0].parent_span_id, accepted.span_id);
        assert_eq!(text(&published[0].attributes, "messaging.system"), "rabbitmq");
        let processed = of_client("settling", "process");
        assert_eq!(processed.len(), 1, "{:?}", collector.0);
        assert_eq!(hex(&processed[0].parent_span_id), PARENT_ID);
        assert_eq!(text(&processed[0].attributes, "outcome"), "succeeded");
        let batch = batches.iter().find(|batch| batch.span_id == processed[0].links[0].span_id);
        assert!(batch.is_some(), "it points to its batch: {processed:?}");

        let [relayed] = &collector.spans("settling", "relay")[..] else {
            panic!("not one span of the relay: {:?}", collector.0);
        };
        assert_eq!(text(&relayed.attributes, "events"), "1");
        assert_eq!((hex(&relayed.trace_id), relayed.kind()), (TRACE_ID.into(), SpanKind::Producer));

        let [delivery] = &collector.spans("settling", "deliver")[..] else {
            panic!("not one span of the delivery: {:?}", collector.0);
        };
        assert_eq!(text(&delivery.attributes, "events"), "1");
        assert_eq!(text(&delivery.attributes, "outcome"), "accepted");
        assert_eq!(hex(&delivery.trace_id), TRACE_ID);
        let sent = platform.headers();
        let span = hex(&delivery.span_id);
        assert_eq!(sent["traceparent"], format!("00-{TRACE_ID}-{span}-01"));
        assert_eq!(sent["tracestate"], STATE);
        let event = platform.events().pop().unwrap().trace.unwrap();
        assert_eq!(event.parent.to_string(), trace, "for whoever reads the events");
        assert_eq!(event.state.unwrap().as_str(), STATE);

        let log = std::fs::read_to_string(log(shop)).unwrap();
        let letter = log.lines().find(|line| line.contains("job cannot be processed")).unwrap();
        assert!(letter.contains(&format!("trace_id=\"{TRACE_ID}\"")), "{letter}");
        assert!(letter.contains(poison.job_id()), "{letter}");
        assert!(letter.contains(&format!("request_id={REQUEST_ID}")), "{letter}");
        let stored: String = sqlx::query_scalar("SELECT trace FROM dead_letters")
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!(stored, trace);
    })
    .await;
    stop_platform.cancel();
}

/// One that takes connections and says nothing is worse than one that refuses them.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_disturbs_nobody() {
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", hanging.local_addr().unwrap());
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let port = free_port();
        let api = start(shop, "firstcome-api", "serve", port, &url);
        let worker = start(shop, "firstcome-worker", "all", 0, &url);
        ready(shop, port).await;
        let live = format!("http://127.0.0.1:{port}/health/live");
        // More spans than the queue takes.
        for _ in 0..5_000 {
            let answer = shop.anonymous(Method::GET, &live).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
        }
        let coupon = shop.campaign(10).await;
        let job = shop.accepted_issue(7, coupon).await;
        assert_eq!(shop.settled(7, &job).await["status"], "succeeded");
        hanging.accept().await.unwrap();
        for program in [worker, api] {
            let stopping = Instant::now();
            assert!(program.stop().await.unwrap().success());
            assert!(stopping.elapsed() < Duration::from_secs(10), "{:?}", stopping.elapsed());
        }
    })
    .await;
}

/// Without a collector, too: what was told of a request is found by whatever its caller knows of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_names_request_and_trace() {
    shop(Options { worker: false, ..Options::default() }, async |shop| {
        let port = free_port();
        let settings =
            [("LOG_FORMAT", "json".to_owned()), ("DATABASE_URL", shop.database.proxied.clone())];
        let api = api_with(shop, port, &settings).await;
        shop.database.proxy.cut();
        let cart = shop.get(7, &format!("http://127.0.0.1:{port}/api/users/cart"));
        let cart = cart.header("traceparent", format!("00-{TRACE_ID}-{PARENT_ID}-01"));
        let told = Answer::of(cart.header("x-request-id", REQUEST_ID)).await;
        assert_eq!(told.status, 503, "{told:?}");
        shop.database.proxy.restore();
        api.stop().await.unwrap();

        let written = std::fs::read_to_string(log(shop)).unwrap();
        let lines: Vec<serde_json::Value> =
            written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let line = lines.iter().find(|line| line["request_id"] == REQUEST_ID);
        let line = line.unwrap_or_else(|| panic!("{written}"));
        assert_eq!(line["trace_id"], TRACE_ID);
    })
    .await;
}
