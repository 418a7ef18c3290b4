//! What the inputs and the answers of a model looked like when it was trained,
//! to be compared with what they look like later.

use serde::{Deserialize, Serialize};

use crate::model::file::{at_most_classes, at_most_features};
use crate::train::table::Rows;

/// Where some numbers lie. A quantile is one of the numbers: the lowest that at
/// least this share of them is not above.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Quantiles {
    pub min: f64,
    pub p05: f64,
    pub p25: f64,
    pub p50: f64,
    pub p75: f64,
    pub p95: f64,
    pub max: f64,
}

impl Quantiles {
    /// The quantiles of some numbers, of which there has to be one at least.
    pub fn of(mut numbers: Vec<f64>) -> Quantiles {
        numbers.sort_unstable_by(f64::total_cmp);
        // In whole percent, so that no rounding moves the place.
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

/// What one feature looked like in training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureProfile {
    /// The name of the feature.
    pub name: String,
    /// How many rows of training there were.
    pub count: u64,
    /// In how many rows of the data the value was missing, so that they were
    /// left out.
    pub missing: u64,
    /// Where the values lie.
    #[serde(flatten)]
    pub quantiles: Quantiles,
}

/// On which rows the scores were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Seen {
    /// Rows that were not trained on.
    HeldOut,
    /// The rows of training, for want of others.
    Training,
}

/// What the answers looked like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScoreProfile {
    /// On which rows.
    pub on: Seen,
    /// How many rows those were.
    pub count: u64,
    /// For each class, the share of the rows for which it was predicted.
    #[serde(deserialize_with = "at_most_classes")]
    pub class_shares: Vec<f64>,
    /// Where the confidence lies: the probability of the class predicted.
    pub confidence: Quantiles,
}

/// Inputs and answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// In the order of the features.
    #[serde(deserialize_with = "at_most_features")]
    pub features: Vec<FeatureProfile>,
    /// The answers.
    pub scores: ScoreProfile,
}

impl Profile {
    /// Looks at every feature of `rows`.
    pub fn of_features(rows: &Rows, names: &[String], missing: &[u64]) -> Vec<FeatureProfile> {
        let features = names.iter().zip(missing).enumerate();
        let profile = |(feature, (name, missing)): (usize, (&String, &u64))| {
            let values = (0..rows.len()).map(|index| rows.row(index)[feature]);
            FeatureProfile {
                name: name.clone(),
                count: rows.len() as u64,
                missing: *missing,
                quantiles: Quantiles::of(values.collect()),
            }
        };
        features.map(profile).collect()
    }

    /// Checks what was read from a file.
    pub fn check(&self, names: &[String], class_count: usize) -> Result<(), String> {
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
    fn quantiles_are_numbers_that_were_there() {
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
