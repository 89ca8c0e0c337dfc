//! `/api/admin`: what operators create and change. Callers are checked before the body is looked at.

mod coupons;
mod dead_letters;
mod exports;
mod imports;
mod orders;
mod personal_data;
mod pins;
mod products;
mod queues;
mod users;

pub use coupons::*;
pub use dead_letters::*;
pub use exports::*;
pub use imports::*;
pub use orders::*;
pub use personal_data::*;
pub use pins::*;
pub use products::*;
pub use queues::*;
pub use users::*;

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
    response::Response,
};
use serde::Serialize;
use utoipa::IntoParams;

use crate::http::{fields::Fields, json, page::Page, problem::Problem};

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

fn created(body: &impl Serialize) -> Response {
    json::answer(StatusCode::CREATED, body)
}
