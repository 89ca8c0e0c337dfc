//! `POST /api/admin/users`

use axum::{extract::State, http::HeaderMap, response::Response};
use utoipa::ToSchema;

use super::{audit_log::Change, created};
use crate::{
    http::{
        auth::Admin,
        body::Body,
        fields::{Fields, IDS},
        idempotency_key::IdempotencyKey,
        problem::{Code, Problem},
    },
    known::{
        once::once,
        users::{self, UserView, is_address},
    },
    state::AppState,
};

/// A user to create.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserRequest, example = json!({"id": 20_001, "name": "Kim Minji", "email": "minji@example.com"}))]
pub(super) struct NewUser {
    /// The next one that is free, unless given.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991i64)]
    pub(super) id: Option<i64>,
    #[schema(min_length = 1, max_length = 200)]
    pub(super) name: String,
    #[schema(min_length = 1, max_length = 254, pattern = "[^@]@+[^@]")]
    pub(super) email: String,
}

impl NewUser {
    pub(super) fn read(fields: &mut Fields) -> Self {
        let id = fields.optional_integer("id", IDS);
        let (name, email) = (fields.text("name", 200), fields.text("email", 254));
        if !email.is_empty() && !is_address(&email) {
            fields.reject("email", "must be an email address");
        }
        Self { id, name, email }
    }
}

/// Creates a user with balance 0.
///
/// # Errors
/// 400, 401, 403, 409, 422, 503.
#[utoipa::path(
    post, path = "/api/admin/users", operation_id = "createUser", tag = "Admin",
    params(IdempotencyKey),
    request_body = NewUser,
    responses((status = 201, description = "The user.", body = UserView)),
    extensions(("x-codes" = json!([Code::UserExists, Code::EmailTaken]))),
)]
pub async fn create_user(
    State(state): State<AppState>,
    Admin(admin): Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Body { mut fields, bytes } = body;
    let NewUser { id, name, email } = NewUser::read(&mut fields);
    fields.finish()?;

    let user =
        once(&state.pool, admin.user_id, "create-user", &headers, &bytes, async |transaction| {
            let user = users::create(&mut *transaction, id, &name, &email).await?;
            let user = user.ok_or_else(|| Problem::new(Code::UserExists))?;
            let id = user.id();
            let change = Change::new(admin.user_id, "create-user", format!("users/{id}"));
            change.of_person(id).after(&user)?.note(transaction).await?;
            Ok(user)
        })
        .await?;
    Ok(created(&user))
}
