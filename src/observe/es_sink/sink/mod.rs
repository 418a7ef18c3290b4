//! The records on their way: gathered, sent, and held until each is indexed or set
//! aside.
//!
//! While calls are under way the next batch fills, and reading stops when it is
//! full. Calls that failed as a whole are made again before new ones; records that
//! were put off one by one wait in a batch of their own, so that they hold up the
//! others only where they are many.

mod settle;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use reqwest::Method;

use crate::observe::es_sink::EsSinkArgs;
use crate::observe::es_sink::backoff::Backoff;
use crate::observe::es_sink::batch::{Batch, Item, Parcel};
use crate::observe::es_sink::calls::Calls;
use crate::observe::es_sink::client::{BulkSettings, Client, Reply};
use crate::observe::es_sink::document::Documents;
use crate::observe::es_sink::flow::Flow;
use crate::observe::es_sink::index_name::IndexName;
use crate::observe::es_sink::pass::Pass;
use crate::observe::es_sink::reply::Outcome;
use crate::observe::es_sink::servers::Servers;
use crate::observe::es_sink::service;
use crate::observe::es_sink::shape::Extent;
use crate::stage::Stop;
use crate::stage::cli::bytes;
use crate::stage::filter::{Background, Filter};
use crate::stage::stats::{Latencies, Snapshot};
use crate::stage::streams::refuse_same_file;
use crate::stage::task::{Task, pause, wait_once};
use crate::stage::{EndedEarly, Stage, usage};
use crate::stream::output::Output;
use crate::wire::lines::Line;

/// The records on their way to the service.
#[derive(Debug)]
pub struct EsSink {
    documents: Documents,
    client: Arc<Client>,
    servers: Servers,
    /// Of a service that has too much to do.
    backoff: Backoff,
    /// No call is made before.
    busy_until: Option<Instant>,
    /// What was read last.
    filling: Batch,
    /// Calls to be made again, in their order.
    again: VecDeque<Parcel>,
    /// What the service has put off one by one.
    put_off: Batch,
    put_off_until: Option<Instant>,
    put_off_backoff: Backoff,
    calls: Calls,
    flow: Flow,
    /// Where records are passed on.
    pub(super) pass: Option<Pass>,
    limits: Limits,
    /// The largest call that was not too large, in bytes.
    fitted: usize,
    /// Whether the service has taken a call in this run. Before, what it says is
    /// about the command line; after, about its own state.
    works: bool,
    pipeline: Option<String>,
    /// What messages call the input.
    input: String,
    /// Whether rejects are kept.
    keeps_rejects: bool,
    pub(super) counts: Counts,
    /// The document that is made of a line.
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Limits {
    /// The most records in a call.
    records: usize,
    /// The most bytes in a call; less than was asked for once the service has
    /// found a call too large.
    bytes: usize,
    age: Duration,
    give_up: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub records_in: u64,
    pub indexed: u64,
    /// Of these, the ones that were there before.
    pub present: u64,
    /// Records of which only the fields that the template names were sent.
    pub narrowed: u64,
    /// Records sent again.
    pub retried: u64,
    /// Calls made.
    pub batches: u64,
    pub bytes_out: u64,
    calls: Latencies,
}

/// What is sent although it would not be yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Send {
    /// What is full or old.
    Due,
    /// Everything.
    All,
}

impl EsSink {
    /// Checks the settings. No call is made yet.
    pub fn new(stage: &Stage, args: &EsSinkArgs) -> Result<EsSink> {
        let Some(index) = &args.index else {
            return Err(usage("--index is missing"));
        };
        let index = IndexName::parse(index)
            .map_err(|reason| usage(format!("--index {index:?}: {reason}")))?;
        let bytes_max = bytes(args.batch_bytes);
        if bytes_max == 0 {
            return Err(usage("--batch-bytes must be more than 0"));
        }
        let bulk = BulkSettings {
            gzip: args.gzip,
            pipeline: args.pipeline.as_deref(),
        };
        let client = Client::new(stage, &args.service, bulk)?;
        let (min, max) = (args.retry_min, args.retry_max);
        Ok(EsSink {
            documents: Documents::new(index, args.keep_shape),
            servers: Servers::new(client.servers(), min, max),
            client: Arc::new(client),
            backoff: Backoff::new(min, max),
            busy_until: None,
            filling: Batch::default(),
            again: VecDeque::new(),
            put_off: Batch::default(),
            put_off_until: None,
            put_off_backoff: Backoff::new(min, max),
            calls: Calls::default(),
            flow: Flow::new(args.connections),
            pass: open_pass(args)?,
            limits: Limits {
                records: args.batch_records.get(),
                bytes: bytes_max,
                age: args.batch_age,
                give_up: args.give_up,
            },
            fitted: 0,
            works: false,
            pipeline: args.pipeline.clone(),
            input: String::new(),
            keeps_rejects: args.run.rejects.is_some(),
            counts: Counts::default(),
            scratch: Vec::new(),
        })
    }

