//! The OpenAPI document and its page; and whether the API takes what the document says.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use firstcome_tests::{
    Answer, Options, Shop,
    contract::{DOCUMENT, resolve},
    shop, token,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_document_and_its_page_are_public() {
    shop(Options::default(), async |shop| {
        let get = async |path: &str| {
            let response = shop.anonymous(Method::GET, path).send().await.unwrap();
            let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
            (response.status().as_u16(), content_type, response.text().await.unwrap())
        };
        let (status, content_type, document) = get("/openapi.json").await;
        assert_eq!((status, content_type.as_str()), (200, "application/json"));
        let document: Value = serde_json::from_str(&document).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));

        // The client follows the redirect.
        for path in ["/docs", "/docs/"] {
            let (status, content_type, page) = get(path).await;
            assert_eq!((status, content_type.as_str()), (200, "text/html"));
            let assets: Vec<&str> = page
                .split(['"'])
                .filter(|word| word.ends_with(".js") || word.ends_with(".css"))
                .collect();
            assert!(assets.len() >= 4, "{page}");
            for asset in assets {
                assert!(!asset.contains("//"), "{asset} is somewhere else");
                let (status, content_type, text) =
                    get(&format!("/docs/{}", asset.trim_start_matches("./"))).await;
                assert_eq!(status, 200, "{asset}");
                let expected = if asset.ends_with("css") { "text/css" } else { "text/javascript" };
                assert_eq!(content_type, expected, "{asset}");
                assert!(!text.is_empty());
            }
        }
        let page = shop.anonymous(Method::GET, "/docs/").send().await.unwrap();
        let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(page.headers()["x-content-type-options"], "nosniff");
        // The policy lets no script run that stands in the page itself.
        let page = page.text().await.unwrap();
        assert!(page.split("<script").skip(1).all(|script| script.contains("src=")), "{page}");
        let (_, _, start) = get("/docs/swagger-initializer.js").await;
        assert!(start.contains("\"/openapi.json\""), "{start}");
        for nothing in ["/docs/nothing.js", "/docs/../Cargo.toml", "/docs/%2e%2e/Cargo.toml"] {
            Answer::of(shop.anonymous(Method::GET, nothing))
                .await
                .is_problem(404, "route-not-found");
        }
    })
    .await;
}

/// An operation of the document, with the examples of its parameters filled in.
struct Operation {
    method: Method,
    path: String,
    is_public: bool,
    /// The bodies that the document shows, and their schema.
    examples: Vec<Value>,
    body: Value,
}

fn operations() -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let mut path = path.clone();
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = format!("{{{}}}", parameter["name"].as_str().unwrap());
                let example = &parameter["example"];
                path = path.replace(&name, &example.to_string().replace('"', ""));
            }
            let content = &operation["requestBody"]["content"]["application/json"];
            let body = resolve(&content["schema"]);
            let shown = content["examples"].as_object().into_iter().flatten();
            let mut examples: Vec<Value> = shown.map(|(_, shown)| shown["value"].clone()).collect();
            examples.extend(body.get("example").cloned());
            operations.push(Operation {
                method: method.to_ascii_uppercase().parse().unwrap(),
                path,
                is_public: operation["security"].is_array(),
                examples,
                body: body.clone(),
            });
        }
    }
    assert!(operations.len() > 25);
    operations
}

