//! The flags of the HTTP front end and their checks.

use std::collections::HashSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::Result;
use bytesize::ByteSize;
use clap::Args;
use hyper::header::HeaderName;

use crate::serve::request::http::bodies::BodyLimits;
use crate::serve::request::http::caller_check::{HTTP_PORT, HTTPS_PORT, HostName, Origin};
use crate::serve::request::http::connection::ClientTimeouts;
use crate::serve::request::http::tls::TlsFiles;
use crate::stage::cli::{bytes, duration};
use crate::stage::streams::OutputArgs;
use crate::stage::usage;
use crate::stream::address::Address;

/// The flags of the HTTP front end.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP front end")]
pub struct HttpArgs {
    /// Answer HTTP calls at this address, such as 127.0.0.1:8000. If the program has
    /// inherited a listening socket (LISTEN_FDS), it uses this socket instead
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "responses",
        conflicts_with_all = ["input", "follow"]
    )]
    pub listen: Option<String>,

    /// Answer calls only if they send the token in FILE, in the header
    /// `Authorization: Bearer TOKEN`; other calls get 401. FILE holds the token alone.
    /// The paths that tell whether the service is up (`/ping`, `/health`, `/version`,
    /// `/v2/health/...`, `/v2/models/NAME/ready`) need no token. SIGHUP reads FILE again
    #[arg(long, value_name = "FILE", requires = "listen")]
    token_file: Option<String>,

    /// Serve HTTPS with the certificate in FILE (PEM): first the certificate of the
    /// service, then those of its authorities. TLS 1.2 and 1.3, HTTP/1.1 only. SIGHUP
    /// reads FILE and the file of --tls-key again; if they do not fit, the old ones stay
    #[arg(long, value_name = "FILE", requires_all = ["listen", "tls_key"])]
    tls_cert: Option<String>,

    /// The private key of the certificate of --tls-cert, in PEM and without a passphrase
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<String>,

    /// Accept calls from other machines without a token
    #[arg(long, requires = "listen", conflicts_with = "token_file")]
    allow_anonymous: bool,

    /// Also accept the name HOST or HOST:PORT in the `Host` header, for a proxy or a
    /// forwarded port; `*` accepts every name. On a loopback address, a call with any
    /// other name gets 421, because it may come from a web page. May be repeated
    #[arg(long, value_name = "NAME", requires = "listen")]
    host: Vec<HostName>,

    /// Allow calls from web pages of this site, such as `https://app.example`; `*`
    /// allows every site. Pages of other sites get 403. May be repeated
    #[arg(long, value_name = "ORIGIN", requires = "listen")]
    cors: Vec<Origin>,

    /// Answer a POST to PATH with the result of the model alone, as a plain JSON server
    /// does. The text of the result is kept; only newlines between its tokens become
    /// spaces, and the white space around it is dropped. The body of the call is the
    /// model input. PATH may be /predict, which then has this form
    #[arg(long, value_name = "PATH", requires = "listen", value_parser = path)]
    plain: Option<String>,

    /// Serve the model by this name in the Open Inference Protocol, under
    /// /v2/models/NAME
    #[arg(long, value_name = "NAME", default_value = "default", requires = "listen",
        value_parser = served_name)]
    served_name: String,

    /// The names of a tensor's columns, in their order. In the Open Inference Protocol,
    /// each row of a single tensor of shape [N, F] then becomes an object with these F
    /// names, instead of an array. Without this flag, the names are the features of
    /// --model, if it is given
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        requires = "listen"
    )]
    columns: Option<Vec<String>>,

    /// Take the message id from this header if a call has it. Each call must have a
    /// unique id, because the rendezvous answers each id once. The rows of a call with a
    /// table have the ids ID/0, ID/1 and so on. The same call with the same id gets the
    /// same answer at once, while the answer is remembered; any other call with a used
    /// id gets 409, and so does a call that is repeated before it is answered
    #[arg(long, value_name = "NAME", requires = "listen")]
    id_header: Option<String>,

    /// With --id-header: remember the last answers, up to SIZE of memory, for calls that
    /// are repeated
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::mib(64), requires = "id_header")]
    remember_answers: ByteSize,

    /// Begin a trace for each call without a valid `traceparent` header. The trace of a
    /// call that has one is kept in any case
    #[arg(long, requires = "listen")]
    trace: bool,

    /// Answer a call with a longer body with 413
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::mib(1), requires = "listen")]
    max_body: ByteSize,

    /// Read at most this much of all bodies together; calls beyond it get 503
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::mib(256), requires = "listen")]
    max_bodies: ByteSize,

    /// Keep at most N connections. When N are open and a new one arrives, the
    /// connection that has waited longest for its client is closed. A connection with
    /// a call in flight is never closed for a new one. If N is larger than
    /// --max-in-flight, the calls beyond --max-in-flight get 503 at once
    #[arg(long, value_name = "N", default_value_t = 4096, requires = "listen",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_connections: u32,

    /// Close a connection if the headers of a call take longer
    #[arg(long, value_name = "DURATION", default_value = "5s", requires = "listen",
        value_parser = duration)]
    header_timeout: Duration,

    /// Answer a call with 408 if its body takes longer
    #[arg(long, value_name = "DURATION", default_value = "10s", requires = "listen",
        value_parser = duration)]
    body_timeout: Duration,

    /// Close a connection if its client reads nothing of an answer for this long
    #[arg(long, value_name = "DURATION", default_value = "10s", requires = "listen",
        value_parser = duration)]
    write_timeout: Duration,

    /// Close a connection if the next call does not begin within this time
    #[arg(long, value_name = "DURATION", default_value = "60s", requires = "listen",
        value_parser = duration)]
    idle_timeout: Duration,

    /// Answer `GET /healthz`, `/readyz`, `/metrics` (for Prometheus) and
    /// `/openapi.json` at this address. If other machines can reach it, the last two
    /// need the token
    #[arg(long, value_name = "ADDRESS", requires = "listen")]
    admin: Option<String>,
}

