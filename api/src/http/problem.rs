//! Every error answer: RFC 9457 `application/problem+json` with a stable `code`.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use firstcome_contract::{lost, rejection::Rejection};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

/// What went wrong, as clients may match on it. Codes are public and stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "`parts` says for each what it means")]
pub enum Code {
    ValidationFailed,
    MalformedBody,
    Unauthenticated,
    Forbidden,
    RouteNotFound,
    MethodNotAllowed,
    BodyTooLarge,
    BodyTimeout,
    UnsupportedMediaType,
    UserNotFound,
    CouponNotFound,
    CouponNotStarted,
    CouponEnded,
    CouponAlreadyIssued,
    CouponSoldOut,
    ProductNotFound,
    OutOfStock,
    CouponNotOwned,
    CouponAlreadyUsed,
    CouponExpired,
    InsufficientBalance,
    AmountOutOfRange,
    BalanceCeiling,
    CartEmpty,
    OrderNotFound,
    TotalBelowIssued,
    IdempotencyKeyReused,
    JobNotFound,
    JobExpired,
    JobUndecodable,
    JobUnprocessable,
    JobOverdue,
    JobLost,
    PinNotFound,
    TooManyPins,
    DeadLetterNotFound,
    DeadLetterUndecodable,
    UserExists,
    EmailTaken,
    RateLimited,
    TooManyConnections,
    LineFull,
    BrokerUnavailable,
    DatabaseUnavailable,
    InternalError,
}

