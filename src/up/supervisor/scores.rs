//! Whether a model fails: its last scores are errors. Pure.

use std::time::{Duration, Instant};

/// A model fails if this many scores in a row are errors.
const ERRORS_MIN: u64 = 5;

/// A model without new scores for this long is idle, and an idle model does not fail.
/// Otherwise a load balancer that waits until it is ready would wait forever.
const IDLE_AFTER: Duration = Duration::from_secs(10);

/// The errors of one model since its last good score, as far as its counts tell.
#[derive(Debug)]
pub struct ErrorRun {
    scores: u64,
    errors: u64,
    in_a_row: u64,
    /// When the last score was seen.
    last: Instant,
}

impl ErrorRun {
    /// A model without scores.
    pub fn new(now: Instant) -> ErrorRun {
        ErrorRun {
            scores: 0,
            errors: 0,
            in_a_row: 0,
            last: now,
        }
    }

    /// Notes the counts of scores and of errors at `now`. Returns whether the model fails.
    /// If both good scores and errors have come since the last look, their order is not
    /// known, and the row of errors begins again.
    pub fn observe(&mut self, now: Instant, scores: u64, errors: u64) -> bool {
        if scores < self.scores {
            // The stage was started again.
            *self = ErrorRun::new(now);
        }
        let new_scores = scores - self.scores;
        let new_errors = errors.saturating_sub(self.errors);
        if new_scores > 0 {
            self.last = now;
            self.in_a_row = match new_errors < new_scores {
                true => 0,
                false => self.in_a_row + new_errors,
            };
        }
        (self.scores, self.errors) = (scores, errors);
        let is_idle = now.saturating_duration_since(self.last) >= IDLE_AFTER;
        self.in_a_row >= ERRORS_MIN && !is_idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_errors_in_a_row_are_a_failure_and_one_good_score_ends_it() {
        let start = Instant::now();
        let mut run = ErrorRun::new(start);
        let mut fails = |seconds, scores, errors| {
            run.observe(start + Duration::from_secs(seconds), scores, errors)
        };
        assert!(!fails(0, 0, 0));
        assert!(!fails(1, 4, 4));
        assert!(!fails(2, 4, 4));
        assert!(fails(3, 5, 5));
        assert!(fails(12, 5, 5));
        // An idle model does not fail.
        assert!(!fails(13, 5, 5));
        assert!(fails(14, 6, 6));
        assert!(!fails(15, 7, 6));
        assert!(!fails(16, 20, 10));
        // A new process counts from zero.
        assert!(!fails(17, 3, 3));
        assert!(fails(18, 9, 9));
    }
}
