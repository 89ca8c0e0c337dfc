//! Every error answer: RFC 9457 `application/problem+json` with a stable `code`.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use firstcome_contract::{failure::Failure, rejection::Rejection};
use firstcome_process::request_id;
use serde::{Serialize, Serializer};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

/// The codes by their table: name in this program, code, HTTP status, title. The code of what can become of a
/// job is spelled where the workers find it too.
macro_rules! codes {
    ($($name:ident = $($code:literal)? $(Rejection::$rejection:ident)? $(Failure::$failure:ident)?,
        $status:ident, $title:literal;)+) => {
        /// What went wrong, as clients may match on it. Codes are public and stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the title says for each what it means")]
        pub enum Code {
            $($name,)+
        }

        impl Code {
            /// Every code there is, as they stand in the table.
            pub const ALL: [Self; [$($title),+].len()] = [$(Self::$name),+];

            /// The code as the client sees it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $($code)? $(Rejection::$rejection.code())? $(Failure::$failure.code())?,)+
                }
            }

            /// The HTTP status that goes with it.
            pub(crate) const fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)+
                }
            }

            /// What the code means, for people; the same in every answer.
            pub(crate) const fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)+
                }
            }
        }

        impl From<Rejection> for Code {
            fn from(rejection: Rejection) -> Self {
                match rejection {
                    $($(Rejection::$rejection => Self::$name,)?)+
                }
            }
        }

        impl From<Failure> for Code {
            fn from(failure: Failure) -> Self {
                match failure {
                    $($(Failure::$failure => Self::$name,)?)+
                }
            }
        }
    };
}

codes! {
    ValidationFailed = "validation-failed", BAD_REQUEST, "The request is not valid";
    MalformedBody = "malformed-body", BAD_REQUEST, "The body is not well-formed JSON";
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "A valid bearer token is needed";
    Forbidden = "forbidden", FORBIDDEN, "The caller may not do this";
    RouteNotFound = "route-not-found", NOT_FOUND, "There is nothing at this path";
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "The path does not know this method";
    BodyTooLarge = "body-too-large", PAYLOAD_TOO_LARGE, "The body is too large";
    BodyTimeout = "body-timeout", REQUEST_TIMEOUT, "The body took too long to arrive";
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The body is of a type that is not taken here";
    UserNotFound = Rejection::UserNotFound, NOT_FOUND, "There is no such user";
    CouponNotFound = Rejection::CouponNotFound, NOT_FOUND, "There is no such coupon";
    SalePaused = Rejection::SalePaused, CONFLICT, "The sale is paused";
    CouponNotStarted = Rejection::CouponNotStarted, CONFLICT, "The campaign has not started";
    CouponEnded = Rejection::CouponEnded, CONFLICT, "The campaign has ended";
    CouponAlreadyIssued = Rejection::CouponAlreadyIssued, CONFLICT, "The user already holds this coupon";
    CouponSoldOut = Rejection::CouponSoldOut, CONFLICT, "All coupons are issued";
    ProductNotFound = Rejection::ProductNotFound, NOT_FOUND, "There is no such product";
    ProductNotOnSale = Rejection::ProductNotOnSale, CONFLICT, "The product is not on sale at this time";
    LimitExceeded = Rejection::LimitExceeded, CONFLICT, "A customer may not have that many";
    OutOfStock = Rejection::OutOfStock, CONFLICT, "There is not enough in stock";
    CouponNotOwned = Rejection::CouponNotOwned, CONFLICT, "The user holds no such coupon";
    CouponAlreadyUsed = Rejection::CouponAlreadyUsed, CONFLICT, "The coupon was used before";
    CouponExpired = Rejection::CouponExpired, CONFLICT, "The coupon is not valid at this time";
    InsufficientBalance = Rejection::InsufficientBalance, CONFLICT, "The balance does not cover it";
    AmountOutOfRange = "amount-out-of-range", BAD_REQUEST, "The amount is out of range";
    BalanceCeiling = "balance-ceiling", CONFLICT, "The balance would exceed its ceiling";
    CartEmpty = "cart-empty", BAD_REQUEST, "The cart is empty";
    OrderNotFound = Rejection::OrderNotFound, NOT_FOUND, "There is no such order";
    OrderAlreadyCancelled = Rejection::OrderAlreadyCancelled, CONFLICT, "The order was cancelled before";
    OrderNotCancellable = Rejection::OrderNotCancellable, CONFLICT, "The order is too old to be cancelled";
    StockTooLow = "stock-too-low", CONFLICT, "There is less in stock than that";
    TotalBelowIssued = "total-below-issued", CONFLICT, "More coupons than that are issued";
    PreconditionFailed = "precondition-failed", PRECONDITION_FAILED, "It was changed since it was read";
    IdempotencyKeyReused = Rejection::IdempotencyKeyReused, UNPROCESSABLE_ENTITY, "The idempotency key belongs to another request";
    JobNotFound = "job-not-found", NOT_FOUND, "There is no such job";
    JobExpired = "job-expired", GONE, "The job's outcome is no longer kept";
    JobUndecodable = Failure::Undecodable, INTERNAL_SERVER_ERROR, "The job could not be read";
    JobUnprocessable = Failure::Unprocessable, INTERNAL_SERVER_ERROR, "The job could not be processed";
    JobOverdue = Failure::Overdue, INTERNAL_SERVER_ERROR, "The job came too late to be processed";
    JobLost = Failure::Lost, INTERNAL_SERVER_ERROR, "The job was lost";
    PinNotFound = "pin-not-found", NOT_FOUND, "There is no such pin";
    TooManyPins = "too-many-pins", CONFLICT, "There are as many pins as there can be";
    DeadLetterNotFound = "dead-letter-not-found", NOT_FOUND, "There is no such dead letter";
    DeadLetterUndecodable = "dead-letter-undecodable", CONFLICT, "This version cannot read the dead letter either";
    UserExists = "user-exists", CONFLICT, "The user id is taken";
    EmailTaken = "email-taken", CONFLICT, "The email address is taken";
    RateLimited = "rate-limited", TOO_MANY_REQUESTS, "Too many requests of this caller";
    TooManyConnections = "too-many-connections", SERVICE_UNAVAILABLE, "There are as many connections as there may be";
    TooManyStreams = "too-many-streams", SERVICE_UNAVAILABLE, "There are as many streams as there may be";
    TooManyImports = "too-many-imports", SERVICE_UNAVAILABLE, "There are as many imports as there may be";
    LineFull = "line-full", SERVICE_UNAVAILABLE, "The line is full";
    BrokerUnavailable = "broker-unavailable", SERVICE_UNAVAILABLE, "The request cannot be queued now";
    IssuerUnavailable = "issuer-unavailable", SERVICE_UNAVAILABLE, "The keys of the token's issuer cannot be looked up now";
    DatabaseUnavailable = "database-unavailable", SERVICE_UNAVAILABLE, "The answer cannot be looked up now";
    InternalError = "internal-error", INTERNAL_SERVER_ERROR, "Something went wrong on our side";
}