/// The options of the HTTP front end.
#[derive(Debug)]
pub struct HttpOptions {
    /// The address of the first listener.
    pub listen: SocketAddr,
    /// The address of the second listener, if there is one.
    pub admin: Option<SocketAddr>,
    /// The pipe for the requests.
    pub output: OutputArgs,
    /// The pipe with the responses.
    pub responses: Address,
    /// The largest number of open calls.
    pub in_flight_max: usize,
    /// The longest time from a request to its response.
    pub answer_timeout: Duration,
    /// Whether the service may listen where other machines can reach it.
    pub is_open: bool,
    /// The file of the bearer token, if calls need one.
    pub token_file: Option<String>,
    /// The files of the certificate and of its key, if HTTPS is to be served.
    pub tls: Option<TlsFiles>,
    /// Names that `Host` may have, in addition to the service's own names.
    pub host_names: Vec<HostName>,
    /// Sites whose pages may call.
    pub origins: Vec<Origin>,
    /// The header that holds the message id, if `--id-header` is given.
    pub id_header: Option<IdHeader>,
    /// The path whose calls get the result alone.
    pub plain: Option<String>,
    /// The name of the model in the Open Inference Protocol.
    pub served_name: String,
    /// The names of a tensor's columns, if `--columns` is given.
    pub columns: Option<Vec<String>>,
    /// The memory for remembered answers in bytes, and the least number of ids that are
    /// remembered.
    pub remembered: (usize, usize),
    /// Whether a call without a trace begins one.
    pub begins_trace: bool,
    /// The limits of the bodies.
    pub bodies: BodyLimits,
    /// The largest number of connections.
    pub connections_max: u32,
    /// The time-outs of clients.
    pub client_timeouts: ClientTimeouts,
}

impl HttpOptions {
    /// Refuses an address that other machines can reach, unless calls need a token or
    /// everybody may call. `place` is the name of the address in the message.
    pub fn check_reach(&self, place: &str, address: SocketAddr) -> Result<()> {
        check_reach(place, address, self.is_open)
    }

