//! The state that all calls share: who waits for which answer, and what is not
//! written yet.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Instant;

use anyhow::Result;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use tokio::sync::{Notify, oneshot};

use crate::serve::request::http::admin::Admin;
use crate::serve::request::http::call::{Limits, answer_of};
use crate::serve::request::http::connections::{Connection, Connections, Phase};
use crate::serve::request::{RequestArgs, Wrapper};
use crate::stage::Stage;
use crate::stage::cli::bytes;
use crate::stage::program::Program;
use crate::stage::stats::{Latencies, Snapshot};
use crate::wire::lines::{KeptLine, Line, OVERSIZED_HEAD_BYTES};
use crate::wire::message::{self, Record};
use crate::wire::micros::Micros;
use crate::wire::reject::Reject;

/// How many warnings wait to be printed. They are of few kinds, and of each kind
/// one in a while is printed.
const WARNINGS_MAX: usize = 100;

/// While more bad responses than this wait to be set aside, no others are read.
const REJECTS_BYTES_MAX: usize = 1 << 20;

/// What a bad response takes besides its bytes, about.
const REJECT_OVERHEAD_BYTES: usize = 256;

/// What a call is answered with.
pub type Answer = Response<Full<Bytes>>;

/// Why a call cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many calls are open as there may be.
    Full,
    /// The pipeline is not there, for this reason.
    NoPipeline(&'static str),
    /// The id belongs to a call that is open.
    IdInUse,
}

/// A line of the responses that is none.
#[derive(Debug)]
struct BadResponse {
    input: String,
    line: KeptLine,
    reject: Reject,
}

/// Who waits for an answer.
#[derive(Debug)]
struct Waiting {
    /// Tells a call from an earlier one with the same id.
    generation: u64,
    answer: oneshot::Sender<Answer>,
}

/// Shared by all tasks of the front end, which run on one thread.
#[derive(Debug)]
pub struct Front {
    pub limits: Limits,
    /// Of the second listener, where there is one.
    pub admin: Option<Admin>,
    /// Those of the clients.
    pub connections: Rc<Connections>,
    started: Instant,
    wrapper: RefCell<Wrapper>,
    max_in_flight: usize,
    pending_bytes_max: usize,
    open: RefCell<HashMap<String, Waiting>>,
    /// Of the last call that was sent.
    generation: Cell<u64>,
    pending: RefCell<Vec<u8>>,
    /// Of the bytes that the writer has taken, those not written yet.
    in_writing: Cell<usize>,
    something_pending: Notify,
    /// Whether the requests have a reader.
    requests_read: Cell<bool>,
    /// Whether the responses have a writer.
    responses_written: Cell<bool>,
    /// Whether the program was told to end.
    stopping: Cell<bool>,
    /// What the bodies take that are being read.
    body_bytes: Cell<usize>,
    bodies_bytes_max: usize,
    /// Whether anything was counted since the counts were last shown.
    counted: Cell<bool>,
    bad_responses: RefCell<Vec<BadResponse>>,
    /// How much memory they take.
    bad_bytes: Cell<usize>,
    bad_responses_taken: Notify,
    warnings: RefCell<Vec<(&'static str, String)>>,
    something_to_report: Notify,
    pub counts: RefCell<Counts>,
}

/// What became of the calls.
#[derive(Debug, Default)]
pub struct Counts {
    /// Calls whose head was read.
    pub begun: u64,
    /// Calls whose client left before the answer.
    pub abandoned: u64,
    /// By status.
    pub statuses: BTreeMap<StatusCode, u64>,
    pub unmatched: u64,
    pub rejected: u64,
    pub latency: Latencies,
}

impl Front {
    pub fn new(
        args: &RequestArgs,
        wrapper: Wrapper,
        limits: Limits,
        admin: Option<Admin>,
        connections_max: usize,
    ) -> Front {
        // Twice the largest body, or what a burst of ordinary calls needs.
        let pending_bytes_max = (2 * limits.body_bytes_max).max(16 << 20);
        Front {
            limits,
            admin,
            connections: Connections::new(connections_max, args.http.times()),
            started: Instant::now(),
            wrapper: RefCell::new(wrapper),
            max_in_flight: args.max_in_flight as usize,
            pending_bytes_max,
            open: RefCell::default(),
            generation: Cell::new(0),
            pending: RefCell::default(),
            in_writing: Cell::new(0),
            something_pending: Notify::new(),
            requests_read: Cell::new(false),
            responses_written: Cell::new(false),
            stopping: Cell::new(false),
            body_bytes: Cell::new(0),
            bodies_bytes_max: bytes(args.http.max_bodies),
            counted: Cell::new(true),
            bad_responses: RefCell::default(),
            bad_bytes: Cell::new(0),
            bad_responses_taken: Notify::new(),
            warnings: RefCell::default(),
            something_to_report: Notify::new(),
            counts: RefCell::default(),
        }
    }

