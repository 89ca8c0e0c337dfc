//! Poolers between the programs and PostgreSQL.
//!
//! The programs need a session for each connection: its settings, what it has prepared, what it listens to and
//! the lock of migrations are the session's. A pooler that gives a session to whoever has a transaction is refused.

use sqlx::Error;

/// What a pooler does that cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub(super) enum Pooler {
    /// As by `pool_mode = transaction`, or by `session` without a reset.
    #[error(
        "a pooler before PostgreSQL gives a session to several connections, and the programs need one for \
         each: PgBouncer needs pool_mode = session and server_reset_query = DISCARD ALL"
    )]
    SharesSessions,
    /// It does not know a parameter, and says so.
    #[error(
        "a pooler before PostgreSQL refuses the settings of sessions ({0}): PgBouncer needs \
         ignore_startup_parameters = extra_float_digits,options"
    )]
    RefusesSettings(String),
}

impl From<Pooler> for Error {
    fn from(pooler: Pooler) -> Self {
        Self::Configuration(Box::new(pooler))
    }
}

/// What was prepared is there already, or is not: the session is not the one in which it was, or another has it, too.
pub(super) const EXCHANGED: [&str; 2] = ["42P05", "26000"];

/// The error of a connection or its first statement, with a hint if a pooler is to blame.
pub(super) fn explained(error: Error) -> Error {
    let Some(database) = error.as_database_error() else { return error };
    match database.code().as_deref() {
        // A new session has prepared nothing, so nothing is in the way, and what it has just prepared is there.
        Some(code) if EXCHANGED.contains(&code) => Pooler::SharesSessions.into(),
        Some("08P01") if database.message().contains("startup parameter") => {
            Pooler::RefusesSettings(database.message().to_owned()).into()
        }
        _ => error,
    }
}

/// What the pooler does, if that is what the error says.
pub(super) fn blamed(error: &Error) -> Option<&Pooler> {
    let Error::Configuration(cause) = error else { return None };
    cause.downcast_ref()
}
