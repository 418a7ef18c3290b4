//! Confidence sequences: intervals for a mean that hold at all times at once. So one may
//! look after every pair, and stop whenever one likes.
//!
//! The interval is the empirical Bernstein bound of Howard, Ramdas, McAuliffe and Sekhon
//! (*Time-uniform, nonparametric, nonasymptotic confidence sequences*, Annals of
//! Statistics 2021, theorem 4) with the gamma-exponential conjugate mixture of their
//! proposition 9 (confseq `gamma_exponential_mixture_bound`). It assumes values from 0
//! to 1 and nothing else: the values may depend on each other, and their mean may
//! change. The interval is for the average of the means so far.

use super::rates::Interval;
use super::special::{deviance, gamma_lower, ln_gamma, stirling_error};

/// The variance, in squared values, for which the bound is tightest: that of about 500
/// pairs with a rate of 5 %.
const VARIANCE_OPTIMAL: f64 = 25.0;

/// The level for which the bound is tightest.
const ALPHA_OPTIMAL: f64 = 0.05;

/// The gamma-exponential mixture of the exponential supermartingales of values with
/// scale 1.
#[derive(Clone, Copy, Debug)]
pub struct Mixture {
    rho: f64,
    constant: f64,
}

impl Mixture {
    /// The mixture that is tightest for the variance `variance` at the level `alpha`.
    pub fn new(variance: f64, alpha: f64) -> Mixture {
        let level = 2.0 * (1.0 / (2.0 * alpha)).ln();
        let rho = variance / (level + level.ln_1p());
        Mixture {
            rho,
            constant: rho * rho.ln() - ln_gamma(rho) - gamma_lower(rho, rho).ln(),
        }
    }

    /// The logarithm of the mixture for the sum `sum` of deviations and the variance
    /// `variance`. It exceeds `ln(1 / alpha)` at any time with a probability of at most
    /// `alpha`.
    pub fn log_value(self, sum: f64, variance: f64) -> f64 {
        let shape = variance + self.rho;
        let place = sum + shape;
        if place <= 0.0 {
            return f64::NEG_INFINITY;
        }
        // ln Γ(a) - a ln x + x, without the cancellation of large logarithms.
        let main = deviance(shape, place) - 0.5 * (shape / std::f64::consts::TAU).ln()
            + stirling_error(shape);
        self.constant + main + gamma_lower(shape, place).ln() - self.rho
    }

    /// The sum of deviations at which the mixture reaches `1 / alpha`.
    pub fn bound(self, variance: f64, alpha: f64) -> f64 {
        let wanted = (1.0 / alpha).ln();
        let (mut low, mut high) = (0.0, 1.0);
        while self.log_value(high, variance) < wanted && high < 1e300 {
            low = high;
            high *= 2.0;
        }
        for _ in 0..200 {
            let middle = low + (high - low) / 2.0;
            if middle <= low || middle >= high {
                break;
            }
            if self.log_value(middle, variance) < wanted {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }
}

impl Default for Mixture {
    fn default() -> Mixture {
        Mixture::new(VARIANCE_OPTIMAL, ALPHA_OPTIMAL)
    }
}

/// A confidence sequence of values from 0 to 1. Memory is constant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequence {
    mixture: Mixture,
    count: u64,
    sum: f64,
    /// The squared distances of the values from their predictions.
    variance: f64,
}

impl Sequence {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        // The prediction is the mean of the values before, and of one half.
        let predicted = (self.sum + 0.5) / (self.count as f64 + 1.0);
        self.variance += (value - predicted) * (value - predicted);
        self.sum += value;
        self.count += 1;
    }

    /// The number of values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean and its two-sided interval at the level `alpha`. Before the first
    /// value, the mean is not a number and the interval is everything.
    pub fn interval(&self, alpha: f64) -> Interval {
        let n = self.count as f64;
        let mean = self.sum / n;
        let half = match self.count {
            0 => return whole(mean),
            _ => self.mixture.bound(self.variance, alpha / 2.0) / n,
        };
        Interval {
            value: mean,
            low: (mean - half).max(0.0),
            high: (mean + half).min(1.0),
        }
    }

    /// Whether the one-sided lower bound at the level `alpha` is above `limit`.
    pub fn is_above(&self, limit: f64, alpha: f64) -> bool {
        self.reaches(self.sum - limit * self.count as f64, alpha)
    }

    /// Whether the one-sided upper bound at the level `alpha` is below `limit`.
    pub fn is_below(&self, limit: f64, alpha: f64) -> bool {
        self.reaches(limit * self.count as f64 - self.sum, alpha)
    }

    fn reaches(&self, deviation: f64, alpha: f64) -> bool {
        if deviation <= 0.0 {
            return false;
        }
        // A mixture is never larger than the largest of its parts. This one is quick to
        // compute, and is too small at nearly all times.
        let largest = match self.variance {
            // The limit of the expression below.
            0.0 => deviation,
            variance => deviation - variance * (deviation / variance).ln_1p(),
        };
        let wanted = (1.0 / alpha).ln();
        largest > wanted && self.mixture.log_value(deviation, self.variance) > wanted
    }
}

fn whole(mean: f64) -> Interval {
    Interval {
        value: mean,
        low: 0.0,
        high: 1.0,
    }
}
