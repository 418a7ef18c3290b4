//! Decides how many requests are evaluated together. A batch has as many as the model
//! evaluates in a short time, so that no score waits long for the rest of its batch.

use crate::wire::micros::Micros;

/// The largest number of rows in a batch.
const ROWS_MAX: usize = 1024;

/// The time that a batch should take at most.
const BATCH_MICROS: i64 = 100_000;

/// A batch that takes less time than this is evaluated by the thread that reads the
/// input. To hand it to another thread and back would take about as long.
const QUICK_MICROS: i64 = 1_000;

/// The number of rows of the next batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchSize {
    rows: usize,
    /// The time and the number of rows of the last batch, once there was one.
    last: Option<(i64, i64)>,
}

impl Default for BatchSize {
    fn default() -> BatchSize {
        // The model may take seconds for a row, so the first batch has only one row.
        BatchSize {
            rows: 1,
            last: None,
        }
    }
}

impl BatchSize {
    /// The largest number of rows in the next batch.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Whether a batch of this many rows takes little time, as far as is known.
    pub fn is_quick(self, rows: usize) -> bool {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        let expected = |(spent, count): (i64, i64)| rows.saturating_mul(spent) / count;
        self.last.is_some_and(|last| expected(last) < QUICK_MICROS)
    }

    /// Learns from a batch of `rows` rows that took `spent`. The size at most doubles,
    /// because a small batch says little about a large one.
    pub fn learn(&mut self, rows: usize, spent: Micros) {
        let Ok(count) = i64::try_from(rows) else {
            return;
        };
        if count == 0 {
            return;
        }
        self.last = Some((spent.0, count));
        let fitting = BATCH_MICROS.saturating_mul(count) / spent.0.max(1);
        let fitting = usize::try_from(fitting).unwrap_or(ROWS_MAX);
        self.rows = fitting.clamp(1, self.rows.saturating_mul(2).min(ROWS_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_model_gets_large_batches_and_a_slow_one_small_ones() {
        let mut size = BatchSize::default();
        for _ in 0..10 {
            size.learn(size.rows(), Micros(5_000));
        }
        assert_eq!(size.rows(), 1024);
        // The model takes 20 ms for a row.
        size.learn(100, Micros(2_000_000));
        assert_eq!(size.rows(), 5);
        size.learn(1, Micros(900_000_000));
        assert_eq!(size.rows(), 1);
        // One quick row does not make the next batch large.
        size.learn(1, Micros(0));
        assert_eq!(size.rows(), 2);
        size.learn(0, Micros(0));
        assert_eq!(size.rows(), 2);
    }

    #[test]
    fn a_batch_is_quick_if_the_last_one_was() {
        let mut size = BatchSize::default();
        assert!(!size.is_quick(1));
        size.learn(10, Micros(100));
        assert!(size.is_quick(99) && !size.is_quick(100));
        size.learn(1, Micros(20_000));
        assert!(!size.is_quick(1));
    }
}
