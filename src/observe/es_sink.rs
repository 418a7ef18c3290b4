//! any stream -> Elasticsearch `_bulk`: one document a record, sent again until
//! the service has it.

mod backoff;
mod batch;
mod client;
mod document;
mod index_name;
mod reply;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytesize::ByteSize;
use clap::Parser;

use crate::observe::es_sink::backoff::Backoff;
use crate::observe::es_sink::batch::{Batch, Item};
use crate::observe::es_sink::client::{Client, Settings};
use crate::observe::es_sink::document::Documents;
use crate::observe::es_sink::index_name::IndexName;
use crate::observe::es_sink::reply::{Outcome, Verdict};
use crate::observe::waiting::{Task, pause};
use crate::stage::cli::{Program, RunArgs, VERSION, duration};
use crate::stage::filter::{self, Filter, InputArgs, Streams};
use crate::stage::stats::{Latencies, Snapshot};
use crate::stage::{Stage, usage};
use crate::wire::lines::Line;
use crate::wire::micros::Micros;

/// Send a stream to Elasticsearch or OpenSearch
///
/// A record's document id is its messageId; a score's is
/// messageId/modelName/modelVersion. So a record that is sent twice is one
/// document. Its timestamp becomes a date in UTC. While the service is down or
/// refuses work the program stops reading and tries again; a record that the
/// service refuses for good is set aside (--rejects) with its reason.
///
/// The password is taken from the environment variable RV_ES_PASSWORD or from
/// --password-file, an API key from RV_ES_API_KEY or --api-key-file. Proxies of
/// the environment are not used, redirects are not followed.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "rv-es-sink",
    version = VERSION,
    after_help = "Example:\n  rv-es-sink --url http://127.0.0.1:9200 --index 'scores-%Y.%m.%d' --rejects refused.ndjson < scores.ndjson"
)]
pub struct EsSinkArgs {
    /// Where the service is, such as `https://search.example:9200`
    #[arg(long, value_name = "URL", required = true)]
    url: Option<String>,

    /// The index; %Y, %m and %d in it are those of the record's timestamp in UTC
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

    /// Give up a call after this long, and make it again
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    timeout: Duration,

    /// Wait this long before a call is made again; then twice as long, and so on
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = duration)]
    retry_min: Duration,

    /// Never wait longer than this before a call is made again
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    retry_max: Duration,

    /// Compress the calls
    #[arg(long)]
    gzip: bool,

    /// Trust the certificates in FILE (PEM) and no others
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Log in as NAME
    #[arg(long, value_name = "NAME", conflicts_with = "api_key_file")]
    user: Option<String>,

    /// Take the password of --user from FILE
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,

    /// Log in with the (encoded) API key in FILE
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    #[command(flatten)]
    run: RunArgs,
}

impl Program for EsSinkArgs {
    const NAME: &'static str = "rv-es-sink";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        let mut sink = EsSink::new(stage, &self)?;
        let streams = Streams::open_input(&self.input)?;
        let outcome = filter::run(stage, streams, &mut sink);
        outcome.map_err(|error| sink.explain(error))
    }
}

/// The records on their way to the service.
#[derive(Debug)]
struct EsSink {
    documents: Documents,
    client: Arc<Client>,
    backoff: Backoff,
    batch: Batch,
    /// The most records in a call.
    records_max: usize,
    /// The most bytes in a call; less than was asked for once the service has
    /// found a call too large.
    bytes_max: usize,
    age_max: Duration,
    /// What messages call the input.
    input: String,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    records_in: u64,
    indexed: u64,
    /// Records sent again.
    retried: u64,
    /// Calls made.
    batches: u64,
    bytes_out: u64,
    calls: Latencies,
}

impl EsSink {
    /// Checks the settings. No call is made yet.
    fn new(stage: &Stage, args: &EsSinkArgs) -> Result<EsSink> {
        let (Some(url), Some(index)) = (&args.url, &args.index) else {
            return Err(usage("--url and --index are needed"));
        };
        let index = IndexName::parse(index)
            .map_err(|reason| usage(format!("--index {index:?}: {reason}")))?;
        let bytes_max = usize::try_from(args.batch_bytes.as_u64()).unwrap_or(usize::MAX);
        if bytes_max == 0 {
            return Err(usage("--batch-bytes must be more than 0"));
        }
        let client = Client::new(
            stage,
            &Settings {
                url,
                user: args.user.as_deref(),
                password_file: args.password_file.as_deref(),
                api_key_file: args.api_key_file.as_deref(),
                ca_file: args.ca_file.as_deref(),
                timeout: args.timeout,
                gzip: args.gzip,
            },
        )?;
        Ok(EsSink {
            documents: Documents::new(index),
            client: Arc::new(client),
            backoff: Backoff::new(args.retry_min, args.retry_max),
            batch: Batch::default(),
            records_max: args.batch_records.get(),
            bytes_max,
            age_max: args.batch_age,
            input: String::new(),
            counts: Counts::default(),
        })
    }

