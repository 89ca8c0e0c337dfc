//! `/api/admin`: what operators create and change. Callers are checked before the body is looked at.

mod audit_log;
mod between;
mod caller;
mod coupons;
mod dead_letters;
mod exports;
mod find_jobs;
mod find_orders;
mod find_users;
mod halts;
pub mod imports;
mod job_story;
mod orders;
mod personal_data;
mod pins;
mod products;
mod queue_history;
mod queues;
mod sale_report;
mod users;

pub use audit_log::*;
pub use caller::*;
pub use coupons::*;
pub use dead_letters::*;
pub use exports::*;
pub use find_jobs::*;
pub use find_orders::*;
pub use find_users::*;
pub use halts::*;
pub use imports::*;
pub use orders::*;
pub use personal_data::*;
pub use pins::*;
pub use products::*;
pub use queue_history::*;
pub use queues::*;
pub use sale_report::*;
pub use users::*;

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::{StatusCode, request::Parts},
    response::Response,
};
use firstcome_contract::family::Family;
use serde::Serialize;
use utoipa::IntoParams;

use crate::http::{fields::Fields, json, page::Page, path::PathId, problem::Problem};

/// Which part of a catalogue.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Shelf {
    /// What was deleted, instead of what is there.
    #[param(required = false, default = false)]
    deleted: bool,
    #[param(ignore)]
    page: Page,
}

impl<S: Send + Sync> FromRequestParts<S> for Shelf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut fields = Fields::from_query(parts.uri.query());
        let deleted = fields.optional_flag("deleted").unwrap_or_default();
        let page = Page::read(&mut fields);
        fields.finish()?;
        Ok(Self { deleted, page })
    }
}

/// What is contended for: `{family}/{key}` in the path.
pub struct Contended {
    family: Family,
    key: i64,
}

impl<S: Send + Sync> FromRequestParts<S> for Contended {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params = params.map_err(|_| Problem::invalid("key", "must be an integer"))?;
        let given =
            |wanted| params.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value);
        let family = Family::parse(given("family").unwrap_or_default());
        let family = family.map_err(|expected| Problem::invalid("family", expected))?;
        let key = given("key").and_then(PathId::parse);
        let PathId(key) = key.ok_or_else(|| Problem::invalid("key", "must be an integer"))?;
        Ok(Self { family, key })
    }
}

fn created(body: &impl Serialize) -> Response {
    json::answer(StatusCode::CREATED, body)
}