impl Operation {
    /// As the user whose id is the example's.
    fn request(&self, shop: &Shop) -> RequestBuilder {
        if self.path.starts_with("/api/admin") {
            shop.admin(self.method.clone(), &self.path)
        } else {
            shop.anonymous(self.method.clone(), &self.path).bearer_auth(token(1, false))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_public_operations_need_no_token() {
    shop(Options::default(), async |shop| {
        for operation in operations() {
            let path = &operation.path;
            let answer = Answer::of(shop.anonymous(operation.method, path)).await;
            assert_eq!(answer.status == 401, !operation.is_public, "{path}: {answer:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_examples_are_accepted() {
    shop(Options::default(), async |shop| {
        // The order that the examples of a cancel name.
        let placed = shop.ordered(1, &json!({"items": [{"productId": 1, "quantity": 1}]})).await;
        assert_eq!(placed["result"]["orderId"], 1, "{placed}");
        let cart = shop.anonymous(Method::PUT, "/api/users/cart/1").bearer_auth(token(1, false));
        assert_eq!(Answer::of(cart.json(&json!({"quantity": 1}))).await.status, 204);
        let queue = firstcome_broker::topology::sales_stats(&shop.namespace);
        sqlx::query(
            "INSERT INTO dead_letters (queue, message_id, line, reason, attempts, payload)
             VALUES ($1, 'an id', 0, 'no event', 1, '{}')",
        )
        .bind(queue)
        .execute(&shop.pool)
        .await
        .unwrap();
        for operation in operations() {
            for example in &operation.examples {
                let request = operation.request(shop).json(example);
                let answer = shop.submit(1, request).await;
                assert!((200..300).contains(&answer.status), "{}: {answer:?}", operation.path);
            }
        }
    })
    .await;
}

/// Whoever narrows a request by what we do not know must not get, empty or change the whole.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_query_parameters_are_refused() {
    shop(Options::default(), async |shop| {
        let put = shop.anonymous(Method::PUT, "/api/users/cart/1").bearer_auth(token(1, false));
        assert_eq!(Answer::of(put.json(&json!({"quantity": 1}))).await.status, 204);
        for mut operation in operations() {
            if !operation.path.starts_with("/api/") {
                continue;
            }
            operation.path.push_str("?surprise=1&surprise2=");
            let example = operation.examples.first().cloned().unwrap_or_else(|| json!({}));
            let request = operation.request(shop);
            let request = match operation.method {
                Method::POST | Method::PUT | Method::PATCH => request.json(&example),
                _ => request,
            };
            let answer = Answer::of(request).await;
            answer.is_problem(400, "validation-failed");
            let errors = answer.body["errors"].as_array().unwrap();
            let named: Vec<&Value> = errors.iter().map(|error| &error["field"]).collect();
            assert_eq!(named, ["surprise", "surprise2"], "{}", operation.path);
        }
        let cart = Answer::of(shop.get(1, "/api/users/cart")).await.body;
        assert_eq!(cart["items"][0]["quantity"], 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_bounds_are_those_of_the_api() {
    shop(Options::default(), async |shop| {
        let mut tried = 0;
        for operation in operations() {
            let fields = operation.body["properties"].as_object().cloned().unwrap_or_default();
            for (name, schema) in fields {
                let bound = |bound: &str| schema[bound].as_i64();
                let text =
                    |length: Option<i64>| Some(json!("x".repeat(usize::try_from(length?).ok()?)));
                let beyond = [
                    bound("maximum").map(|most| json!(most + 1)),
                    bound("minimum").map(|least| json!(least - 1)),
                    text(bound("maxLength").map(|most| most + 1)),
                    text(bound("minLength").map(|least| least - 1)),
                    schema["enum"].is_array().then(|| json!("something else")),
                ];
                let mut example = operation.examples[0].clone();
                for value in beyond.into_iter().flatten() {
                    example[&name] = value;
                    let answer = Answer::of(operation.request(shop).json(&example)).await;
                    let named = answer.body["errors"][0]["field"] == name.as_str();
                    let judged = named || answer.code() == "amount-out-of-range";
                    assert!(answer.status == 400 && judged, "{example}: {answer:?}");
                    tried += 1;
                }
                // The bounds themselves are inside.
                for value in [bound("minimum"), bound("maximum")].into_iter().flatten() {
                    example[&name] = json!(value);
                    let answer = Answer::of(operation.request(shop).json(&example)).await;
                    let refused =
                        answer.body["errors"].as_array().into_iter().flatten().any(|error| {
                            error["field"] == name.as_str()
                                && error["detail"]
                                    .as_str()
                                    .unwrap()
                                    .starts_with("must be an integer")
                        });
                    // Of percent there are at most 100.
                    assert!(!refused || name == "discountValue", "{example}: {answer:?}");
                    assert_ne!(answer.code(), "amount-out-of-range");
                }
            }
        }
        assert!(tried > 30, "{tried}");
    })
    .await;
}
