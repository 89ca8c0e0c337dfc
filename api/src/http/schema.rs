//! What the schemas of several endpoints have in common.

use firstcome_contract::{family::Family, job::JobKind};
use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, Type},
};

/// A job id, for examples.
pub(crate) const JOB_ID: &str = "019c1b2a-7c00-7000-8400-0158cf2fd1a3";

/// A text that is one of these.
pub(crate) fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build()
}

/// The name of a kind of jobs.
pub(crate) fn kinds() -> Object {
    one_of(JobKind::ALL.map(JobKind::as_str))
}

/// The name of a family of lines.
pub(crate) fn families() -> Object {
    one_of(Family::ALL.map(Family::as_str))
}

/// The body of a POST without fields, which may also be left out.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({}))]
pub(crate) struct Nothing {}
