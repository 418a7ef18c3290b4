//! When a stage that has died is started again. Pure: the times are given.

use std::time::{Duration, Instant};

/// The first wait. Each further wait is twice as long.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// The longest wait. It bounds the time for which a stage is down after its fault is
/// mended.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// A stage that ran for this long was well, and starts at the shortest wait again.
const WELL_AFTER: Duration = Duration::from_secs(5);

/// The restarts of one stage.
#[derive(Debug, Default)]
pub struct Restarts {
    count: u64,
    /// The number of successive deaths soon after a start.
    early: u32,
}

impl Restarts {
    /// How often the stage was started again.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Counts a restart. Returns when the stage starts, if it was started at `started` and
    /// has died at `now`.
    pub fn next(&mut self, started: Instant, now: Instant) -> Instant {
        self.count += 1;
        if now.saturating_duration_since(started) >= WELL_AFTER {
            self.early = 0;
        }
        let factor = 1 << self.early.min(16);
        self.early = self.early.saturating_add(1);
        now + WAIT_MIN.saturating_mul(factor).min(WAIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_are_short_again_after_a_time_of_health() {
        let mut restarts = Restarts::default();
        let start = Instant::now();
        let mut waits = Vec::new();
        let mut now = start;
        for _ in 0..9 {
            let at = restarts.next(now, now);
            waits.push((at - now).as_millis());
            now = at;
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        let died = now + WELL_AFTER;
        assert_eq!(restarts.next(now, died) - died, WAIT_MIN);
        assert_eq!(restarts.count(), 10);
        for _ in 0..100 {
            assert!(restarts.next(now, now) - now <= WAIT_MAX);
        }
    }
}