    /// Waits for the service, and asks it what has to be known before anything is
    /// read: that it is one, that it lets this user in, that the pipeline is there.
    pub fn meet(&mut self, stage: &mut Stage) -> Result<()> {
        let Some(reply) = self.ask(stage, "/")? else {
            return Ok(());
        };
        if let Err(Outcome::Fatal(reason) | Outcome::Retry(reason)) =
            service::read(reply.status, &reply.body)
        {
            bail!("{}: {reason}", self.client.urls());
        }
        let Some(pipeline) = &self.pipeline else {
            return Ok(());
        };
        if !is_plain_name(pipeline) {
            return Err(usage(format!(
                "--pipeline {pipeline:?}: this cannot be the name of a pipeline"
            )));
        }
        let path = format!("/_ingest/pipeline/{pipeline}");
        let reply = self.ask(stage, &path)?;
        // A user who may not ask may use it all the same.
        if reply.is_some_and(|reply| reply.status == 404) {
            return Err(usage(format!(
                "--pipeline {:?}: the service has none of this name",
                self.pipeline.as_deref().unwrap_or_default()
            )));
        }
        Ok(())
    }

    /// Asks the first address that answers. `None` where the program is to end
    /// before: nothing has been read, so nothing is left to do.
    fn ask(&mut self, stage: &mut Stage, path: &str) -> Result<Option<Reply>> {
        loop {
            if stage.signals.stop() == Some(Stop::Terminate) {
                return Ok(None);
            }
            let now = Instant::now();
            let Some(server) = self.servers.pick(now) else {
                let until = self.servers.open_at(now).unwrap_or(now);
                pause(stage, self, until)?;
                continue;
            };
            let (client, path) = (Arc::clone(&self.client), path.to_owned());
            let task = Task::spawn("asking", move || {
                client.call(server, Method::GET, &path, None)
            })?;
            task.wait(stage, self)?;
            let url = self.client.url(server);
            let reason = match task.join()? {
                Ok(reply) if matches!(reply.status, 408 | 429 | 500..=599) => {
                    format!("the service answers {}", reply.status)
                }
                Ok(reply) => {
                    self.servers.succeeded(server);
                    return Ok(Some(reply));
                }
                Err(Outcome::Fatal(reason)) => bail!("{url}: {reason}"),
                Err(Outcome::Retry(reason)) => reason,
                Err(other) => bail!("{url}: {other:?}"),
            };
            stage
                .report
                .warn_seldom("retry", &format!("{url}: {reason}; trying again"));
            self.servers.failed(server, Instant::now());
        }
    }

    /// Settles what has ended and sends what may be sent, without waiting.
    fn pump(&mut self, stage: &mut Stage, send: Send) -> Result<()> {
        while let Some(finished) = self.calls.take_finished() {
            stage.stats.touch();
            self.settle(stage, finished)?;
        }
        while self.calls.len() < self.flow.calls_max() {
            let now = Instant::now();
            if self.open_at(now).is_some() {
                break;
            }
            let Some(parcel) = self.next_parcel(now, send) else {
                break;
            };
            let Some(server) = self.servers.pick(now) else {
                self.again.push_front(parcel);
                break;
            };
            self.counts.batches += 1;
            self.counts.bytes_out += parcel.body.len() as u64;
            if let Err((parcel, error)) = self.calls.start(&self.client, server, parcel) {
                self.again.push_front(parcel);
                return Err(error);
            }
        }
        Ok(())
    }

    /// When a call may be made; `None` is now.
    fn open_at(&self, now: Instant) -> Option<Instant> {
        let busy = self.busy_until.filter(|until| *until > now);
        busy.max(self.servers.open_at(now))
    }

