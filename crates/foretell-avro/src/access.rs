//! Connection settings of a registry client: address, credentials and TLS.

use std::{
    error::Error,
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{
    Certificate, Identity,
    blocking::{Client, ClientBuilder},
};

/// Connection settings of a registry.
#[derive(Clone, Debug)]
pub struct RegistryClientConfig {
    /// Address with an optional path, such as `http://host:8080/apis/ccompat/v7`.
    pub url: String,
    /// Credentials for HTTP authentication.
    pub credentials: Credentials,
    /// Certificates for TLS.
    pub tls: RegistryTls,
    /// Time limit of one attempt of a call.
    pub timeout: Duration,
}

/// Certificates for TLS, in addition to the system's trusted ones; files in PEM.
#[derive(Clone, Debug, Default)]
pub struct RegistryTls {
    /// Certificates of further trusted authorities.
    pub ca_file: Option<PathBuf>,
    /// Client certificate with its chain, and its key (PKCS#8), for mutual TLS.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl RegistryTls {
    /// A builder of HTTP clients with these certificates. Each call returns a new one, because building consumes it.
    pub(super) fn client(&self) -> Result<ClientBuilder, String> {
        let mut builder = Client::builder();
        if let Some(path) = &self.ca_file {
            let not_pem = |error| format!("{} is not PEM: {}", path.display(), chain(&error));
            let trusted = Certificate::from_pem_bundle(&read(path)?).map_err(not_pem)?;
            if trusted.is_empty() {
                return Err(format!("{} holds no certificate", path.display()));
            }
            builder = builder.tls_certs_merge(trusted);
        }
        if let Some((certificate, key)) = &self.identity {
            let identity = Identity::from_pkcs8_pem(&read(certificate)?, &read(key)?);
            builder = builder.identity(identity.map_err(|error| {
                format!(
                    "{} and {} are no certificate and its key (PEM, PKCS#8, without a password): {}",
                    certificate.display(),
                    key.display(),
                    chain(&error)
                )
            })?);
        }
        Ok(builder)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Credentials for HTTP authentication.
#[derive(Clone)]
pub enum Credentials {
    /// No authentication.
    None,
    /// Basic authentication; for Confluent Cloud, with the API key and its secret.
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// Authentication with a bearer token.
    Bearer(String),
}

impl fmt::Debug for Credentials {
    /// Omits the secrets, because settings are logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Basic { user, .. } => write!(f, "Basic({user})"),
            Self::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

/// The messages of an error and all its causes, separated by colons.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_certificates_are_errors() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem");
        fs::write(&path, "no certificate").expect("it can be written");
        let check = |tls: RegistryTls, expected: &str| {
            let found = tls.client().map(|_| ()).unwrap_err();
            assert!(found.contains(expected), "{expected} in {found}");
        };
        let gone = folder.path().join("gone.pem");
        check(RegistryTls { ca_file: Some(path.clone()), identity: None }, "ca.pem");
        check(RegistryTls { ca_file: Some(gone), identity: None }, "cannot read");
        check(RegistryTls { ca_file: None, identity: Some((path.clone(), path)) }, "PKCS#8");
    }
}
