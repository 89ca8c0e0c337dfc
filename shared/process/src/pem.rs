//! Files of TLS, looked at before they are needed.

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
};

use clap::builder::{PathBufValueParser, TypedValueParser};
use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

/// Reads the path of a file of certificates.
#[must_use]
pub fn certificates_file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| certificates(&path).map(|()| path))
}

/// Reads the path of a file of a private key.
#[must_use]
pub fn key_file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| key(&path).map(|()| path))
}

/// Whether there are certificates in the file, and nothing malformed.
pub(crate) fn certificates(path: &Path) -> Result<(), String> {
    let malformed = |error: &dyn Display| format!("it is malformed: {error}");
    let text = read(path)?;
    let mut known = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| malformed(&error))?;
        known.add(certificate).map_err(|error| malformed(&error))?;
    }
    if known.is_empty() { Err("there is no certificate (PEM) in it".to_owned()) } else { Ok(()) }
}

/// Whether there is a private key in the file.
pub(crate) fn key(path: &Path) -> Result<(), String> {
    match PrivateKeyDer::from_pem_slice(&read(path)?) {
        Ok(_) => Ok(()),
        Err(pem::Error::NoItemsFound) => Err("there is no private key (PEM) in it".to_owned()),
        Err(error) => Err(format!("it is malformed: {error}")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("it cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_what_it_should_hold_is_refused() {
        let manifest = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        assert!(certificates(manifest).unwrap_err().contains("no certificate"));
        assert!(key(manifest).unwrap_err().contains("no private key"));
        assert!(key(Path::new("/nowhere")).unwrap_err().contains("cannot be read"));
    }
}
