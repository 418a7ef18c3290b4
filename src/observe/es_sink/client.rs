//! The HTTP client: calls the service at its addresses, with the credentials.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use reqwest::blocking::{Client as HttpClient, RequestBuilder};
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Method, Url};

use crate::observe::es_sink::bulk_reply::{self, BulkOutcome};
use crate::observe::es_sink::call_error::CallError;
use crate::observe::es_sink::credentials::Credentials;
use crate::stage::cli::duration;
use crate::stage::http::address::{Query, is_loopback, read_url};
use crate::stage::http::call_failure::{self, is_bad_certificate};
use crate::stage::http::certificates::{install_provider, trusted_only};
use crate::stage::{Stage, usage};

/// Asks the service for only those parts of the reply that are read. A whole reply
/// would be as long as the call.
const FILTER: &str = "filter_path=errors,items.*.status,items.*.error";

/// The longest reply that is read, in bytes.
const REPLY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The longest time-out of a call. Adding this time-out to a time does not overflow.
const TIMEOUT_MAX: Duration = Duration::from_secs(86_400);

/// Where credentials belong.
const CREDENTIALS_REMEDY: &str =
    "give --user, and the password in RV_ES_PASSWORD or --password-file";

/// The longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The flags for the address of the service and for the calls.
#[derive(Args, Clone, Debug)]
pub struct ServiceArgs {
    /// The address of the service, such as `https://search.example:9200`. Give it several
    /// times for the nodes of one cluster: they take turns, and a node that fails is not
    /// called for a while
    #[arg(long = "url", value_name = "URL", required = true)]
    pub urls: Vec<String>,

    /// Abandon a call after this long, and repeat it
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub timeout: Duration,

    /// Trust only the certificates in FILE (PEM)
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// The flags for the credentials.
    #[command(flatten)]
    pub credentials: Credentials,
}

/// The settings of `_bulk` calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct BulkSettings<'a> {
    /// Whether the calls are compressed.
    pub gzip: bool,
    /// The ingest pipeline that the service runs on each document.
    pub pipeline: Option<&'a str>,
}

/// Makes calls. Several threads may share one client.
#[derive(Debug)]
pub struct Client {
    http: HttpClient,
    servers: Vec<ServerAddress>,
    credentials: Credentials,
    authorization: Mutex<Option<HeaderValue>>,
    gzip: bool,
}

#[derive(Debug)]
struct ServerAddress {
    /// The URL from the command line.
    url: String,
    /// The URL of `_bulk`, with its query.
    bulk: Url,
}

/// The reply to a call.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body. A very long body is cut.
    pub body: Vec<u8>,
}

impl Client {
    /// Reads the credentials and certificates. Does not connect yet.
    pub fn new(stage: &Stage, args: &ServiceArgs, bulk: BulkSettings) -> Result<Client> {
        let timeout = args.timeout.min(TIMEOUT_MAX);
        if timeout.is_zero() {
            return Err(usage("--timeout must be more than 0"));
        }
        let authorization = args.credentials.header()?;
        let mut servers = Vec::new();
        let mut any_tls = false;
        for url in &args.urls {
            let base = read_url(url, Query::Refused, CREDENTIALS_REMEDY)?;
            let url = base.as_str().trim_end_matches('/').to_owned();
            any_tls |= base.scheme() == "https";
            if authorization.is_some() && base.scheme() == "http" && !is_loopback(&base) {
                stage.report.warn(&format!(
                    "{url}: credentials go over the network unencrypted; use https"
                ));
            }
            let mut address = Url::parse(&format!("{url}/_bulk?{FILTER}"))?;
            if let Some(pipeline) = bulk.pipeline {
                address.query_pairs_mut().append_pair("pipeline", pipeline);
            }
            servers.push(ServerAddress { url, bulk: address });
        }
        if servers.is_empty() {
            return Err(usage("--url is missing"));
        }
        install_provider();
        let mut builder = HttpClient::builder()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(timeout)
            .connect_timeout(timeout.min(CONNECT_MAX));
        if let Some(trusted) = trusted_only(args.ca_file.as_deref(), any_tls)? {
            builder = builder.tls_certs_only(trusted);
        }
        let http = builder.build().context(
            "cannot prepare calls; are the system's certificates installed? --ca-file names others",
        )?;
        Ok(Client {
            http,
            servers,
            credentials: args.credentials.clone(),
            authorization: Mutex::new(authorization),
            gzip: bulk.gzip,
        })
    }

    /// The number of addresses.
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// The URL of an address, for messages.
    pub fn url(&self, server: usize) -> &str {
        &self.servers[server].url
    }

    /// The URLs of all addresses, for messages.
    pub fn urls(&self) -> String {
        let urls: Vec<&str> = self.servers.iter().map(|one| one.url.as_str()).collect();
        urls.join(", ")
    }

    /// Reads the credentials again. After an error the old ones stay in use.
    pub fn reload_credentials(&self) -> Result<()> {
        let fresh = self.credentials.header()?;
        *self.lock() = fresh;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<HeaderValue>> {
        // The lock is never poisoned, because no code panics while holding it.
        let held = self.authorization.lock();
        held.unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a `_bulk` call. `body` holds the operations of `count` records.
    pub fn bulk(&self, server: usize, body: Bytes, count: usize) -> BulkOutcome {
        let call = self.http.post(self.servers[server].bulk.clone());
        let call = call.header(CONTENT_TYPE, "application/x-ndjson");
        let call = if self.gzip {
            match compressed(&body) {
                Ok(body) => call.header(CONTENT_ENCODING, "gzip").body(body),
                Err(error) => {
                    return BulkOutcome::Fatal(format!("cannot compress a call: {error}"));
                }
            }
        } else {
            call.body(body)
        };
        match self.send(call) {
            Ok(reply) => bulk_reply::read(reply.status, &reply.body, count),
            Err(error) => error.into(),
        }
    }

    /// Makes a call with a path such as `/_index_template/x`, and with a JSON body if
    /// one is given. A reply with any status is a success.
    pub fn call(
        &self,
        server: usize,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Reply, CallError> {
        let address = format!("{}{path}", self.servers[server].url);
        let mut call = self.http.request(method, address);
        if let Some(body) = body {
            call = call.header(CONTENT_TYPE, "application/json").body(body);
        }
        self.send(call)
    }

    fn send(&self, mut call: RequestBuilder) -> Result<Reply, CallError> {
        if let Some(authorization) = &*self.lock() {
            call = call.header(AUTHORIZATION, authorization.clone());
        }
        let reply = call.send().map_err(call_error)?;
        let status = reply.status().as_u16();
        let mut body = Vec::new();
        match reply.take(REPLY_BYTES_MAX).read_to_end(&mut body) {
            Ok(_) => Ok(Reply { status, body }),
            Err(error) => Err(CallError::Retry(format!("the reply broke off: {error}"))),
        }
    }
}

fn compressed(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

/// The reason why a call has no reply. An untrusted certificate is permanent; any other
/// error may be temporary.
fn call_error(error: reqwest::Error) -> CallError {
    let is_bad = is_bad_certificate(&error);
    let reason = call_failure::reason(error);
    match is_bad {
        true => CallError::Fatal(format!(
            "{reason}; name the certificate of its authority with --ca-file"
        )),
        false => CallError::Retry(reason),
    }
}
