//! The pipeline as the front end sees it: the calls that wait for a response, and whether
//! the pipes have a reader and a writer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::serve::request::http::answer::{Form, PipelineAnswer};
use crate::serve::request::http::counts::CallCounts;
use crate::serve::request::http::reports::Reports;
use crate::serve::request::http::request_buffer::RequestBuffer;
use crate::serve::request::request_writer::RequestWriter;
use crate::wire::lines::Line;
use crate::wire::message::{self, Record};
use crate::wire::reject::Reject;
use crate::wire::trace::TraceContext;

/// The time between two checks for a pipe that is missing or replaced.
pub const PIPE_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The smallest limit of unwritten requests, which is enough for a burst of ordinary
/// calls.
const UNWRITTEN_BYTES_MIN: usize = 16 << 20;

/// The reason why a request cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The limit of open calls or of unwritten bytes is reached.
    Full,
    /// A pipe has no reader or no writer. The text says which one is missing.
    PipelineGone(&'static str),
    /// Another open call has the id.
    IdInUse,
}

/// The side of an open call that the answer is sent to; [`OpenCall`] receives it.
#[derive(Debug)]
struct WaitingCall {
    /// Distinguishes the call from an earlier call with the same id.
    number: u64,
    form: Form,
    answer: oneshot::Sender<PipelineAnswer>,
}

/// The shared state of the calls and the tasks of the two pipes.
#[derive(Debug)]
pub struct OpenCalls {
    writer: RefCell<RequestWriter>,
    /// The requests that are not written to the pipe yet.
    pub requests: RequestBuffer,
    in_flight_max: usize,
    /// The number of [`OpenCall`]s. A row that is answered counts until its call ends,
    /// because its answer takes memory.
    in_flight: Cell<usize>,
    waiting: RefCell<HashMap<String, WaitingCall>>,
    /// The number of the last call that was sent.
    last_number: Cell<u64>,
    requests_have_reader: Cell<bool>,
    responses_have_writer: Cell<bool>,
    counts: Rc<CallCounts>,
    reports: Rc<Reports>,
}

impl OpenCalls {
    /// A pipeline whose pipes are not open yet. At most `in_flight_max` calls may be
    /// open, with bodies of at most `body_bytes_max` bytes each.
    pub fn new(
        writer: RequestWriter,
        in_flight_max: usize,
        body_bytes_max: usize,
        counts: Rc<CallCounts>,
        reports: Rc<Reports>,
    ) -> OpenCalls {
        let unwritten_bytes_max = (2 * body_bytes_max).max(UNWRITTEN_BYTES_MIN);
        OpenCalls {
            writer: RefCell::new(writer),
            requests: RequestBuffer::new(unwritten_bytes_max),
            in_flight_max,
            in_flight: Cell::new(0),
            waiting: RefCell::default(),
            last_number: Cell::new(0),
            requests_have_reader: Cell::new(false),
            responses_have_writer: Cell::new(false),
            counts,
            reports,
        }
    }

    /// Checks that a model input has the fields that it needs. The error names the
    /// fault.
    pub fn check(&self, model_input: &str) -> Result<(), String> {
        self.writer.borrow_mut().check(model_input)
    }

    /// Makes a message id.
    pub fn next_id(&self) -> String {
        self.writer.borrow_mut().next_id()
    }

    /// The largest number of open calls.
    pub fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    /// Sends a request with the message id `id`. The answer will have this form. Fails
    /// if a limit is reached, if a pipe has no other end, or if the id belongs to an
    /// open call.
    pub fn send(
        self: &Rc<Self>,
        id: String,
        model_input: &str,
        trace: Option<&TraceContext>,
        form: Form,
    ) -> Result<OpenCall, SendError> {
        self.check_room(std::slice::from_ref(&id))?;
        Ok(self.open(id, model_input, trace, form))
    }

    /// Like [`send`](OpenCalls::send), for several requests: all are sent, or none. Each
    /// comes with its id, and the ids differ.
    pub fn send_all(
        self: &Rc<Self>,
        ids: Vec<String>,
        model_inputs: &[String],
        trace: Option<&TraceContext>,
    ) -> Result<Vec<OpenCall>, SendError> {
        self.check_room(&ids)?;
        let requests = ids.into_iter().zip(model_inputs);
        let open = |(id, input): (String, &String)| self.open(id, input, trace, Form::Result);
        Ok(requests.map(open).collect())
    }

    /// Whether requests with these ids may be sent now.
    fn check_room(&self, ids: &[String]) -> Result<(), SendError> {
        let in_flight = self.in_flight.get() + ids.len();
        if in_flight > self.in_flight_max || self.requests.is_full() {
            return Err(SendError::Full);
        }
        if let Some(why) = self.missing_end() {
            return Err(SendError::PipelineGone(why));
        }
        let open_calls = self.waiting.borrow();
        match ids.iter().any(|id| open_calls.contains_key(id)) {
            true => Err(SendError::IdInUse),
            false => Ok(()),
        }
    }