impl Code {
    /// The code as the client sees it, its HTTP status and its title.
    const fn parts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::ValidationFailed => {
                ("validation-failed", StatusCode::BAD_REQUEST, "The request is not valid")
            }
            Self::MalformedBody => {
                ("malformed-body", StatusCode::BAD_REQUEST, "The body is not well-formed JSON")
            }
            Self::Unauthenticated => {
                ("unauthenticated", StatusCode::UNAUTHORIZED, "A valid bearer token is needed")
            }
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "The caller may not do this"),
            Self::RouteNotFound => {
                ("route-not-found", StatusCode::NOT_FOUND, "There is nothing at this path")
            }
            Self::MethodNotAllowed => (
                "method-not-allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                "The path does not know this method",
            ),
            Self::BodyTimeout => {
                ("body-timeout", StatusCode::REQUEST_TIMEOUT, "The body took too long to arrive")
            }
            Self::BodyTooLarge => {
                ("body-too-large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large")
            }
            Self::UnsupportedMediaType => (
                "unsupported-media-type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body must be application/json",
            ),
            Self::UserNotFound => {
                ("user-not-found", StatusCode::NOT_FOUND, "There is no such user")
            }
            Self::CouponNotFound => {
                ("coupon-not-found", StatusCode::NOT_FOUND, "There is no such coupon")
            }
            Self::CouponNotStarted => {
                ("coupon-not-started", StatusCode::CONFLICT, "The campaign has not started")
            }
            Self::CouponEnded => ("coupon-ended", StatusCode::CONFLICT, "The campaign has ended"),
            Self::CouponAlreadyIssued => (
                "coupon-already-issued",
                StatusCode::CONFLICT,
                "The user already holds this coupon",
            ),
            Self::CouponSoldOut => {
                ("coupon-sold-out", StatusCode::CONFLICT, "All coupons are issued")
            }
            Self::ProductNotFound => {
                ("product-not-found", StatusCode::NOT_FOUND, "There is no such product")
            }
            Self::OutOfStock => {
                ("out-of-stock", StatusCode::CONFLICT, "There is not enough in stock")
            }
            Self::CouponNotOwned => {
                ("coupon-not-owned", StatusCode::CONFLICT, "The user holds no such coupon")
            }
            Self::CouponAlreadyUsed => {
                ("coupon-already-used", StatusCode::CONFLICT, "The coupon was used before")
            }
            Self::CouponExpired => {
                ("coupon-expired", StatusCode::CONFLICT, "The coupon is not valid at this time")
            }
            Self::InsufficientBalance => {
                ("insufficient-balance", StatusCode::CONFLICT, "The balance does not cover it")
            }
            Self::AmountOutOfRange => {
                ("amount-out-of-range", StatusCode::BAD_REQUEST, "The amount is out of range")
            }
            Self::BalanceCeiling => {
                ("balance-ceiling", StatusCode::CONFLICT, "The balance would exceed its ceiling")
            }
            Self::CartEmpty => ("cart-empty", StatusCode::BAD_REQUEST, "The cart is empty"),
            Self::OrderNotFound => {
                ("order-not-found", StatusCode::NOT_FOUND, "There is no such order")
            }
            Self::TotalBelowIssued => {
                ("total-below-issued", StatusCode::CONFLICT, "More coupons than that are issued")
            }
            Self::IdempotencyKeyReused => (
                "idempotency-key-reused",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The idempotency key belongs to another request",
            ),
            Self::JobNotFound => ("job-not-found", StatusCode::NOT_FOUND, "There is no such job"),
            Self::JobExpired => {
                ("job-expired", StatusCode::GONE, "The job's outcome is no longer kept")
            }
            Self::JobUndecodable => {
                ("job-undecodable", StatusCode::INTERNAL_SERVER_ERROR, "The job could not be read")
            }
            Self::JobUnprocessable => (
                "job-unprocessable",
                StatusCode::INTERNAL_SERVER_ERROR,
                "The job could not be processed",
            ),
            Self::JobOverdue => (
                "job-overdue",
                StatusCode::INTERNAL_SERVER_ERROR,
                "The job came too late to be processed",
            ),
            Self::JobLost => ("job-lost", StatusCode::INTERNAL_SERVER_ERROR, "The job was lost"),
            Self::PinNotFound => ("pin-not-found", StatusCode::NOT_FOUND, "There is no such pin"),
            Self::TooManyPins => {
                ("too-many-pins", StatusCode::CONFLICT, "There are as many pins as there can be")
            }
            Self::DeadLetterNotFound => {
                ("dead-letter-not-found", StatusCode::NOT_FOUND, "There is no such dead letter")
            }
            Self::DeadLetterUndecodable => (
                "dead-letter-undecodable",
                StatusCode::CONFLICT,
                "This version cannot read the dead letter either",
            ),
            Self::UserExists => ("user-exists", StatusCode::CONFLICT, "The user id is taken"),
            Self::EmailTaken => ("email-taken", StatusCode::CONFLICT, "The email address is taken"),
            Self::RateLimited => {
                ("rate-limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests of this caller")
            }
            Self::TooManyConnections => (
                "too-many-connections",
                StatusCode::SERVICE_UNAVAILABLE,
                "There are as many connections as there may be",
            ),
            Self::LineFull => ("line-full", StatusCode::SERVICE_UNAVAILABLE, "The line is full"),
            Self::BrokerUnavailable => (
                "broker-unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "The request cannot be queued now",
            ),
            Self::DatabaseUnavailable => (
                "database-unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "The answer cannot be looked up now",
            ),
            Self::InternalError => (
                "internal-error",
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something went wrong on our side",
            ),
        }
    }

    /// The code as the client sees it.
    pub(crate) const fn name(self) -> &'static str {
        self.parts().0
    }

    /// The HTTP status that goes with it.
    pub(crate) const fn status(self) -> StatusCode {
        self.parts().1
    }

    /// The code of a stored outcome. Codes of later versions read as an internal error.
    #[must_use]
    pub fn of_outcome(code: &str) -> Self {
        match Rejection::from_code(code) {
            Some(rejection) => rejection.into(),
            None if code == Self::JobUndecodable.name() => Self::JobUndecodable,
            None if code == Self::JobUnprocessable.name() => Self::JobUnprocessable,
            None if code == Self::JobOverdue.name() => Self::JobOverdue,
            None if code == lost::CODE => Self::JobLost,
            None => Self::InternalError,
        }
    }
}

impl From<Rejection> for Code {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::UserNotFound => Self::UserNotFound,
            Rejection::CouponNotFound => Self::CouponNotFound,
            Rejection::CouponNotStarted => Self::CouponNotStarted,
            Rejection::CouponEnded => Self::CouponEnded,
            Rejection::CouponAlreadyIssued => Self::CouponAlreadyIssued,
            Rejection::CouponSoldOut => Self::CouponSoldOut,
            Rejection::ProductNotFound => Self::ProductNotFound,
            Rejection::OutOfStock => Self::OutOfStock,
            Rejection::CouponNotOwned => Self::CouponNotOwned,
            Rejection::CouponAlreadyUsed => Self::CouponAlreadyUsed,
            Rejection::CouponExpired => Self::CouponExpired,
            Rejection::InsufficientBalance => Self::InsufficientBalance,
            Rejection::IdempotencyKeyReused => Self::IdempotencyKeyReused,
        }
    }
}

