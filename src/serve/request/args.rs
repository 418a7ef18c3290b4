//! The flags of `rv-request` and their checks.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::Result;
use bytesize::ByteSize;
use clap::{Args, Parser};
use hyper::header::HeaderName;

use crate::serve::request::http::bodies::BodyLimits;
use crate::serve::request::http::caller_check::{HostName, Origin};
use crate::serve::request::http::connection::ClientTimeouts;
use crate::stage::cli::{RunArgs, VERSION, bytes, duration};
use crate::stage::clock::{Clock, Ids};
use crate::stage::streams::{InputArgs, OutputArgs, refuse_same_file};
use crate::stage::usage;
use crate::stream::address::Address;

/// Bring requests into the pipeline, and return the answers.
///
/// Without --listen, each line of the input is a model input and becomes a request.
/// With --responses too, at most --max-in-flight requests are unanswered at a time,
/// so that a long file does not outrun the models. With --listen, the program is the
/// HTTP front end: `GET /ping`, `POST /predict` with the model input as the body, and
/// `GET /openapi.json`, which describes the service.
#[derive(Parser, Clone, Debug)]
#[command(name = "rv-request", version = VERSION, after_help = "\
Examples:
  rv-request < fixtures/flowers.ndjson > requests.ndjson
  rv-request -i flowers.ndjson -o requests --responses responses --answers answers.ndjson
  rv-request --listen 127.0.0.1:8000 --admin 127.0.0.1:8001 --responses responses -o requests")]
pub struct RequestArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,

    /// Read the responses from PATH. With --follow, wait for the next writer when the
    /// last one has closed
    #[arg(long, value_name = "PATH")]
    responses: Option<Address>,

    /// Write each response to PATH as soon as it arrives
    #[arg(
        long,
        value_name = "PATH",
        requires = "responses",
        conflicts_with = "listen",
        value_parser = Address::of_output
    )]
    answers: Option<Address>,

    /// Allow at most N unanswered requests at a time
    #[arg(long, value_name = "N", default_value_t = 1024, requires = "responses",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_in_flight: u32,

    /// Wait this long for a response. Make it longer than the policy's deadline
    #[arg(long, value_name = "DURATION", default_value = "10s", requires = "responses",
        value_parser = duration)]
    timeout: Duration,

    /// Take the message id from the input, at this JSON pointer (such as /order/id),
    /// instead of making one
    #[arg(long, value_name = "POINTER", conflicts_with = "listen", value_parser = pointer)]
    id: Option<String>,

    /// With --id and --responses: remember at least the last N ids, and set aside an
    /// input whose id is one of them. Takes up to 80 bytes for each of the N ids
    #[arg(long, value_name = "N", default_value_t = 2_000_000, requires = "responses",
        conflicts_with = "listen", value_parser = clap::value_parser!(u32).range(..=1_000_000_000))]
    remember_ids: u32,

    #[command(flatten)]
    content: RequestContentArgs,
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// The flags that say what a request holds.
#[derive(Args, Clone, Debug)]
pub struct RequestContentArgs {
    /// Refuse an input unless all these fields are numbers
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        conflicts_with = "model"
    )]
    pub fields: Vec<String>,

    /// Refuse an input that this model cannot read
    #[arg(long, value_name = "FILE")]
    pub model: Option<String>,

    /// Write this `returnAddress` into every request
    #[arg(long, value_name = "NAME")]
    pub return_address: Option<String>,

    /// Write this `scoreTopic` into every request
    #[arg(long, value_name = "NAME")]
    pub score_topic: Option<String>,

    /// `fixed:SECONDS` makes the timestamps reproducible
    #[arg(long, value_name = "CLOCK", default_value = "system")]
    pub clock: Clock,

    /// `seq:PREFIX` makes the ids reproducible
    #[arg(
        long,
        value_name = "IDS",
        default_value = "uuid",
        conflicts_with = "id"
    )]
    pub ids: Ids,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP front end")]
struct HttpArgs {
    /// Answer HTTP calls at this address, such as 127.0.0.1:8000
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "responses",
        conflicts_with_all = ["input", "follow"]
    )]
    listen: Option<String>,

    /// Accept only calls that send the bearer token in this file; `/ping` needs no
    /// token. SIGHUP reads the file again
    #[arg(long, value_name = "FILE", requires = "listen")]
    token_file: Option<String>,

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

    /// Take the message id from this header if a call has it. Each call must have a
    /// unique id, because the rendezvous answers each id once. A call whose id the
    /// rendezvous remembers gets no response, and ends with 504 after --timeout
    #[arg(long, value_name = "NAME", requires = "listen")]
    id_header: Option<String>,

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

