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

fn created(body: &impl Serialize) -> Response {
    let mut response = crate::json(body);
    *response.status_mut() = StatusCode::CREATED;
    response
}
