//! The interface of the engines that turn requests into scores.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use anyhow::Result;

use crate::serve::score::evaluator::Scored;
use crate::stage::report::Report;
use crate::wire::lines::{KeptLine, Line};
use crate::wire::micros::Micros;
use crate::wire::reject::Reject;

/// Turns requests into scores. An engine may finish a request immediately, or later,
/// while other requests are in flight. The number of requests in flight is bounded.
///
/// No method blocks. If [`has_room`](Engine::has_room) is false, or all input has been
/// submitted, the caller polls [`readiness`](Engine::readiness) and then calls
/// [`collect`](Engine::collect).
pub trait Engine {
    /// Whether another request can be submitted now.
    fn has_room(&self) -> bool;

    /// Submits one request. `record` is the part of `line` to parse. A synchronous
    /// engine adds the score to `finished`. Any other engine holds the request for a
    /// batch.
    fn submit(&mut self, record: &[u8], line: &Line, finished: &mut Finished) -> Result<()>;

    /// Submits the requests that are held for a batch, if there is room for the batch.
    /// Call this when no further request is ready.
    fn flush(&mut self) -> Result<()>;

    /// Adds the finished requests to `finished`. Returns false if there are none.
    fn collect(&mut self, finished: &mut Finished) -> Result<bool>;

    /// Whether no request is held or in flight.
    fn is_idle(&self) -> bool;

    /// Descriptors to poll after [`collect`](Engine::collect) has returned false. One
    /// of them becomes readable when `collect` can return true.
    fn readiness(&self) -> Vec<BorrowedFd<'_>>;

    /// The time at which [`collect`](Engine::collect) has work to do even if no
    /// descriptor is readable.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Whether [`collect`](Engine::collect) must be called even while no request is
    /// held or in flight, because the engine watches another program.
    fn is_watching(&self) -> bool {
        false
    }

    /// Says that the evaluation of recorded requests before the opening of the input
    /// begins or ends. Nobody waits for the scores of these requests.
    fn set_warming_up(&mut self, _is_warming_up: bool) {}

    /// Returns the messages to print that have arisen since the last call.
    fn take_messages(&mut self) -> Vec<Message> {
        Vec::new()
    }

    /// The counts that only this engine has: for each its name, the number, and what it
    /// counts.
    fn counts(&self) -> Vec<(&'static str, u64, &'static str)> {
        Vec::new()
    }

    /// Gives up all requests that are held or in flight, and returns their lines.
    fn abandon(&mut self) -> Vec<KeptLine> {
        Vec::new()
    }

    /// Reloads the model. On an error, the old model stays in use. Returns the name of
    /// the new model for a message.
    fn reload(&mut self) -> Result<String>;

    /// The message after a reload that returned `loaded`.
    fn reload_message(&self, loaded: &str) -> String {
        format!("loaded {loaded}")
    }

    /// Begins to end the programs and threads that the engine has started. Call this
    /// again with `hurry` if the time is up.
    fn begin_close(&mut self, _hurry: bool) {}

    /// Whether all programs and threads that the engine has started have ended.
    fn is_closed(&self) -> bool {
        true
    }
}

/// A message of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The key of a warning. Warnings with the same key are printed at most once in a
    /// while. Information has no key and is always printed.
    pub key: Option<String>,
    /// The text.
    pub text: String,
}

impl Message {
    /// A warning that may occur often.
    pub fn warning(key: impl Into<String>, text: impl Into<String>) -> Message {
        Message {
            key: Some(key.into()),
            text: text.into(),
        }
    }

    /// Information about a rare event.
    pub fn info(text: impl Into<String>) -> Message {
        Message {
            key: None,
            text: text.into(),
        }
    }

    /// Prints the message.
    pub fn print(&self, report: &mut Report) {
        match &self.key {
            Some(key) => report.warn_seldom(key, &self.text),
            None => report.info(&self.text),
        }
    }
}

/// Requests that an engine has finished.
#[derive(Debug, Default)]
pub struct Finished {
    /// The scores, one per line.
    pub scores: Vec<u8>,
    /// The number of scores that are results.
    pub results: u64,
    /// The number of scores that are errors.
    pub errors: u64,
    /// The durations of the evaluations.
    pub evaluation_times: Vec<Micros>,
    /// The lines that are not valid requests, each with the reason.
    pub rejects: Vec<(KeptLine, Reject)>,
}

impl Finished {
    /// Counts one request. Its score has already been appended to `scores`. If
    /// `outcome` is an error, it is the reason why the line is not a valid request.
    pub fn count(&mut self, line: &Line, outcome: Result<Scored, Reject>) {
        match outcome {
            Ok(scored) => {
                self.errors += u64::from(scored.is_error);
                self.results += u64::from(!scored.is_error);
                self.evaluation_times.push(scored.evaluation);
            }
            Err(reject) => self.rejects.push((KeptLine::from(line), reject)),
        }
    }

    /// Moves the contents of `other` to the end of `self`.
    pub fn append(&mut self, other: &mut Finished) {
        self.scores.append(&mut other.scores);
        self.results += std::mem::take(&mut other.results);
        self.errors += std::mem::take(&mut other.errors);
        self.evaluation_times.append(&mut other.evaluation_times);
        self.rejects.append(&mut other.rejects);
    }
}
