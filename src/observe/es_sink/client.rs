//! One call of `_bulk`, and the settings that every call shares.

use std::error::Error as _;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Url;
use reqwest::blocking::{Client as HttpClient, RequestBuilder};
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::tls::Certificate;

use crate::observe::es_sink::reply::{self, Outcome};
use crate::stage::{Stage, usage};

const PASSWORD_VARIABLE: &str = "RV_ES_PASSWORD";
const API_KEY_VARIABLE: &str = "RV_ES_API_KEY";

/// Only what is looked at: a whole reply is as long as the call.
const FILTER: &str = "filter_path=items.*.status,items.*.error.type,items.*.error.reason";

/// The longest reply that is read, in bytes.
const REPLY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The longest time for a call: as good as none.
const TIMEOUT_MAX: Duration = Duration::from_secs(86_400);

/// The longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What the command line says about the service.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// Where it is.
    pub url: &'a str,
    /// Who logs in.
    pub user: Option<&'a str>,
    /// Holds the user's password.
    pub password_file: Option<&'a Path>,
    /// Holds an API key, instead.
    pub api_key_file: Option<&'a Path>,
    /// Holds the certificates to trust, instead of the system's.
    pub ca_file: Option<&'a Path>,
    /// How long a call may take.
    pub timeout: Duration,
    /// Whether calls are compressed.
    pub gzip: bool,
}

/// Makes calls.
#[derive(Debug)]
pub struct Client {
    http: HttpClient,
    /// As it was given, for messages.
    url: String,
    endpoint: Url,
    /// Marked as sensitive, so that it is never printed.
    authorization: Option<HeaderValue>,
    gzip: bool,
}

impl Client {
    /// Reads the secrets and certificates. No connection is made yet.
    pub fn new(stage: &Stage, settings: &Settings) -> Result<Client> {
        let base = read_url(settings.url)?;
        let url = base.as_str().trim_end_matches('/').to_owned();
        let endpoint = format!("{url}/_bulk?{FILTER}");
        let endpoint = Url::parse(&endpoint).with_context(|| url.clone())?;
        let timeout = settings.timeout.min(TIMEOUT_MAX);
        if timeout.is_zero() {
            return Err(usage("--timeout must be more than 0"));
        }
        let authorization = authorization(settings)?;
        if authorization.is_some() && base.scheme() == "http" && !is_loopback(&base) {
            stage.report.warn(&format!(
                "{url}: credentials go over the network unencrypted; use https"
            ));
        }
        // The HTTP client wants a provider that is installed first. It may be
        // there already: that is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = HttpClient::builder()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(timeout)
            .connect_timeout(timeout.min(CONNECT_MAX));
        if let Some(path) = settings.ca_file {
            builder = builder.tls_certs_only(certificates(path)?);
        } else if base.scheme() == "http" {
            // Without this, a machine without certificates could not use HTTP.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().with_context(|| {
            format!("{url}: cannot prepare calls; are the system's certificates installed? --ca-file names others")
        })?;
        Ok(Client {
            http,
            url,
            endpoint,
            authorization,
            gzip: settings.gzip,
        })
    }

    /// Where the service is, for messages.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends `body`, which holds `count` records.
    pub fn bulk(&self, body: Vec<u8>, count: usize) -> Outcome {
        let call = match self.prepare(body) {
            Ok(call) => call,
            Err(error) => return Outcome::Fatal(format!("cannot compress a call: {error}")),
        };
        let outcome = call.send().map_err(failed).and_then(|reply| {
            let status = reply.status().as_u16();
            let mut body = Vec::new();
            match reply.take(REPLY_BYTES_MAX).read_to_end(&mut body) {
                Ok(_) => Ok(reply::read(status, &body, count)),
                Err(error) => Err(Outcome::Retry(format!("the reply broke off: {error}"))),
            }
        });
        outcome.unwrap_or_else(|failed| failed)
    }

    fn prepare(&self, body: Vec<u8>) -> io::Result<RequestBuilder> {
        let mut call = self
            .http
            .post(self.endpoint.clone())
            .header(CONTENT_TYPE, "application/x-ndjson");
        if let Some(authorization) = &self.authorization {
            call = call.header(AUTHORIZATION, authorization.clone());
        }
        if !self.gzip {
            return Ok(call.body(body));
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&body)?;
        let call = call.header(CONTENT_ENCODING, "gzip");
        Ok(call.body(encoder.finish()?))
    }
}

