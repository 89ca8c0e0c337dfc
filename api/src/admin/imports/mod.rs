//! `POST /api/admin/imports/{users|products|coupons}`: rows of any number, in batches that are committed one by one.
//!
//! **Architecture invariants.** A row is held to the rules of the POST that makes one such thing, which stand there.
//! What is held of an import is a record, the batch that is filled and the one that is stored, never the whole. A row
//! that is wrong harms no other.

mod coupons;
mod products;
pub mod reader;
pub mod records;
mod settle;
mod table;
mod upload;
mod users;

pub use coupons::CouponRow;
pub use products::ProductRow;
pub use users::UserRow;

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        auth::Admin,
        problem::{Code, Problem},
    },
    state::AppState,
};

/// Faulty rows that are told of; the others are only counted.
const MAX_TOLD: usize = 1_000;

/// What became of the rows.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = ImportReport, example = json!({
    "created": 2, "updated": 1, "unchanged": 0, "faulty": 1,
    "errors": [{"line": 4, "reasons": ["email: must be an email address"]}],
}))]
struct Report {
    created: u64,
    updated: u64,
    /// They were so before.
    unchanged: u64,
    faulty: u64,
    /// The first 1,000 faulty rows.
    errors: Vec<Fault>,
}

/// A row that was left out.
#[derive(Serialize, ToSchema)]
struct Fault {
    /// Where it begins in the body; the first line is 1, that of the names of a table's columns.
    line: u64,
    reasons: Vec<String>,
}

impl Report {
    fn count(&mut self, line: u64, verdict: Verdict) {
        match verdict {
            Verdict::Created => self.created += 1,
            Verdict::Updated => self.updated += 1,
            Verdict::Unchanged => self.unchanged += 1,
            Verdict::Faulty(reasons) => {
                self.faulty += 1;
                if self.errors.len() < MAX_TOLD {
                    self.errors.push(Fault { line, reasons });
                }
            }
        }
    }
}

/// What becomes of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Created,
    Updated,
    Unchanged,
    Faulty(Vec<String>),
}

impl Verdict {
    /// Wrong in one thing.
    fn faulty(field: &str, detail: &str) -> Self {
        Self::Faulty(vec![format!("{field}: {detail}")])
    }
}

/// Creates and edits users: the one with the row's `id`, else the one with its `email`, else a new one. The columns of
/// a table are `id`, `name`, `email`, `balance` and `subject`: what a new user begins with, and nothing to others; and
/// what the tokens' issuer calls the user, where `JWT_SUBJECTS=map`.
/// Each batch of rows is committed by itself, so what was committed stays if the rest does not come; the import may be
/// repeated.
///
/// # Errors
/// 400, 401, 403, 408, 415, 503.
#[utoipa::path(
    post, path = "/api/admin/imports/users", operation_id = "importUsers", tag = "Admin",
    request_body(content((String = "text/csv"), (String = "application/x-ndjson"))),
    responses((status = 200, description = "What became of the rows.", body = Report)),
    extensions(("x-codes" = json!([Code::TooManyImports]))),
)]
pub async fn import_users(
    State(state): State<AppState>,
    Admin(admin): Admin,
    request: Request,
) -> Result<Response, Problem> {
    upload::import::<UserRow>(state, admin.user_id, "import-users", request).await
}

/// Creates and edits products: the one with the row's `id`, else a new one. The columns of a table are `id` and the
/// fields of `POST /api/admin/products`; a stock is absolute, and takes its turn with the sales. What has no column stays
/// as it is, an empty cell takes a bound away.
/// Each batch of rows is committed by itself, so what was committed stays if the rest does not come; the import may be
/// repeated.
///
/// # Errors
/// 400, 401, 403, 408, 415, 503.
#[utoipa::path(
    post, path = "/api/admin/imports/products", operation_id = "importProducts", tag = "Admin",
    request_body(content((String = "text/csv"), (String = "application/x-ndjson"))),
    responses((status = 200, description = "What became of the rows.", body = Report)),
    extensions(("x-codes" = json!([Code::TooManyImports]))),
)]
pub async fn import_products(
    State(state): State<AppState>,
    Admin(admin): Admin,
    request: Request,
) -> Result<Response, Problem> {
    upload::import::<ProductRow>(state, admin.user_id, "import-products", request).await
}

/// Creates and edits campaigns: the one with the row's `id`, else a new one. The columns of a table are `id` and the
/// fields of `POST /api/admin/coupons`. What has no column stays as it is, an empty cell takes a cap away.
/// Each batch of rows is committed by itself, so what was committed stays if the rest does not come; the import may be
/// repeated.
///
/// # Errors
/// 400, 401, 403, 408, 415, 503.
#[utoipa::path(
    post, path = "/api/admin/imports/coupons", operation_id = "importCoupons", tag = "Admin",
    request_body(content((String = "text/csv"), (String = "application/x-ndjson"))),
    responses((status = 200, description = "What became of the rows.", body = Report)),
    extensions(("x-codes" = json!([Code::TooManyImports]))),
)]
pub async fn import_coupons(
    State(state): State<AppState>,
    Admin(admin): Admin,
    request: Request,
) -> Result<Response, Problem> {
    upload::import::<CouponRow>(state, admin.user_id, "import-coupons", request).await
}
