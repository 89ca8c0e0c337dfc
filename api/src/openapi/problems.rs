//! The problems that an endpoint may answer with.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, Header, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder,
        example::ExampleBuilder,
    },
};

use crate::http::problem::{Code, Problem};

/// Codes of what begins, or goes on, later: such an answer says when to come back, if that is known.
const BEGINNING: [Code; 3] = [Code::SalePaused, Code::CouponNotStarted, Code::ProductNotOnSale];

/// The answers so far. Those with the same codes are one component.
#[derive(Default)]
pub(super) struct Problems(BTreeMap<String, Response>);

impl Problems {
    /// What an endpoint with these codes answers, by status.
    pub(super) fn by_status(&mut self, codes: &[Code]) -> BTreeMap<StatusCode, RefOr<Response>> {
        let mut by_status: BTreeMap<StatusCode, Vec<Code>> = BTreeMap::new();
        for code in codes {
            by_status.entry(code.status()).or_default().push(*code);
        }
        by_status.into_iter().map(|(status, codes)| (status, self.one_of(&codes))).collect()
    }

    /// The answer with one of these codes, which have one status.
    pub(super) fn one_of(&mut self, codes: &[Code]) -> RefOr<Response> {
        let names: Vec<&str> = codes.iter().map(|code| code.name()).collect();
        let name = names.join(".");
        self.0.entry(name.clone()).or_insert_with(|| response(codes));
        Ref::from_response_name(name).into()
    }

    pub(super) fn into_components(self) -> impl Iterator<Item = (String, RefOr<Response>)> {
        self.0.into_iter().map(|(name, response)| (name, RefOr::T(response)))
    }
}

fn response(codes: &[Code]) -> Response {
    let meanings = codes.iter().map(|code| format!("`{}`: {}", code.name(), code.title()));
    let description = meanings.collect::<Vec<String>>().join("; ");
    let examples = codes.iter().map(|code| {
        (code.name(), ExampleBuilder::new().value(Some(json!(example(*code)))).build())
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Problem::name())))
        .examples_from_iter(examples)
        .build();
    let mut response = ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content);
    if let Some((name, header)) = header(codes) {
        response = response.header(name, header);
    }
    response.build()
}

fn example(code: Code) -> Problem {
    if code == Code::ValidationFailed {
        Problem::invalid("limit", "must be an integer from 1 to 100")
    } else {
        Problem::new(code)
    }
}

/// The header that an answer with one of these codes has, or may have.
fn header(codes: &[Code]) -> Option<(&'static str, Header)> {
    let text = |description: &str, example: &str| {
        HeaderBuilder::new()
            .schema(Some(String::schema()))
            .description(Some(description))
            .example(Some(json!(example)))
            .build()
    };
    match codes.first()?.status() {
        StatusCode::UNAUTHORIZED => {
            Some(("WWW-Authenticate", text("How to authenticate.", "Bearer")))
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            Some(("Allow", text("The methods that the path knows.", "GET,HEAD")))
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            Some(("Retry-After", super::retry_after()))
        }
        StatusCode::CONFLICT if codes.iter().any(|code| BEGINNING.contains(code)) => {
            Some(("Retry-After", super::retry_after()))
        }
        _ => None,
    }
}
