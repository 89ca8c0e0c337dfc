//! What `DATABASE_URL` says.

use std::path::Path;

use sqlx::{Error, postgres::PgConnectOptions};
use url::Url;

use crate::pem;

/// The options of a URL.
///
/// # Errors
/// It is malformed, or a file of TLS that it names is; neither shows the URL, which holds a password.
pub(super) fn read(text: &str) -> Result<PgConnectOptions, Error> {
    let url = Url::parse(text).map_err(|error| Error::Configuration(error.into()))?;
    // sqlx takes any.
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(Error::Configuration(
            "expected postgres://user:password@host:port/database".into(),
        ));
    }
    let options: PgConnectOptions = text.parse()?;
    for (name, file) in url.query_pairs() {
        let checked = match &*name {
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" | "sslcert" | "ssl-cert" => {
                pem::certificates(Path::new(&*file))
            }
            "sslkey" | "ssl-key" => pem::key(Path::new(&*file)),
            _ => Ok(()),
        };
        checked.map_err(|error| Error::Configuration(format!("{name}={file}: {error}").into()))?;
    }
    // The brackets of an IPv6 address are the URL's. A certificate names the address.
    let host = options.get_host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).map(str::to_owned);
    Ok(match address {
        Some(address) => options.host(&address),
        None => options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_is_told_as_certificates_do() {
        let host = |url: &str| read(url).unwrap().get_host().to_owned();
        assert_eq!(host("postgres://u:p@[::1]:5433/d?sslmode=verify-full"), "::1");
        assert_eq!(host("postgres://u:p@host/d"), "host");
    }

    #[test]
    fn what_is_no_url_of_postgresql_is_refused_without_the_password() {
        for url in ["u:s3cret@h/d", "s3cret", "http://u:s3cret@h/d", "postgres://u:s3cret@[::1/d"] {
            let error = read(url).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn files_that_are_not_what_they_should_be_are_named_without_the_password() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        for (parameter, reason) in [
            ("sslrootcert=/nowhere".to_owned(), "sslrootcert=/nowhere: it cannot be read"),
            (format!("sslcert={manifest}"), "no certificate (PEM) in it"),
            (format!("sslkey={manifest}"), "no private key (PEM) in it"),
        ] {
            let error = read(&format!("postgres://u:s3cret@h/d?{parameter}")).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(reason) && !error.contains("s3cret"), "{error}");
        }
    }
}
