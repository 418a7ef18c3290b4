//! Ends a program in steps: the end of its input, SIGTERM, SIGKILL.

use std::os::fd::BorrowedFd;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::serve::score::exec::program::Program;

/// The time between the end of a program's input and SIGTERM.
const TERM_AFTER: Duration = Duration::from_millis(500);

/// The time between SIGTERM and SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(2);

/// If a killed program has not ended after this time, it waits inside the kernel, where
/// no signal ends it. rv-score then no longer waits for the program.
const GIVE_UP_AFTER: Duration = Duration::from_secs(1);

/// A kernel without pidfds does not report the end of a program. rv-score then checks
/// for the end at this interval.
const CHECK_EVERY: Duration = Duration::from_millis(20);

/// The reason for which a program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The program has ended by itself, or has closed its streams.
    Itself,
    /// The program has misbehaved.
    Misbehaved,
    /// Another program has taken its place, or rv-score ends.
    NotNeeded,
}

/// A program that is being ended.
#[derive(Debug)]
pub struct Leaving {
    program: Program,
    cause: Cause,
    /// The step that comes next.
    next: Step,
    next_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Term,
    Kill,
    GiveUp,
}

/// The state of a program that is being ended.
#[derive(Debug)]
pub enum Departure {
    /// The program has not ended yet.
    Pending,
    /// The program has ended. The status is `None` if it is not known.
    Ended(Option<ExitStatus>),
}

impl Leaving {
    /// Closes the input of a program. If the program does not end, it gets signals. A
    /// program that has misbehaved gets SIGTERM at once.
    pub fn begin(mut program: Program, cause: Cause, now: Instant) -> Leaving {
        program.close_input();
        let patience = match cause {
            Cause::Misbehaved => Duration::ZERO,
            Cause::Itself | Cause::NotNeeded => TERM_AFTER,
        };
        Leaving {
            program,
            cause,
            next: Step::Term,
            next_at: now + patience,
        }
    }

    /// The reason for which the program ends.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Takes the steps that are due. `show` gets the lines of stderr.
    pub fn advance(&mut self, now: Instant, show: &mut impl FnMut(&str)) -> Departure {
        // Whatever the program still writes to its standard output is discarded.
        self.program.advance(show);
        if self.program.has_ended() {
            return Departure::Ended(self.program.reap(show));
        }
        while self.next_at <= now {
            let (signal, next, patience) = match self.next {
                Step::Term => (Signal::TERM, Step::Kill, KILL_AFTER),
                Step::Kill => (Signal::KILL, Step::GiveUp, GIVE_UP_AFTER),
                Step::GiveUp => return Departure::Ended(None),
            };
            self.program.signal(signal);
            self.next = next;
            self.next_at += patience;
        }
        Departure::Pending
    }

    /// Skips the waits: SIGTERM now, SIGKILL soon after.
    pub fn hurry(&mut self, now: Instant) {
        if self.next == Step::Term {
            self.program.signal(Signal::TERM);
            self.next = Step::Kill;
        }
        self.next_at = self.next_at.min(now + TERM_AFTER);
    }

    /// The time at which to call [`advance`](Leaving::advance) again.
    pub fn due(&self) -> Instant {
        match self.program.reports_its_end() {
            true => self.next_at,
            false => self.next_at.min(Instant::now() + CHECK_EVERY),
        }
    }

    /// Becomes readable when [`advance`](Leaving::advance) can do something.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.program.readiness()
    }
}
