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

/// A killed program that has not ended after this time waits inside the kernel. It is no
/// longer waited for.
const GIVE_UP_AFTER: Duration = Duration::from_secs(1);

/// The interval of checks for the end of a program on a kernel without pidfds.
const CHECK_EVERY: Duration = Duration::from_millis(20);

/// The reason for which a program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It has ended by itself, or has closed its streams.
    Itself,
    /// It has misbehaved.
    Misbehaved,
    /// Another one has taken its place, or rv-score ends.
    NotNeeded,
}

/// A program that is being ended.
#[derive(Debug)]
pub struct Leaving {
    program: Program,
    cause: Cause,
    /// The next step.
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
    /// It has not ended yet.
    Pending,
    /// It has ended, with this status if it is known.
    Ended(Option<ExitStatus>),
}

impl Leaving {
    /// Closes the input of a program. Unless it ends, signals follow. A program that has
    /// misbehaved gets SIGTERM at once.
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

    /// The reason.
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Takes the steps that are due. `show` gets the lines of stderr.
    pub fn advance(&mut self, now: Instant, show: &mut impl FnMut(&str)) -> Departure {
        // Whatever it still writes is discarded.
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
