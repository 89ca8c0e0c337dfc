//! `GET /ops`: the operators' page, a part of the program. It uses `/api/admin` as anybody could.
//!
//! `page/uplot` is uPlot 1.6.32 as published (npm `uplot`, MIT); all else below `page` is ours, served as it is written.

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, Uri, header},
    response::{Redirect, Response},
};

use crate::http::{
    problem::{Code, Problem},
    public,
};

/// A token is typed into the page: nothing that is not in these files runs or is drawn in it, it talks to nobody else,
/// and it stands in nobody else's.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
/// Kept, but asked for each time whether it is still so: the page is of one version with its API.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("no-cache");

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// A file of the page: its path, its type, what is in it.
type File = (&'static str, &'static str, &'static [u8]);

macro_rules! files {
    ($($path:literal: $content_type:expr,)+) => {
        [$(($path, $content_type, include_bytes!(concat!("page/", $path)).as_slice()),)+]
    };
}

const INDEX: &str = "index.html";
static FILES: [File; 18] = files! {
    "index.html": HTML,
    "style.css": CSS,
    "main.js": SCRIPT,
    "api.js": SCRIPT,
    "dom.js": SCRIPT,
    "series.js": SCRIPT,
    "plot.js": SCRIPT,
    "rows.js": SCRIPT,
    "lines.js": SCRIPT,
    "keys.js": SCRIPT,
    "letters.js": SCRIPT,
    "jobs.js": SCRIPT,
    "sale.js": SCRIPT,
    "before.js": SCRIPT,
    "audit.js": SCRIPT,
    "uplot/uPlot.iife.min.js": SCRIPT,
    "uplot/uPlot.min.css": CSS,
    "uplot/LICENSE": TEXT,
};

/// A page for operators: the lines live, dead letters, jobs, sales, the audit log.
#[utoipa::path(
    get, path = "/ops", operation_id = "getOps", tag = "Operations", security(),
    responses((status = 308, description = "The page is at `/ops/`.", headers(("Location" = String)))),
)]
pub async fn ops() -> Redirect {
    Redirect::permanent("/ops/")
}

/// The page and its files; who has one of them already is told so.
///
/// # Errors
/// 404 if there is no such file.
pub async fn file(uri: Uri, asked: HeaderMap) -> Result<Response, Problem> {
    let path = uri.path().trim_start_matches("/ops/");
    let path = if path.is_empty() { INDEX } else { path };
    let file = FILES.iter().find(|(name, ..)| *name == path);
    let (_, content_type, bytes) = file.ok_or_else(|| Problem::new(Code::RouteNotFound))?;
    let mut response = public::stored(&asked, Bytes::from_static(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}
