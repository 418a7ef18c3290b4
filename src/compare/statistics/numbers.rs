//! Statistics of numbers that are seen one after the other, in constant memory.

use super::rates::Interval;
use super::special::{normal_upper_quantile, student_quantile};

/// The mean and the variance of numbers, by Welford's method.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Adds a number.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        let change = value - self.mean;
        self.mean += change / self.count as f64;
        self.squares += change * (value - self.mean);
    }

    /// The moments of numbers that each occur a number of times.
    pub fn of_counts(counts: &[(f64, u64)]) -> Moments {
        let count: u64 = counts.iter().map(|(_, count)| count).sum();
        let total = count.max(1) as f64;
        let sum = |power: fn(f64, f64) -> f64, mean: f64| -> f64 {
            let terms = counts
                .iter()
                .map(|(value, count)| power(*value, mean) * *count as f64);
            terms.sum()
        };
        let mean = sum(|value, _| value, 0.0) / total;
        Moments {
            count,
            mean,
            squares: sum(|value, mean| (value - mean) * (value - mean), mean),
        }
    }

    /// The mean; `None` without a number.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// The mean with Student's interval (scipy `ttest_rel(...).confidence_interval()`
    /// for paired differences). Two numbers are needed.
    pub fn mean_interval(&self, confidence: f64) -> Option<Interval> {
        if self.count < 2 {
            return None;
        }
        let freedom = (self.count - 1) as f64;
        let error = (self.squares / freedom / self.count as f64).sqrt();
        let half = match error {
            0.0 => 0.0,
            _ => error * student_quantile(1.0 - confidence, freedom),
        };
        Some(Interval {
            value: self.mean,
            low: self.mean - half,
            high: self.mean + half,
        })
    }
}

/// The weighted mean of numbers, such as of requests that were chosen with different
/// probabilities. The weight is one divided by the probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WeightedMean {
    count: u64,
    weights: f64,
    weighted: f64,
    /// The sums of the squared weights, times the values to the powers 0, 1 and 2.
    squares: [f64; 3],
}

impl WeightedMean {
    /// Adds a number with its weight.
    pub fn add(&mut self, value: f64, weight: f64) {
        self.count += 1;
        self.weights += weight;
        self.weighted += weight * value;
        let square = weight * weight;
        for (sum, power) in self.squares.iter_mut().zip([1.0, value, value * value]) {
            *sum += square * power;
        }
    }

    /// The mean with its normal interval. The variance is that of a ratio of two sums, by
    /// linearisation (R survey `svymean` of an independent sample). Two numbers are
    /// needed.
    pub fn interval(&self, confidence: f64) -> Option<Interval> {
        if self.count < 2 {
            return None;
        }
        let n = self.count as f64;
        let mean = self.weighted / self.weights;
        let [zero, one, two] = self.squares;
        let squares = (two - 2.0 * mean * one + mean * mean * zero).max(0.0);
        let error = (squares * n / (n - 1.0)).sqrt() / self.weights;
        let half = error * normal_upper_quantile((1.0 - confidence) / 2.0);
        Some(Interval {
            value: mean,
            low: mean - half,
            high: mean + half,
        })
    }
}

/// The errors of a model that predicts numbers (scikit-learn `mean_absolute_error`,
/// `root_mean_squared_error`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    absolute: Moments,
    squared: Moments,
}

impl Errors {
    /// Adds the difference of a prediction from its label.
    pub fn add(&mut self, difference: f64) {
        self.absolute.add(difference.abs());
        self.squared.add(difference * difference);
    }

    /// The mean absolute error.
    pub fn mae(&self) -> Option<f64> {
        self.absolute.mean()
    }

    /// The root of the mean squared error.
    pub fn rmse(&self) -> Option<f64> {
        self.squared.mean().map(f64::sqrt)
    }
}
