//! clients -> requests, responses -> clients: the way into the pipeline and out
//! of it.

mod closed_loop;
mod fields;
mod flight;
mod http;
mod known_ids;
mod wrap;

use std::time::Duration;

use anyhow::Result;
use bytesize::ByteSize;
use clap::{Args, Parser};

use crate::serve::request::fields::RequiredFields;
use crate::serve::request::http::{HostName, Site, Times};
use crate::stage::cli::{RunArgs, VERSION, duration};
use crate::stage::clock::{Clock, Ids};
use crate::stage::filter;
use crate::stage::program::Program;
use crate::stage::streams::{InputArgs, OutputArgs, Streams, refuse_same_file};
use crate::stage::{Stage, usage};
use crate::stream::address::Address;

use crate::wire::object::ObjectWriter;

/// Bring requests into the pipeline and answers back to those who asked.
///
/// Without --listen, each line of the input is a model input, and becomes a
/// request. With --responses too, no more than --max-in-flight requests are
/// unanswered at a time, so that a long file does not outrun the models. With
/// --listen it is the HTTP front end: `GET /ping`, `POST /predict` with the model
/// input as body, and `GET /openapi.json`, which says the rest.
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

    /// Where the responses come from. With --follow, too, the next writer is waited
    /// for when the last one has closed
    #[arg(long, value_name = "PATH")]
    responses: Option<Address>,

    /// Write each response here, as it comes
    #[arg(
        long,
        value_name = "PATH",
        requires = "responses",
        conflicts_with = "listen",
        value_parser = Address::of_output
    )]
    answers: Option<Address>,

    /// How many requests may be unanswered at a time
    #[arg(long, value_name = "N", default_value_t = 1024, requires = "responses",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_in_flight: u32,

    /// How long to wait for a response; longer than the policy's deadline
    #[arg(long, value_name = "DURATION", default_value = "10s", requires = "responses",
        value_parser = duration)]
    timeout: Duration,

    /// Take the message id from this place of the input (a JSON pointer such as
    /// /order/id) instead of making one
    #[arg(long, value_name = "POINTER", conflicts_with = "listen", value_parser = pointer)]
    id: Option<String>,

    /// With --id and --responses: how many of the last ids to remember at least. An
    /// input whose id came before is set aside; 80 bytes each at the most
    #[arg(long, value_name = "N", default_value_t = 2_000_000, requires = "responses",
        conflicts_with = "listen", value_parser = clap::value_parser!(u32).range(..=1_000_000_000))]
    remember_ids: u32,

    #[command(flatten)]
    wrapping: WrappingArgs,
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Args, Clone, Debug)]
struct WrappingArgs {
    /// Refuse inputs in which these fields are not all numbers
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        conflicts_with = "model"
    )]
    fields: Vec<String>,

    /// Refuse inputs that this model cannot read
    #[arg(long, value_name = "FILE")]
    model: Option<String>,

    /// Write this `returnAddress` into every request
    #[arg(long, value_name = "NAME")]
    return_address: Option<String>,

    /// Write this `scoreTopic` into every request
    #[arg(long, value_name = "NAME")]
    score_topic: Option<String>,

    /// `fixed:SECONDS` makes the timestamps the same every time
    #[arg(long, value_name = "CLOCK", default_value = "system")]
    clock: Clock,

    /// `seq:PREFIX` makes the ids the same every time
    #[arg(
        long,
        value_name = "IDS",
        default_value = "uuid",
        conflicts_with = "id"
    )]
    ids: Ids,
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

    /// Accept only calls with the bearer token in this file; only `/ping` needs
    /// none. SIGHUP reads the file again
    #[arg(long, value_name = "FILE", requires = "listen")]
    token_file: Option<String>,

    /// Accept calls from other machines without a token
    #[arg(long, requires = "listen", conflicts_with = "token_file")]
    allow_anonymous: bool,

    /// Answer to this name too, HOST or HOST:PORT, as behind a proxy or a forwarded
    /// port; `*` is every name. At an address of this machine alone a call by a name
    /// that is not its own gets 421: it may come from a web page. May be repeated
    #[arg(long, value_name = "NAME", requires = "listen")]
    host: Vec<HostName>,

    /// Let the pages of this site call, as in `https://app.example`; `*` is every
    /// site. Those of other sites get 403. May be repeated
    #[arg(long, value_name = "ORIGIN", requires = "listen")]
    cors: Vec<Site>,

    /// Take the message id from this header where a call has it. Each call needs
    /// an id of its own: the rendezvous answers an id once, and one that it still
    /// remembers gets no second answer, which is a 504 after --timeout
    #[arg(long, value_name = "NAME", requires = "listen")]
    id_header: Option<String>,

    /// The longest body of a call
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::mib(1), requires = "listen")]
    max_body: ByteSize,

    /// All bodies that are being read together; past it calls get 503
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::mib(256), requires = "listen")]
    max_bodies: ByteSize,

    /// How many connections there may be at a time. Past it, the one that has
    /// waited longest for its client makes room, and never one whose call is in
    /// flight. With more than --max-in-flight, every call is answered at once, if
    /// only with 503
    #[arg(long, value_name = "N", default_value_t = 4096, requires = "listen",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_connections: u32,

    /// How long a client may take for the headers of a call
    #[arg(long, value_name = "DURATION", default_value = "5s", requires = "listen",
        value_parser = duration)]
    header_timeout: Duration,

    /// How long a client may take for the body of a call
    #[arg(long, value_name = "DURATION", default_value = "10s", requires = "listen",
        value_parser = duration)]
    body_timeout: Duration,

    /// How long a client may take to read some of its answer
    #[arg(long, value_name = "DURATION", default_value = "10s", requires = "listen",
        value_parser = duration)]
    write_timeout: Duration,

    /// How long a connection is kept between two calls
    #[arg(long, value_name = "DURATION", default_value = "60s", requires = "listen",
        value_parser = duration)]
    idle_timeout: Duration,

    /// Answer `GET /healthz`, `/readyz`, `/metrics` (for Prometheus) and
    /// `/openapi.json` at this address. Where other machines reach it, the last two
    /// need the token
    #[arg(long, value_name = "ADDRESS", requires = "listen")]
    admin: Option<String>,
}