    /// Whether a body holds the fields it has to.
    pub fn check(&self, model_input: &str) -> Result<(), String> {
        self.wrapper.borrow_mut().required.check(model_input)
    }

    /// Sends a request into the pipeline. The receiver gets the answer; when it
    /// is dropped the call is no longer open.
    pub fn send(
        self: &Rc<Self>,
        id: Option<String>,
        model_input: &str,
    ) -> Result<OpenCall, Refusal> {
        if self.open.borrow().len() >= self.max_in_flight
            || self.pending.borrow().len() + self.in_writing.get() > self.pending_bytes_max
        {
            return Err(Refusal::Full);
        }
        if let Some(why) = self.no_pipeline() {
            return Err(Refusal::NoPipeline(why));
        }
        let mut wrapper = self.wrapper.borrow_mut();
        let id = id.unwrap_or_else(|| wrapper.ids.next_id());
        let (sender, answer) = oneshot::channel();
        let generation = self.generation.get() + 1;
        let mut open = self.open.borrow_mut();
        if open.contains_key(&id) {
            return Err(Refusal::IdInUse);
        }
        self.generation.set(generation);
        let waiting = Waiting {
            generation,
            answer: sender,
        };
        open.insert(id.clone(), waiting);
        wrapper.wrap(&id, model_input, &mut self.pending.borrow_mut());
        self.something_pending.notify_one();
        Ok(OpenCall {
            front: Rc::clone(self),
            id,
            generation,
            answer,
        })
    }

    /// Why no call can be answered now, if so.
    fn no_pipeline(&self) -> Option<&'static str> {
        match (self.requests_read.get(), self.responses_written.get()) {
            (true, true) => None,
            (false, true) => Some("the requests have no reader"),
            (true, false) => Some("the responses have no writer"),
            (false, false) => Some("the requests have no reader, and the responses no writer"),
        }
    }