    /// The scheme of the addresses of calls.
    pub fn scheme(&self) -> &'static str {
        match self.tls {
            Some(_) => "https",
            None => "http",
        }
    }

    /// The port of an address of calls that names none.
    pub fn default_port(&self) -> u16 {
        match self.tls {
            Some(_) => HTTPS_PORT,
            None => HTTP_PORT,
        }
    }
}

fn check_reach(place: &str, address: SocketAddr, is_open: bool) -> Result<()> {
    match is_open || address.ip().is_loopback() {
        true => Ok(()),
        false => Err(usage(format!(
            "{place} {address} can be reached from other machines: demand a token with \
             --token-file, or allow everybody with --allow-anonymous"
        ))),
    }
}

/// The name of the header that holds the message id.
#[derive(Clone, Debug)]
pub struct IdHeader {
    /// The name in lower case, for comparisons with the headers of calls.
    pub name: HeaderName,
    /// The name as the user typed it.
    pub as_typed: String,
}

impl HttpArgs {
    /// Checks the flags. `listen` is the address of `--listen`. Opens nothing.
    pub fn check(
        self,
        listen: &str,
        output: OutputArgs,
        responses: Address,
        in_flight_max: usize,
        answer_timeout: Duration,
        remembered_ids: usize,
    ) -> Result<HttpOptions> {
        let names = self.columns.iter().flatten();
        let distinct: HashSet<&String> = names.clone().collect();
        if distinct.len() != names.clone().count() || names.clone().any(String::is_empty) {
            return Err(usage("--columns: a name is empty or occurs twice"));
        }
        let listen = self.checked_address("--listen", listen)?;
        let admin = self.admin.as_deref();
        let admin = admin.map(|admin| self.checked_address("--admin", admin));
        Ok(HttpOptions {
            listen,
            admin: admin.transpose()?,
            output,
            responses,
            in_flight_max,
            answer_timeout,
            id_header: self.id_header.map(id_header).transpose()?,
            plain: self.plain,
            served_name: self.served_name,
            columns: self.columns,
            remembered: (bytes(self.remember_answers), remembered_ids),
            begins_trace: self.trace,
            bodies: BodyLimits {
                body_bytes_max: bytes(self.max_body),
                all_bytes_max: bytes(self.max_bodies),
                timeout: self.body_timeout,
            },
            connections_max: self.max_connections,
            client_timeouts: ClientTimeouts {
                idle: self.idle_timeout,
                headers: self.header_timeout,
                write: self.write_timeout,
            },
            is_open: self.token_file.is_some() || self.allow_anonymous,
            token_file: self.token_file,
            tls: match (self.tls_cert, self.tls_key) {
                (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
                _ => None,
            },
            host_names: self.host,
            origins: self.cors,
        })
    }

    /// Resolves the address of a listener. An address that other machines can reach
    /// needs a token, unless calls without a token are allowed.
    fn checked_address(&self, flag: &str, text: &str) -> Result<SocketAddr> {
        let mut addresses = text.to_socket_addrs().map_err(|error| {
            usage(format!(
                "{flag} {text}: {error}; it has the form HOST:PORT, as in 127.0.0.1:8000"
            ))
        })?;
        let address = addresses
            .next()
            .ok_or_else(|| usage(format!("{flag} {text}: no such host")))?;
        let is_open = self.token_file.is_some() || self.allow_anonymous;
        check_reach(flag, address, is_open)?;
        Ok(address)
    }
}

fn id_header(as_typed: String) -> Result<IdHeader> {
    match HeaderName::from_bytes(as_typed.as_bytes()) {
        Ok(name) => Ok(IdHeader { name, as_typed }),
        Err(_) => Err(usage(format!(
            "--id-header {as_typed:?}: not a valid name of a header"
        ))),
    }
}

fn path(text: &str) -> Result<String, String> {
    let uri: Option<hyper::Uri> = text.parse().ok();
    match uri {
        Some(uri) if text.starts_with('/') && uri.path() == text => Ok(text.to_owned()),
        _ => Err("a path begins with `/` and has no query, as in /classify".to_owned()),
    }
}

fn served_name(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("a name has letters, digits, `-`, `_`, `.` and `~`".to_owned()),
    }
}
