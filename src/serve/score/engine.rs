//! The interface of the engines that turn requests into scores.

use std::os::fd::BorrowedFd;

use anyhow::Result;

use crate::serve::score::evaluator::Scored;
use crate::wire::lines::{KeptLine, Line};
use crate::wire::micros::Micros;
use crate::wire::reject::Reject;

/// Turns requests into scores. An engine may finish a request immediately, or later
/// while others are in flight. The number of requests in flight is bounded.
///
/// No method blocks. If [`has_room`](Engine::has_room) is false, or all input has been
/// submitted, the caller polls [`readiness`](Engine::readiness) and then calls
/// [`collect`](Engine::collect).
pub trait Engine {
    /// Whether another request can be submitted now.
    fn has_room(&self) -> bool;

    /// Submits one request. `record` is the part of `line` to parse. A synchronous
    /// engine adds the score to `finished`; any other engine holds the request for a
    /// batch.
    fn submit(&mut self, record: &[u8], line: &Line, finished: &mut Finished) -> Result<()>;

    /// Submits the requests that are held for a batch, as far as there is room. Call
    /// this when no further request is ready.
    fn flush(&mut self) -> Result<()>;

    /// Adds the finished requests to `finished`. Returns false if there are none.
    fn collect(&mut self, finished: &mut Finished) -> Result<bool>;

    /// Whether no request is held or in flight.
    fn is_idle(&self) -> bool;

    /// Descriptors to poll after [`collect`](Engine::collect) has returned false. One
    /// of them becomes readable when `collect` can return true.
    fn readiness(&self) -> Vec<BorrowedFd<'_>>;

    /// Reloads the model. On an error, the old one stays in use. Returns the new
    /// model's name for a message.
    fn reload(&mut self) -> Result<String>;
}

/// Requests that an engine has finished.
#[derive(Debug, Default)]
pub struct Finished {
    /// Their scores, one per line.
    pub scores: Vec<u8>,
    /// The number of scores that are results.
    pub results: u64,
    /// The number of scores that are errors.
    pub errors: u64,
    /// The duration of each evaluation.
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
