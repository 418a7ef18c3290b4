//! How fast the models are, and how the time of one differs from that of the other.

use crate::compare::statistics::binomial::quantile_ranks;
use crate::compare::statistics::numbers::Moments;
use crate::compare::statistics::rates::{CONFIDENCE, Interval};
use crate::stage::stats::Latencies;
use crate::wire::micros::Micros;

/// The times of one model, in constant memory. Values have three digits.
#[derive(Clone, Debug, Default)]
pub struct Speed {
    times: Latencies,
}

impl Speed {
    /// Adds the time from a request to its score.
    pub fn add(&mut self, after: Micros) {
        self.times.record(after);
    }

    /// The number of times.
    pub fn count(&self) -> u64 {
        self.times.count()
    }

    /// A quantile in milliseconds, with the interval that ordered values give.
    pub fn quantile(&self, q: f64) -> Option<Interval> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let millis = |time: Micros| time.0 as f64 / 1e3;
        // Half a rank less, so that rounding cannot give the next rank.
        let ranked = |rank: u64| millis(self.times.quantile((rank as f64 - 0.5) / count as f64));
        let (low, high) = quantile_ranks(count, q, CONFIDENCE);
        Some(Interval {
            value: millis(self.times.quantile(q)),
            low: low.map_or(0.0, ranked),
            high: high.map_or(f64::INFINITY, ranked),
        })
    }
}

/// The times of base and candidate, and of their differences on the same requests.
#[derive(Clone, Debug, Default)]
pub struct Speeds {
    /// The times of the base.
    pub base: Speed,
    /// The times of the candidate.
    pub candidate: Speed,
    /// The differences, candidate minus base, in milliseconds.
    pub differences: Moments,
}

impl Speeds {
    /// Adds the times of one request.
    pub fn add(&mut self, base: Option<Micros>, candidate: Option<Micros>) {
        if let Some(base) = base {
            self.base.add(base);
        }
        if let Some(candidate) = candidate {
            self.candidate.add(candidate);
        }
        if let (Some(base), Some(candidate)) = (base, candidate) {
            self.differences.add((candidate.0 - base.0) as f64 / 1e3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_have_the_interval_of_their_ranks() {
        let mut speeds = Speeds::default();
        assert_eq!(speeds.base.quantile(0.5), None);
        for millis in 1..=100 {
            speeds.add(
                Some(Micros(1000 * millis)),
                Some(Micros(1000 * millis + 500)),
            );
        }
        let median = speeds.base.quantile(0.5).unwrap();
        let is_near = |value: f64, wanted: f64| (value - wanted).abs() < 0.1;
        // scipy's quantile_test of 1..=100 gives the ranks 40 and 61.
        assert!(
            is_near(median.value, 50.0) && is_near(median.low, 40.0),
            "{median:?}"
        );
        assert!(is_near(median.high, 61.0), "{median:?}");
        assert_eq!(speeds.base.quantile(0.999).unwrap().high, f64::INFINITY);
        assert_eq!(speeds.differences.mean(), Some(0.5));
    }
}
