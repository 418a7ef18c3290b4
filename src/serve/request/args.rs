//! The flags of `rv-request` and their checks.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser};

use crate::serve::request::http_args::{HttpArgs, HttpOptions};
use crate::stage::cli::{RunArgs, VERSION, duration};
use crate::stage::clock::{Clock, Ids};
use crate::stage::streams::{InputArgs, OutputArgs, refuse_same_file};
use crate::stage::usage;
use crate::stream::address::Address;

/// Bring requests into the pipeline, and return the answers.
///
/// Without --listen, each line of the input is a model input and becomes a request.
/// With --responses too, at most --max-in-flight requests are unanswered at a time,
/// so that a long file does not outrun the models. With --listen, the program is the
/// HTTP front end: `GET /ping`, `POST /predict` with the model input as the body, the
/// Open Inference Protocol (`/v2`), MLflow's protocol (`/invocations`), and
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

    /// Wait this long for a response, from when the request is sent. Make it longer than
    /// the policy's deadline
    #[arg(long, value_name = "DURATION", default_value = "10s", requires = "responses",
        value_parser = duration)]
    timeout: Duration,

    /// Take the message id from the input, at this JSON pointer (such as /order/id),
    /// instead of making one
    #[arg(long, value_name = "POINTER", conflicts_with = "listen", value_parser = pointer)]
    id: Option<String>,

    /// With --responses and --id or --id-header: remember at least the last N ids. An
    /// input whose id is one of them is set aside, and a call gets 409 or its remembered
    /// answer. Each row of a table has an id. Takes up to 80 bytes for each of the N ids
    #[arg(long, value_name = "N", default_value_t = 2_000_000, requires = "responses",
        value_parser = clap::value_parser!(u32).range(..=1_000_000_000))]
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
                self.remember_ids as usize,
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