    fn next_parcel(&mut self, now: Instant, send: Send) -> Option<Parcel> {
        if let Some(parcel) = self.again.pop_front() {
            return Some(parcel);
        }
        let (records, bytes) = (self.limits.records, self.limits.bytes);
        if !self.put_off.is_empty() && self.put_off_until.is_none_or(|until| until <= now) {
            return Some(self.put_off.take(records, bytes));
        }
        let due = match send {
            Send::All => !self.filling.is_empty(),
            Send::Due => self.is_full() || self.aged_at().is_some_and(|at| at <= now),
        };
        // Where much is put off, new records would only be more of it.
        let is_held = self.put_off.len() >= records || self.put_off.bytes() >= bytes;
        (due && !is_held).then(|| self.filling.take(records, bytes))
    }

    fn is_full(&self) -> bool {
        self.filling.len() >= self.limits.records || self.filling.bytes() >= self.limits.bytes
    }

    fn aged_at(&self) -> Option<Instant> {
        self.filling.begun()?.checked_add(self.limits.age)
    }

    /// Waits until a document of so many bytes may be added to what is filling.
    fn make_room(&mut self, stage: &mut Stage, bytes: usize) -> Result<()> {
        let is_missing = |sink: &EsSink| {
            let is_over = sink.is_full() || sink.filling.bytes() + bytes > sink.limits.bytes;
            sink.is_held_up() || (is_over && !sink.filling.is_empty())
        };
        while is_missing(self) {
            self.pump(stage, Send::All)?;
            self.pass_on(stage)?;
            if is_missing(self) {
                self.wait(stage, Send::All)?;
            }
        }
        Ok(())
    }

    /// When [`pump`](EsSink::pump) would send something though nothing ends;
    /// `None` where it would not.
    fn next_send(&self, send: Send) -> Option<Instant> {
        if self.calls.len() >= self.flow.calls_max() {
            return None;
        }
        let now = Instant::now();
        let mut times = [None; 3];
        if !self.again.is_empty() {
            times[0] = Some(now);
        }
        let (records, bytes) = (self.limits.records, self.limits.bytes);
        if !self.put_off.is_empty() {
            times[1] = Some(self.put_off_until.unwrap_or(now));
        }
        if self.put_off.len() < records && self.put_off.bytes() < bytes {
            times[2] = if self.is_full() || (send == Send::All && !self.filling.is_empty()) {
                Some(now)
            } else {
                self.aged_at()
            };
        }
        let first = times.into_iter().flatten().min()?;
        Some(self.open_at(now).map_or(first, |open| first.max(open)))
    }

    /// Waits until there is something to do.
    fn wait(&mut self, stage: &mut Stage, send: Send) -> Result<()> {
        let until = self.next_send(send);
        wait_once(stage, &*self, &self.calls.ends(), until)?;
        if stage.signals.take_hangup() {
            self.hangup(stage)?;
        }
        Ok(())
    }

    /// How many records were read and are neither indexed nor set aside.
    pub(super) fn pending(&self) -> usize {
        let again: usize = self.again.iter().map(Parcel::len).sum();
        self.filling.len() + again + self.put_off.len() + self.calls.records()
    }

    /// Whether nothing is read until the oldest record is settled.
    fn is_held_up(&self) -> bool {
        self.pass.as_ref().is_some_and(Pass::is_full)
    }

    /// Writes what may be passed on.
    fn pass_on(&mut self, stage: &mut Stage) -> Result<()> {
        match &mut self.pass {
            Some(pass) => pass.write(stage),
            None => Ok(()),
        }
    }

    /// Sets aside what an early end leaves behind, and says how much that is.
    pub fn leave(&mut self, stage: &mut Stage, error: anyhow::Error) -> anyhow::Error {
        let (count, unwritten) = (self.pending(), self.unwritten());
        let has_reader = !matches!(error.downcast_ref(), Some(EndedEarly::DownstreamClosed));
        let mut said = Vec::new();
        if count > 0 {
            let kept = match (self.keeps_rejects, self.save(stage)) {
                (true, Ok(())) => "; they are in the file of --rejects",
                (true, Err(_)) => "",
                (false, _) => "; with --rejects FILE they would have been kept",
            };
            let url = self.client.urls();
            said.push(format!(
                "{count} records were read and not delivered to {url}{kept}"
            ));
        }
        // A reader that leaves knows that it has not read all.
        if unwritten > 0 && has_reader {
            said.push(format!(
                "{unwritten} records were indexed and not passed on"
            ));
        }
        if !said.is_empty() || !has_reader {
            let snapshot = self.snapshot(stage);
            stage.final_stats(&snapshot);
        }
        match said.is_empty() {
            true => error,
            false => error.context(said.join("; ")),
        }
    }