/// What a call without a reply means: a certificate that is not trusted stays
/// so, everything else may pass.
fn failed(error: reqwest::Error) -> Outcome {
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        reason = format!("{reason}: {inner}");
        if is_bad_certificate(inner) {
            return Outcome::Fatal(format!(
                "{reason}; name the certificate of its authority with --ca-file"
            ));
        }
        cause = inner.source();
    }
    Outcome::Retry(reason)
}

fn is_bad_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return matches!(error, rustls::Error::InvalidCertificate(_));
    }
    // What an I/O error holds is not its source, and one may hold another.
    let held = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    held.is_some_and(|held| is_bad_certificate(held))
}

/// Checks the address. It is never shown where it may hold a password.
fn read_url(text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|error| usage(format!("--url: {error}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(usage(format!(
            "--url holds credentials, which every user of the machine could see; give --user, and the password in {PASSWORD_VARIABLE} or --password-file"
        )));
    }
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(usage("--url must begin with http:// or https://"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(usage("--url must end with the path"));
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address: Result<std::net::IpAddr, _> = host.parse();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    let shown = path.display();
    let text = fs::read(path).with_context(|| format!("{shown}: cannot read"))?;
    let found = Certificate::from_pem_bundle(&text)
        .map_err(|error| usage(format!("{shown}: no certificates in PEM: {error}")))?;
    if found.is_empty() {
        return Err(usage(format!("{shown}: holds no certificate")));
    }
    Ok(found)
}

/// The header that logs in, where there is something to log in with.
fn authorization(settings: &Settings) -> Result<Option<HeaderValue>> {
    let text = if let Some(user) = settings.user {
        if user.contains(':') {
            return Err(usage("--user may not hold a colon"));
        }
        let Some(password) = secret(settings.password_file, PASSWORD_VARIABLE)? else {
            return Err(usage(format!(
                "--user needs a password, in {PASSWORD_VARIABLE} or --password-file"
            )));
        };
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        format!("Basic {pair}")
    } else if let Some(key) = secret(settings.api_key_file, API_KEY_VARIABLE)? {
        format!("ApiKey {key}")
    } else {
        return Ok(None);
    };
    let Ok(mut value) = HeaderValue::from_str(&text) else {
        bail!("the API key holds characters that cannot be sent");
    };
    value.set_sensitive(true);
    Ok(Some(value))
}

/// A secret from its file or, where none is named, from the environment.
fn secret(path: Option<&Path>, variable: &str) -> Result<Option<String>> {
    let (place, text) = match path {
        Some(path) => {
            let text = fs::read_to_string(path);
            let shown = path.display();
            (
                shown.to_string(),
                text.with_context(|| format!("{shown}: cannot read"))?,
            )
        }
        None => match std::env::var(variable) {
            Ok(text) => (variable.to_owned(), text),
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(usage(format!("{variable}: is not UTF-8")));
            }
        },
    };
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(usage(format!("{place}: is empty")));
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_and_keeps_its_password_to_itself() {
        for wrong in [
            "127.0.0.1:9200",
            "ftp://host",
            "http://",
            "http://host/?a=b",
            "http://host/#x",
            "http://me:canary@host",
        ] {
            let error = read_url(wrong).unwrap_err().to_string();
            assert!(!error.contains("canary"), "{error}");
        }
        assert!(is_loopback(&read_url("http://[::1]:9200").unwrap()));
        assert!(is_loopback(&read_url("http://localhost").unwrap()));
        assert!(!is_loopback(&read_url("http://127.example").unwrap()));
    }

    #[test]
    fn a_secret_is_not_printed() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "canary\n").unwrap();
        let settings = Settings {
            url: "http://host",
            user: None,
            password_file: None,
            api_key_file: Some(&path),
            ca_file: None,
            timeout: Duration::from_secs(1),
            gzip: false,
        };
        let header = authorization(&settings).unwrap().unwrap();
        assert_eq!(header.as_bytes(), b"ApiKey canary");
        assert!(!format!("{header:?}").contains("canary"));
        let basic = authorization(&Settings {
            user: Some("me"),
            password_file: Some(&path),
            ..settings
        });
        let basic = basic.unwrap().unwrap();
        assert_eq!(basic.as_bytes(), b"Basic bWU6Y2FuYXJ5");
        fs::write(&path, "\n").unwrap();
        assert!(authorization(&settings).is_err());
    }

    #[test]
    fn a_bad_certificate_is_told_from_a_lost_connection() {
        let bad = || rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        assert!(is_bad_certificate(&bad()));
        assert!(is_bad_certificate(&io::Error::other(io::Error::other(
            bad()
        ))));
        let lost = io::Error::other(rustls::Error::DecryptError);
        assert!(!is_bad_certificate(&lost));
    }
}
