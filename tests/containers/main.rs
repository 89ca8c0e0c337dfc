//! The containers, as far as that goes without an engine: the Dockerfile, docker-compose.yml and deploy/kubernetes
//! agree with the programs, and the programs, run as docker-compose.yml says, are a shop.
//! `scripts/containers.test` adds what takes a compiler.

mod compose;
mod image;
mod kubernetes;
mod shop;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A path in the repository.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}
