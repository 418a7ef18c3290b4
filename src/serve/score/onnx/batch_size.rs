//! How many requests are evaluated together: as many as the model evaluates in a short
//! time, so that a slow model holds no score back for long.

use crate::wire::micros::Micros;

/// The most rows of a batch.
const ROWS_MAX: usize = 1024;

/// The time that a batch should take at most.
const BATCH_MICROS: i64 = 100_000;

/// The number of rows of the next batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchSize {
    rows: usize,
}

impl Default for BatchSize {
    fn default() -> BatchSize {
        // How fast the model is, is not known yet.
        BatchSize { rows: 16 }
    }
}

impl BatchSize {
    /// The most rows of the next batch.
    pub fn rows(self) -> usize {
        self.rows
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
        // A model that takes 20 ms a row.
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
}
