//! What rv-score asks of whatever turns requests into scores.

use std::os::fd::BorrowedFd;

use anyhow::Result;

use crate::serve::score::evaluator::Scored;
use crate::wire::lines::{KeptLine, Line};
use crate::wire::micros::Micros;
use crate::wire::reject::Reject;

/// Turns requests into scores. An engine may finish a request at once, or later
/// while others are in flight. How many may be in flight is bounded.
///
/// No method blocks. Where [`has_room`](Engine::has_room) is false or all input has
/// been submitted, the caller polls [`readiness`](Engine::readiness) and then calls
/// [`collect`](Engine::collect).
pub trait Engine {
    /// Whether another request can be submitted now.
    fn has_room(&self) -> bool;

    /// Takes one request. `record` is the part of `line` to parse. An engine that
    /// works at once adds the score to `finished`; any other holds the request, or
    /// sends it off.
    fn submit(&mut self, record: &[u8], line: &Line, finished: &mut Finished) -> Result<()>;

    /// Sends off the requests that are held to form a batch with later ones, as far
    /// as there is room. To be called when no further request is at hand.
    fn flush(&mut self) -> Result<()>;

    /// Adds requests that have been finished to `finished`; false where there are
    /// none now.
    fn collect(&mut self, finished: &mut Finished) -> Result<bool>;

    /// Whether no request is held or in flight.
    fn is_idle(&self) -> bool;

    /// Descriptors of which one becomes readable when
    /// [`collect`](Engine::collect), having returned false, can return true.
    fn readiness(&self) -> Vec<BorrowedFd<'_>>;

    /// Loads the model again, completely or not at all. Returns what was loaded, for
    /// a message.
    fn reload(&mut self) -> Result<String>;
}

/// Requests that an engine has finished.
#[derive(Debug, Default)]
pub struct Finished {
    /// Their scores, one per line.
    pub scores: Vec<u8>,
    /// How many of the scores are results.
    pub results: u64,
    /// How many of the scores are errors.
    pub errors: u64,
    /// How long each evaluation took.
    pub evaluation_times: Vec<Micros>,
    /// The lines that are not valid requests, each with the reason.
    pub rejects: Vec<(KeptLine, Reject)>,
}

impl Finished {
    /// Counts one request, whose score has been appended to `scores`. An error says
    /// why the line is not a valid request.
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

    /// Moves the content of `other` behind its own.
    pub fn append(&mut self, other: &mut Finished) {
        self.scores.append(&mut other.scores);
        self.results += std::mem::take(&mut other.results);
        self.errors += std::mem::take(&mut other.errors);
        self.evaluation_times.append(&mut other.evaluation_times);
        self.rejects.append(&mut other.rejects);
    }
}
