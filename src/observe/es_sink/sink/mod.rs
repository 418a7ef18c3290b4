//! The filter: makes a document from each record, sends it, and keeps the record until it
//! is indexed or rejected.
//!
//! While calls are in progress, the next batch is filled. When it is full, the sink stops
//! reading.

mod results;
mod shutdown;
mod startup;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::observe::es_sink::args::SinkOptions;
use crate::observe::es_sink::batch::Item;
use crate::observe::es_sink::bulk_calls::BulkCalls;
use crate::observe::es_sink::call_limit::CallLimit;
use crate::observe::es_sink::client::{BulkSettings, Client};
use crate::observe::es_sink::document::Documents;
use crate::observe::es_sink::outbox::{Outbox, Readiness};
use crate::observe::es_sink::pass_through::PassThrough;
use crate::observe::es_sink::servers::Servers;
use crate::observe::es_sink::shape::IndexedFields;
use crate::stage::Stage;
use crate::stage::backoff::Backoff;
use crate::stage::filter::{Background, Filter};
use crate::stage::stats::{Latencies, Snapshot};
use crate::stage::task::wait_once;
use crate::stream::output::Output;
use crate::wire::lines::Line;

/// The records between the input and the service.
#[derive(Debug)]
pub struct EsSink {
    documents: Documents,
    client: Arc<Client>,
    servers: Servers,
    overload_backoff: Backoff,
    /// The time of the next call while the service is overloaded; otherwise `None` or a
    /// time in the past.
    overloaded_until: Option<Instant>,
    outbox: Outbox,
    calls: BulkCalls,
    call_limit: CallLimit,
    /// The longest time for which a record may be refused temporarily while others
    /// are accepted.
    give_up: Duration,
    /// With `--pass`: the output of indexed records.
    pub(super) pass: Option<PassThrough>,
    /// Whether the service has accepted a call in this run. Before this, the cause of
    /// a refusal is probably the command line; afterwards, it is the state of the
    /// service.
    has_worked: bool,
    pipeline: Option<String>,
    /// The name that messages use for the input.
    input: String,
    /// Whether rejected records are written to a file.
    keeps_rejects: bool,
    pub(super) counts: SinkCounts,
    /// A buffer for the operation of a record.
    scratch: Vec<u8>,
}

/// The counts of the sink.
#[derive(Debug, Default)]
pub(super) struct SinkCounts {
    /// Records that were read.
    pub records_in: u64,
    /// Records that the service has indexed.
    pub indexed: u64,
    /// Indexed records that had been indexed before.
    pub present: u64,
    /// Records that were sent with only their mapped fields.
    pub narrowed: u64,
    /// Records that were sent again.
    pub retried: u64,
    /// Calls that were made.
    pub batches: u64,
    /// Bytes of all calls before compression.
    pub bytes_out: u64,
    calls: Latencies,
}

impl EsSink {
    /// Reads the credentials and opens the output of `--pass`. Makes no call yet.
    pub fn new(stage: &Stage, options: &SinkOptions) -> Result<EsSink> {
        let bulk = BulkSettings {
            gzip: options.gzip,
            pipeline: options.pipeline.as_deref(),
        };
        let client = Client::new(stage, &options.service, bulk)?;
        let (min, max) = (options.retry_min, options.retry_max);
        let pass = match &options.pass {
            Some(pass) => {
                let output = Output::open(&pass.to.output)?;
                Some(PassThrough::new(
                    output,
                    pass.held_bytes_max,
                    pass.to.resume,
                ))
            }
            None => None,
        };
        Ok(EsSink {
            documents: Documents::new(options.index.clone(), options.keep_shape),
            servers: Servers::new(client.servers(), min, max),
            client: Arc::new(client),
            overload_backoff: Backoff::new(min, max),
            overloaded_until: None,
            outbox: Outbox::new(options.batch, min, max),
            calls: BulkCalls::default(),
            call_limit: CallLimit::new(options.connections),
            give_up: options.give_up,
            pass,
            has_worked: false,
            pipeline: options.pipeline.clone(),
            input: String::new(),
            keeps_rejects: options.keeps_rejects,
            counts: SinkCounts::default(),
            scratch: Vec::new(),
        })
    }

    /// Handles the finished calls and makes the calls that are due, without waiting
    /// for the service. Writes the records that may be passed on.
    fn advance(&mut self, stage: &mut Stage, readiness: Readiness) -> Result<()> {
        while let Some(finished) = self.calls.take_finished() {
            stage.stats.touch();
            self.handle_result(stage, finished)?;
        }
        while self.calls.len() < self.call_limit.calls_max() {
            let now = Instant::now();
            if self.callable_at(now).is_some() {
                break;
            }
            let Some(batch) = self.outbox.take_next(readiness, now) else {
                break;
            };
            let Some(server) = self.servers.take_turn(now) else {
                self.outbox.put_back(batch);
                break;
            };
            self.counts.batches += 1;
            self.counts.bytes_out += batch.body.len() as u64;
            if let Err((batch, error)) = self.calls.start(&self.client, server, batch) {
                self.outbox.put_back(batch);
                return Err(error);
            }
        }
        match &mut self.pass {
            Some(pass) => pass.write(stage),
            None => Ok(()),
        }
    }

    /// The time at which the service may be called; `None` if it may be called now.
    fn callable_at(&self, now: Instant) -> Option<Instant> {
        let overloaded = self.overloaded_until.filter(|until| *until > now);
        overloaded.max(self.servers.available_at(now))
    }

