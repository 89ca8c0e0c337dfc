//! Whom we believe over HTTPS.

use reqwest::Certificate;
use rustls::crypto::ring;

/// The authorities in this PEM, or the public ones; not the system's list, since a container may have none.
///
/// # Errors
/// There is none in it, or one is malformed.
pub fn trusted(pem: Option<&[u8]>) -> reqwest::Result<Vec<Certificate>> {
    // Who was first installed the same one.
    let _ = ring::default_provider().install_default();
    match pem {
        Some(pem) => Certificate::from_pem_bundle(pem),
        None => webpki_root_certs::TLS_SERVER_ROOT_CERTS
            .iter()
            .map(|certificate| Certificate::from_der(certificate))
            .collect(),
    }
}
