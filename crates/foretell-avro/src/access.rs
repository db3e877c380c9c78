//! How a registry is reached, and how we get in: its address, whom we trust, who we are.

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

/// Where a registry is, and how to get in.
#[derive(Clone, Debug)]
pub struct RegistryClientConfig {
    /// Its address; a path is kept, such as `http://host:8080/apis/ccompat/v7`.
    pub url: String,
    /// Who we are to it.
    pub credentials: Credentials,
    /// Whom we trust, and our own certificate.
    pub tls: RegistryTls,
    /// How long one attempt of a call may take.
    pub timeout: Duration,
}

/// What TLS takes besides the system's trusted certificates; files in PEM.
#[derive(Clone, Debug, Default)]
pub struct RegistryTls {
    /// Who may have signed the registry's certificate, besides.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate with its chain, and its key (PKCS#8), for a registry that asks who we are.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl RegistryTls {
    /// A client is built twice, and a builder serves once.
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

/// How we show who we are.
#[derive(Clone)]
pub enum Credentials {
    /// Not at all.
    None,
    /// By name and password; with Confluent Cloud, the API key and its secret.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// By a token.
    Bearer(String),
}

impl fmt::Debug for Credentials {
    /// Without the secrets: settings get logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Basic { user, .. } => write!(f, "Basic({user})"),
            Self::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

/// An error with all its causes.
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
    fn certificates_that_are_none() {
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