/// The mode of the program.
#[derive(Debug)]
pub enum Mode {
    /// Serves HTTP calls.
    Http(Box<HttpOptions>),
    /// Makes requests from lines, and reads their responses.
    ClosedLoop(Box<ClosedLoopOptions>),
    /// Makes requests from lines, and reads no responses.
    Filter(FilterOptions),
}

/// The options of the filter.
#[derive(Debug)]
pub struct FilterOptions {
    /// The input with the model inputs.
    pub input: InputArgs,
    /// The output for the requests.
    pub output: OutputArgs,
    /// The JSON pointer to the id in each input. If it is `None`, new ids are made.
    pub id_pointer: Option<String>,
}

/// The options of the closed loop.
#[derive(Debug)]
pub struct ClosedLoopOptions {
    /// The input with the model inputs.
    pub input: InputArgs,
    /// The pipe for the requests.
    pub output: OutputArgs,
    /// The address of the responses.
    pub responses: Address,
    /// The address for the copy of the responses, if one is given.
    pub answers: Option<Address>,
    /// The largest number of unanswered requests.
    pub in_flight_max: usize,
    /// The longest time from a request to its response.
    pub timeout: Duration,
    /// The JSON pointer to the id in each input. If it is `None`, new ids are made.
    pub id_pointer: Option<String>,
    /// The least number of ids that are remembered.
    pub remembered_ids: usize,
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
    /// The file of the bearer token, if calls need one.
    pub token_file: Option<String>,
    /// Names that `Host` may have, in addition to the service's own names.
    pub host_names: Vec<HostName>,
    /// Sites whose pages may call.
    pub origins: Vec<Origin>,
    /// The header that holds the message id, if `--id-header` is given.
    pub id_header: Option<IdHeader>,
    /// The limits of the bodies.
    pub bodies: BodyLimits,
    /// The largest number of connections.
    pub connections_max: u32,
    /// The time-outs of clients.
    pub client_timeouts: ClientTimeouts,
}

/// The name of the header that holds the message id.
#[derive(Clone, Debug)]
pub struct IdHeader {
    /// The name in lower case, for comparisons with the headers of calls.
    pub name: HeaderName,
    /// The name as the user typed it.
    pub as_typed: String,
}

impl RequestArgs {
    /// Checks the flags and returns the mode with its options, and the flags for the
    /// content of requests. Opens no stream.
    pub(super) fn check(self) -> Result<(Mode, RequestContentArgs)> {
        if self.content.fields.iter().any(String::is_empty) {
            return Err(usage("--fields: a name is empty"));
        }
        let Some(responses) = self.responses else {
            let options = FilterOptions {
                input: self.input,
                output: self.output,
                id_pointer: self.id,
            };
            return Ok((Mode::Filter(options), self.content));
        };
        refuse_file(&self.output.output)?;
        if let Some(answers) = &self.answers {
            refuse_same_file(&self.input.input, answers)?;
        }
        let in_flight_max = self.max_in_flight as usize;
        let mode = match self.http.listen.clone() {
            Some(listen) => Mode::Http(Box::new(self.http.check(
                &listen,
                self.output,
                responses,
                in_flight_max,
                self.timeout,
            )?)),
            None => Mode::ClosedLoop(Box::new(ClosedLoopOptions {
                input: self.input,
                output: self.output,
                responses,
                answers: self.answers,
                in_flight_max,
                timeout: self.timeout,
                id_pointer: self.id,
                remembered_ids: self.remember_ids as usize,
            })),
        };
        Ok((mode, self.content))
    }
}

impl HttpArgs {
    fn check(
        self,
        listen: &str,
        output: OutputArgs,
        responses: Address,
        in_flight_max: usize,
        answer_timeout: Duration,
    ) -> Result<HttpOptions> {
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
            token_file: self.token_file,
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
        if address.ip().is_loopback() || self.token_file.is_some() || self.allow_anonymous {
            return Ok(address);
        }
        Err(usage(format!(
            "{flag} {address} can be reached from other machines: demand a token with \
             --token-file, or allow everybody with --allow-anonymous"
        )))
    }
}

/// Refuses a file as the output. With --responses, the models must read each request as
/// soon as it is written, and a model reads a file only to its present end.
fn refuse_file(output: &Address) -> Result<()> {
    if output.is_file_output() {
        return Err(usage(format!(
            "--output {output}: with --responses the output must be a pipe; make one with \
             `mkfifo {output}`"
        )));
    }
    Ok(())
}

fn pointer(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("a JSON pointer begins with `/`, as in /order/id".to_owned())
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
