//! Who has no valid token is counted by address: by that of who is connected, unless that is a proxy of ours.

use std::sync::atomic::{AtomicU16, Ordering};

use firstcome_api::config::ServeArgs;
use firstcome_tests::{Answer, Api, Options, Shop, eventually, shop, token};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Below what a loop of requests sends in a second on any machine: it admits one more every second.
const RATE: u32 = 1;
const READ: &str = "/api/products/1";
const NEEDS_A_TOKEN: &str = "/api/users/cart";

/// An API behind proxies of ours: this machine and a network.
async fn behind_proxies(shop: &Shop) -> Api {
    let proxied = |config: &mut ServeArgs| {
        config.address_rate_limit = Some(RATE);
        config.trusted_proxies =
            ["127.0.0.1", "10.0.0.0/8"].map(|proxy| proxy.parse().unwrap()).into();
    };
    shop.start_api(proxied).await
}

/// An API, as it is asked without a token.
struct Door<'a> {
    shop: &'a Shop,
    api: &'a Api,
    asked: AtomicU16,
}

impl<'a> Door<'a> {
    const fn of(shop: &'a Shop, api: &'a Api) -> Self {
        Self { shop, api, asked: AtomicU16::new(0) }
    }

    fn ask(&self, method: Method, path: &str, forwarded: &[&str]) -> RequestBuilder {
        let request = self.shop.anonymous(method, &format!("{}{path}", self.api.url));
        // No two requests with the same address in the place of these.
        let [high, low] = self.asked.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let new = |value: &str| {
            let value = value.replace("{new}", &format!("{high}.{low}"));
            value.replace("{new6}", &format!("{high:x}{low:02x}"))
        };
        forwarded
            .iter()
            .fold(request, |request, value| request.header("X-Forwarded-For", new(value)))
    }

    async fn read(&self, forwarded: &[&str]) -> Answer {
        Answer::of(self.ask(Method::GET, READ, forwarded)).await
    }

    /// Asks until it is too much, which the answer says.
    async fn spend(&self, forwarded: &[&str]) {
        eventually("it is too much", async || {
            let answer = self.read(forwarded).await;
            if answer.status == 200 {
                return false;
            }
            answer.is_problem(429, "rate-limited");
            assert_eq!(answer.headers["retry-after"], "1");
            true
        })
        .await;
    }

    /// What the one has spent the other, which was never there, has not any more.
    async fn are_one(&self, one: &[&str], other: &[&str]) {
        eventually(&format!("{one:?} and {other:?} are one"), async || {
            self.spend(one).await;
            self.read(other).await.status == 429
        })
        .await;
    }

    /// What the one has spent the other, which was never there, has. One among thousands shares it by chance.
    async fn are_two(&self, one: &[&str], other: &[&str]) {
        self.spend(one).await;
        let answers = [self.read(other).await, self.read(other).await, self.read(other).await];
        assert!(
            answers.iter().any(|answer| answer.status == 200),
            "{one:?} {other:?}: {answers:?}"
        );
    }
}

