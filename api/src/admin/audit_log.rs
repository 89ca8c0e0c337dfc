//! What operators changed: noted in the transaction of the change, and `GET /api/admin/audit-log`.

use std::{fmt, str::FromStr};

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use chrono::{DateTime, Utc};
use firstcome_contract::ids::{MAX_ID, UserId};
use firstcome_process::{database::Pool, request_id};
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use sqlx::{PgConnection, types::Json};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        auth::Auditor,
        fields::{Fields, IDS},
        json,
        page::List,
        problem::Problem,
        seek::{Seek, SeekParams, Seen},
    },
    state::AppState,
};

/// The longest target that is asked for, in characters.
const LONGEST_TARGET: usize = 100;

/// A change, as it is to be noted.
#[derive(Debug)]
pub(super) struct Change {
    by: UserId,
    action: &'static str,
    target: String,
    person: Option<i64>,
    before: Option<Value>,
    after: Option<Value>,
}

impl Change {
    /// What an operator does, by the name of the operation, and to what, by its path below `/api/admin`.
    pub(super) fn new(by: UserId, action: &'static str, target: impl Into<String>) -> Self {
        Self { by, action, target: target.into(), person: None, before: None, after: None }
    }

    /// As it was before: a few fields, of bounded length each, as all that is noted.
    pub(super) fn before(self, before: &impl Serialize) -> Result<Self, sqlx::Error> {
        Ok(Self { before: Some(as_json(before)?), ..self })
    }

    /// As it is from then on.
    pub(super) fn after(self, after: &impl Serialize) -> Result<Self, sqlx::Error> {
        Ok(Self { after: Some(as_json(after)?), ..self })
    }

    /// It tells of this user.
    pub(super) fn of_person(self, user: i64) -> Self {
        Self { person: Some(user), ..self }
    }

    /// Notes it in the transaction that makes it; tells the row.
    pub(super) async fn note(self, transaction: &mut PgConnection) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar!(
            "INSERT INTO audit_log (who, action, target, person, before, after, request_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id",
            self.by.get(),
            self.action,
            self.target,
            self.person,
            self.before,
            self.after,
            request_id::current(),
        )
        .fetch_one(transaction)
        .await
    }
}

fn as_json(what: &impl Serialize) -> Result<Value, sqlx::Error> {
    serde_json::to_value(what).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// Adds to a row what it came to.
pub(super) async fn note_end(
    connection: &mut PgConnection,
    id: i64,
    after: &impl Serialize,
) -> Result<(), sqlx::Error> {
    let after = as_json(after)?;
    sqlx::query!(
        "UPDATE audit_log SET after = $2
         WHERE ctid = (SELECT ctid FROM audit_log WHERE id BETWEEN $1 AND $1 ORDER BY id LIMIT 1)",
        id,
        after,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes what tells who a user is from all rows about the user.
pub(super) async fn forget_person(
    transaction: &mut PgConnection,
    user: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE audit_log SET before = before - ARRAY['name', 'email', 'reason'], after = after - ARRAY['name', 'email', 'reason']
         WHERE person = $1",
        user,
    )
    .execute(transaction)
    .await?;
    Ok(())
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry, example = json!({
    "id": 12, "at": "2026-03-01T12:00:00.250Z", "who": 1, "action": "edit-product", "target": "products/1",
    "before": {"id": 1, "stock": 50}, "after": {"id": 1, "stock": 100}, "requestId": "5f0c1d2e-1",
}))]
struct EntryView {
    id: i64,
    at: DateTime<Utc>,
    /// The operator's user id.
    who: i64,
    /// The operation: `create-coupon`, `edit-product`, `cancel-order`, …
    action: String,
    /// What was changed, by its path below `/api/admin`: `coupons/1`, `pins/product/7`, `imports/users`, …
    target: String,
    /// As it was; `null` where nothing was there.
    #[schema(value_type = Option<Value>, required)]
    before: Option<Box<RawValue>>,
    /// As it was from then on; `null` where nothing was left, or while it is under way.
    #[schema(value_type = Option<Value>, required)]
    after: Option<Box<RawValue>>,
    /// The `X-Request-Id` of the request.
    #[schema(required)]
    request_id: Option<String>,
}

/// Of which changes.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// The operator's user id.
    #[param(required = false, minimum = 1, maximum = 9_007_199_254_740_991i64)]
    who: Option<i64>,
    #[param(required = false, max_length = 100)]
    action: Option<String>,
    #[param(required = false, max_length = 100)]
    target: Option<String>,
    /// Made then or later.
    #[param(required = false)]
    from: Option<DateTime<Utc>>,
    /// Made before.
    #[param(required = false)]
    to: Option<DateTime<Utc>>,
}

impl Filter {
    fn read(fields: &mut Fields) -> Self {
        Self {
            who: fields.optional_integer("who", IDS),
            action: fields.optional_text("action", LONGEST_TARGET),
            target: fields.optional_text("target", LONGEST_TARGET),
            from: fields.optional_instant("from"),
            to: fields.optional_instant("to"),
        }
    }
}

/// A row's place in the list. Rows may become visible in another order than that of their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spot {
    at: DateTime<Utc>,
    id: i64,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at.timestamp_micros(), self.id)
    }
}

impl FromStr for Spot {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (at, id) = text.split_once('.').ok_or(())?;
        let at = at.parse().ok().and_then(DateTime::from_timestamp_micros).ok_or(())?;
        Ok(Self { at, id: id.parse().map_err(|_| ())? })
    }
}

