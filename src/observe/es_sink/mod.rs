//! any stream -> Elasticsearch `_bulk`: one document a record, sent again until
//! the service has it.

mod agreement;
mod backoff;
mod batch;
mod calls;
mod client;
mod credentials;
mod document;
mod flow;
mod index_name;
mod pass;
mod reply;
mod servers;
mod service;
mod setup;
mod shape;
mod sink;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Result;
use bytesize::ByteSize;
use clap::{Parser, Subcommand};

use crate::observe::es_sink::client::ServiceArgs;
use crate::observe::es_sink::setup::SetupArgs;
use crate::observe::es_sink::sink::EsSink;
use crate::stage::Stage;
use crate::stage::cli::{RunArgs, VERSION, duration};
use crate::stage::filter;
use crate::stage::program::Program;
use crate::stage::streams::{InputArgs, Streams};
use crate::stream::address::Address;

/// Send a stream to Elasticsearch or OpenSearch
///
/// A record's document id is its messageId; a score's is
/// messageId/modelName/modelVersion. So a record that is sent twice is one
/// document. Its timestamp becomes a date in UTC. A decision gets a member
/// `agreement` with the pairs of models that said the same and those that did
/// not.
///
/// An index maps each field once. So that no record can spoil a field for the
/// others, an object in a model's input or result is taken apart: the 5 in
/// {"size":{"cm":5}} becomes the field `size/cm`. Such a document holds the record
/// as it came, too, as a text in `asReceived`. An input that is no object becomes
/// the field `modelInput.value`. --keep-shape sends records as they are.
///
/// While the service is down, has too much to do, or its index is read-only, the
/// program stops reading and tries again; a record that the service refuses for
/// good is set aside (--rejects) with its reason. So is, where the program has to
/// end before, each record that was read and not delivered. A second SIGTERM
/// changes nothing of that; a second SIGINT ends the program at once. Credentials that are
/// refused end the program at the start; later on it waits for better ones, and
/// reads them again from their files.
///
/// The password is taken from the environment variable RV_ES_PASSWORD or from
/// --password-file, an API key from RV_ES_API_KEY or --api-key-file; SIGHUP reads
/// them again. Proxies of the environment are not used, redirects are not
/// followed.
///
/// `rv-es-sink setup` prepares the service: its index templates.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "rv-es-sink",
    version = VERSION,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  rv-es-sink setup --url http://127.0.0.1:9200\n  rv-es-sink --url http://127.0.0.1:9200 --index 'score-log-%Y.%m.%d' --rejects refused.ndjson < scores.ndjson"
)]
pub struct EsSinkArgs {
    #[command(flatten)]
    service: ServiceArgs,

    /// The index or data stream; %Y, %m and %d in it are those of the record's
    /// timestamp in UTC
    #[arg(long, value_name = "NAME", required = true)]
    index: Option<String>,

    #[command(flatten)]
    input: InputArgs,

    /// Send at most N records in a call
    #[arg(long, value_name = "N", default_value = "1000")]
    batch_records: NonZeroUsize,

    /// Send at most SIZE in a call, uncompressed; a longer record goes alone
    #[arg(long, value_name = "SIZE", default_value = "5MiB")]
    batch_bytes: ByteSize,

    /// Send a record at the latest this long after it came
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    batch_age: Duration,

    /// Make up to N calls at once, fewer while the service has too much to do; a
    /// call's records are held in memory until they
    /// are indexed. With more than one, records with the same id may overtake
    /// each other
    #[arg(long, value_name = "N", default_value = "1", value_parser = connections)]
    connections: usize,

    /// Wait this long before a call is made again; then twice as long, and so on
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = duration)]
    retry_min: Duration,

    /// Never wait longer than this before a call is made again
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    retry_max: Duration,

    /// Set a record aside that the service has put off for this long while it
    /// took others; while it takes none, nothing is set aside
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    give_up: Duration,

    /// Compress the calls
    #[arg(long)]
    gzip: bool,

    /// Let the service run its ingest pipeline NAME on each document
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,

    /// Send records as they are, for an index with a mapping of its own
    #[arg(long)]
    keep_shape: bool,

    /// Write every record to the output, too, once it is indexed or was there
    /// already, in the order of the input. One that is set aside is not written,
    /// and does not hold up those behind it
    #[arg(long)]
    pass: bool,

    /// With --pass: write to PATH; `-` is standard output
    #[arg(short, long, value_name = "PATH", default_value_t = Address::Standard, value_parser = Address::of_output, requires = "pass")]
    output: Address,

    /// With --pass: begin with a newline, since this writer takes the place of one
    /// that may have died inside a line
    #[arg(long, requires = "pass")]
    resume: bool,

    /// With --pass: hold at most SIZE of records that were indexed before an
    /// earlier one; past it nothing is read until that one is indexed or set aside
    #[arg(long, value_name = "SIZE", default_value = "64MiB", requires = "pass")]
    pass_bytes: ByteSize,

    #[command(flatten)]
    run: RunArgs,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    Setup(SetupArgs),
}

/// Reads a number of connections.
fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=64) => Ok(count),
        _ => Err("from 1 to 64".to_owned()),
    }
}

impl Program for EsSinkArgs {
    const NAME: &'static str = "rv-es-sink";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        if let Some(Command::Setup(setup)) = &self.command {
            return setup::run(setup, stage);
        }
        let mut sink = EsSink::new(stage, &self)?;
        // Opened first, so that whoever writes to a pipe need not wait for the
        // service too.
        let streams = Streams::open_input(&self.input)?;
        let outcome = sink
            .meet(stage)
            .and_then(|()| filter::run(stage, streams, &mut sink));
        outcome.map_err(|error| sink.leave(stage, error))
    }
}