/// One offending field.
#[derive(Debug, Clone, Serialize, PartialEq, Eq, ToSchema)]
pub struct FieldError {
    /// The field, as the client wrote it; a header by its name.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}

/// What was known when it was told last.
#[derive(Debug, Clone, Serialize, PartialEq, Eq, ToSchema)]
pub struct LastKnown {
    /// The job's place in its line: 1 is next. An estimate.
    pub position: u64,
}

/// An error answer; also, as a value, the `error` of a job.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:firstcome:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    type_uri: TypeUri,
    /// What the code means.
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong with this request.
    detail: String,
    #[schema(value_type = Code)]
    code: &'static str,
    /// Every offending field, of `validation-failed`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// Of a job whose state cannot be looked up now.
    #[serde(rename = "lastKnown", skip_serializing_if = "Option::is_none")]
    last_known: Option<Box<LastKnown>>,
    #[serde(skip)]
    retry_after: Option<u32>,
}

/// A name for the kind of problem that is stable and needs no server to stand for it.
#[derive(Debug, Clone)]
struct TypeUri(&'static str);

impl Serialize for TypeUri {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("urn:firstcome:problem:{}", self.0))
    }
}

impl Problem {
    /// A problem whose title says it all.
    #[must_use]
    pub fn new(code: Code) -> Self {
        let (_, _, title) = code.parts();
        Self::with_detail(code, format!("{title}."))
    }

    /// A problem with a detail of its own.
    #[must_use]
    pub fn with_detail(code: Code, detail: impl Into<String>) -> Self {
        let (code, status, title) = code.parts();
        Self {
            type_uri: TypeUri(code),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            code,
            errors: Vec::new(),
            last_known: None,
            retry_after: None,
        }
    }

    /// All offending fields at once.
    #[must_use]
    pub fn validation(errors: Vec<FieldError>) -> Self {
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        let detail = format!("See errors: {}.", fields.join(", "));
        Self { errors, ..Self::with_detail(Code::ValidationFailed, detail) }
    }

    /// One offending field.
    #[must_use]
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::validation(vec![FieldError { field: field.to_owned(), detail: detail.into() }])
    }

    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }

    /// What the code means.
    pub(crate) const fn title(&self) -> &'static str {
        self.title
    }

    /// Says when to come back, in whole seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(u32::try_from(seconds).unwrap_or(u32::MAX)), ..self }
    }

    /// Says where the job stood.
    #[must_use]
    pub fn last_known(self, position: u64) -> Self {
        Self { last_known: Some(Box::new(LastKnown { position })), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Every status here comes from `parts`, so it is one.
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Strings and numbers always serialize.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, content_type, body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A database error ends here: into the log with its text, to the client without it.
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        let ours = matches!(
            &error,
            sqlx::Error::Database(database)
                if ["22", "23", "42"].iter().any(|class| database.code().unwrap_or_default().starts_with(class))
        ) || matches!(
            error,
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound
        );
        if ours {
            tracing::error!(%error, "query failed");
            Self::new(Code::InternalError)
        } else {
            tracing::warn!(%error, "database unavailable");
            Self::new(Code::DatabaseUnavailable).retry_after(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rejection_keeps_its_code() {
        for rejection in Rejection::ALL {
            assert_eq!(Problem::new(rejection.into()).code, rejection.code());
            assert_eq!(Code::of_outcome(rejection.code()), rejection.into());
        }
        for failed in
            [Code::JobUndecodable, Code::JobUnprocessable, Code::JobOverdue, Code::JobLost]
        {
            assert_eq!(Code::of_outcome(failed.name()), failed);
        }
    }

    #[test]
    fn every_code_is_written_as_it_is_documented() {
        let schema = serde_json::to_value(<Code as utoipa::PartialSchema>::schema()).unwrap();
        let names = schema["enum"].as_array().unwrap();
        assert!(names.len() > Rejection::ALL.len());
        for name in names {
            let code: Code = serde_json::from_value(name.clone()).unwrap();
            assert_eq!(code.name(), name);
        }
    }
}
