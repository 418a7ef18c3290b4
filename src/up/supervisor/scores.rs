//! Whether a model fails: its last scores are errors. Pure.

/// A model fails if this many scores in a row are errors.
const ERRORS_MIN: u64 = 5;

/// The errors of one model since its last good score, as far as its counts tell.
#[derive(Debug, Default)]
pub struct ErrorRun {
    scores: u64,
    errors: u64,
    in_a_row: u64,
}

impl ErrorRun {
    /// Notes the counts of scores and of errors. Returns whether the model fails. If both
    /// good scores and errors have come since the last look, their order is not known, and
    /// the row of errors begins again.
    pub fn observe(&mut self, scores: u64, errors: u64) -> bool {
        if scores < self.scores {
            // The stage was started again.
            *self = ErrorRun::default();
        }
        let new_scores = scores - self.scores;
        let new_errors = errors.saturating_sub(self.errors);
        if new_errors < new_scores {
            self.in_a_row = 0;
        } else {
            self.in_a_row += new_errors;
        }
        (self.scores, self.errors) = (scores, errors);
        self.in_a_row >= ERRORS_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_errors_in_a_row_are_a_failure_and_one_good_score_ends_it() {
        let mut run = ErrorRun::default();
        assert!(!run.observe(0, 0));
        assert!(!run.observe(4, 4));
        // An idle model keeps its state.
        assert!(!run.observe(4, 4));
        assert!(run.observe(5, 5));
        assert!(run.observe(5, 5));
        assert!(!run.observe(6, 5));
        assert!(!run.observe(20, 10));
        // A new process counts from zero.
        assert!(!run.observe(3, 3));
        assert!(run.observe(9, 9));
    }
}
