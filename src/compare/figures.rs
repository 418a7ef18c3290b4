//! The figures of a report, each with its interval or its p-value.

use serde::Serialize;

use crate::compare::statistics::rates::Interval;
use crate::compare::statistics::tables::Test;

/// A rate and its interval. A value that is not defined is null.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rate {
    /// The rate.
    pub rate: f64,
    /// The lower end of the 95 % interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl From<Interval> for Rate {
    fn from(interval: Interval) -> Rate {
        Rate {
            rate: interval.value,
            low: interval.low,
            high: interval.high,
        }
    }
}

/// The two ends of an interval; null where the data give no end.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ends {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl From<Interval> for Ends {
    fn from(interval: Interval) -> Ends {
        Ends {
            low: interval.low,
            high: interval.high,
        }
    }
}

/// A value for each of both models.
#[derive(Clone, Debug, Serialize)]
pub struct Both<T> {
    /// That of the base.
    pub base: T,
    /// That of the candidate.
    pub candidate: T,
}

/// A chi-squared test.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChiSquared {
    /// The statistic.
    pub statistic: f64,
    /// The degrees of freedom.
    pub freedom: u64,
    /// The p-value.
    pub p_value: f64,
}

impl From<Test> for ChiSquared {
    fn from(test: Test) -> ChiSquared {
        ChiSquared {
            statistic: test.statistic,
            freedom: test.freedom,
            p_value: test.p_value,
        }
    }
}

/// A mean and its interval.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// The lower end of the 95 % interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl From<Interval> for Mean {
    fn from(interval: Interval) -> Mean {
        Mean {
            mean: interval.value,
            low: interval.low,
            high: interval.high,
        }
    }
}
