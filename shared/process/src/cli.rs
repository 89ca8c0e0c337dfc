//! Command lines.

use std::ffi::OsString;

/// The program's arguments; without any, the command that it does by default.
#[must_use]
pub fn arguments_or(command: &str) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.len() < 2 {
        arguments.push(command.into());
    }
    arguments
}