    fn open(
        self: &Rc<Self>,
        id: String,
        model_input: &str,
        trace: Option<&TraceContext>,
        form: Form,
    ) -> OpenCall {
        let (sender, answer) = oneshot::channel();
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        let waiting = WaitingCall {
            number,
            form,
            answer: sender,
        };
        self.waiting.borrow_mut().insert(id.clone(), waiting);
        self.in_flight.set(self.in_flight.get() + 1);
        let writer = self.writer.borrow();
        self.requests
            .append(|out| writer.write(&id, model_input, trace, out));
        OpenCall {
            open_calls: Rc::clone(self),
            id,
            number,
            answer,
        }
    }

    /// The pipe end that is missing; `None` if calls can be answered.
    pub fn missing_end(&self) -> Option<&'static str> {
        match (
            self.requests_have_reader.get(),
            self.responses_have_writer.get(),
        ) {
            (true, true) => None,
            (false, true) => Some("the requests have no reader"),
            (true, false) => Some("the responses have no writer"),
            (false, false) => Some("the requests have no reader, and the responses have no writer"),
        }
    }

    /// Notes that the requests have a reader now.
    pub fn requests_opened(&self) {
        self.requests_have_reader.set(true);
    }

    /// Notes that the last reader of the requests has closed their pipe.
    pub fn requests_closed(&self) {
        self.requests_have_reader.set(false);
        self.fail_open_calls("the last reader of the requests has closed");
    }

    /// Notes that the responses have a writer now.
    pub fn responses_opened(&self) {
        self.responses_have_writer.set(true);
    }

    /// Notes that the last writer of the responses has closed their pipe.
    pub fn responses_closed(&self) {
        self.responses_have_writer.set(false);
        self.fail_open_calls("the last writer of the responses has closed");
    }

    fn fail_open_calls(&self, why: &str) {
        let open_calls = std::mem::take(&mut *self.waiting.borrow_mut());
        self.requests.drop_requests();
        let count = open_calls.len();
        let message = format!("the pipeline is gone: {why}; {count} calls get 503");
        self.reports.warn("gone", message);
        // Dropping the senders wakes the calls.
        drop(open_calls);
    }

    /// Handles a line of the responses: passes the response to its call. `input` is the
    /// name that messages use for the pipe.
    pub fn take_response(&self, input: &str, line: &Line) {
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
                let call = self.waiting.borrow_mut().remove(&*response.message_id);
                match call {
                    Some(call) => {
                        // Fails if the client has just closed the connection.
                        let answer = PipelineAnswer::new(&record, &response, call.form);
                        let _ = call.answer.send(answer);
                    }
                    None => self.counts.count_unmatched(),
                }
            }
            Err(reject) => self.reject(input, line, reject),
        }
    }

    fn reject(&self, input: &str, line: &Line, reject: Reject) {
        self.counts.count_rejected();
        self.reports.reject(input, line, reject);
    }
}

/// A call that waits for its response. When this value is dropped, the call is no longer
/// open: it was answered, it has timed out, or its client closed the connection.
#[derive(Debug)]
pub struct OpenCall {
    open_calls: Rc<OpenCalls>,
    id: String,
    number: u64,
    answer: oneshot::Receiver<PipelineAnswer>,
}

impl OpenCall {
    /// Waits for the answer. Returns `None` if a pipe lost its other end before the
    /// answer.
    pub async fn answer(&mut self) -> Option<PipelineAnswer> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let in_flight = &self.open_calls.in_flight;
        in_flight.set(in_flight.get() - 1);
        let mut open_calls = self.open_calls.waiting.borrow_mut();
        let waiting = open_calls.get(&self.id);
        if waiting.is_some_and(|waiting| waiting.number == self.number) {
            open_calls.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::serve::request::args::RequestArgs;

    /// A pipeline whose pipes have a reader and a writer.
    fn open_calls(in_flight_max: usize) -> Rc<OpenCalls> {
        let (_, content) = RequestArgs::parse_from(["rv-request"]).check().unwrap();
        let writer = RequestWriter::new(content).unwrap();
        let reports = Rc::new(Reports::new());
        let counts = Rc::new(CallCounts::new(Rc::clone(&reports)));
        let open_calls = OpenCalls::new(writer, in_flight_max, 1 << 20, counts, reports);
        open_calls.requests_opened();
        open_calls.responses_opened();
        Rc::new(open_calls)
    }

    fn send(open_calls: &Rc<OpenCalls>, input: &str) -> Result<OpenCall, SendError> {
        open_calls.send(open_calls.next_id(), input, None, Form::Record)
    }

    /// Takes the pending requests, as the writer does.
    fn take_batch(open_calls: &OpenCalls) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        runtime.block_on(open_calls.requests.take_batch())
    }

