//! The data platform gets every completed order, whatever it does to us.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use firstcome_broker::{connect, depth::Gauge, topology};
use firstcome_contract::event::{Data, Event};
use firstcome_workers::{
    commands::mock_data_platform::{MockDataPlatform, Mode},
    events::webhook::Credentials,
};
use lapin::options::QueuePurgeOptions;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use reqwest::StatusCode;
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::poison::publish_to;
use firstcome_tests::{Options, Shop, eventually, shop};

/// A mock on a port of its own.
pub(super) async fn mock() -> (MockDataPlatform, Options, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let (mock, stop) = (MockDataPlatform::default(), CancellationToken::new());
    tokio::spawn(mock.clone().serve(listener, stop.clone()));
    (mock, Options { users: 200, data_platform_url: Some(url), ..Options::default() }, stop)
}

pub(super) async fn sell(shop: &Shop, users: std::ops::RangeInclusive<i64>) {
    let orders = users.map(async |user| {
        let order = json!({"items": [{"productId": user % 5 + 1, "quantity": 1}]});
        let answer = shop.order(user, &order).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    });
    futures_util::future::join_all(orders).await;
}

/// Every completed order has arrived, except those of `without`.
async fn all_arrived(shop: &Shop, mock: &MockDataPlatform, without: i64) {
    shop.settle_and_audit().await;
    let expected: Vec<Uuid> = sqlx::query_scalar("SELECT job_id FROM orders WHERE user_id <> $1")
        .bind(without)
        .fetch_all(&shop.pool)
        .await
        .unwrap();
    let expected: HashSet<Uuid> = expected.into_iter().collect();
    assert!(!expected.is_empty());
    eventually("every completed order has arrived", async || {
        mock.received().keys().copied().collect::<HashSet<_>>() == expected
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_orders_arrive() {
    let (mock, options, _stop) = mock().await;
    shop(options, async |shop| {
        sell(shop, 1..=200).await;
        all_arrived(shop, &mock, 0).await;
        assert!(mock.received().values().all(|times| *times == 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_in_trouble_loses_no_event_and_stops_nobody() {
    let (mock, options, _stop) = mock().await;
    shop(options, async |shop| {
        let troubles = [Mode::Error, Mode::Overloaded, Mode::Hang, Mode::Slow];
        for (trouble, first) in troubles.into_iter().zip([1, 51, 101, 151]) {
            mock.set_mode(trouble);
            sell(shop, first..=first + 49).await;
            // The shop goes on selling.
            shop.settle_and_audit().await;
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        mock.set_mode(Mode::Ok);
        all_arrived(shop, &mock, 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_was_away_for_the_whole_sale_gets_everything_afterwards() {
    // A port that nobody listens on, until later.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = Some(format!("http://{address}/events"));
    shop(Options { users: 100, data_platform_url: url, ..Options::default() }, async |shop| {
        sell(shop, 1..=100).await;
        shop.settle_and_audit().await;
        let mock = MockDataPlatform::default();
        let listener = TcpListener::bind(address).await.unwrap();
        tokio::spawn(mock.clone().serve(listener, CancellationToken::new()));
        all_arrived(shop, &mock, 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_is_set_aside_alone() {
    let (mock, options, _stop) = mock().await;
    shop(options, async |shop| {
        mock.refuse_user(42);
        sell(shop, 1..=100).await;
        all_arrived(shop, &mock, 42).await;
        let mut letter: Option<(String, String, Vec<u8>)> = None;
        eventually("it is set aside", async || {
            let letters = sqlx::query_as("SELECT queue, reason, payload FROM dead_letters");
            letter = letters.fetch_optional(&shop.pool).await.unwrap();
            letter.is_some()
        })
        .await;
        let letter = letter.unwrap();
        assert!(letter.0.ends_with("data-platform") && letter.1.contains("400"), "{letter:?}");
        let event: serde_json::Value = serde_json::from_slice(&letter.2).unwrap();
        assert_eq!(event["data"]["userId"], 42);
    })
    .await;
}

/// It answers from elsewhere, whatever is sent there, and a POST may become a GET on the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_points_elsewhere_loses_no_event() {
    let (mock, options, _stop) = mock().await;
    shop(options, async |shop| {
        for (number, status) in (0..).zip([301, 302, 303, 307, 308]) {
            let (before, _) = mock.requests();
            mock.set_mode(Mode::Elsewhere(StatusCode::from_u16(status).unwrap()));
            sell(shop, 20 * number + 1..=20 * number + 20).await;
            eventually("it is asked", async || mock.requests().0 > before).await;
        }
        assert_eq!((mock.received().len(), mock.requests().1), (0, 0));
        mock.set_mode(Mode::Ok);
        all_arrived(shop, &mock, 0).await;
        let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!((letters, mock.requests().1), (0, 0));
    })
    .await;
}

/// Its answer is lost, and the events are dealt anew: it answers a key that it knows without a look.
#[tokio::test(flavor = "multi_thread")]
async fn no_key_stands_for_other_events_than_those_that_it_was_first_sent_with() {
    let (mock, options, _stop) = mock().await;
    shop(Options { worker: false, ..options }, async |shop| {
        let event = |number: u128| {
            let order = json!({
                "orderId": 1, "userId": 1, "lines": [], "itemsAmount": 0, "discount": 0, "paid": 0, "couponId": null,
            });
            let data = Data::OrderCompleted(serde_json::from_value(order).unwrap());
            Event::new(Uuid::from_u128(number), chrono::Utc::now(), data)
        };
        let [first, second, third] = [1, 2, 3].map(event);
        let parcel = |events: [&Event; 2]| {
            let lines = events.map(|event| serde_json::to_vec(event).unwrap());
            lines.join(&b'\n')
        };
        let queue = topology::data_platform(&shop.namespace);
        mock.set_mode(Mode::Mute);
        publish_to(shop, &queue, parcel([&first, &second])).await;
        shop.start_worker();
        eventually("it has taken them", async || mock.received().len() == 2).await;
        shop.stop_workers().await;

        let connection = Arc::new(connect::connect(&shop.broker.as_broker(), "test").await.unwrap());
        let mut gauge = Gauge::open(Arc::clone(&connection)).await.unwrap();
        eventually("the broker has them again", async || {
            gauge.depth(&queue).await.unwrap().unwrap().ready == 1
        })
        .await;
        let channel = connection.create_channel().await.unwrap();
        channel.queue_purge(queue.as_str().into(), QueuePurgeOptions::default()).await.unwrap();
        connect::close(&connection).await;
        publish_to(shop, &queue, parcel([&first, &third])).await;
        mock.set_mode(Mode::Ok);
        shop.start_worker();
        eventually("the third has arrived", async || mock.received().contains_key(&third.id)).await;
    })
    .await;
}

/// As when the broker's `consumer_timeout` is over.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_were_taken_back_while_the_platform_was_away_are_sent_once() {
    let (mock, options, _stop) = mock().await;
    shop(options, async |shop| {
        mock.set_mode(Mode::Error);
        sell(shop, 1..=100).await;
        shop.settle_and_audit().await;
        eventually("the platform is given a rest", async || mock.requests().0 >= 6).await;
        let connection =
            Arc::new(connect::connect(&shop.broker.as_broker(), "test").await.unwrap());
        let mut gauge = Gauge::open(Arc::clone(&connection)).await.unwrap();
        let queue = topology::data_platform(&shop.namespace);
        let mut consumers = async || gauge.depth(&queue).await.unwrap().unwrap().consumers;
        shop.broker.proxy.cut();
        eventually("nobody consumes", async || consumers().await == 0).await;
        shop.broker.proxy.restore();
        eventually("the events are fetched again", async || consumers().await == 1).await;
        mock.set_mode(Mode::Ok);
        all_arrived(shop, &mock, 0).await;
        assert!(mock.received().values().all(|times| *times == 1), "{:?}", mock.received());
        connect::close(&connection).await;
    })
    .await;
}

/// A receiver that speaks TLS, in front of a mock that does not.
struct TlsReceiver {
    url: String,
    /// The certificate with which it presents itself.
    identity: Arc<Mutex<TlsAcceptor>>,
    /// How many clients went away without trusting it.
    distrusted: Arc<AtomicU32>,
}

impl TlsReceiver {
    async fn start(mock: SocketAddr, identity: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            url: format!("https://localhost:{}/events", listener.local_addr().unwrap().port()),
            identity: Arc::new(Mutex::new(identity)),
            distrusted: Arc::default(),
        };
        let (identity, distrusted) =
            (Arc::clone(&receiver.identity), Arc::clone(&receiver.distrusted));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let accepting = identity.lock().unwrap().accept(stream);
                let distrusted = Arc::clone(&distrusted);
                tokio::spawn(async move {
                    let Ok(mut client) = accepting.await else {
                        distrusted.fetch_add(1, Ordering::Relaxed);
                        return;
                    };
                    let mut mock = TcpStream::connect(mock).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut mock).await;
                });
            }
        });
        receiver
    }
}

/// An authority of its own, as PEM, and a server that it vouches for.
fn authority(name: &str) -> (String, TlsAcceptor) {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let authority = parameters.self_signed(&key).unwrap();
    let issuer = Issuer::new(parameters, key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let server = server.signed_by(&server_key, &issuer).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], server_key.into())
        .unwrap();
    (authority.pem(), TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_behind_tls_gets_events_only_while_it_is_trusted() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (trusted, identity) = authority("trusted");
    let (_, stranger) = authority("a stranger");
    let ca_file = format!("{}/authority-{}.pem", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    std::fs::write(&ca_file, trusted).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mock = MockDataPlatform::default();
    tokio::spawn(mock.clone().serve(listener, CancellationToken::new()));
    let receiver = TlsReceiver::start(address, identity.clone()).await;
    let options = Options {
        users: 200,
        data_platform_url: Some(receiver.url.clone()),
        data_platform_ca_file: Some(ca_file.clone().into()),
        ..Options::default()
    };
    shop(options, async |shop| {
        sell(shop, 1..=100).await;
        all_arrived(shop, &mock, 0).await;
        let before = mock.received().len();

        // Somebody else at the same address: the circuit opens, the events wait. Who is connected
        // stays connected, so the worker starts anew.
        *receiver.identity.lock().unwrap() = stranger;
        shop.stop_workers().await;
        shop.start_worker();
        sell(shop, 101..=200).await;
        shop.settle_and_audit().await;
        eventually("the stranger was distrusted again and again", async || {
            receiver.distrusted.load(Ordering::Relaxed) >= 6
        })
        .await;
        assert_eq!(mock.received().len(), before);
        let letters: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letters")
            .fetch_one(&shop.pool)
            .await
            .unwrap();
        assert_eq!(letters, 0);

        *receiver.identity.lock().unwrap() = identity;
        all_arrived(shop, &mock, 0).await;
    })
    .await;
    std::fs::remove_file(ca_file).unwrap();
}

/// What is not signed is refused for as long as that lasts, and no event is lost over it; while a secret is
/// rotated the sender has both.
#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_signed_and_have_a_token() {
    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let credentials = |secret, token| Credentials::new(Some(secret), Some(token)).unwrap();
    let (mock, options, _stop) = mock().await;
    let options = Options {
        data_platform_signing_secret: Some(OLD.to_owned()),
        data_platform_token: Some("a-token".to_owned()),
        ..options
    };
    mock.set_credentials(credentials(NEW, "a-token"));
    shop(options, async |shop| {
        sell(shop, 1..=20).await;
        eventually("what the old secret signed is refused", async || mock.strangers() > 0).await;
        assert!(mock.received().is_empty());

        shop.stop_workers().await;
        shop.start_worker_with(|args| {
            args.data_platform_signing_secret = Some(format!("{OLD} {NEW}"));
        });
        all_arrived(shop, &mock, 0).await;

        let before = mock.strangers();
        mock.set_credentials(credentials(OLD, "another-token"));
        sell(shop, 21..=40).await;
        eventually("the token is refused", async || mock.strangers() > before).await;
        mock.set_credentials(credentials(OLD, "a-token"));
        all_arrived(shop, &mock, 0).await;
        assert!(mock.received().values().all(|times| *times == 1));
    })
    .await;
}
