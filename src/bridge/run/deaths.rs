//! Deaths of the program, and when it is started again.

use std::time::{Duration, Instant};

use crate::stage::backoff::Backoff;

/// The waits before the program is started again.
const RESTART_MIN: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(5);

/// Statuses of a program that no message has caused: wrong usage or configuration, and a
/// shell that cannot start a command.
const HOPELESS: [u8; 3] = [2, 126, 127];

/// The deaths of the program since it has last worked.
#[derive(Debug)]
pub struct Deaths {
    without_output: u32,
    has_worked: bool,
    max: u32,
    backoff: Backoff,
    restart_at: Option<Instant>,
}

impl Deaths {
    /// After `max` deaths without an output between them, the messages are not to blame.
    pub fn new(max: u32) -> Deaths {
        Deaths {
            without_output: 0,
            has_worked: false,
            max,
            backoff: Backoff::new(RESTART_MIN, RESTART_MAX),
            restart_at: None,
        }
    }

    /// The program has written a record.
    pub fn program_worked(&mut self) {
        self.has_worked = true;
        if self.without_output > 0 {
            self.without_output = 0;
            self.backoff.reset();
        }
    }

    /// The program has died with this many messages in hand. Returns whether it should be
    /// started again.
    pub fn program_died(&mut self, status: u8, in_hand: usize, now: Instant) -> bool {
        self.without_output += 1;
        // A program that has never worked and has nothing in hand would die again. So
        // would one that is called in a wrong way.
        let is_hopeless = (in_hand == 0 && !self.has_worked) || HOPELESS.contains(&status);
        let again = self.without_output <= self.max && !is_hopeless;
        self.has_worked = false;
        self.restart_at = again.then(|| now + self.backoff.next_wait());
        again
    }

    /// When to start the program again, if it has died.
    pub fn restart_at(&self) -> Option<Instant> {
        self.restart_at
    }

    /// Whether to start the program now. True once for each death.
    pub fn take_restart(&mut self, now: Instant) -> bool {
        let is_due = self.restart_at.is_some_and(|at| at <= now);
        if is_due {
            self.restart_at = None;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_never_works_is_given_up_and_one_that_does_is_not() {
        let now = Instant::now();
        let mut deaths = Deaths::new(2);
        assert!(deaths.program_died(3, 1, now));
        assert!(!deaths.take_restart(now) && deaths.take_restart(now + RESTART_MAX));
        assert_eq!(deaths.restart_at(), None);
        assert!(deaths.program_died(3, 1, now));
        deaths.program_worked();
        assert!(
            deaths.program_died(137, 0, now),
            "it was killed while it was idle"
        );
        assert!(deaths.program_died(3, 1, now));
        assert!(!deaths.program_died(3, 1, now));
    }

    #[test]
    fn a_program_that_cannot_work_is_not_started_again() {
        let now = Instant::now();
        assert!(!Deaths::new(2).program_died(2, 7, now), "wrong usage");
        assert!(
            !Deaths::new(2).program_died(3, 0, now),
            "it has died at its start"
        );
    }
}
