//! TLS with a broker whose certificate a private authority has signed, or that asks for ours.

use std::{fs, io, path::PathBuf};

use clap::Args;
use firstcome_process::pem::{certificates_file, key_file};
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};

/// The files of TLS. They are read at each connection, so that a renewed certificate is used without a restart.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsArgs {
    /// File with the certificates (PEM) of who signs the broker's certificate, besides the public ones.
    #[arg(long, env = "AMQP_CA_FILE", value_parser = certificates_file())]
    pub amqp_ca_file: Option<PathBuf>,
    /// File with our certificate (PEM) for the broker.
    #[arg(long, env = "AMQP_CERT_FILE", requires = "amqp_key_file", value_parser = certificates_file())]
    pub amqp_cert_file: Option<PathBuf>,
    /// File with the private key (PEM) of that certificate.
    #[arg(long, env = "AMQP_KEY_FILE", requires = "amqp_cert_file", value_parser = key_file())]
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
