//! The distribution of a model's inputs and predictions in training. A later
//! distribution can be compared with it.

use serde::{Deserialize, Serialize};

use crate::model::bounds::{at_most_classes, at_most_features};

/// The distribution of some numbers. Each quantile is one of the numbers: the lowest
/// number for which at least this share of all numbers is not larger.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Quantiles {
    /// The smallest value.
    pub min: f64,
    /// 5 % of the values are at most this.
    pub p05: f64,
    /// 25 % of the values are at most this.
    pub p25: f64,
    /// The median.
    pub p50: f64,
    /// 75 % of the values are at most this.
    pub p75: f64,
    /// 95 % of the values are at most this.
    pub p95: f64,
    /// The largest value.
    pub max: f64,
}

impl Quantiles {
    /// The quantiles of `numbers`, which must not be empty.
    pub fn of(mut numbers: Vec<f64>) -> Quantiles {
        numbers.sort_unstable_by(f64::total_cmp);
        // Integer arithmetic, so that rounding cannot select another number.
        let at = |percent: usize| numbers[(numbers.len() * percent).div_ceil(100).max(1) - 1];
        Quantiles {
            min: at(0),
            p05: at(5),
            p25: at(25),
            p50: at(50),
            p75: at(75),
            p95: at(95),
            max: at(100),
        }
    }
}

/// The distribution of one feature in training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureProfile {
    /// The name of the feature.
    pub name: String,
    /// The number of rows in the training.
    pub count: u64,
    /// The number of rows of the data in which the value was missing. Those rows were
    /// left out.
    pub missing: u64,
    /// The distribution of the values.
    #[serde(flatten)]
    pub quantiles: Quantiles,
}

/// The rows on which something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MeasuredOn {
    /// Rows that the model was not trained on.
    HeldOut,
    /// The rows of training, because no row was held out.
    Training,
}

/// The distribution of the predictions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScoreProfile {
    /// The rows that were predicted.
    pub on: MeasuredOn,
    /// The number of rows.
    pub count: u64,
    /// For each class, the share of the rows for which it was predicted.
    #[serde(deserialize_with = "at_most_classes")]
    pub class_shares: Vec<f64>,
    /// The distribution of the confidence, the probability of the predicted
    /// class.
    pub confidence: Quantiles,
}

/// The distributions of inputs and predictions in training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The features, in the order of a row.
    #[serde(deserialize_with = "at_most_features")]
    pub features: Vec<FeatureProfile>,
    /// The predictions.
    pub scores: ScoreProfile,
}

impl Profile {
    /// Checks a profile that was read from a file.
    pub fn check<'n>(
        &self,
        names: impl Iterator<Item = &'n String>,
        class_count: usize,
    ) -> Result<(), String> {
        let features = self.features.iter().map(|feature| &feature.name);
        if !features.eq(names) || self.scores.class_shares.len() != class_count {
            return Err("the profile does not fit the features and classes".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_among_the_numbers() {
        let quantiles = Quantiles::of((1..=20).rev().map(f64::from).collect());
        let expected = Quantiles {
            min: 1.0,
            p05: 1.0,
            p25: 5.0,
            p50: 10.0,
            p75: 15.0,
            p95: 19.0,
            max: 20.0,
        };
        assert_eq!(quantiles, expected);
        assert_eq!(Quantiles::of(vec![7.0]).p05, 7.0);
    }
}
