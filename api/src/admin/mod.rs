//! `/api/admin`: what operators create and change. Callers are checked before the body is looked at.

mod coupons;
mod dead_letters;
mod pins;
mod products;
mod queues;
mod users;

pub use coupons::*;
pub use dead_letters::*;
pub use pins::*;
pub use products::*;
pub use queues::*;
pub use users::*;

use axum::{http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::IntoParams;

use crate::http::{fields::Fields, json};

/// Which part of a catalogue.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct Shelf {
    /// What was deleted, instead of what is there.
    #[param(required = false, default = false)]
    deleted: bool,
}

impl Shelf {
    fn read(fields: &mut Fields) -> Self {
        Self { deleted: fields.optional_flag("deleted").unwrap_or_default() }
    }
}

fn created(body: &impl Serialize) -> Response {
    json::answer(StatusCode::CREATED, body)
}
