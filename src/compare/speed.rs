//! How fast the models are, and how the time of one differs from that of the other.

use hdrhistogram::Histogram;

use crate::compare::statistics::binomial::quantile_ranks;
use crate::compare::statistics::numbers::Moments;
use crate::compare::statistics::rates::{CONFIDENCE, Interval};
use crate::wire::micros::Micros;

/// The longest time, 31 years. A longer one counts as this.
const MICROS_MAX: u64 = 1_000_000_000_000_000;

/// The times of one model, in bounded memory. Values have three digits.
#[derive(Clone, Debug)]
pub struct Speed {
    times: Histogram<u64>,
    /// The smallest and the largest time, in µs.
    ends: Option<(u64, u64)>,
}

impl Default for Speed {
    fn default() -> Speed {
        // The histogram grows with the largest time, to 340 KiB at the most.
        let histogram = Histogram::new(3);
        Speed {
            times: histogram.expect("three digits are allowed"),
            ends: None,
        }
    }
}

impl Speed {
    /// Adds the time from a request to its score.
    pub fn add(&mut self, after: Micros) {
        let after = u64::try_from(after.0).unwrap_or(0).min(MICROS_MAX);
        // The histogram grows. It could fail only for a time beyond the bound.
        if self.times.record(after).is_err() {
            self.times.saturating_record(after);
        }
        let (least, most) = self.ends.unwrap_or((after, after));
        self.ends = Some((least.min(after), most.max(after)));
    }

    /// The number of times.
    pub fn count(&self) -> u64 {
        self.times.len()
    }

    /// A quantile in milliseconds, with the interval that ordered values give.
    pub fn quantile(&self, q: f64) -> Option<Interval> {
        let count = self.count();
        let (least, most) = self.ends?;
        // A cell of the histogram is given by its largest time, which may be above all
        // times that were added.
        let at = |q: f64| self.times.value_at_quantile(q).clamp(least, most) as f64 / 1e3;
        // Half a rank less, so that rounding cannot give the next rank.
        let ranked = |rank: u64| at((rank as f64 - 0.5) / count as f64);
        let (low, high) = quantile_ranks(count, q, CONFIDENCE);
        Some(Interval {
            value: at(q),
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

    #[test]
    fn no_quantile_is_outside_of_the_times() {
        for micros in [0, 7, 10_001, 123_457, 3_599_999_999, 40_000_000_000_i64] {
            let mut speed = Speed::default();
            speed.add(Micros(micros));
            let found = speed.quantile(0.99).unwrap();
            assert_eq!(found.value, micros as f64 / 1e3);
        }
        let mut speed = Speed::default();
        for micros in [100_001, 100_002, 7_200_000_001] {
            speed.add(Micros(micros));
        }
        assert_eq!(speed.quantile(0.9).unwrap().value, 7_200_000.001);
        assert!((speed.quantile(0.5).unwrap().value - 100.002).abs() < 0.1);
        speed.add(Micros(-5));
        assert_eq!(speed.quantile(0.01).unwrap().value, 0.0);
    }
}
