//! The engine whose model is behind an HTTP server.
//!
//! `protocol` makes the bodies of calls and reads the bodies of replies, `calls` makes
//! the calls in a thread, and `outage` remembers that the server cannot be reached. The
//! engine bounds the number of calls in flight.

pub mod args;
mod calls;
mod outage;
mod protocol;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use reqwest::header::{HeaderMap, HeaderValue};

use crate::serve::score::answer::{Answer, ModelError};
use crate::serve::score::engine::{Engine, Finished, Message};
use crate::serve::score::evaluation_time::EvaluationTime;
use crate::serve::score::held::finish;
use crate::serve::score::identity::Identity;
use crate::serve::score::scoring::{HeldRequest, Request, Scoring, ScoringOptions};
use crate::serve::score::server::args::{Login, ServerOptions};
use crate::serve::score::server::calls::{CallOutcome, Calls, Done};
use crate::serve::score::server::outage::Outage;
use crate::serve::score::server::protocol::Protocol;
use crate::stage::http::address::is_loopback;
use crate::stage::report::shown;
use crate::wire::lines::{KeptLine, Line};
use crate::wire::micros::Micros;
use crate::wire::object::{one_line, parse_value, write_string};
use crate::wire::trace::{TRACEPARENT, TRACESTATE, span_id};

/// The largest number of bytes of requests and results that are held. One request is
/// always accepted.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// With `--rescore`, finished scores wait for the scores of earlier requests. Up to
/// this many may wait for each call that may be in flight, so that one slow call does
/// not stop the others.
const READY_PER_CALL: usize = 16;

/// With `--rescore`, requests wait while a server that has worked before is down. After
/// this time they get error scores.
const OUTAGE_PATIENCE: Duration = Duration::from_secs(60);

/// Evaluates requests with an HTTP server.
#[derive(Debug)]
pub struct Server {
    protocol: Protocol,
    /// The server as messages name it. The query of the URL may hold a secret, so it is
    /// left out.
    place: String,
    /// The model as `dt@1`.
    model: String,
    in_flight_max: usize,
    login: Login,
    scoring: Scoring,
    calls: Calls,
    outage: Outage,
    /// The number of the next request.
    next: u64,
    /// The requests whose calls are in flight.
    open: HashMap<u64, HeldRequest>,
    open_bytes: usize,
    /// With `--rescore`, the open requests whose call could not connect, and why. They
    /// are called again when the server may be back.
    again: VecDeque<(u64, ModelError)>,
    /// With `--rescore`, the scores that wait for the scores of earlier requests.
    ready: BTreeMap<u64, Ready>,
    ready_bytes: usize,
    /// With `--rescore`, the number of the request whose score is written next.
    next_score: u64,
    repeated: u64,
    /// The time that the server needs for a call.
    evaluation_time: EvaluationTime,
    messages: Vec<Message>,
}

/// A request with its outcome.
#[derive(Debug)]
struct Ready {
    request: HeldRequest,
    outcome: Result<Answer, ModelError>,
    evaluation: Micros,
    /// The number of bytes of both.
    bytes: usize,
}

impl Server {
    /// Reads the credentials and certificates. Does not connect yet.
    pub fn start(
        options: &ServerOptions,
        identity: &Identity,
        scoring: ScoringOptions,
    ) -> Result<Server> {
        let login = options.login.header()?;
        let mut messages = Vec::new();
        let url = &options.url;
        let place = url.origin().ascii_serialization();
        if login.is_some() && url.scheme() == "http" && !is_loopback(url) {
            messages.push(Message::warning(
                "unencrypted",
                format!("{place}: credentials go over the network unencrypted; use https"),
            ));
        }
        Ok(Server {
            protocol: options.protocol.clone(),
            place,
            model: format!("{}@{}", identity.name, identity.version),
            in_flight_max: options.in_flight,
            login: options.login.clone(),
            scoring: Scoring::new(identity, &[], scoring),
            calls: Calls::start(options, login)?,
            outage: Outage::new(),
            next: 0,
            open: HashMap::new(),
            open_bytes: 0,
            again: VecDeque::new(),
            ready: BTreeMap::new(),
            ready_bytes: 0,
            next_score: 0,
            repeated: 0,
            evaluation_time: EvaluationTime::default(),
            messages,
        })
    }

    /// Begins the call for a request. A request for which no call can be made gets an
    /// error score.
    fn begin(&mut self, request: HeldRequest, id: u64, finished: &mut Finished) -> Result<()> {
        let (body, trace) = self.body_of(&request)?;
        let body = body.and_then(|body| match self.outage.begin_call(Instant::now()) {
            Ok(()) => Ok(body),
            Err(reason) => Err(ModelError::new(reason)),
        });
        match body {
            Ok(body) => {
                self.calls.call(id, body, trace)?;
                self.open_bytes += request.bytes();
                self.open.insert(id, request);
            }
            Err(error) => self.end(id, request, Err(error), finished),
        }
        Ok(())
    }