    /// The time of the next call that [`advance`](EsSink::advance) makes without
    /// waiting for another call to end; `None` if there is no such call.
    fn next_call_at(&self, readiness: Readiness) -> Option<Instant> {
        if self.calls.len() >= self.call_limit.calls_max() {
            return None;
        }
        let now = Instant::now();
        let due = self.outbox.due(readiness, now)?;
        Some(self.callable_at(now).map_or(due, |at| due.max(at)))
    }

    /// Waits until the outbox has room for an operation of this many bytes.
    fn wait_for_room(&mut self, stage: &mut Stage, bytes: usize) -> Result<()> {
        let has_room = |sink: &EsSink| !sink.is_held_up() && sink.outbox.has_room(bytes);
        while !has_room(self) {
            self.advance(stage, Readiness::Any)?;
            if !has_room(self) {
                self.wait(stage)?;
            }
        }
        Ok(())
    }

    /// Waits until a call ends or is due.
    fn wait(&mut self, stage: &mut Stage) -> Result<()> {
        let until = self.next_call_at(Readiness::Any);
        wait_once(stage, &*self, &self.calls.ends(), until)?;
        if stage.signals.take_hangup() {
            self.hangup(stage)?;
        }
        Ok(())
    }

    /// The number of records that were read and are neither indexed nor rejected.
    pub(super) fn pending(&self) -> usize {
        self.outbox.len() + self.calls.records()
    }

    /// Whether reading waits until the oldest record is indexed or rejected.
    fn is_held_up(&self) -> bool {
        self.pass.as_ref().is_some_and(PassThrough::is_full)
    }

    /// Notes the name of the input. The loop calls this before the first line.
    fn set_input(&mut self, input: &str) {
        if self.input.is_empty() {
            self.input = input.to_owned();
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
        self.set_input(input);
        let record = match line.record() {
            Ok(None) => return Ok(()),
            Ok(Some(record)) => record,
            Err(reject) => {
                self.counts.records_in += 1;
                return stage.report.reject(input, line, &reject);
            }
        };
        self.counts.records_in += 1;
        self.scratch.clear();
        let made = self
            .documents
            .operation(record, IndexedFields::All, &mut self.scratch);
        if let Err(reject) = made {
            return stage.report.reject(input, line, &reject);
        }
        let mut body = std::mem::take(&mut self.scratch);
        if let Err(error) = self.wait_for_room(stage, body.len()) {
            self.counts.records_in -= 1;
            self.left_over(input, line);
            return Err(error);
        }
        if let Some(pass) = &mut self.pass {
            pass.expect(line.number);
        }
        self.outbox.push(new_item(&body, line));
        // The memory of one long record must not be kept forever.
        body.shrink_to(1 << 20);
        self.scratch = body;
        if self.outbox.is_full() {
            self.advance(stage, Readiness::FullOrOld)?;
        }
        Ok(())
    }

    fn before_wait(&mut self, stage: &mut Stage) -> Result<()> {
        self.advance(stage, Readiness::FullOrOld)
    }

    fn left_over(&mut self, input: &str, line: &Line) {
        self.set_input(input);
        if line.record() != Ok(None) {
            self.counts.records_in += 1;
            // The record needs no operation, because it will be rejected and not sent.
            self.outbox.push(new_item(&[], line));
        }
    }

    fn background(&mut self) -> Option<&mut dyn Background> {
        Some(self)
    }

    fn hangup(&mut self, stage: &mut Stage) -> Result<()> {
        match self.client.reload_credentials() {
            Ok(()) => stage.report.info("the credentials were read again"),
            Err(error) => stage.report.warn(&format!(
                "the credentials cannot be read again, the old ones stay: {error:#}"
            )),
        }
        Ok(())
    }

    fn finish(&mut self, stage: &mut Stage) -> Result<()> {
        loop {
            self.advance(stage, Readiness::Any)?;
            if self.pending() == 0 {
                break;
            }
            self.wait(stage)?;
        }
        match &mut self.pass {
            Some(pass) => pass.close(stage),
            None => Ok(()),
        }
    }

    fn snapshot(&self, stage: &Stage) -> Snapshot {
        let counts = &self.counts;
        let snapshot = Snapshot::default()
            .count("in", counts.records_in)
            .count("indexed", counts.indexed)
            .help("Records that the service has indexed")
            .count("present", counts.present)
            .help("Indexed records that were there before")
            .count("narrowed", counts.narrowed)
            .help("Indexed records without the fields that the index had no room for")
            .rejected(&stage.report)
            .gauge("pending", self.pending() as u64)
            .help("Records that were read and are neither indexed nor rejected")
            .count("retried", counts.retried)
            .help("Records that were sent again")
            .count("batches", counts.batches)
            .help("Calls that were made")
            .count("bytesOut", counts.bytes_out)
            .help("Bytes of all calls before compression")
            .latencies("call", &counts.calls);
        match &self.pass {
            Some(pass) => snapshot
                .count("passed", pass.passed)
                .help("Indexed records that were written to the output"),
            None => snapshot,
        }
    }
}

impl Background for EsSink {
    fn due(&self) -> Option<Instant> {
        self.next_call_at(Readiness::FullOrOld)
    }

    fn streams(&self) -> Vec<BorrowedFd<'_>> {
        self.calls.ends()
    }
}

fn new_item<'a>(body: &'a [u8], line: &Line<'a>) -> Item<'a> {
    Item {
        body,
        raw: line.bytes,
        number: line.number,
        offset: line.offset,
        deferral: None,
    }
}