    /// Why no new calls should come here now, if so.
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.stopping.get() {
            return Some("shutting down");
        }
        self.no_pipeline()
    }

    /// The program was told to end.
    pub fn stop(&self) {
        self.stopping.set(true);
    }

    /// Room for `bytes` of a body, until it is dropped; `None` where all bodies
    /// together would take more than they may.
    pub fn room_for_body(self: &Rc<Self>, bytes: usize) -> Option<BodyRoom> {
        let mut room = BodyRoom {
            front: Rc::clone(self),
            bytes: 0,
        };
        room.grow(bytes).then_some(room)
    }

    /// Writes bytes in front of the next request.
    pub fn push(&self, bytes: &[u8]) {
        self.pending.borrow_mut().extend_from_slice(bytes);
        self.something_pending.notify_one();
    }

    /// What is to be written, as soon as there is something. All calls that are
    /// ready now get to append theirs first.
    pub async fn take_pending(&self) -> Vec<u8> {
        loop {
            if !self.pending.borrow().is_empty() {
                tokio::task::yield_now().await;
                let batch = std::mem::take(&mut *self.pending.borrow_mut());
                self.in_writing.set(batch.len());
                return batch;
            }
            self.something_pending.notified().await;
        }
    }

    /// The batch has left, or is lost. Takes it back for its memory.
    pub fn written(&self, mut batch: Vec<u8>) {
        self.in_writing.set(0);
        batch.clear();
        let mut pending = self.pending.borrow_mut();
        if pending.capacity() == 0 && batch.capacity() <= 1 << 20 {
            *pending = batch;
        }
    }

    /// Somebody reads the requests.
    pub fn requests_begin(&self) {
        self.requests_read.set(true);
    }

    /// Nobody reads the requests any more.
    pub fn requests_end(&self) {
        self.requests_read.set(false);
        self.fail_open_calls("the last reader of the requests has closed");
    }

    /// Somebody writes responses.
    pub fn responses_begin(&self) {
        self.responses_written.set(true);
    }

    /// Nobody writes responses any more.
    pub fn responses_end(&self) {
        self.responses_written.set(false);
        self.fail_open_calls("the last writer of the responses has closed");
    }

    fn fail_open_calls(&self, why: &str) {
        let open = std::mem::take(&mut *self.open.borrow_mut());
        let mut pending = self.pending.borrow_mut();
        // The newline behind a torn line is still due.
        let after_torn_line = pending.first() == Some(&b'\n');
        pending.clear();
        pending.extend(after_torn_line.then_some(b'\n'));
        drop(pending);
        self.warn(
            "gone",
            format!("the pipeline is gone: {why}; {} calls get 503", open.len()),
        );
        // Dropping the senders wakes the calls.
        drop(open);
    }

    /// Hands a response to the call that waits for it.
    pub fn arrive(&self, input: &str, line: &Line) {
        let read = || {
            let Some(bytes) = line.record()? else {
                return Ok(None);
            };
            let record = Record::parse(bytes)?;
            let response = message::Response::read(&record)?;
            Ok(Some((record, response)))
        };
        match read() {
            Ok(None) => {}
            Ok(Some((record, response))) => {
                match self.open.borrow_mut().remove(&*response.message_id) {
                    Some(call) => {
                        // The client may have gone in this moment.
                        let _ = call.answer.send(answer_of(&record, &response));
                    }
                    None => {
                        self.counts.borrow_mut().unmatched += 1;
                        self.count();
                    }
                }
            }
            Err(reject) => self.set_aside(input, line, reject),
        }
    }

    fn set_aside(&self, input: &str, line: &Line, reject: Reject) {
        self.counts.borrow_mut().rejected += 1;
        self.count();
        debug_assert!(line.oversized.is_none() || line.bytes.len() <= OVERSIZED_HEAD_BYTES);
        let bytes = line.bytes.len() + REJECT_OVERHEAD_BYTES;
        self.bad_bytes.set(self.bad_bytes.get() + bytes);
        self.bad_responses.borrow_mut().push(BadResponse {
            input: input.to_owned(),
            line: line.into(),
            reject,
        });
        self.something_to_report.notify_one();
    }

    /// Resolves when so few bad responses wait to be set aside that more may be
    /// read.
    pub async fn room_for_rejects(&self) {
        while self.bad_bytes.get() > REJECTS_BYTES_MAX {
            self.bad_responses_taken.notified().await;
        }
    }

    /// Has something printed by the task that owns the report.
    pub fn warn(&self, key: &'static str, message: String) {
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() < WARNINGS_MAX {
            warnings.push((key, message));
        }
        self.something_to_report.notify_one();
    }

    /// Counts a call that begins.
    pub fn begin(self: &Rc<Self>, connection: Rc<Connection>) -> Begun {
        self.counts.borrow_mut().begun += 1;
        self.count();
        let since = Instant::now();
        connection.enter(Phase::Call, since);
        Begun {
            front: Rc::clone(self),
            connection,
            since,
            status: None,
        }
    }

    /// Something was counted. To wake the task that shows the counts for each
    /// call would cost more than the counting.
    pub fn count(&self) {
        if !self.counted.replace(true) {
            self.something_to_report.notify_one();
        }
    }

    /// Whether anything was counted since [`show`](Front::show).
    pub fn has_counted(&self) -> bool {
        self.counted.get()
    }

    /// The counts, to be shown.
    pub fn show(&self) -> Snapshot {
        self.counted.set(false);
        self.snapshot()
    }

    /// Resolves when there is a reason to look at the report or the stats.
    pub async fn something_to_report(&self) {
        self.something_to_report.notified().await;
    }

    /// Prints what has gathered.
    pub fn report_to(&self, stage: &mut Stage) -> Result<()> {
        self.bad_bytes.set(0);
        self.bad_responses_taken.notify_one();
        for bad in self.bad_responses.take() {
            let line = bad.line.line();
            stage.report.reject(&bad.input, &line, &bad.reject)?;
        }
        for (key, message) in self.warnings.take() {
            stage.report.warn_seldom(key, &message);
        }
        stage.report.flush()
    }

    /// The counts in the text format of Prometheus.
    pub fn metrics(&self) -> String {
        self.snapshot()
            .prometheus(RequestArgs::NAME, self.started.elapsed())
    }

    /// The counts as they are now.
    pub fn snapshot(&self) -> Snapshot {
        let counts = self.counts.borrow();
        let ended = counts.abandoned + counts.statuses.values().sum::<u64>();
        let (shed, timed_out) = self.connections.closed();
        let statuses = counts.statuses.iter();
        let statuses = statuses.map(|(status, count)| (status.as_str().to_owned(), *count));
        Snapshot::default()
            .count("in", counts.begun)
            .help("Calls whose head was read")
            .by_label("statuses", "status", statuses)
            .help("Calls that were answered, by status")
            .count("abandoned", counts.abandoned)
            .help("Calls whose client left before the answer")
            .gauge("open", counts.begun - ended)
            .help("Calls that have no answer yet")
            .count("unmatched", counts.unmatched)
            .help("Responses for which no call waits")
            .count("rejected", counts.rejected)
            .help("Lines of the responses that are none")
            .gauge("connections", self.connections.count() as u64)
            .help("Connections that are open")
            .count("shed", shed)
            .help("Connections that were closed to make room")
            .count("timedOut", timed_out)
            .help("Connections whose client took too long")
            .count("malformed", self.connections.malformed())
            .help("Connections that ended with a head that was none")
            .gauge("ready", u64::from(self.not_ready().is_none()))
            .help("Whether the pipeline is there")
            .latencies("call", &counts.latency)
            .help("How long calls took from the head to the answer")
    }
}