impl HttpArgs {
    /// How long a client may take.
    fn times(&self) -> Times {
        Times {
            idle: self.idle_timeout,
            head: self.header_timeout,
            write: self.write_timeout,
        }
    }
}

impl Program for RequestArgs {
    const NAME: &'static str = "rv-request";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        if self.responses.is_some() {
            demand_pipe(&self.output.output)?;
        }
        if let Some(answers) = &self.answers {
            refuse_same_file(&self.input.input, answers)?;
        }
        let wrapper = Wrapper::new(&self.wrapping)?;
        match (&self.http.listen, &self.responses) {
            (Some(listen), Some(responses)) => http::run(stage, &self, listen, responses, wrapper),
            (None, Some(responses)) => closed_loop::run(stage, &self, responses, wrapper),
            (_, None) => {
                let mut streams = Streams::open(&self.input, &self.output)?;
                streams.is_source = true;
                filter::run(stage, streams, &mut wrap::Wrap::new(wrapper, self.id))
            }
        }
    }
}

/// With responses there are models that read the requests while they come; a
/// file would take them and nobody would answer.
fn demand_pipe(output: &Address) -> Result<()> {
    if output.is_file_output() {
        return Err(usage(format!(
            "--output {output}: with --responses the requests go through a pipe; make it with \
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

/// Makes requests of model inputs.
#[derive(Debug)]
struct Wrapper {
    required: RequiredFields,
    return_address: Option<String>,
    score_topic: Option<String>,
    clock: Clock,
    ids: Ids,
}

impl Wrapper {
    fn new(args: &WrappingArgs) -> Result<Wrapper> {
        if args.fields.iter().any(String::is_empty) {
            return Err(usage("--fields: a name is empty"));
        }
        Ok(Wrapper {
            required: match &args.model {
                Some(path) => RequiredFields::of_model(path)?,
                None => RequiredFields::named(&args.fields),
            },
            return_address: args.return_address.clone(),
            score_topic: args.score_topic.clone(),
            clock: args.clock,
            ids: args.ids.clone(),
        })
    }

    /// Appends a request for `model_input`, which is JSON text on one line.
    fn wrap(&self, message_id: &str, model_input: &str, out: &mut Vec<u8>) {
        let mut request = ObjectWriter::new(out);
        request
            .string("messageId", message_id)
            .display("timestamp", self.clock.unix().as_seconds())
            .raw("modelInput", model_input);
        if let Some(address) = &self.return_address {
            request.string("returnAddress", address);
        }
        if let Some(topic) = &self.score_topic {
            request.string("scoreTopic", topic);
        }
        request.end();
        out.push(b'\n');
    }
}