    fn unwritten(&self) -> u64 {
        self.pass.as_ref().map_or(0, Pass::unwritten)
    }

    /// Sets aside every record that is not known to be delivered.
    fn save(&mut self, stage: &mut Stage) -> Result<()> {
        let reason = "read, but not known to be delivered when the program ended";
        let under_way = std::mem::take(&mut self.calls);
        let again = std::mem::take(&mut self.again);
        let put_off = std::mem::take(&mut self.put_off);
        let filling = std::mem::take(&mut self.filling);
        let parcels = under_way.parcels().chain(&again);
        let mut items: Vec<Item> = parcels
            .flat_map(Parcel::items)
            .chain(put_off.items())
            .chain(filling.items())
            .collect();
        items.sort_by_key(|item| item.number);
        // With --strict the first is an error already; each is kept all the same.
        let mut outcome = Ok(());
        for item in items {
            outcome = self.reject(stage, item, reason).and(outcome);
        }
        outcome.and(stage.report.flush())
    }
}

/// Where records are to be passed on, if they are.
fn open_pass(args: &EsSinkArgs) -> Result<Option<Pass>> {
    if !args.pass {
        return Ok(None);
    }
    refuse_same_file(&args.input.input, &args.output)?;
    let held_max = bytes(args.pass_bytes);
    let output = Output::open(&args.output)?;
    Ok(Some(Pass::new(output, held_max, args.resume)))
}

/// What may stand in a path as it is.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
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
            .operation(record, Extent::Whole, &mut self.scratch);
        if let Err(reject) = made {
            return stage.report.reject(input, line, &reject);
        }
        let mut body = std::mem::take(&mut self.scratch);
        if let Err(error) = self.make_room(stage, body.len()) {
            self.counts.records_in -= 1;
            self.left_over(input, line);
            return Err(error);
        }
        if let Some(pass) = &mut self.pass {
            pass.expect(line.number);
        }
        self.filling.push(Item {
            body: &body,
            raw: line.bytes,
            number: line.number,
            offset: line.offset,
            put_off: None,
        });
        // One long record must not cost its memory for ever.
        body.shrink_to(1 << 20);
        self.scratch = body;
        if self.is_full() {
            self.pump(stage, Send::Due)?;
            self.pass_on(stage)?;
        }
        Ok(())
    }

    fn before_wait(&mut self, stage: &mut Stage) -> Result<()> {
        self.pump(stage, Send::Due)?;
        self.pass_on(stage)
    }

    fn left_over(&mut self, input: &str, line: &Line) {
        if self.input.is_empty() {
            self.input = input.to_owned();
        }
        if line.record() != Ok(None) {
            self.counts.records_in += 1;
            // It will not be sent.
            self.filling.push(Item {
                body: &[],
                raw: line.bytes,
                number: line.number,
                offset: line.offset,
                put_off: None,
            });
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
            self.pump(stage, Send::All)?;
            self.pass_on(stage)?;
            if self.pending() == 0 {
                break;
            }
            self.wait(stage, Send::All)?;
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
            .help("Records that the service has")
            .count("present", counts.present)
            .help("Of the indexed, those that were there before")
            .count("narrowed", counts.narrowed)
            .help("Of the indexed, those without the fields that the index has no room for")
            .rejected(&stage.report)
            .gauge("pending", self.pending() as u64)
            .help("Records read that are neither indexed nor set aside")
            .count("retried", counts.retried)
            .help("Records sent again")
            .count("batches", counts.batches)
            .help("Calls made")
            .count("bytesOut", counts.bytes_out)
            .help("Bytes of all calls before compression")
            .latencies("call", &counts.calls);
        match &self.pass {
            Some(pass) => snapshot
                .count("passed", pass.passed)
                .help("Of the indexed, those written to the output"),
            None => snapshot,
        }
    }
}

impl Background for EsSink {
    fn due(&self) -> Option<Instant> {
        self.next_send(Send::Due)
    }

    fn streams(&self) -> Vec<BorrowedFd<'_>> {
        self.calls.ends()
    }
}
