//! The distribution of a model's inputs and predictions in training. A later
//! distribution can be compared with it.

use serde::{Deserialize, Serialize};

use crate::model::bounds::{at_most_classes, at_most_features};
use crate::model::feature::Feature;

/// The number of steps between the smallest and the largest quantile.
const STEPS: usize = 100;

/// The distribution of some numbers: the quantiles at 0 %, 1 %, 2 % and so on up to 100
/// %. Each quantile is one of the numbers: the lowest number that at least this share
/// of all numbers does not exceed. The list is empty if there is no number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quantiles(Vec<f64>);

impl Quantiles {
    /// The quantiles of `numbers`.
    pub fn of(mut numbers: Vec<f64>) -> Quantiles {
        if numbers.is_empty() {
            return Quantiles::default();
        }
        numbers.sort_unstable_by(f64::total_cmp);
        // Integer arithmetic, so that rounding cannot select another number.
        let at = |step: usize| numbers[(numbers.len() * step).div_ceil(STEPS).max(1) - 1];
        Quantiles((0..=STEPS).map(at).collect())
    }

    /// The quantile at `percent`, from 0 to 100. `None` if there is no number.
    pub fn at(&self, percent: usize) -> Option<f64> {
        self.0.get(percent).copied()
    }

    /// Checks quantiles that were read from a file.
    fn check(&self) -> Result<(), String> {
        let is_ascending = self.0.windows(2).all(|pair| pair[0] <= pair[1]);
        match is_ascending && [0, STEPS + 1].contains(&self.0.len()) {
            true => Ok(()),
            false => Err("the profile has quantiles that are too few or not in order".to_owned()),
        }
    }
}

/// The quantiles in a file of format version 1.
#[derive(Deserialize)]
struct SevenQuantiles {
    min: f64,
    p05: f64,
    p25: f64,
    p50: f64,
    p75: f64,
    p95: f64,
    max: f64,
}

impl From<SevenQuantiles> for Quantiles {
    /// The quantiles between two known ones are interpolated.
    fn from(seven: SevenQuantiles) -> Quantiles {
        let SevenQuantiles {
            min,
            p05,
            p25,
            p50,
            p75,
            p95,
            max,
        } = seven;
        let known = [
            (0, min),
            (5, p05),
            (25, p25),
            (50, p50),
            (75, p75),
            (95, p95),
            (100, max),
        ];
        let mut all = vec![min];
        for pair in known.windows(2) {
            let ((start, low), (end, high)) = (pair[0], pair[1]);
            let between = (start + 1..end).map(|step| {
                let share = (step - start) as f64 / (end - start) as f64;
                low + (high - low) * share
            });
            all.extend(between);
            all.push(high);
        }
        Quantiles(all)
    }
}

/// The quantiles in a file of any format version.
#[derive(Deserialize)]
#[serde(untagged)]
enum AnyQuantiles {
    All(Quantiles),
    Seven(SevenQuantiles),
}

impl From<AnyQuantiles> for Quantiles {
    fn from(any: AnyQuantiles) -> Quantiles {
        match any {
            AnyQuantiles::All(quantiles) => quantiles,
            AnyQuantiles::Seven(seven) => seven.into(),
        }
    }
}

fn any_quantiles<'de, D>(deserializer: D) -> Result<Option<Quantiles>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let any = Option::<AnyQuantiles>::deserialize(deserializer)?;
    Ok(any.map(Quantiles::from))
}

/// The distribution of one feature in training, before missing values were filled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "FeatureProfileText")]
pub struct FeatureProfile {
    /// The name of the feature.
    pub name: String,
    /// The number of rows in the training.
    pub count: u64,
    /// The number of rows in which the value was missing.
    pub missing: u64,
    /// The share of rows in which the value was missing, from 0 to 1.
    pub missing_share: f64,
    /// The values.
    #[serde(flatten)]
    pub values: Values,
}

/// The distribution of the values of a feature.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Values {
    /// The feature has numbers.
    Numbers {
        /// The quantiles.
        quantiles: Quantiles,
    },
    /// The feature has categories.
    Categories {
        /// The number of rows of each category, in the order of the feature.
        counts: Vec<u64>,
        /// The number of rows of categories that the model does not know.
        other: u64,
    },
}

/// A [`FeatureProfile`] in a file of any format version.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FeatureProfileText {
    name: String,
    count: u64,
    missing: u64,
    #[serde(default)]
    missing_share: Option<f64>,
    #[serde(default)]
    quantiles: Option<Quantiles>,
    #[serde(default)]
    counts: Option<Vec<u64>>,
    #[serde(default)]
    other: u64,
    #[serde(flatten)]
    seven: Option<SevenQuantiles>,
}

