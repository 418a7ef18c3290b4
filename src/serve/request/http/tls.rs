//! HTTPS: the certificate and the key of the first listener, and the handshakes of its
//! clients.

use std::cell::RefCell;
use std::fs::{self, File};
use std::future::poll_fn;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, InconsistentKeys, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::serve::request::http::connection::ClientConnection;
use crate::serve::request::http::socket::Socket;
use crate::serve::request::http::transport::Transport;
use crate::stage::clock::Clock;
use crate::stage::usage;

/// The protocols that a client may choose by ALPN. A client that offers only others,
/// such as HTTP/2, gets an alert.
const PROTOCOLS: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];

/// The first byte of a TLS connection: the type of a handshake record.
const HANDSHAKE: u8 = 22;

/// The longest file of certificates or of a key, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The permission of other users to read a file.
const READABLE_BY_OTHERS: u32 = 0o004;

/// The files of the certificate and of its key.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate of the service, and those of the authorities between it and the
    /// root, in PEM.
    pub cert: String,
    /// The private key, in PEM.
    pub key: String,
}

/// The present certificate and key.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    config: RefCell<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files. Also returns warnings about them.
    pub fn load(files: &TlsFiles) -> Result<(Tls, Vec<String>)> {
        let (config, warnings) = read(files)?;
        let tls = Tls {
            files: files.clone(),
            config: RefCell::new(config),
        };
        Ok((tls, warnings))
    }

    /// Reads the files again, for the connections that come. Returns warnings about the
    /// files. If this fails, the old certificate and key stay.
    pub fn reload(&self) -> Result<Vec<String>> {
        let (config, warnings) = read(&self.files)?;
        *self.config.borrow_mut() = config;
        Ok(warnings)
    }

    /// The names of the files, for messages.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// Waits for the first byte of a client. If it begins a TLS connection, makes the
    /// handshake. Another client gets a plain connection, on which an answer can tell that
    /// it needs HTTPS. Fails if the handshake fails, or if `connection` is closed before.
    pub async fn accept(
        &self,
        socket: Socket,
        connection: &ClientConnection,
    ) -> io::Result<Transport> {
        let first = poll_fn(|context| {
            connection.check_open(context)?;
            socket.poll_peek(context)
        });
        if first.await? != HANDSHAKE {
            return Ok(Transport::Plain(socket));
        }
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config.borrow()));
        let mut handshake = pin!(acceptor.accept(socket));
        let stream = poll_fn(|context| {
            connection.check_open(context)?;
            handshake.as_mut().poll(context)
        });
        Ok(Transport::Tls(Box::new(stream.await?)))
    }
}

/// Reads the files. The error of a pair that cannot be used names the file and the remedy.
fn read(files: &TlsFiles) -> Result<(Arc<ServerConfig>, Vec<String>)> {
    let TlsFiles { cert, key } = files;
    let chain: Result<Vec<CertificateDer>, _> =
        CertificateDer::pem_slice_iter(&content(cert)?).collect();
    let chain =
        chain.map_err(|fault| usage(format!("{cert}: not certificates in PEM: {fault}")))?;
    let Some(first) = chain.first() else {
        return Err(usage(format!("{cert}: holds no certificate in PEM")));
    };
    let private = PrivateKeyDer::from_pem_slice(&content(key)?).map_err(|_| {
        usage(format!(
            "{key}: holds no private key in PEM; a key with a passphrase cannot be used"
        ))
    })?;
    let mut warnings = Vec::new();
    warnings.extend(readable_key(key)?);
    warnings.extend(validity(cert, first));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .context("cannot prepare TLS")?
        .with_no_client_auth()
        .with_single_cert(chain, private);
    let mut config = config.map_err(|fault| {
        usage(match fault {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
                "{key}: is not the key of the first certificate in {cert}; the certificate of \
                 the service comes first, before those of its authorities"
            ),
            fault => format!("{cert} and {key} cannot be used: {fault}"),
        })
    })?;
    config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    Ok((Arc::new(config), warnings))
}

fn content(path: &str) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = File::open(path).with_context(|| format!("{path}: cannot read"))?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content);
    read.with_context(|| format!("{path}: cannot read"))?;
    match content.len() as u64 > FILE_BYTES_MAX {
        true => Err(usage(format!(
            "{path}: is longer than {FILE_BYTES_MAX} bytes, which no PEM file needs"
        ))),
        false => Ok(content),
    }
}

/// A warning if other users can read the key.
fn readable_key(path: &str) -> Result<Option<String>> {
    let metadata = fs::metadata(path).with_context(|| format!("{path}: cannot read"))?;
    let is_readable = metadata.permissions().mode() & READABLE_BY_OTHERS != 0;
    Ok(is_readable.then(|| {
        format!("{path}: all users of this machine can read the key; run `chmod o= {path}`")
    }))
}

/// A warning if the certificate is not valid now.
fn validity(path: &str, certificate: &CertificateDer) -> Option<String> {
    let now = u64::try_from(Clock::system().unix().0).ok()?;
    let now = UnixTime::since_unix_epoch(Duration::from_micros(now));
    let certificate = ParsedCertificate::try_from(certificate).ok()?;
    // Without authorities, this always fails. The dates are checked first.
    let roots = RootCertStore::empty();
    let fault = verify_server_cert_signed_by_trust_anchor(&certificate, &roots, &[], now, &[]);
    let rustls::Error::InvalidCertificate(fault) = fault.err()? else {
        return None;
    };
    let what = match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet"
        }
        _ => return None,
    };
    Some(format!(
        "{path}: the certificate {what}, so clients will refuse it; put a new one into place \
         and send SIGHUP"
    ))
}