    /// The body of the call for a request, or the reason why there is none, and the
    /// headers of its trace.
    fn body_of(&self, request: &HeldRequest) -> Result<(Result<String, ModelError>, HeaderMap)> {
        // A held request is valid, so this cannot fail.
        let parsed = request
            .request()
            .map_err(|reject| anyhow::anyhow!("{reject}"))?;
        let age = self.scoring.age(&parsed);
        let too_old = (self.scoring).too_old(age, self.evaluation_time.expected());
        let body = match too_old {
            Some(error) => Err(error),
            None => {
                let body = self.protocol.body(parsed.model_input);
                body.map_err(ModelError::new)
            }
        };
        Ok((body, self.trace_of(&parsed)))
    }

    /// Repeats the calls that could not connect, if the server may be back. If the
    /// patience is over, their requests get error scores. Returns whether a request has
    /// ended.
    fn call_again(&mut self, finished: &mut Finished) -> Result<bool> {
        let mut has_ended = false;
        while let Some((id, error)) = self.again.pop_front() {
            let now = Instant::now();
            if self.outage.down().is_some() && !self.is_patient(now) {
                self.end_open(id, Err(error), finished);
                has_ended = true;
                continue;
            }
            let Some(request) = self.open.get(&id) else {
                continue;
            };
            let (body, trace) = self.body_of(request)?;
            match body {
                Err(error) => {
                    self.end_open(id, Err(error), finished);
                    has_ended = true;
                }
                Ok(body) => {
                    if self.outage.begin_call(now).is_err() {
                        self.again.push_front((id, error));
                        break;
                    }
                    self.calls.call(id, body, trace)?;
                }
            }
        }
        Ok(has_ended)
    }

    /// Ends an open request.
    fn end_open(&mut self, id: u64, outcome: Result<Answer, ModelError>, finished: &mut Finished) {
        if let Some(request) = self.open.remove(&id) {
            self.open_bytes -= request.bytes();
            if outcome.is_ok() {
                let evaluation = request.evaluation(&self.scoring);
                self.evaluation_time.note(evaluation);
            }
            self.end(id, request, outcome, finished);
        }
    }

    /// The headers of the request's trace, if it has one. The call has a span of its own.
    fn trace_of(&self, request: &Request) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some((message_id, trace)) = request.trace() {
            let span = span_id(&message_id, &self.model);
            let parent = trace.parent_of_call(&span);
            for (name, value) in [(TRACEPARENT, Some(parent)), (TRACESTATE, trace.state)] {
                let value = value.and_then(|value| HeaderValue::from_str(&value).ok());
                if let Some(value) = value {
                    headers.insert(name, value);
                }
            }
        }
        headers
    }

    /// Handles a finished call.
    fn take(&mut self, done: Done, finished: &mut Finished) {
        self.repeated += u64::from(done.was_repeated);
        let is_unreachable = matches!(done.outcome, CallOutcome::Unreachable(_));
        match self.outcome(done.outcome) {
            Err(error) if is_unreachable && self.is_patient(Instant::now()) => {
                self.again.push_back((done.id, error));
            }
            outcome => self.end_open(done.id, outcome, finished),
        }
    }

    fn outcome(&mut self, outcome: CallOutcome) -> Result<Answer, ModelError> {
        match outcome {
            CallOutcome::Reply {
                status,
                body,
                is_cut,
            } => {
                if self.outage.succeeded() {
                    self.messages
                        .push(Message::info("the server can be reached again"));
                }
                read_reply(&self.protocol, status, &body, is_cut)
            }
            CallOutcome::Unreachable(reason) => {
                let reason = format!("{} cannot be reached: {reason}", self.place);
                if let Some(wait) = self.outage.failed(Instant::now(), reason.clone()) {
                    let wait = wait.as_secs_f64();
                    let message = format!("{reason}; the next call is made in {wait:.1} s");
                    self.messages.push(Message::warning("unreachable", message));
                }
                Err(ModelError::new(reason))
            }
            CallOutcome::Broken(reason) => {
                self.outage.ended();
                let message = format!("{}: {reason}", self.place);
                self.messages.push(Message::warning("broken", message));
                Err(ModelError::new(reason))
            }
        }
    }

    /// Writes the score of a request. With `--rescore`, the scores keep the order of
    /// the requests.
    fn end(
        &mut self,
        id: u64,
        request: HeldRequest,
        outcome: Result<Answer, ModelError>,
        finished: &mut Finished,
    ) {
        let evaluation = request.evaluation(&self.scoring);
        if !self.scoring.options().rescore {
            finish(&self.scoring, &request, &outcome, evaluation, finished);
            return;
        }
        let outcome_bytes = match &outcome {
            Ok(answer) => answer.result.len(),
            Err(error) => error.reply.as_ref().map_or(0, |(_, body)| body.len()),
        };
        let bytes = request.bytes() + outcome_bytes;
        self.ready_bytes += bytes;
        let ready = Ready {
            request,
            outcome,
            evaluation,
            bytes,
        };
        self.ready.insert(id, ready);
        while let Some(ready) = self.ready.remove(&self.next_score) {
            self.next_score += 1;
            let Ready {
                request,
                outcome,
                evaluation,
                bytes,
            } = ready;
            self.ready_bytes -= bytes;
            finish(&self.scoring, &request, &outcome, evaluation, finished);
        }
    }

    /// Whether requests wait for a server that is down: with `--rescore`, if the server
    /// has worked before, for a while.
    fn is_patient(&self, now: Instant) -> bool {
        let down = self.outage.down();
        self.scoring.options().rescore
            && self.outage.has_worked
            && down.is_some_and(|(since, _)| now < since + OUTAGE_PATIENCE)
    }

    /// If requests wait for the server now, the time of the next call or the end of the
    /// patience, whichever is earlier.
    fn held_up_until(&self, now: Instant) -> Option<Instant> {
        let (since, until) = self.outage.down().filter(|_| self.is_patient(now))?;
        let until = until.min(since + OUTAGE_PATIENCE);
        // While a call finds out whether the server is back, the other requests wait,
        // too.
        (now < until || !self.open.is_empty()).then_some(until)
    }
}

