//! Computes how long rv-score waits before it starts a program again. The time is an
//! argument.

use std::time::{Duration, Instant};

use crate::stage::backoff::Backoff;

/// The wait before the first restart.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// The longest wait before a restart.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// After a program has worked for this long, its earlier failures no longer count.
const RECOVERED_AFTER: Duration = Duration::from_secs(10);

/// Decides how long a program that has failed stays down.
#[derive(Debug)]
pub struct Restarts {
    backoff: Backoff,
    /// The number of starts after the first one.
    pub count: u64,
}

impl Restarts {
    /// The state before any failure.
    pub fn new() -> Restarts {
        Restarts {
            backoff: Backoff::new(WAIT_MIN, WAIT_MAX),
            count: 0,
        }
    }

    /// The time of the next start after a failure. `worked_for` is the time for which
    /// the failed program had run; `None` if it has never answered. With
    /// `is_recording`, nobody waits for the answers. A program that has answered is
    /// then started again after a short wait, however short it has worked.
    pub fn next_start(
        &mut self,
        now: Instant,
        worked_for: Option<Duration>,
        is_recording: bool,
    ) -> Instant {
        let enough = match is_recording {
            true => Duration::ZERO,
            false => RECOVERED_AFTER,
        };
        if worked_for.is_some_and(|time| time >= enough) {
            self.backoff.reset();
        }
        now + self.backoff.next_wait()
    }

    /// Forgets earlier failures, because an operator asks for a new start.
    pub fn reset(&mut self) {
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_until_the_program_has_worked_for_a_while() {
        let mut restarts = Restarts::new();
        let now = Instant::now();
        let mut wait = |worked_for| restarts.next_start(now, worked_for, false) - now;
        for step in 0..20u32 {
            let whole = WAIT_MIN * 2u32.pow(step.min(10));
            let whole = whole.min(WAIT_MAX);
            let found = wait(Some(Duration::from_secs(1)));
            assert!(whole / 2 <= found && found <= whole, "{step}: {found:?}");
        }
        assert!(wait(None) >= WAIT_MAX / 2);
        assert!(wait(Some(RECOVERED_AFTER)) <= WAIT_MIN);
        for _ in 0..20 {
            let found = restarts.next_start(now, Some(Duration::ZERO), true) - now;
            assert!(found <= WAIT_MIN, "{found:?}");
        }
    }
}