/// What operators changed, newest first: who, when, what, how it was before and after. Cancels of orders stand here once
/// they are made, imports with their counts.
///
/// # Errors
/// 400, 401, 403, 503.
#[utoipa::path(
    get, path = "/api/admin/audit-log", operation_id = "listChanges", tag = "Admin",
    params(Filter, SeekParams),
    responses((status = 200, description = "A page of the changes.", body = List<EntryView>)),
)]
pub async fn list_changes(
    State(state): State<AppState>,
    _auditor: Auditor,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::from_query(query.as_deref());
    let filter = Filter::read(&mut fields);
    let seek = Seek::read(&mut fields, "audit-log", query.as_deref());
    fields.finish()?;
    let keys = [filter.target.is_some(), filter.who.is_some(), filter.action.is_some()];
    let rows = seek.rows(keys.into_iter().filter(|is_given| *is_given).count() > 1);
    let seen = look(&state.pool, &filter, seek.after, rows).await?;
    let (page, next) = seek.cut(&seen, rows);
    let items = read(&state.pool, &page).await?;
    Ok(json::ok(&List { items, next }))
}

/// The rows that an index leads to, by the first of target, operator and action that is asked for, and whether the others
/// are as asked for.
async fn look(
    pool: &Pool,
    filter: &Filter,
    after: Option<Spot>,
    rows: i64,
) -> Result<Vec<Seen<Spot>>, sqlx::Error> {
    let from = filter.from.unwrap_or(DateTime::UNIX_EPOCH);
    // Of the instant itself there is nothing below this id.
    let end = filter.to.map(|at| Spot { at, id: 0 });
    let end = after.or(end).unwrap_or_else(|| Spot { at: later_than_all(), id: MAX_ID });
    let seen = |at, id, is_wanted| (Spot { at, id }, is_wanted);
    let found = if let Some(target) = &filter.target {
        sqlx::query!(
            r#"SELECT at, id, (($2::bigint IS NULL OR who = $2) AND ($3::text IS NULL OR action = $3)) AS "is_wanted!"
               FROM audit_log WHERE target = ANY(ARRAY[$1::text]) AND at >= $4 AND (at, id) < ($5, $6)
               ORDER BY target, at DESC, id DESC LIMIT $7"#,
            target,
            filter.who,
            filter.action,
            from,
            end.at,
            end.id,
            rows,
        )
        .map(|row| seen(row.at, row.id, row.is_wanted))
        .fetch_all(pool)
        .await?
    } else if let Some(who) = filter.who {
        sqlx::query!(
            r#"SELECT at, id, ($2::text IS NULL OR action = $2) AS "is_wanted!"
               FROM audit_log WHERE who = ANY(ARRAY[$1::bigint]) AND at >= $3 AND (at, id) < ($4, $5)
               ORDER BY who, at DESC, id DESC LIMIT $6"#,
            who,
            filter.action,
            from,
            end.at,
            end.id,
            rows,
        )
        .map(|row| seen(row.at, row.id, row.is_wanted))
        .fetch_all(pool)
        .await?
    } else if let Some(action) = &filter.action {
        sqlx::query!(
            "SELECT at, id FROM audit_log WHERE action = ANY(ARRAY[$1::text]) AND at >= $2 AND (at, id) < ($3, $4)
             ORDER BY action, at DESC, id DESC LIMIT $5",
            action,
            from,
            end.at,
            end.id,
            rows,
        )
        .map(|row| seen(row.at, row.id, true))
        .fetch_all(pool)
        .await?
    } else {
        sqlx::query!(
            "SELECT at, id FROM audit_log WHERE at >= $1 AND (at, id) < ($2, $3) ORDER BY at DESC, id DESC LIMIT $4",
            from,
            end.at,
            end.id,
            rows,
        )
        .map(|row| seen(row.at, row.id, true))
        .fetch_all(pool)
        .await?
    };
    Ok(found)
}

fn later_than_all() -> DateTime<Utc> {
    // The year 9999, which is in range.
    DateTime::from_timestamp(253_402_300_799, 0).unwrap_or_default()
}

async fn read(pool: &Pool, page: &[Spot]) -> Result<Vec<EntryView>, sqlx::Error> {
    let ids: Vec<i64> = page.iter().map(|spot| spot.id).collect();
    sqlx::query!(
        r#"SELECT id, at, who, action, target, before AS "before: Json<Box<RawValue>>", after AS "after: Json<Box<RawValue>>",
                  request_id
           FROM (SELECT * FROM audit_log WHERE id = ANY($1) ORDER BY id OFFSET 0) AS page ORDER BY at DESC, id DESC"#,
        &ids,
    )
    .map(|row| EntryView {
        id: row.id,
        at: row.at,
        who: row.who,
        action: row.action,
        target: row.target,
        before: row.before.map(|before| before.0),
        after: row.after.map(|after| after.0),
        request_id: row.request_id,
    })
    .fetch_all(pool)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spot_is_read_as_it_is_written() {
        let spot =
            Spot { at: DateTime::from_timestamp_micros(1_772_366_400_250_001).unwrap(), id: 12 };
        assert_eq!(spot.to_string().parse(), Ok(spot));
        for bad in ["", "1", "a.1", "1.b", "99999999999999999999.1"] {
            assert_eq!(bad.parse::<Spot>(), Err(()), "{bad}");
        }
    }
}