/// The result in a reply.
fn read_reply(
    protocol: &Protocol,
    status: u16,
    body: &[u8],
    is_cut: bool,
) -> Result<Answer, ModelError> {
    if !(200..300).contains(&status) {
        let remedy = match status {
            300..=399 => "; redirects are not followed, so give the final address as --url",
            401 => "; give --user with RV_SCORE_PASSWORD or --password-file, or --token-file",
            404 => "; is the path of --url right?",
            _ => "",
        };
        return Err(ModelError {
            message: format!("the server answered with status {status}{remedy}"),
            reply: Some((status, error_body(body, is_cut))),
        });
    }
    if is_cut {
        return Err(ModelError::new("the reply is longer than --max-line-bytes"));
    }
    match protocol.result(body) {
        Ok(result) => Ok(Answer::of_result(result)),
        Err(fault) => Err(ModelError::new(fault)),
    }
}

/// The body of a reply with an error status, as JSON text on one line. A text that is not
/// JSON becomes a JSON string. So does a JSON string, quotes and all: whoever decodes a
/// string gets the text of the reply.
fn error_body(body: &[u8], is_cut: bool) -> String {
    let text = String::from_utf8_lossy(body);
    if !is_cut
        && let Ok(json) = parse_value(&text)
        && !json.starts_with('"')
    {
        return one_line(json).into_owned();
    }
    let mut string = Vec::new();
    write_string(&mut string, &text);
    String::from_utf8(string).unwrap_or_else(|_| shown(&text))
}

impl Engine for Server {
    fn has_room(&self) -> bool {
        let has_memory = self.open_bytes + self.ready_bytes < HELD_BYTES_MAX;
        self.open.len() < self.in_flight_max
            && self.ready.len() < self.in_flight_max * READY_PER_CALL
            && (has_memory || self.is_idle())
            && self.held_up_until(Instant::now()).is_none()
    }

    fn submit(&mut self, record: &[u8], line: &Line, finished: &mut Finished) -> Result<()> {
        if let Err(reject) = Request::parse(record) {
            finished.count(line, Err(reject));
            return Ok(());
        }
        let id = self.next;
        self.next += 1;
        self.begin(HeldRequest::new(line, self.scoring.now()), id, finished)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn collect(&mut self, finished: &mut Finished) -> Result<bool> {
        let mut has_any = false;
        while let Some(done) = self.calls.next_done()? {
            self.take(done, finished);
            has_any = true;
        }
        Ok(self.call_again(finished)? || has_any)
    }

    fn is_idle(&self) -> bool {
        self.open.is_empty() && self.ready.is_empty()
    }

    fn is_watching(&self) -> bool {
        // During an outage, no request is held or in flight, but the next call has a
        // time. The loop must ask for this time.
        true
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.calls.readiness()]
    }

    fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        self.held_up_until(now).filter(|until| *until > now)
    }

    fn take_messages(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.messages)
    }

    fn counts(&self) -> Vec<(&'static str, u64, &'static str)> {
        vec![("repeated", self.repeated, "Calls that were made twice")]
    }

    fn abandon(&mut self) -> Vec<KeptLine> {
        let mut all: Vec<(u64, HeldRequest)> = self.open.drain().collect();
        let ready = std::mem::take(&mut self.ready);
        all.extend(ready.into_iter().map(|(id, ready)| (id, ready.request)));
        all.sort_by_key(|(id, _)| *id);
        all.iter()
            .map(|(_, held)| KeptLine::from(&held.line()))
            .collect()
    }

    fn reload(&mut self) -> Result<String> {
        self.calls.set_login(self.login.header()?);
        Ok("the credentials for the server again".to_owned())
    }
}
