//! `POST /api/admin/queues/{family}/halt`, `POST …/resume`
//!
//! The API notes what operators want; the workers do it (`workers/src/crew/sharing.rs`).

use axum::{
    extract::{FromRequestParts, RawPathParams, State},
    http::request::Parts,
    response::Response,
};
use chrono::{DateTime, Utc};
use firstcome_contract::family::Family;
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use utoipa::ToSchema;

use super::audit_log::Change;
use crate::{
    http::{
        auth::Admin,
        body::Body,
        json,
        problem::Problem,
        schema::{Nothing, families},
    },
    state::AppState,
};

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Halt, example = json!({"family": "coupon", "halted": true, "haltedAt": "2026-03-01T12:00:00Z"}))]
struct HaltView {
    #[schema(schema_with = families)]
    family: &'static str,
    halted: bool,
    /// `null` if it is not.
    #[schema(required)]
    halted_at: Option<DateTime<Utc>>,
}

impl HaltView {
    fn new(family: Family, halted_at: Option<DateTime<Utc>>) -> Self {
        Self { family: family.as_str(), halted: halted_at.is_some(), halted_at }
    }
}

/// `{family}` in the path.
pub struct OfFamily(Family);

impl<S: Send + Sync> FromRequestParts<S> for OfFamily {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await.ok();
        let name = params.iter().flatten().next().map_or("", |(_, name)| name);
        let family = Family::parse(name);
        family.map(Self).map_err(|expected| Problem::invalid("family", expected))
    }
}

/// Halts all lines of a family: within some seconds the workers finish the batches in hand and take no more, while jobs are
/// accepted as ever. Repeating it changes nothing.
///
/// # Errors
/// 400, 401, 403, 503.
#[utoipa::path(
    post, path = "/api/admin/queues/{family}/halt", operation_id = "haltLines", tag = "Admin", request_body = Option<Nothing>,
    responses((status = 200, description = "They are halted.", body = HaltView)),
)]
pub async fn halt(
    State(state): State<AppState>,
    Admin(admin): Admin,
    OfFamily(family): OfFamily,
    body: Body,
) -> Result<Response, Problem> {
    body.fields.finish()?;
    let mut connection = state.pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let halted = sqlx::query!(
        "INSERT INTO halts (family) VALUES ($1) ON CONFLICT ON CONSTRAINT halts_pkey DO NOTHING",
        family.as_str()
    );
    let halted = halted.execute(&mut *transaction).await?.rows_affected() > 0;
    let view = HaltView::new(family, halted_at(&mut transaction, family).await?);
    if halted {
        let change = Change::new(admin.user_id, "halt-lines", target(family));
        change.after(&view)?.note(&mut transaction).await?;
    }
    transaction.commit().await?;
    Ok(json::ok(&view))
}

/// Lets the lines of a family go on, with whatever has come meanwhile. Repeating it changes nothing.
///
/// # Errors
/// 400, 401, 403, 503.
#[utoipa::path(
    post, path = "/api/admin/queues/{family}/resume", operation_id = "resumeLines", tag = "Admin", request_body = Option<Nothing>,
    responses((status = 200, description = "They go on.", body = HaltView)),
)]
pub async fn resume(
    State(state): State<AppState>,
    Admin(admin): Admin,
    OfFamily(family): OfFamily,
    body: Body,
) -> Result<Response, Problem> {
    body.fields.finish()?;
    let mut connection = state.pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let before = sqlx::query_scalar!(
        "DELETE FROM halts WHERE family = $1 RETURNING halted_at",
        family.as_str()
    );
    let before = before.fetch_optional(&mut *transaction).await?;
    if before.is_some() {
        let change = Change::new(admin.user_id, "resume-lines", target(family));
        change.before(&HaltView::new(family, before))?.note(&mut transaction).await?;
    }
    transaction.commit().await?;
    Ok(json::ok(&HaltView::new(family, None)))
}

fn target(family: Family) -> String {
    format!("queues/{}", family.as_str())
}

async fn halted_at(
    on: &mut PgConnection,
    family: Family,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar!("SELECT halted_at FROM halts WHERE family = $1", family.as_str())
        .fetch_optional(on)
        .await
}
