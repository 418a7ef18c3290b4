//! The program that gets the requests, and its line in flight.

use std::time::{Duration, Instant};

use crate::serve::score::exec::args::ExecOptions;
use crate::serve::score::exec::program::Program;
use crate::serve::score::exec::successor::SentLine;
use crate::serve::score::exec::waiting::Batch;

/// The state of the model.
#[derive(Debug)]
pub enum State {
    /// A program gets the requests.
    Running(Box<Running>),
    /// No program gets requests.
    Down {
        /// The time of the next start.
        until: Instant,
        /// The error that requests get until then.
        reason: String,
        /// Whether requests wait for the start and get no error. They do if they come
        /// from a recording and the program has worked before.
        holds: bool,
    },
}

/// The program that gets the requests.
#[derive(Debug)]
pub struct Running {
    /// The program.
    pub program: Program,
    /// The time at which the program was started.
    pub since: Instant,
    /// Whether the program has answered a line since its start.
    pub has_answered: bool,
    /// The line in flight.
    pub call: Option<Call>,
}

/// The line in flight.
#[derive(Debug)]
pub struct Call {
    /// The requests on the line. The batch is empty if they have got error scores
    /// already, because the program took too long to start.
    pub batch: Batch,
    /// A copy of the line, unless it is very long.
    pub line: Option<SentLine>,
    /// The time at which the line was sent.
    pub begun: Instant,
}

impl State {
    /// The state with a program that has just been started.
    pub fn running(program: Program, since: Instant) -> State {
        State::Running(Box::new(Running {
            program,
            since,
            has_answered: false,
            call: None,
        }))
    }

    /// The state with a program that has already answered a line.
    pub fn proven(program: Program, since: Instant) -> State {
        State::Running(Box::new(Running {
            program,
            since,
            has_answered: true,
            call: None,
        }))
    }
}

impl Running {
    /// The time at which the program is ended if the line in flight still has no
    /// answer.
    pub fn deadline(&self, options: &ExecOptions) -> Option<Instant> {
        let call = self.call.as_ref()?;
        Some(match self.has_answered {
            true => call.begun + options.timeout,
            false => call.begun + options.start_timeout,
        })
    }

    /// The next time at which a request gets an error because the program is still
    /// starting.
    pub fn patience_end(
        &self,
        oldest_waiting: Option<Instant>,
        timeout: Duration,
    ) -> Option<Instant> {
        if self.has_answered {
            return None;
        }
        let called = self
            .call
            .as_ref()
            .filter(|call| !call.batch.requests.is_empty());
        let since = called.map(|call| call.begun).or(oldest_waiting)?;
        Some(since + timeout)
    }
}
