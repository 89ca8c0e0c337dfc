//! `/api/admin`: what operators create and change. Callers are checked before the body is looked at.

mod coupons;
mod products;
mod users;

pub use coupons::{create_coupon, delete_coupon, edit_coupon};
pub use products::{create_product, delete_product, edit_product};
pub use users::create_user;

use axum::{http::StatusCode, response::Response};
use serde::Serialize;

fn created(body: &impl Serialize) -> Response {
    let mut response = crate::json(body);
    *response.status_mut() = StatusCode::CREATED;
    response
}
