//! Programs of others.

use std::path::PathBuf;

/// Where the program of this name is, by the PATH.
pub(super) fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // What is not absolute would be taken for a program of ours.
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_absolute() && program.is_file())
}
