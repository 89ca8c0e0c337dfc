//! `POST /api/balance/charge`

use axum::{extract::State, http::HeaderMap, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        auth::Caller,
        body::Body,
        fields::Fields,
        idempotency_key::IdempotencyKey,
        json,
        problem::{Code, Problem},
    },
    known::once::once,
    state::AppState,
};

/// The most that one charge adds, in won.
const MAX_CHARGE: i64 = 10_000_000;
/// The most that a balance holds, in won.
pub(crate) const CEILING: i64 = 1_000_000_000_000;

/// How much money to add.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"amount": 50_000}))]
pub struct ChargeRequest {
    /// In won.
    #[schema(minimum = 1, maximum = 10_000_000)]
    pub amount: i64,
}

impl ChargeRequest {
    /// Reads it; an amount that is out of range is told by a code of its own, later.
    pub fn read(fields: &mut Fields) -> Self {
        Self { amount: fields.any_integer("amount", 1..=MAX_CHARGE) }
    }
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({"userId": 7, "balance": 1_050_000, "transactionId": 10_001}))]
struct Charged {
    user_id: i64,
    balance: i64,
    transaction_id: i64,
}

/// Adds money: synchronously, since nobody contends for one user's balance.
///
/// # Errors
/// 400, 404, 409 above the ceiling, 422, 503.
#[utoipa::path(
    post, path = "/api/balance/charge", operation_id = "chargeBalance", tag = "Balance",
    params(IdempotencyKey),
    request_body = ChargeRequest,
    responses((status = 200, description = "The new balance.", body = Charged)),
    extensions(("x-codes" = json!([Code::AmountOutOfRange, Code::UserNotFound, Code::BalanceCeiling]))),
)]
pub async fn charge(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, .. } = body;
    let ChargeRequest { amount } = ChargeRequest::read(&mut fields);
    fields.finish()?;
    if !(1..=MAX_CHARGE).contains(&amount) {
        let detail = format!("The amount must be from 1 to {MAX_CHARGE}.");
        return Err(Problem::with_detail(Code::AmountOutOfRange, detail));
    }

    let user_id = caller.user_id.get();
    let asked_for = amount.to_be_bytes();
    let charged =
        once(&state.pool, caller.user_id, "charge", &headers, &asked_for, async |transaction| {
            // One statement: the balance and its history row cannot differ, and two charges cannot
            // both start from the same amount.
            let charged = sqlx::query_as!(
                Charged,
                r#"WITH charged AS (
                   UPDATE balances SET amount = amount + $2
                   WHERE user_id = $1 AND amount <= $3::bigint - $2::bigint
                   RETURNING user_id, amount
               )
               INSERT INTO balance_transactions (user_id, kind, amount, balance_after)
               SELECT user_id, 'charge', $2, amount FROM charged
               RETURNING user_id, balance_after AS balance, id AS transaction_id"#,
                user_id,
                amount,
                CEILING,
            )
            .fetch_optional(&mut *transaction)
            .await?;
            if let Some(charged) = charged {
                return Ok(charged);
            }
            let exists =
                sqlx::query_scalar!("SELECT 1 AS one FROM balances WHERE user_id = $1", user_id)
                    .fetch_optional(transaction)
                    .await?;
            Err(Problem::new(if exists.is_some() {
                Code::BalanceCeiling
            } else {
                Code::UserNotFound
            }))
        })
        .await?;
    Ok(json::ok(&charged))
}
