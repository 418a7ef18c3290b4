//! The flags of `rv-es-sink` and their checks.

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Result;
use bytesize::ByteSize;
use clap::{Parser, Subcommand};

use crate::observe::es_sink::client::ServiceArgs;
use crate::observe::es_sink::index_name::IndexName;
use crate::observe::es_sink::outbox::BatchLimits;
use crate::observe::es_sink::pipeline::check_pipeline_name;
use crate::observe::es_sink::setup::SetupArgs;
use crate::observe::pass_args::PassArgs;
use crate::stage::cli::{RunArgs, VERSION, bytes, duration};
use crate::stage::streams::{InputArgs, refuse_same_file};
use crate::stage::usage;

/// Send a stream to Elasticsearch or OpenSearch
///
/// The id of a document is its record's messageId; for a score, it is
/// messageId/modelName/modelVersion. So a record that is sent twice becomes one document.
/// The timestamp becomes a date in UTC. The document of a decision gets a member
/// `agreement`. It lists the pairs of models that gave equal results, and the pairs that
/// did not.
///
/// An index has one mapping for each field. To keep a record from spoiling a field for
/// other records, objects in a model's input or result are split into several fields: the
/// 5 in {"size":{"cm":5}} becomes the field `size/cm`. Such a document also contains the
/// original record, as a text in `asReceived`. An input that is not an object becomes the
/// field `modelInput.value`. --keep-shape sends records unchanged.
///
/// While the service is down or overloaded, or the index is read-only, the program stops
/// reading and tries again. A record that the service refuses permanently is rejected
/// (--rejects) with the reason. If the program must end, all records that were read and
/// not delivered are rejected, too. A second SIGTERM has no effect; a second SIGINT ends
/// the program at once. If the service refuses the credentials at the start, the program
/// ends. Later it waits for new credentials, and reads their files again.
///
/// The password is read from the environment variable RV_ES_PASSWORD or --password-file,
/// an API key from RV_ES_API_KEY or --api-key-file. SIGHUP reads them again. Proxies of
/// the environment are not used, and redirects are not followed.
///
/// `rv-es-sink setup` prepares the service: it creates index templates.
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

    /// The index or data stream. %Y, %m and %d in NAME are replaced by the date of
    /// the record's timestamp in UTC
    #[arg(long, value_name = "NAME", required = true)]
    index: Option<String>,

    #[command(flatten)]
    input: InputArgs,

    /// Send at most N records in a call
    #[arg(long, value_name = "N", default_value = "1000")]
    batch_records: NonZeroUsize,

    /// Send at most SIZE in a call, uncompressed. A longer record gets a separate
    /// call
    #[arg(long, value_name = "SIZE", default_value = "5MiB")]
    batch_bytes: ByteSize,

    /// Send a record at most this long after it was read
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    batch_age: Duration,

    /// Make up to N calls at once, and fewer while the service is overloaded. The records
    /// of a call stay in memory until they are indexed. With more than one call, records
    /// with the same id may overtake each other
    #[arg(long, value_name = "N", default_value = "1", value_parser = connections)]
    connections: usize,

    /// Wait this long before a failed call is made again, then twice as long, and so on
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = duration)]
    retry_min: Duration,

    /// Wait at most this long before a failed call is made again
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    retry_max: Duration,

    /// Reject a record if the service has refused it for this long while it accepted
    /// other records. While the service accepts no record, no record is rejected
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    give_up: Duration,

    /// Compress the calls
    #[arg(long)]
    gzip: bool,

    /// Let the service run its ingest pipeline NAME on each document
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,

    /// Send records unchanged, for an index with its own mapping
    #[arg(long)]
    keep_shape: bool,

    /// Also write each record to the output, in the order of the input, after it is
    /// indexed or known to be indexed already. A rejected record is not written, and
    /// does not delay later records
    #[arg(long)]
    pass: bool,

    /// With --pass: hold at most SIZE of records that were indexed before an earlier
    /// record. If SIZE is reached, stop reading until the earlier record is indexed
    /// or rejected
    #[arg(long, value_name = "SIZE", default_value = "64MiB", requires = "pass")]
    pass_bytes: ByteSize,

    #[command(flatten)]
    pass_to: PassArgs,

    #[command(flatten)]
    pub(super) run: RunArgs,

    #[command(subcommand)]
    pub(super) command: Option<EsSinkCommand>,
}

/// The subcommands.
#[derive(Subcommand, Clone, Debug)]
pub(super) enum EsSinkCommand {
    Setup(SetupArgs),
}

/// Reads a number of connections.
fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=64) => Ok(count),
        _ => Err("must be from 1 to 64".to_owned()),
    }
}

/// The checked options of the sink.
#[derive(Debug)]
pub(super) struct SinkOptions {
    /// The address of the service and the access to it.
    pub service: ServiceArgs,
    /// The index of the documents.
    pub index: IndexName,
    /// The input.
    pub input: InputArgs,
    /// The bounds of one call.
    pub batch: BatchLimits,
    /// The largest number of simultaneous calls.
    pub connections: usize,
    /// The wait before the first repetition of a call.
    pub retry_min: Duration,
    /// The longest wait before a repetition.
    pub retry_max: Duration,
    /// The longest time for which a record may be refused temporarily while others
    /// are accepted.
    pub give_up: Duration,
    /// Whether calls are compressed.
    pub gzip: bool,
    /// The ingest pipeline that the service runs on each document.
    pub pipeline: Option<String>,
    /// Whether records are sent unchanged.
    pub keep_shape: bool,
    /// With `--pass`: the options for passing records on.
    pub pass: Option<SinkPass>,
    /// Whether rejected records are written to a file.
    pub keeps_rejects: bool,
}

/// The options for passing indexed records on.
#[derive(Debug)]
pub(super) struct SinkPass {
    /// The output for these records.
    pub to: PassArgs,
    /// The largest number of bytes of records that were indexed before an earlier
    /// record.
    pub held_bytes_max: usize,
}

impl EsSinkArgs {
    /// Refuses meaningless settings, before a stream is opened.
    pub(super) fn check(self) -> Result<SinkOptions> {
        let Some(index) = &self.index else {
            return Err(usage("--index is missing"));
        };
        let batch_bytes = bytes(self.batch_bytes);
        if batch_bytes == 0 {
            return Err(usage("--batch-bytes must be more than 0"));
        }
        if let Some(pipeline) = &self.pipeline {
            check_pipeline_name(pipeline)?;
        }
        if self.pass {
            refuse_same_file(&self.input.input, &self.pass_to.output)?;
        }
        Ok(SinkOptions {
            index: IndexName::of_flag(index)?,
            service: self.service,
            input: self.input,
            batch: BatchLimits {
                records: self.batch_records.get(),
                bytes: batch_bytes,
                age: self.batch_age,
            },
            connections: self.connections,
            retry_min: self.retry_min,
            retry_max: self.retry_max,
            give_up: self.give_up,
            gzip: self.gzip,
            pipeline: self.pipeline,
            keep_shape: self.keep_shape,
            pass: self.pass.then_some(SinkPass {
                to: self.pass_to,
                held_bytes_max: bytes(self.pass_bytes),
            }),
            keeps_rejects: self.run.rejects.is_some(),
        })
    }
}