/// Room that a body takes, until it is dropped.
#[derive(Debug)]
pub struct BodyRoom {
    front: Rc<Front>,
    bytes: usize,
}

impl BodyRoom {
    /// Takes so much more; says whether there was so much.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let all = self.front.body_bytes.get().saturating_add(bytes);
        let fits = all <= self.front.bodies_bytes_max;
        if fits {
            self.front.body_bytes.set(all);
            self.bytes += bytes;
        }
        fits
    }
}

impl Drop for BodyRoom {
    fn drop(&mut self) {
        let bytes = &self.front.body_bytes;
        bytes.set(bytes.get() - self.bytes);
    }
}

/// A call that waits for its answer.
#[derive(Debug)]
pub struct OpenCall {
    front: Rc<Front>,
    id: String,
    generation: u64,
    answer: oneshot::Receiver<Answer>,
}

impl OpenCall {
    /// The answer; `None` where the pipeline has gone before it came.
    pub async fn answer(&mut self) -> Option<Answer> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for OpenCall {
    /// Whatever ended the call (its answer, its time, its client), it is no
    /// longer open.
    fn drop(&mut self) {
        let mut open = self.front.open.borrow_mut();
        let waiting = open.get(&self.id);
        if waiting.is_some_and(|waiting| waiting.generation == self.generation) {
            open.remove(&self.id);
        }
    }
}

/// A call from its head to its end, for the counts.
#[derive(Debug)]
pub struct Begun {
    front: Rc<Front>,
    connection: Rc<Connection>,
    since: Instant,
    status: Option<StatusCode>,
}

impl Begun {
    /// The call has its answer.
    pub fn answered(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let now = Instant::now();
        self.connection.enter(Phase::Idle, now);
        let mut counts = self.front.counts.borrow_mut();
        match self.status {
            Some(status) => {
                *counts.statuses.entry(status).or_default() += 1;
                let latency = Micros::from_duration(now - self.since);
                counts.latency.record(latency);
            }
            // The connection has gone, and took the call with it.
            None => counts.abandoned += 1,
        }
        drop(counts);
        self.front.count();
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::serve::request::http::token::Access;

    /// A front end whose pipeline is there.
    fn front(flags: &[&str]) -> Rc<Front> {
        let args = ["rv-request", "--listen", "127.0.0.1:0", "--responses", "r"];
        let args = RequestArgs::parse_from(args.iter().chain(flags));
        let wrapper = Wrapper::new(&args.wrapping).unwrap();
        let access = Rc::new(Access::new(None).unwrap());
        let own = "127.0.0.1:8000".parse().unwrap();
        let limits = Limits::new(&args, access, own, Bytes::new()).unwrap();
        let front = Rc::new(Front::new(&args, wrapper, limits, None, 1));
        front.requests_begin();
        front.responses_begin();
        front
    }

    /// Takes what is pending, as the writer does.
    fn take_pending(front: &Front) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        runtime.block_on(front.take_pending())
    }