impl Code {
    /// The code with this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// The code of a stored outcome. Codes of later versions read as an internal error.
    #[must_use]
    pub fn of_outcome(code: &str) -> Self {
        let failed = || Failure::from_code(code).map(Self::from);
        Rejection::from_code(code).map(Self::from).or_else(failed).unwrap_or(Self::InternalError)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl PartialSchema for Code {
    fn schema() -> RefOr<Schema> {
        let schema = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "What went wrong, as clients may match on it. Codes are public and stable.",
            ))
            .enum_values(Some(Self::ALL.map(Self::name)));
        schema.into()
    }
}

impl ToSchema for Code {}

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
    code: Code,
    /// Every offending field, of `validation-failed`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// Of a job whose state cannot be looked up now.
    #[serde(rename = "lastKnown", skip_serializing_if = "Option::is_none")]
    last_known: Option<Box<LastKnown>>,
    /// The request's `X-Request-Id`; not in the `error` of a job.
    #[serde(rename = "requestId", skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip)]
    retry_after: Option<u32>,
}

/// A name for the kind of problem that is stable and needs no server to stand for it.
#[derive(Debug, Clone)]
struct TypeUri(Code);

impl Serialize for TypeUri {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("urn:firstcome:problem:{}", self.0.name()))
    }
}

impl Problem {
    /// A problem whose title says it all.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self::with_detail(code, format!("{}.", code.title()))
    }

    /// A problem with a detail of its own.
    #[must_use]
    pub fn with_detail(code: Code, detail: impl Into<String>) -> Self {
        Self {
            type_uri: TypeUri(code),
            title: code.title(),
            status: code.status().as_u16(),
            detail: detail.into(),
            code,
            errors: Vec::new(),
            last_known: None,
            request_id: None,
            retry_after: None,
        }
    }

    /// Makes a `validation-failed` that tells of all offending fields at once.
    #[must_use]
    pub fn validation(errors: Vec<FieldError>) -> Self {
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        let detail = format!("See errors: {}.", fields.join(", "));
        Self { errors, ..Self::with_detail(Code::ValidationFailed, detail) }
    }

    /// Makes a `validation-failed` of one offending field.
    #[must_use]
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::validation(vec![FieldError { field: field.to_owned(), detail: detail.into() }])
    }

    /// The code by which clients and metrics tell what went wrong.
    pub(crate) const fn code(&self) -> Code {
        self.code
    }

    /// What is wrong, in words: of a `validation-failed` with each field.
    pub(crate) fn reasons(self) -> Vec<String> {
        if self.errors.is_empty() {
            return vec![self.detail];
        }
        let reason = |error: FieldError| format!("{}: {}", error.field, error.detail);
        self.errors.into_iter().map(reason).collect()
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
    fn into_response(mut self) -> Response {
        self.request_id = request_id::current();
        let status = self.code.status();
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
    fn every_end_of_a_job_keeps_its_code() {
        for rejection in Rejection::ALL {
            assert_eq!(Code::of_outcome(rejection.code()), rejection.into());
        }
        for failure in Failure::ALL {
            assert_eq!(Code::of_outcome(failure.code()), failure.into());
        }
        assert_eq!(Code::of_outcome("line-full"), Code::InternalError, "no end of a job");
    }

    #[test]
    fn every_code_has_one_name() {
        for code in Code::ALL {
            assert_eq!(Code::from_name(code.name()), Some(code));
        }
    }
}
