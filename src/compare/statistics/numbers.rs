//! Statistics of numbers that are seen one after the other, in constant memory.

use super::rates::Interval;
use super::special::student_quantile;

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
