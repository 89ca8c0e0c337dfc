//! TLS with a broker whose certificate a private authority has signed, or that asks for ours.

use std::{fs, io, path::PathBuf};

use clap::{
    Args,
    builder::{PathBufValueParser, TypedValueParser},
};
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};

/// The files of TLS. They are read at each connection, so that a renewed certificate is used without a restart.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsArgs {
    /// File with the certificates (PEM) of who signs the broker's certificate, besides the public ones.
    #[arg(long, env = "AMQP_CA_FILE", value_parser = pem("CERTIFICATE"))]
    pub amqp_ca_file: Option<PathBuf>,
    /// File with our certificate (PEM) for the broker.
    #[arg(long, env = "AMQP_CERT_FILE", requires = "amqp_key_file", value_parser = pem("CERTIFICATE"))]
    pub amqp_cert_file: Option<PathBuf>,
    /// File with the private key (PEM) of that certificate.
    #[arg(long, env = "AMQP_KEY_FILE", requires = "amqp_cert_file", value_parser = pem("PRIVATE KEY"))]
    pub amqp_key_file: Option<PathBuf>,
}

impl TlsArgs {
    pub(crate) const fn is_given(&self) -> bool {
        self.amqp_ca_file.is_some() || self.amqp_cert_file.is_some()
    }

    /// What the files hold now.
    pub(crate) fn read(&self) -> io::Result<OwnedTLSConfig> {
        let identity = match (&self.amqp_cert_file, &self.amqp_key_file) {
            (Some(certificate), Some(key)) => {
                let (pem, key) = (fs::read(certificate)?, fs::read(key)?);
                Some(OwnedIdentity::PKCS8 { pem, key })
            }
            _ => None,
        };
        let cert_chain = self.amqp_ca_file.as_ref().map(fs::read_to_string).transpose()?;
        Ok(OwnedTLSConfig { identity, cert_chain })
    }
}

/// The path of a file that holds such a thing.
fn pem(label: &'static str) -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(move |path| {
        let text =
            fs::read_to_string(&path).map_err(|error| format!("it cannot be read: {error}"))?;
        let begins = |line: &str| line.starts_with("-----BEGIN ") && line.contains(label);
        if text.lines().any(begins) {
            Ok(path)
        } else {
            Err(format!("there is no {label} (PEM) in it"))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_file_without_what_it_should_hold_is_refused() {
        let read = |path: &str| {
            pem("CERTIFICATE").parse_ref(&clap::Command::new("x"), None, OsStr::new(path))
        };
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert!(read(manifest).unwrap_err().to_string().contains("no CERTIFICATE"));
        assert!(read("/nowhere").unwrap_err().to_string().contains("cannot be read"));
    }
}
