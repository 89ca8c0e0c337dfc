//! A door of their own for operators.

use std::net::SocketAddr;

use firstcome_api::config::ServeArgs;
use firstcome_tests::{Answer, Options, eventually, shop};
use reqwest::Method;
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn operators_may_have_a_door_of_their_own() {
    shop(Options::default(), async |shop| {
        let own_door = |config: &mut ServeArgs| {
            config.api_admin_addr = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        };
        let api = shop.start_api(own_door).await;
        let operators = api.operators_url.clone().unwrap();
        let of_operators = [
            "/api/admin/queues",
            "/api/admin/products",
            "/ops/",
            "/ops/main.js",
            "/metrics",
            "/docs/",
            "/openapi.json",
        ];
        for (path, at_public, at_operators) in
            of_operators.map(|path| (path, 404, 200)).into_iter().chain([
                ("/health/live", 200, 200),
                ("/health/ready", 200, 200),
                ("/api/products", 200, 404),
            ])
        {
            for (door, status) in [(&api.url, at_public), (&operators, at_operators)] {
                let answer =
                    shop.admin(Method::GET, &format!("{door}{path}")).send().await.unwrap();
                assert_eq!(answer.status(), status, "{door}{path}");
            }
        }

        api.stop().await;

        // Whoever crowds the public door keeps no operator out.
        let crowded = shop
            .start_unready_api(|config| {
                own_door(config);
                config.max_connections = 1;
            })
            .await;
        let operators = crowded.operators_url.clone().unwrap();
        let _crowd =
            TcpStream::connect(crowded.url.strip_prefix("http://").unwrap()).await.unwrap();
        eventually("there is no room for others", async || {
            let live = format!("{}/health/live", crowded.url);
            reqwest::get(live).await.is_ok_and(|answer| answer.status() == 503)
        })
        .await;
        let queues = format!("{operators}/api/admin/queues");
        eventually("operators come in", async || {
            Answer::of(shop.admin(Method::GET, &queues)).await.status == 200
        })
        .await;
        crowded.stop().await;

        // Without one, everything is at the one door.
        for path in of_operators {
            assert_eq!(shop.admin(Method::GET, path).send().await.unwrap().status(), 200, "{path}");
        }
    })
    .await;
}