    /// Sends the batch until each of its records is indexed or set aside.
    fn deliver(&mut self, stage: &mut Stage) -> Result<()> {
        while !self.batch.is_empty() {
            let count = self.batch.call_records(self.records_max, self.bytes_max);
            let outcome = self.call(stage, count)?;
            match outcome {
                Outcome::Items(verdicts) => {
                    if let Some(reason) = self.settle(stage, verdicts)? {
                        self.wait_to_retry(stage, count, &reason)?;
                    }
                }
                Outcome::TooLarge if count == 1 => {
                    let reason = "the service finds the record too large (413)";
                    let item = self.batch.remove_first();
                    self.reject(stage, item, reason)?;
                }
                Outcome::TooLarge => {
                    self.bytes_max = self.batch.bytes_of(count) / 2;
                    self.counts.retried += count as u64;
                    let bytes = self.bytes_max;
                    stage.report.warn_seldom(
                        "too large",
                        &format!(
                            "{}: a call was too large (413); going on with {bytes} bytes at most",
                            self.client.url()
                        ),
                    );
                }
                Outcome::Retry(reason) => {
                    self.counts.retried += count as u64;
                    self.wait_to_retry(stage, count, &reason)?;
                }
                Outcome::Fatal(reason) => bail!("{reason}"),
            }
        }
        Ok(())
    }

    /// Makes one call with the first `count` records of the batch.
    fn call(&mut self, stage: &mut Stage, count: usize) -> Result<Outcome> {
        let body = self.batch.body(count);
        self.counts.batches += 1;
        self.counts.bytes_out += body.len() as u64;
        let client = Arc::clone(&self.client);
        let from = Instant::now();
        // In a thread, so that a service that does not answer keeps no signal
        // from being obeyed.
        let task = Task::spawn("calling", move || client.bulk(body, count))?;
        task.wait(stage, self)?;
        self.counts
            .calls
            .record(Micros::from_duration(from.elapsed()));
        stage.stats.touch();
        task.join()
    }

    /// Takes what is settled out of the batch. Returns a reason where something
    /// is to be sent again.
    fn settle(&mut self, stage: &mut Stage, verdicts: Vec<Verdict>) -> Result<Option<String>> {
        let count = verdicts.len();
        let mut again = None;
        let (mut kept, mut refused) = (Vec::new(), Vec::new());
        for (item, verdict) in self.batch.take_first(count).into_iter().zip(verdicts) {
            match verdict {
                Verdict::Indexed => self.counts.indexed += 1,
                Verdict::Retry(reason) => {
                    self.counts.retried += 1;
                    again.get_or_insert(reason);
                    kept.push(item);
                }
                Verdict::Refused(reason) => refused.push((item, reason)),
            }
        }
        if kept.len() < count {
            self.backoff.reset();
        }
        self.batch.put_back(kept);
        for (item, reason) in refused {
            self.reject(stage, item, &reason)?;
        }
        Ok(again)
    }

    fn reject(&self, stage: &mut Stage, item: Item, reason: &str) -> Result<()> {
        let line = Line {
            bytes: &item.raw,
            number: item.number,
            offset: item.offset,
            oversized: None,
        };
        stage.report.reject(&self.input, &line, reason)
    }

    fn wait_to_retry(&mut self, stage: &mut Stage, count: usize, reason: &str) -> Result<()> {
        let url = self.client.url();
        stage.report.warn_seldom(
            "retry",
            &format!("{url}: {reason}; sending again, {count} records at a time"),
        );
        let until = Instant::now() + self.backoff.next_wait();
        pause(stage, self, until)
    }

    /// Says how many records an early end leaves behind.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        match self.batch.len() {
            0 => error,
            count => error.context(format!(
                "{count} records were read and not delivered to {}",
                self.client.url()
            )),
        }
    }
}

impl Filter for EsSink {
    fn line(
        &mut self,
        stage: &mut Stage,
        input: &str,
        line: &Line,
        _out: &mut Vec<u8>,
    ) -> Result<()> {
        if self.input.is_empty() {
            self.input = input.to_owned();
        }
        if line.oversized.is_some() {
            self.counts.records_in += 1;
            return stage.report.reject_oversized(input, line);
        }
        let Some(record) = line.record() else {
            return Ok(());
        };
        self.counts.records_in += 1;
        let body = match self.documents.operation(record) {
            Ok(body) => body,
            Err(reason) => return stage.report.reject(input, line, &reason),
        };
        if self.batch.bytes() + body.len() > self.bytes_max {
            self.deliver(stage)?;
        }
        self.batch.push(Item {
            body,
            raw: line.bytes.to_vec(),
            number: line.number,
            offset: line.offset,
        });
        if self.batch.len() >= self.records_max {
            self.deliver(stage)?;
        }
        Ok(())
    }

    fn before_wait(&mut self, stage: &mut Stage) -> Result<()> {
        match self.due() {
            Some(due) if due <= Instant::now() => self.deliver(stage),
            _ => Ok(()),
        }
    }

    fn due(&self) -> Option<Instant> {
        self.batch.begun()?.checked_add(self.age_max)
    }

    fn finish(&mut self, stage: &mut Stage) -> Result<()> {
        self.deliver(stage)
    }

    fn snapshot(&self, stage: &Stage) -> Snapshot {
        let counts = &self.counts;
        Snapshot::default()
            .count("in", counts.records_in)
            .count("indexed", counts.indexed)
            .count("rejected", stage.report.rejected())
            .gauge("pending", self.batch.len() as u64)
            .count("retried", counts.retried)
            .count("batches", counts.batches)
            .count("bytesOut", counts.bytes_out)
            .latencies("call", &counts.calls)
    }
}
