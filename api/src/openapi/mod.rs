//! The contract as OpenAPI 3.1: put together from what stands beside the handlers and from what is
//! true of every endpoint, and served together with a page to try it on.
//!
//! **Architecture invariants.** `endpoints` (`lib.rs`) is both the router and the document, so no
//! endpoint is without its documentation. `api/openapi.json` is the document as it was last agreed
//! on: a test compares it.

mod problems;
mod serve;

pub use serve::*;

use std::collections::HashSet;

use firstcome_contract::family::Family;
use serde_json::{Value, json};
use utoipa::{
    IntoParams, Modify, OpenApi,
    openapi::{
        Components, Header, HeaderBuilder, KnownFormat, Object, ObjectBuilder, PathItem, Ref,
        RefOr, Required, ResponseBuilder, Schema, SchemaFormat, Type,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn},
        request_body::RequestBody,
        schema::ArrayItems,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::{
    http::{
        answer,
        problem::Code,
        public,
        schema::{JOB_ID, families},
    },
    submit::Accepted,
};
use problems::Problems;

/// What an endpoint says about the codes of its own, beyond those that many share.
const CODES: &str = "x-codes";

/// What is not about one endpoint.
#[derive(OpenApi)]
#[openapi(
    info(title = "Firstcome", description = include_str!("description.md")),
    tags(
        (name = "Balance", description = "The caller's own money, in won."),
        (name = "Products", description = "What is on sale."),
        (name = "Coupons", description = "Campaigns, asking for a coupon, and those in hand."),
        (name = "Cart", description = "What the caller means to buy."),
        (name = "Orders", description = "Placing and cancelling orders, and those that were completed."),
        (name = "Jobs", description = "What became of a request that was accepted with 202."),
        (name = "Admin", description = "For operators: a token with the role `admin`; or `auditor`, to read only."),
        (name = "Operations", description = "For the orchestrator and for developers."),
    ),
    components(schemas(Accepted)),
    security(("bearer" = [])),
    modifiers(&Bearer),
)]
pub(crate) struct Common;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(
                "`sub` is the user's id; `role` `admin` opens `/api/admin`, `auditor` its `GET`s.",
            ))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// The document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = crate::endpoints().into_openapi();
    let mut problems = Problems::default();
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            complete(path, operation, &mut problems);
        }
    }
    // Answers of no endpoint: they say that there is none.
    problems.one_of(&[Code::RouteNotFound]);
    problems.one_of(&[Code::MethodNotAllowed]);
    let components: &mut Components = document.components.get_or_insert_default();
    components.responses.extend(problems.into_components());
    for (name, schema) in &mut components.schemas {
        name_items(name, schema);
    }
    document
}

/// A generic list spells its items out: here it refers to them by their name.
fn name_items(name: &str, schema: &mut RefOr<Schema>) {
    if let Some(item) = name.strip_prefix("List_")
        && let RefOr::T(Schema::Object(list)) = schema
        && let Some(RefOr::T(Schema::Array(items))) = list.properties.get_mut("items")
    {
        items.items = ArrayItems::RefOrSchema(Box::new(Ref::from_schema_name(item).into()));
    }
}

/// A body that may be left out is none then, not `null`.
fn leave_out_null(body: &mut RefOr<RequestBody>) {
    let RefOr::T(body) = body else { return };
    for content in body.content.values_mut() {
        if let RefOr::T(content) = content
            && let Some(RefOr::T(Schema::OneOf(either))) = &mut content.schema
        {
            let body = either.items.swap_remove(0);
            content.schema = Some(body);
        }
    }
}

/// The routes that take parameters in their query.
pub(crate) fn with_query(document: &utoipa::openapi::OpenApi) -> HashSet<String> {
    let in_query = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query);
    let asking = document.paths.paths.iter().filter(|(_, item)| {
        let operation = item.get.as_ref();
        let parameters = operation.and_then(|operation| operation.parameters.as_ref());
        parameters.is_some_and(|parameters| parameters.iter().any(in_query))
    });
    asking.map(|(path, _)| path.clone()).collect()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

