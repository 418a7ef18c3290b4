//! A program that was started by SIGHUP and takes over once it has shown that it works.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::serve::score::exec::program::{Program, Progress};
use crate::serve::score::exec::reply::read_line;

/// The longest line that is kept for a trial, in bytes.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// If there is no line to try a successor with, the successor must run for this time
/// before it takes over.
const SETTLE: Duration = Duration::from_secs(1);

/// A line that a program was sent.
#[derive(Clone, Debug)]
pub struct SentLine {
    line: Vec<u8>,
    /// The number of inputs on the line.
    count: usize,
}

impl SentLine {
    /// A copy of a line with `count` inputs; `None` if the line is too long to keep.
    pub fn of(line: &[u8], count: usize) -> Option<SentLine> {
        (line.len() <= LINE_BYTES_MAX).then(|| SentLine {
            line: line.to_vec(),
            count,
        })
    }
}

/// A program on trial.
#[derive(Debug)]
pub struct Successor {
    program: Program,
    /// The time at which the program was started.
    pub since: Instant,
    /// The number of inputs on the line that the program must answer; `None` if there
    /// is no such line.
    asked: Option<usize>,
    deadline: Instant,
    is_ready: bool,
}

/// The state of a trial.
#[derive(Debug, PartialEq, Eq)]
pub enum Trial {
    /// The trial goes on, or the program has passed it.
    Pending,
    /// The reason why the program cannot take over.
    Failed(String),
}

impl Successor {
    /// Sends `line` to the program, which must answer within `patience`.
    pub fn start(
        mut program: Program,
        line: Option<SentLine>,
        now: Instant,
        patience: Duration,
    ) -> Successor {
        let asked = line.map(|line| {
            program.send(line.line);
            line.count
        });
        Successor {
            program,
            since: now,
            asked,
            deadline: now + if asked.is_some() { patience } else { SETTLE },
            is_ready: false,
        }
    }

    /// Reads what the program has written.
    pub fn advance(&mut self, now: Instant, is_batch: bool, show: &mut impl FnMut(&str)) -> Trial {
        let failed = |reason: &str| Trial::Failed(reason.to_owned());
        match self.program.advance(show) {
            Progress::Pending => {}
            Progress::Reply(reply) => {
                let outcomes = read_line(&reply, self.asked.unwrap_or(1), is_batch);
                let error = outcomes.iter().all(Result::is_err);
                if let (true, Some(Err(error))) = (error, outcomes.first()) {
                    let error = &error.message;
                    return Trial::Failed(format!(
                        "it cannot answer the last line that the other one answered: {error}"
                    ));
                }
                self.is_ready = true;
            }
            Progress::Oversized(_) => return failed("its answer is longer than --max-line-bytes"),
            Progress::Stray(_) => return failed("it wrote a line without being asked"),
            Progress::Ended => return failed("it has ended"),
        }
        if !self.is_ready && now >= self.deadline {
            if self.asked.is_some() {
                return failed("it has not answered within --start-timeout");
            }
            self.is_ready = true;
        }
        Trial::Pending
    }

    /// Whether the program can take over.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// The time at which to call [`advance`](Successor::advance) again.
    pub fn due(&self) -> Option<Instant> {
        (!self.is_ready).then_some(self.deadline)
    }

    /// Becomes readable when [`advance`](Successor::advance) can do something.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.program.readiness()
    }

    /// The program.
    pub fn into_program(self) -> Program {
        self.program
    }
}
