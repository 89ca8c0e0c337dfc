//! The operators' page: its files, what browsers are told about them, and whose pages may change anything. What it shows
//! is tested in a browser by `scripts/ops.test`.

use std::collections::BTreeSet;

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use firstcome_tests::{Answer, Options, Shop, shop};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files that a file of the page names.
fn named(text: &str) -> impl Iterator<Item = String> {
    let words = text.split('"').map(|word| word.trim_start_matches("./"));
    let is_file = |word: &&str| {
        [".js", ".css"].iter().any(|ending| word.ends_with(ending)) && !word.contains(' ')
    };
    words.filter(is_file).map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_page_is_whole_and_lets_nothing_else_in() {
    shop(Options::default(), async |shop| {
        let mut waiting = vec![String::new()];
        let mut seen = BTreeSet::new();
        while let Some(name) = waiting.pop() {
            let path = format!("/ops/{name}");
            let answer = shop.anonymous(Method::GET, &path).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
            let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            let content_type = match name.rsplit('.').next().unwrap() {
                "js" => "text/javascript; charset=utf-8",
                "css" => "text/css; charset=utf-8",
                _ => "text/html; charset=utf-8",
            };
            assert_eq!(header("content-type"), content_type, "{path}");
            assert_eq!(header("content-security-policy"), POLICY, "{path}");
            assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
            assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
            assert_eq!(header("cache-control"), "no-cache", "{path}");

            let tag = header("etag");
            assert!(tag.starts_with('"'), "{path}: a strong one: {tag}");
            let again = shop.anonymous(Method::GET, &path).header("If-None-Match", tag);
            assert_eq!(again.send().await.unwrap().status(), 304, "{path}");

            let text = answer.text().await.unwrap();
            if name.is_empty() {
                assert!(text.split("<script").skip(1).all(|script| script.contains("src=")));
                for inline in ["<style", " style=", " onclick=", "javascript:"] {
                    assert!(!text.contains(inline), "{inline}");
                }
            }
            if !name.starts_with("uplot/") {
                for raw in ["innerHTML", "insertAdjacentHTML", "localStorage", "document.cookie"] {
                    assert!(!text.contains(raw), "{path}: {raw}");
                }
                waiting.extend(named(&text).filter(|name| seen.insert(name.clone())));
            }
        }
        assert!(seen.len() > 10, "{seen:?}");

        // The client follows the redirect.
        let page = shop.anonymous(Method::GET, "/ops").send().await.unwrap();
        assert_eq!((page.status().as_u16(), page.url().path()), (200, "/ops/"));
        for nothing in ["/ops/nothing.js", "/ops/uplot/", "/ops/%2e%2e/mod.rs"] {
            let answer = Answer::of(shop.anonymous(Method::GET, nothing)).await;
            answer.is_problem(404, "route-not-found");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_told_what_they_may_do() {
    shop(Options::default(), async |shop| {
        let path = "/api/admin/caller";
        let admin = Answer::of(shop.admin(Method::GET, path)).await;
        assert_eq!(admin.body, json!({"userId": 1, "role": "admin"}));
        let auditor = Answer::of(shop.audit(path)).await;
        assert_eq!(auditor.body, json!({"userId": 2, "role": "auditor"}));
        Answer::of(shop.get(7, path)).await.is_problem(403, "forbidden");
    })
    .await;
}

/// A change as a browser sends it for a page of this site, and, if it tells, this origin.
fn change(shop: &Shop, api: &str, site: &str, origin: Option<&str>) -> RequestBuilder {
    let request = shop.admin(Method::DELETE, &format!("{api}/api/admin/pins/coupon/999"));
    let request = request.header("Sec-Fetch-Site", site);
    origin.map(|origin| request.try_clone().unwrap().header("Origin", origin)).unwrap_or(request)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_changes_nothing_of_the_operators() {
    shop(Options::default(), async |shop| {
        let (ours, other) = ("https://backoffice.example", "https://evil.example");
        let api = &shop.api.url;
        for own in ["same-origin", "none"] {
            let answer = Answer::of(change(shop, api, own, None)).await;
            answer.is_problem(404, "pin-not-found");
        }
        for foreign in ["cross-site", "same-site", "whatever"] {
            for origin in [None, Some(ours)] {
                let answer = Answer::of(change(shop, api, foreign, origin)).await;
                answer.is_problem(403, "forbidden");
            }
        }
        // It may look, and a customer's requests are not the operators'.
        let reading = shop.admin(Method::GET, "/api/admin/pins");
        let reading = reading.header("Sec-Fetch-Site", "cross-site");
        assert_eq!(Answer::of(reading).await.status, 200);
        let cart = shop
            .anonymous(Method::DELETE, "/api/users/cart")
            .bearer_auth(firstcome_tests::token(7, false));
        assert_eq!(Answer::of(cart.header("Sec-Fetch-Site", "cross-site")).await.status, 204);

        // One whose origin may ask changes things, too.
        for (allowed, expected) in [(ours, [404, 403]), ("*", [404, 404])] {
            let api =
                shop.start_api(|config| config.cors_origins = vec![allowed.parse().unwrap()]).await;
            for (origin, status) in [ours, other].into_iter().zip(expected) {
                let answer = Answer::of(change(shop, &api.url, "cross-site", Some(origin))).await;
                assert_eq!(answer.status, status, "{allowed}: {origin}");
            }
            api.stop().await;
        }
    })
    .await;
}