/// Of somebody, and not good any more.
fn expired() -> String {
    let claims = json!({"sub": "7", "exp": 1_700_000_000});
    let key = EncodingKey::from_secret(b"firstcome-development-only");
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_valid_token_is_held_back_by_address() {
    shop(Options::default(), async |shop| {
        let api = shop.start_api(|config| config.address_rate_limit = Some(RATE)).await;
        let door = Door::of(shop, &api);
        // Whoever is no proxy of ours says nothing by naming others.
        for forwarded in ["198.51.{new}", "127.0.0.1, 198.51.{new}"] {
            door.are_one(&[], &[forwarded]).await;
        }
        for token in [
            None,
            Some("nonsense".to_owned()),
            Some(format!("{}x", token(7, false))),
            Some(expired()),
        ] {
            eventually("it is too much", async || {
                let request = door.ask(Method::GET, NEEDS_A_TOKEN, &[]);
                let request = token.iter().fold(request, RequestBuilder::bearer_auth);
                let answer = Answer::of(request).await;
                if answer.status == 401 {
                    return false;
                }
                answer.is_problem(429, "rate-limited");
                true
            })
            .await;
        }
        // Whose token is good is not counted, at an address where nothing else is admitted.
        for _ in 0..20 {
            let cart = door.ask(Method::GET, NEEDS_A_TOKEN, &[]).bearer_auth(token(7, false));
            assert_eq!(Answer::of(cart).await.status, 200);
        }
        // Nor who is one of the house.
        for _ in 0..20 {
            assert_eq!(Answer::of(door.ask(Method::GET, "/health/live", &[])).await.status, 200);
        }
        eventually("it is served again", async || door.read(&[]).await.status == 200).await;
        api.stop().await;

        // Without a proxy that is named, everybody may come with the address of one.
        for _ in 0..50 {
            let read = shop.anonymous(Method::GET, READ);
            assert_eq!(Answer::of(read).await.status, 200);
            let stranger = shop.anonymous(Method::GET, NEEDS_A_TOKEN);
            Answer::of(stranger).await.is_problem(401, "unauthenticated");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_what_our_proxies_say() {
    shop(Options::default(), async |shop| {
        let api = behind_proxies(shop).await;
        let door = Door::of(shop, &api);
        door.are_two(&["198.51.100.1"], &["198.51.{new}"]).await;
        // Through two of ours, whatever the client has written before.
        let through_two = ["203.0.113.1, 198.51.100.1, 10.1.1.1"];
        door.are_one(&through_two, &["203.0.{new}, 198.51.100.1, 10.2.2.2"]).await;
        door.are_one(&through_two, &["203.0.{new}", "198.51.100.1", "10.1.1.1"]).await;
        door.are_one(&through_two, &["203.0.{new},198.51.100.1:4711"]).await;
        door.are_two(&through_two, &["198.51.100.1, 198.51.{new}, 10.1.1.1"]).await;
        // Through one that is not: it is whom we know.
        let through_another = ["198.51.100.1, 192.0.2.1, 10.1.1.1"];
        door.are_one(&through_another, &["198.51.{new}, 192.0.2.1, 10.1.1.1"]).await;
        door.are_two(&through_another, &["198.51.100.1, 198.52.{new}"]).await;

        // Who has one address of IPv6 has a network of them.
        door.are_one(&["2001:db8:1:2::1"], &["2001:db8:1:2::{new6}"]).await;
        door.are_one(&["2001:db8:1:2::1"], &["[2001:db8:1:2:{new6}::3]:4711"]).await;
        door.are_two(&["2001:db8:1:2::1"], &["2001:db8:2:{new6}::1"]).await;
        // The same address, written as one of IPv6.
        door.are_one(&["198.51.100.1"], &["198.51.{new}, ::ffff:198.51.100.1"]).await;

        // Where nobody but proxies of ours is named, all the world may come so.
        for nobody in ["10.4.4.4", "nonsense", "198.51.{new}, unknown", "198.51.{new},"] {
            for _ in 0..20 {
                let answer = door.read(&[&format!("{nobody},10.3.3.3")]).await;
                assert_eq!(answer.status, 200, "{nobody}: {answer:?}");
            }
        }
        api.stop().await;
    })
    .await;
}

/// Of an address that is not to be admitted the body is not waited for, and the answer reaches who is still sending.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_is_still_sending_reads_why_it_was_refused() {
    shop(Options::default(), async |shop| {
        let api = behind_proxies(shop).await;
        let door = Door::of(shop, &api);
        let address = api.url.strip_prefix("http://").unwrap();
        eventually("both answers came whole", async || {
            let mut seen = [false; 2];
            for _ in 0..10 {
                let mut client = TcpStream::connect(address).await.unwrap();
                let head = "POST /api/orders HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.1\r\n\
                            Content-Type: application/json\r\nContent-Length: 900000\r\n\r\n";
                client.write_all(head.as_bytes()).await.unwrap();
                for _ in 0..90 {
                    client.write_all(&[b' '; 10_000]).await.unwrap();
                    tokio::task::yield_now().await;
                }
                let mut answer = String::new();
                client.read_to_string(&mut answer).await.unwrap();
                let status = answer.get(9..12).unwrap();
                let at = ["401", "429"].iter().position(|known| *known == status);
                seen[at.unwrap_or_else(|| panic!("{answer}"))] = true;
            }
            seen == [true; 2]
        })
        .await;
        door.are_two(&["198.51.100.1"], &["198.51.{new}"]).await;
        api.stop().await;
    })
    .await;
}
