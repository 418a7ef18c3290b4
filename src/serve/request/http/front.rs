//! The state that all calls share: who waits for which answer, and what is not
//! written yet.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use tokio::sync::{Notify, oneshot};

use crate::serve::request::http::call::{Limits, answer_of};
use crate::serve::request::{RequestArgs, Wrapper};
use crate::stage::Stage;
use crate::stage::stats::{Latencies, Snapshot};
use crate::wire::lines::{KeptLine, Line, OVERSIZED_HEAD_BYTES};
use crate::wire::message::{Record, Response};
use crate::wire::micros::Micros;

/// While the pipeline is gone, one call in this time is let through to see
/// whether it is back; the others get their 503 at once.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// How many warnings wait to be printed. They are of few kinds, and of each kind
/// one in a while is printed.
const WARNINGS_MAX: usize = 100;

/// While more bad responses than this wait to be set aside, no others are read.
const REJECTS_BYTES_MAX: usize = 1 << 20;

/// What a bad response takes besides its bytes, about.
const REJECT_OVERHEAD_BYTES: usize = 256;

/// What a call is answered with.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

/// Why a call cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As many calls are open as there may be.
    Full,
    /// Nobody reads the requests, or nobody writes the responses.
    PipelineGone,
    /// The id belongs to a call that is open.
    IdInUse,
}

/// A line of the responses that is none.
#[derive(Debug)]
struct BadResponse {
    input: String,
    line: KeptLine,
    reason: String,
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
    connected: Cell<bool>,
    /// Set while the responses have no writer, to the time of the last probe.
    gone: Cell<Option<Instant>>,
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
    pub statuses: HashMap<StatusCode, u64>,
    pub unmatched: u64,
    pub rejected: u64,
    pub latency: Latencies,
}

impl Front {
    pub fn new(args: &RequestArgs, wrapper: Wrapper, limits: Limits) -> Front {
        // Twice the largest body, or what a burst of ordinary calls needs.
        let pending_bytes_max = (2 * limits.body_bytes_max).max(16 << 20);
        Front {
            limits,
            wrapper: RefCell::new(wrapper),
            max_in_flight: args.max_in_flight as usize,
            pending_bytes_max,
            open: RefCell::default(),
            generation: Cell::new(0),
            pending: RefCell::default(),
            in_writing: Cell::new(0),
            something_pending: Notify::new(),
            connected: Cell::new(false),
            gone: Cell::new(None),
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
        if !self.connected.get() || !self.may_probe() {
            return Err(Refusal::PipelineGone);
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

    /// Whether a call may go into the pipeline: always while it lives, now and
    /// then while it is gone, since only a response shows that it is back.
    fn may_probe(&self) -> bool {
        match self.gone.get() {
            None => true,
            Some(last) if last.elapsed() < PROBE_EVERY => false,
            Some(_) => {
                self.gone.set(Some(Instant::now()));
                true
            }
        }
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

    /// Whether the requests have a reader now.
    pub fn set_connected(&self, connected: bool) {
        self.connected.set(connected);
    }

    /// The pipeline has been heard of.
    pub fn pipeline_lives(&self) {
        self.gone.set(None);
    }

    /// Nobody writes responses any more.
    pub fn responses_ended(&self) {
        self.gone.set(Some(Instant::now()));
        self.fail_open_calls("the last writer of the responses has closed");
    }

    /// Nobody reads the requests any more.
    pub fn requests_broken(&self) {
        self.connected.set(false);
        self.fail_open_calls("the last reader of the requests has closed");
    }

    fn fail_open_calls(&self, why: &str) {
        let open = std::mem::take(&mut *self.open.borrow_mut());
        self.pending.borrow_mut().clear();
        self.warn(
            "gone",
            format!("the pipeline is gone: {why}; {} calls get 503", open.len()),
        );
        // Dropping the senders wakes the calls.
        drop(open);
    }

    /// Hands a response to the call that waits for it.
    pub fn arrive(&self, input: &str, line: &Line) {
        if line.oversized.is_some() {
            return self.set_aside(
                input,
                line,
                "line is longer than --max-line-bytes".to_owned(),
            );
        }
        let Some(bytes) = line.record() else {
            return;
        };
        let read = Record::parse(bytes).and_then(|record| {
            let response = Response::read(&record)?;
            Ok((record, response))
        });
        match read {
            Ok((record, response)) => {
                match self.open.borrow_mut().remove(&*response.message_id) {
                    Some(call) => {
                        // The client may have gone in this moment.
                        let _ = call.answer.send(answer_of(&record, &response));
                    }
                    None => self.counts.borrow_mut().unmatched += 1,
                }
            }
            Err(reason) => self.set_aside(input, line, reason),
        }
    }

    fn set_aside(&self, input: &str, line: &Line, reason: String) {
        self.counts.borrow_mut().rejected += 1;
        debug_assert!(line.oversized.is_none() || line.bytes.len() <= OVERSIZED_HEAD_BYTES);
        let bytes = line.bytes.len() + REJECT_OVERHEAD_BYTES;
        self.bad_bytes.set(self.bad_bytes.get() + bytes);
        self.bad_responses.borrow_mut().push(BadResponse {
            input: input.to_owned(),
            line: line.into(),
            reason,
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
    pub fn begin(self: &Rc<Self>) -> Begun {
        self.counts.borrow_mut().begun += 1;
        self.something_to_report.notify_one();
        Begun {
            front: Rc::clone(self),
            since: Instant::now(),
            status: None,
        }
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
            stage.report.reject(&bad.input, &line, &bad.reason)?;
        }
        for (key, message) in self.warnings.take() {
            stage.report.warn_seldom(key, &message);
        }
        stage.report.flush()
    }

    pub fn snapshot(&self) -> Snapshot {
        let counts = self.counts.borrow();
        let ended = counts.abandoned + counts.statuses.values().sum::<u64>();
        let mut snapshot = Snapshot::default()
            .count("in", counts.begun)
            .gauge("open", counts.begun - ended)
            .count("abandoned", counts.abandoned)
            .count("unmatched", counts.unmatched)
            .count("rejected", counts.rejected);
        let mut statuses: Vec<_> = counts.statuses.iter().collect();
        statuses.sort();
        for (status, count) in statuses {
            snapshot = snapshot.count(&format!("status{}", status.as_u16()), *count);
        }
        snapshot.latencies("call", &counts.latency)
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
        let mut counts = self.front.counts.borrow_mut();
        match self.status {
            Some(status) => {
                *counts.statuses.entry(status).or_default() += 1;
                let latency = Micros::from_duration(self.since.elapsed());
                counts.latency.record(latency);
            }
            // The connection has gone, and took the call with it.
            None => counts.abandoned += 1,
        }
        drop(counts);
        self.front.something_to_report.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn the_end_of_a_call_leaves_a_later_one_with_its_id_open() {
        let args = ["rv-request", "--listen", "127.0.0.1:0", "--responses", "r"];
        let args = RequestArgs::parse_from(args);
        let wrapper = Wrapper::new(&args.wrapping).unwrap();
        let limits = Limits::new(&args, None).unwrap();
        let front = Rc::new(Front::new(&args, wrapper, limits));
        front.set_connected(true);
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