/// Adds what follows from what the operation is.
fn complete(path: &str, operation: &mut Operation, problems: &mut Problems) {
    if let Some(description) = &mut operation.description {
        // Of interest to readers of the code: here the answers say it better.
        let kept = description.split("# Errors").next().unwrap_or_default().trim();
        *description = kept.replace('\n', " ");
    }
    operation.description.take_if(|description| description.is_empty());

    let ids = path_parameters(path);
    let parameters = operation.parameters.get_or_insert_default();
    let takes = |wanted: fn(&Parameter) -> bool| {
        parameters.iter().any(|known| matches!(known, RefOr::T(known) if wanted(known)))
    };
    let keyed = takes(|parameter| parameter.name == "Idempotency-Key");
    let conditional = takes(|parameter| parameter.name == "If-Match");
    let has_body = operation.request_body.as_mut().map(leave_out_null).is_some();

    let extensions = operation.extensions.take().unwrap_or_default();
    let own = extensions.get(CODES).and_then(Value::as_array).into_iter().flatten();
    let mut codes: Vec<Code> = own.filter_map(|code| Code::from_name(code.as_str()?)).collect();
    if has_body {
        codes.extend([Code::MalformedBody, Code::BodyTimeout, Code::UnsupportedMediaType]);
        if !path.starts_with(answer::STREAMED) {
            codes.push(Code::BodyTooLarge);
        }
    }
    if keyed {
        codes.push(Code::IdempotencyKeyReused);
    }
    if conditional {
        codes.push(Code::PreconditionFailed);
    }
    // Public operations say that they need nothing.
    if operation.security.is_none() {
        codes.extend([
            Code::Unauthenticated,
            Code::UserNotFound,
            Code::RateLimited,
            Code::IssuerUnavailable,
        ]);
    }
    let is_public = operation.security.is_some() && path.starts_with("/api/");
    if is_public {
        let known = "What the client has, by `If-None-Match`, is still so.";
        let response = ResponseBuilder::new().description(known).build();
        operation.responses.responses.insert("304".to_owned(), response.into());
        let header = public::IfNoneMatchHeader::into_params(|| Some(ParameterIn::Header));
        parameters.extend(header.into_iter().map(RefOr::T));
        codes.push(Code::RateLimited);
    }
    if path.starts_with("/api/admin/") {
        codes.push(Code::Forbidden);
    }
    if path.starts_with("/api/") {
        // Of a parameter that it does not know, if of nothing else.
        codes.push(Code::ValidationFailed);
        codes.extend([Code::InternalError, Code::DatabaseUnavailable, Code::TooManyConnections]);
    }
    parameters.splice(0..0, ids.into_iter().map(RefOr::T));
    operation.parameters.take_if(|parameters| parameters.is_empty());
    for (status, response) in problems.by_status(&codes) {
        operation.responses.responses.insert(status.as_str().to_owned(), response);
    }
}

/// One for every name in the path.
fn path_parameters(path: &str) -> Vec<Parameter> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let (schema, example): (Object, _) = match name {
            "jobId" => {
                let uuid = SchemaFormat::KnownFormat(KnownFormat::Uuid);
                let id = ObjectBuilder::new().schema_type(Type::String).format(Some(uuid));
                (id.into(), json!(JOB_ID))
            }
            "family" => (families(), json!(Family::Coupon.as_str())),
            _ => {
                let int64 = SchemaFormat::KnownFormat(KnownFormat::Int64);
                let id = ObjectBuilder::new().schema_type(Type::Integer).format(Some(int64));
                (id.minimum(Some(0)).into(), json!(1))
            }
        };
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(schema))
            .example(Some(example))
            .build()
    };
    names.map(parameter).collect()
}

/// When to come back, or to ask again.
fn retry_after() -> Header {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    HeaderBuilder::new()
        .schema(Some(seconds.build()))
        .description(Some("When to come back, in whole seconds."))
        .example(Some(json!(1)))
        .build()
}