    #[test]
    fn the_batch_that_is_being_written_counts_towards_the_limit() {
        let open_calls = open_calls(1000);
        let body = "x".repeat(1 << 20);
        let body = format!("\"{body}\"");
        let mut calls = Vec::new();
        let refused = loop {
            match send(&open_calls, &body) {
                Ok(call) => calls.push(call),
                Err(error) => break error,
            }
        };
        assert_eq!(refused, SendError::Full);
        // Sixteen requests of 1 MiB fill the limit. One more may be accepted, because
        // the limit is checked before a request is added.
        assert!((16..=17).contains(&calls.len()), "{}", calls.len());
        let batch = take_batch(&open_calls);
        assert!(batch.len() > 16 << 20);
        // The batch is not written yet, so the limit is still reached.
        assert_eq!(send(&open_calls, &body).unwrap_err(), SendError::Full);
        open_calls.requests.finish_batch(batch);
        assert!(send(&open_calls, &body).is_ok());
    }

    #[test]
    fn requests_of_failed_calls_are_not_kept_for_the_next_reader() {
        let open_calls = open_calls(1024);
        for resume in [false, true] {
            if resume {
                open_calls.requests.append_newline();
            }
            let mut call = send(&open_calls, "\"failed\"").unwrap();
            open_calls.requests_closed();
            assert!(call.answer.try_recv().is_err());
            open_calls.requests_opened();
            let _fresh = send(&open_calls, "\"fresh\"").unwrap();
            let batch = String::from_utf8(take_batch(&open_calls)).unwrap();
            let start = if resume { "\n{" } else { "{" };
            assert!(batch.starts_with(start), "{batch}");
            assert!(
                batch.contains("fresh") && !batch.contains("failed"),
                "{batch}"
            );
            open_calls.requests.finish_batch(batch.into_bytes());
        }
    }

    #[test]
    fn a_row_that_is_answered_is_in_flight_until_its_call_ends() {
        let open_calls = open_calls(3);
        let rows = ["a/0".to_owned(), "a/1".to_owned()];
        let inputs = ["1".to_owned(), "2".to_owned()];
        let table = open_calls.send_all(rows.to_vec(), &inputs, None).unwrap();
        let line = Line {
            bytes: b"{\"messageId\":\"a/0\",\"modelResult\":null}",
            number: 1,
            offset: 0,
            oversized: None,
        };
        open_calls.take_response("responses", &line);
        let third = send(&open_calls, "3").unwrap();
        assert_eq!(send(&open_calls, "4").unwrap_err(), SendError::Full);
        drop(table);
        let fourth = send(&open_calls, "4").unwrap();
        assert!(send(&open_calls, "5").is_ok());
        drop((third, fourth));
        assert_eq!(open_calls.in_flight.get(), 0);
    }

    #[test]
    fn the_end_of_a_call_leaves_a_later_one_with_its_id_open() {
        let open_calls = open_calls(1024);
        let send = || open_calls.send("same".to_owned(), "{}", None, Form::Record);
        let respond = || {
            let line = Line {
                bytes: b"{\"messageId\":\"same\",\"modelResult\":null}",
                number: 1,
                offset: 0,
                oversized: None,
            };
            open_calls.take_response("responses", &line);
        };
        let first = send().unwrap();
        assert_eq!(send().unwrap_err(), SendError::IdInUse);
        respond();
        let mut second = send().unwrap();
        drop(first);
        respond();
        assert!(second.answer.try_recv().is_ok());
    }

    #[test]
    fn several_requests_are_sent_all_or_none() {
        let open_calls = open_calls(4);
        let send = |ids: &[&str]| {
            let inputs = vec!["{}".to_owned(); ids.len()];
            let ids = ids.iter().map(|id| (*id).to_owned()).collect();
            open_calls.send_all(ids, &inputs, None)
        };
        let first = send(&["a/0", "a/1"]).unwrap();
        assert_eq!(send(&["b/0", "b/1", "b/2"]).unwrap_err(), SendError::Full);
        assert_eq!(send(&["c/0", "a/1"]).unwrap_err(), SendError::IdInUse);
        assert_eq!(open_calls.waiting.borrow().len(), 2);
        drop(first);
        assert_eq!(send(&["c/0", "a/1", "c/2", "c/3"]).unwrap().len(), 4);
        let batch = String::from_utf8(take_batch(&open_calls)).unwrap();
        assert_eq!(batch.lines().count(), 6, "{batch}");
    }
}