impl From<FeatureProfileText> for FeatureProfile {
    fn from(text: FeatureProfileText) -> FeatureProfile {
        let values = match text.counts {
            Some(counts) => Values::Categories {
                counts,
                other: text.other,
            },
            None => {
                let seven = text.seven.map(Quantiles::from);
                let quantiles = text.quantiles.or(seven).unwrap_or_default();
                Values::Numbers { quantiles }
            }
        };
        // In format version 1, rows with a missing value were left out of the training.
        let share = text.missing_share.unwrap_or(0.0);
        FeatureProfile {
            name: text.name,
            count: text.count,
            missing: text.missing,
            missing_share: share,
            values,
        }
    }
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
    /// Which rows the model has predicted: held-out rows or rows of training.
    pub on: MeasuredOn,
    /// The number of rows.
    pub count: u64,
    /// For each class, the share of the rows for which it was predicted. Empty if the
    /// model predicts numbers.
    #[serde(
        default,
        deserialize_with = "at_most_classes",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub class_shares: Vec<f64>,
    /// The distribution of the confidence, the probability of the predicted class.
    #[serde(
        default,
        deserialize_with = "any_quantiles",
        skip_serializing_if = "Option::is_none"
    )]
    pub confidence: Option<Quantiles>,
    /// The distribution of the predicted numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<Quantiles>,
}

/// The distribution of the target in training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TargetProfile {
    /// The number of rows of each class.
    ClassCounts(#[serde(deserialize_with = "at_most_classes")] Vec<u64>),
    /// The quantiles of the numbers.
    Quantiles(Quantiles),
}

/// The distributions of inputs and predictions in training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The features, in the order of a row.
    #[serde(deserialize_with = "at_most_features")]
    pub features: Vec<FeatureProfile>,
    /// The target. Files of format version 1 do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetProfile>,
    /// The predictions.
    pub scores: ScoreProfile,
}

impl Profile {
    /// Checks a profile that was read from a file.
    pub fn check(&self, features: &[Feature], class_count: usize) -> Result<(), String> {
        let fits = |(profile, feature): (&FeatureProfile, &Feature)| {
            let categories = feature.categories().map(<[String]>::len);
            profile.name == feature.name
                && match &profile.values {
                    Values::Numbers { .. } => categories.is_none(),
                    Values::Categories { counts, .. } => categories == Some(counts.len()),
                }
        };
        let target_fits = match &self.target {
            None => true,
            Some(TargetProfile::ClassCounts(counts)) => counts.len() == class_count,
            Some(TargetProfile::Quantiles(_)) => class_count == 0,
        };
        if self.features.len() != features.len()
            || !self.features.iter().zip(features).all(fits)
            || !target_fits
            || self.scores.class_shares.len() != class_count
        {
            return Err("the profile does not fit the features and classes".to_owned());
        }
        let of_features = self
            .features
            .iter()
            .filter_map(|feature| match &feature.values {
                Values::Numbers { quantiles } => Some(quantiles),
                Values::Categories { .. } => None,
            });
        let of_scores = [&self.scores.confidence, &self.scores.numbers];
        of_features
            .chain(of_scores.into_iter().flatten())
            .try_for_each(Quantiles::check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_among_the_numbers() {
        let quantiles = Quantiles::of((1..=20).rev().map(f64::from).collect());
        let shown = [0, 5, 25, 50, 75, 95, 100].map(|percent| quantiles.at(percent).unwrap());
        assert_eq!(shown, [1.0, 1.0, 5.0, 10.0, 15.0, 19.0, 20.0]);
        assert_eq!(quantiles.0.len(), 101);
        assert_eq!(Quantiles::of(vec![7.0]).at(5), Some(7.0));
        assert_eq!(Quantiles::of(Vec::new()).at(5), None);
    }

    #[test]
    fn a_profile_of_the_first_format_is_read() {
        let text = r#"{"name":"x","count":120,"missing":3,"min":0.0,"p05":5.0,"p25":25.0,"p50":50.0,"p75":75.0,"p95":95.0,"max":100.0}"#;
        let profile: FeatureProfile = serde_json::from_str(text).unwrap();
        let Values::Numbers { quantiles } = &profile.values else {
            panic!("{profile:?}");
        };
        for percent in 0..=100 {
            assert_eq!(quantiles.at(percent), Some(percent as f64));
        }
        let again = serde_json::to_string(&profile).unwrap();
        assert_eq!(
            serde_json::from_str::<FeatureProfile>(&again).unwrap(),
            profile
        );
    }

    #[test]
    fn counts_of_categories_are_read_as_they_were_written() {
        let profile = FeatureProfile {
            name: "x".to_owned(),
            count: 9,
            missing: 3,
            missing_share: 3.0 / 9.0,
            values: Values::Categories {
                counts: vec![2, 3],
                other: 1,
            },
        };
        let text = serde_json::to_string(&profile).unwrap();
        assert_eq!(
            serde_json::from_str::<FeatureProfile>(&text).unwrap(),
            profile
        );
    }
}
