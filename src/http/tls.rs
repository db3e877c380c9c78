//! TLS from PEM files, over the system's OpenSSL, which the clients of the broker and of the registry use too.
//!
//! The files are looked at for every connection and read again when they have changed, so a renewed certificate needs no
//! restart. If the new files cannot be used, because one of two is not replaced yet, the former certificate stays.

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use openssl::{
    error::ErrorStack,
    pkey::{PKey, Private},
    ssl::{Ssl, SslAcceptor, SslMethod},
    x509::X509,
};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

/// The certificate of the server, and its key.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    certificate_file: PathBuf,
    key_file: PathBuf,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    acceptor: SslAcceptor,
    /// The files that were read last, usable or not.
    stamps: [Stamp; 2],
}

/// The time of the last change of a file, and its size; none if it is not there.
type Stamp = Option<(SystemTime, u64)>;

/// Files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file has no certificate or no key.
    #[error("{path} is not {expected}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// The cause.
        source: ErrorStack,
    },
    /// The key is not that of the certificate, or OpenSSL refuses one of them.
    #[error("the certificate in {certificate} and the key in {key} cannot be used together")]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The cause.
        source: ErrorStack,
    },
}

/// A handshake that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("cannot begin: {0}")]
    Setup(#[from] ErrorStack),
    #[error("{0}")]
    Handshake(#[from] openssl::ssl::Error),
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn load(certificate_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        let stamps = [stamp(certificate_file), stamp(key_file)];
        let acceptor = acceptor(certificate_file, key_file)?;
        Ok(Self(Arc::new(Inner {
            certificate_file: certificate_file.to_owned(),
            key_file: key_file.to_owned(),
            loaded: Mutex::new(Loaded { acceptor, stamps }),
        })))
    }

    /// Completes the handshake with a client, with the certificate that is in the files now.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<SslStream<TcpStream>, HandshakeError> {
        let ssl = Ssl::new(self.0.current().context())?;
        let mut stream = SslStream::new(ssl, stream)?;
        Pin::new(&mut stream).accept().await?;
        Ok(stream)
    }
}

impl Inner {
    /// The acceptor of the files as they are now, or else of the last ones that could be used.
    fn current(&self) -> SslAcceptor {
        let stamps = [stamp(&self.certificate_file), stamp(&self.key_file)];
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.stamps != stamps {
            loaded.stamps = stamps;
            match acceptor(&self.certificate_file, &self.key_file) {
                Ok(acceptor) => {
                    loaded.acceptor = acceptor;
                    tracing::info!(
                        "the certificate of HTTP has changed: new connections get the new one"
                    );
                }
                Err(error) => {
                    let error = with_cause(&error);
                    tracing::warn!(
                        error,
                        "the certificate of HTTP has changed and cannot be used: the former one stays"
                    );
                }
            }
        }
        loaded.acceptor.clone()
    }
}

/// The error with its cause on one line.
fn with_cause(error: &TlsError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// TLS 1.2 and 1.3, by Mozilla's recommendation for servers.
fn acceptor(certificate: &Path, key: &Path) -> Result<SslAcceptor, TlsError> {
    let (chain, private) = (chain(certificate)?, private_key(key)?);
    let build = || {
        let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
        let mut chain = chain.into_iter();
        if let Some(leaf) = chain.next() {
            builder.set_certificate(&leaf)?;
        }
        for certificate in chain {
            builder.add_extra_chain_cert(certificate)?;
        }
        builder.set_private_key(&private)?;
        builder.check_private_key()?;
        Ok(builder.build())
    };
    build().map_err(|source: ErrorStack| TlsError::Mismatch {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

/// The certificate of the server, and those that sign it, in the order of the file.
fn chain(path: &Path) -> Result<Vec<X509>, TlsError> {
    let malformed = |source| TlsError::Malformed {
        path: path.to_owned(),
        expected: "a certificate (PEM)",
        source,
    };
    let chain = X509::stack_from_pem(&read(path)?).map_err(malformed)?;
    if chain.is_empty() { Err(malformed(ErrorStack::get())) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PKey<Private>, TlsError> {
    // Without the callback, OpenSSL would ask for a password on the terminal.
    let key = PKey::private_key_from_pem_callback(&read(path)?, |_| Err(ErrorStack::get()));
    key.map_err(|source| TlsError::Malformed {
        path: path.to_owned(),
        expected: "a key (PEM, without a password)",
        source,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}
