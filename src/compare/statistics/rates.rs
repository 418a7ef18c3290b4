//! Rates with intervals, and p-values of several tests at once.

use super::special::normal_upper_quantile;

/// The confidence of the intervals.
pub const CONFIDENCE: f64 = 0.95;

/// An estimate and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The rate of `count` in `total` with Wilson's interval (statsmodels
/// `proportion_confint(method="wilson")`). `None` if `total` is 0.
pub fn wilson(count: u64, total: u64, confidence: f64) -> Option<Interval> {
    if total == 0 {
        return None;
    }
    let n = total as f64;
    let rate = count as f64 / n;
    let z = normal_upper_quantile((1.0 - confidence) / 2.0);
    let square = z * z;
    let middle = (rate + square / (2.0 * n)) / (1.0 + square / n);
    let half = z * (rate * (1.0 - rate) / n + square / (4.0 * n * n)).sqrt() / (1.0 + square / n);
    Some(Interval {
        value: rate,
        low: (middle - half).max(0.0),
        high: (middle + half).min(1.0),
    })
}

/// The p-values after the correction of Benjamini and Hochberg, in the order given
/// (statsmodels `multipletests(method="fdr_bh")`).
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|one, other| p_values[*one].total_cmp(&p_values[*other]));
    let mut corrected = vec![1.0; p_values.len()];
    let mut least = 1.0_f64;
    for (rank, index) in order.iter().enumerate().rev() {
        let value = p_values[*index] * p_values.len() as f64 / (rank + 1) as f64;
        least = least.min(value);
        corrected[*index] = least;
    }
    corrected
}