    #[test]
    fn what_is_being_written_counts_towards_the_bound() {
        let front = front(&["--max-in-flight", "1000"]);
        let body = "x".repeat(1 << 20);
        let body = format!("\"{body}\"");
        let mut calls = Vec::new();
        let refused = loop {
            match front.send(None, &body) {
                Ok(call) => calls.push(call),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refused, Refusal::Full);
        // The bound and the call that passes it.
        assert!((16..=17).contains(&calls.len()), "{}", calls.len());
        let batch = take_pending(&front);
        assert!(batch.len() > 16 << 20);
        // Nothing of it has left, so there is no more room than before.
        assert_eq!(front.send(None, &body).unwrap_err(), Refusal::Full);
        front.written(batch);
        assert!(front.send(None, &body).is_ok());
    }

    #[test]
    fn requests_of_calls_that_have_failed_are_not_kept_for_the_next_reader() {
        let front = front(&[]);
        for newline in ["", "\n"] {
            front.push(newline.as_bytes());
            let mut call = front.send(None, "\"failed\"").unwrap();
            front.requests_end();
            assert!(call.answer.try_recv().is_err());
            front.requests_begin();
            let _fresh = front.send(None, "\"fresh\"").unwrap();
            let batch = String::from_utf8(take_pending(&front)).unwrap();
            assert!(batch.starts_with(&format!("{newline}{{")), "{batch}");
            assert!(
                batch.contains("fresh") && !batch.contains("failed"),
                "{batch}"
            );
            front.written(batch.into_bytes());
        }
    }

    #[test]
    fn the_end_of_a_call_leaves_a_later_one_with_its_id_open() {
        let front = front(&[]);
        let send = || front.send(Some("same".to_owned()), "{}");
        let respond = || {
            let line = Line {
                bytes: b"{\"messageId\":\"same\",\"modelResult\":null}",
                number: 1,
                offset: 0,
                oversized: None,
            };
            front.arrive("responses", &line);
        };
        let first = send().unwrap();
        assert_eq!(send().unwrap_err(), Refusal::IdInUse);
        respond();
        let mut second = send().unwrap();
        drop(first);
        respond();
        assert!(second.answer.try_recv().is_ok());
    }
}
