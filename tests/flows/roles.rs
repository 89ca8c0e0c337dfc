//! Who may see what operators see, and who may change it.

use reqwest::Method;
use serde_json::Value;

use firstcome_tests::{Answer, Options, Shop, auditor_token, shop, token};

/// Every operation below `/api/admin`, with something in the place of each parameter of its path.
async fn operations(shop: &Shop) -> Vec<(Method, String)> {
    let document = Answer::of(shop.admin(Method::GET, "/openapi.json")).await.body;
    let paths = document["paths"].as_object().unwrap().iter();
    let of_operators = paths.filter(|(path, _)| path.starts_with("/api/admin/"));
    let operations = of_operators.flat_map(|(path, item)| {
        let parts = path.split('/').map(|part| match part {
            "{family}" => "coupon",
            "{jobId}" => "019c1b2a-7c00-7000-8400-0158cf2fd1a3",
            part if part.starts_with('{') => "1",
            part => part,
        });
        let path = parts.collect::<Vec<_>>().join("/");
        let methods =
            item.as_object().unwrap().iter().filter(|(_, operation)| is_operation(operation));
        methods.map(move |(method, _)| (method.to_uppercase().parse().unwrap(), path.clone()))
    });
    operations.collect()
}

fn is_operation(item: &Value) -> bool {
    item["operationId"].is_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_reads_everything_and_changes_nothing() {
    shop(Options::default(), async |shop| {
        let operations = operations(shop).await;
        let reads = operations.iter().filter(|(method, _)| method == Method::GET).count();
        assert!(reads > 5 && operations.len() - reads > 10, "{operations:?}");
        for (method, path) in operations {
            let request = || shop.anonymous(method.clone(), &path);
            let answer = Answer::of(request().bearer_auth(auditor_token(2))).await;
            if method == Method::GET {
                assert!([200, 400, 404].contains(&answer.status), "{path}: {answer:?}");
            } else {
                // Before the body is looked at: there is none.
                answer.is_problem(403, "forbidden");
            }
            Answer::of(request().bearer_auth(token(2, false))).await.is_problem(403, "forbidden");
        }
    })
    .await;
}
