//! `GET /openapi.json`, `GET /docs`

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, Uri, header},
    response::{IntoResponse, Redirect, Response},
};
use utoipa_swagger_ui::Config;

use crate::http::{
    gzip,
    problem::{Code, Problem},
};

/// A token is typed into the page: nothing of somebody else's runs in it, and it stands in nobody else's. Its
/// script sets styles and draws images of its own.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Written once, at the first request.
static DOCUMENT: LazyLock<Result<Bytes, serde_json::Error>> =
    LazyLock::new(|| super::document().to_json().map(Bytes::from));

/// Once, too: anybody may ask for it.
static PACKED: LazyLock<Option<Bytes>> = LazyLock::new(|| {
    let document = DOCUMENT.as_ref().ok()?;
    Some(gzip::pack(document).ok()?.bytes)
});

static PAGE: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    // Else the page asks a server on the Internet whether the document is valid.
    Arc::new(Config::from("/openapi.json").validator_url("none").persist_authorization(true))
});

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "getOpenApi", tag = "Operations", security(),
    responses((status = 200, description = "OpenAPI 3.1.", body = Object)),
)]
pub async fn openapi(asked: HeaderMap) -> Response {
    match &*DOCUMENT {
        Ok(document) => {
            let packed = PACKED.as_ref().filter(|_| gzip::is_accepted(&asked));
            let mut response = match packed {
                None => document.clone().into_response(),
                Some(packed) => {
                    ([(header::CONTENT_ENCODING, gzip::GZIP)], packed.clone()).into_response()
                }
            };
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.append(header::VARY, gzip::ACCEPT_ENCODING);
            response
        }
        Err(error) => {
            tracing::error!(%error, "the OpenAPI document did not serialize");
            Problem::new(Code::InternalError).into_response()
        }
    }
}

/// A page to read this document and to try the endpoints.
#[utoipa::path(
    get, path = "/docs", operation_id = "getDocs", tag = "Operations", security(),
    responses((status = 308, description = "Swagger UI is at `/docs/`.", headers(("Location" = String)))),
)]
pub async fn docs() -> Redirect {
    Redirect::permanent("/docs/")
}

/// The page and its assets, which are part of the program.
pub async fn asset(uri: Uri) -> Result<Response, Problem> {
    let path = uri.path().trim_start_matches("/docs/");
    let asset = utoipa_swagger_ui::serve(path, Arc::clone(&PAGE)).map_err(|error| {
        tracing::error!(%error, "an asset cannot be served");
        Problem::new(Code::InternalError)
    })?;
    let asset = asset.ok_or_else(|| Problem::new(Code::RouteNotFound))?;
    let bytes = match asset.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    let headers = [
        (header::CONTENT_TYPE, asset.content_type.as_str()),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    Ok((headers, bytes).into_response())
}
