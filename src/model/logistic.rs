//! The family of logistic regressions on standardised features.

use serde::{Deserialize, Serialize};

use crate::model::feature::Feature;
use crate::model::one_hot::OneHot;
use crate::model::prediction::{Names, Prediction, Predictor};
use crate::model::text_table::{aligned, six_significant_digits};

/// The largest absolute value of a weight and of a standardised value. This bound keeps
/// the sums of every row finite.
pub const MAGNITUDE_MAX: f64 = 1e100;

/// The parameters, in the form of a model file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logistic {
    /// The columns that the features become.
    #[serde(default, skip_serializing_if = "OneHot::is_plain")]
    pub categories: OneHot,
    /// For each column, the mean. The mean is subtracted from the value of the column.
    pub means: Vec<f64>,
    /// For each column, the scale. The difference of value and mean is divided by the
    /// scale.
    pub scales: Vec<f64>,
    /// One intercept per class.
    pub intercepts: Vec<f64>,
    /// For each column, one weight per class. With two classes, the weights of the
    /// first class are 0.
    pub coefficients: Vec<Vec<f64>>,
}

impl Logistic {
    /// Reads the parameters from a model file. Call [`check`](Predictor::check) before
    /// using them.
    pub fn from_json(parameters: &str) -> serde_json::Result<Logistic> {
        serde_json::from_str(parameters)
    }

    /// For each column its mean, its scale, and one weight per class.
    fn weights(&self) -> impl Iterator<Item = (f64, f64, &[f64])> {
        let scaling = self.means.iter().zip(&self.scales);
        let features = scaling.zip(&self.coefficients);
        features.map(|((mean, scale), weights)| (*mean, *scale, weights.as_slice()))
    }

    /// The class of a row. `probabilities` gets the probability of each class.
    pub fn classify(&self, row: &[f64], probabilities: &mut [f64]) -> usize {
        probabilities.copy_from_slice(&self.intercepts);
        self.categories.each_column(row, |column, value| {
            let value = standardised(value, self.means[column], self.scales[column]);
            for (sum, weight) in probabilities.iter_mut().zip(&self.coefficients[column]) {
                *sum += value * weight;
            }
        });
        let mut best = 0;
        for (class, sum) in probabilities.iter().enumerate() {
            if *sum > probabilities[best] {
                best = class;
            }
        }
        // The softmax function. The largest sum is subtracted first, so that no
        // exponential overflows.
        let largest = probabilities[best];
        let mut total = 0.0;
        for sum in probabilities.iter_mut() {
            *sum = (*sum - largest).exp();
            total += *sum;
        }
        for probability in probabilities {
            *probability /= total;
        }
        best
    }
}

/// A value of a feature, standardised and bounded.
pub fn standardised(value: f64, mean: f64, scale: f64) -> f64 {
    ((value - mean) / scale).clamp(-MAGNITUDE_MAX, MAGNITUDE_MAX)
}

/// Checks that the parameters of a regression keep all sums finite.
pub fn check_ranges<'w>(
    means: &[f64],
    scales: &[f64],
    mut weights: impl Iterator<Item = &'w f64>,
) -> Result<(), String> {
    let are_in_range = means.iter().all(|mean| mean.is_finite())
        && scales.iter().all(|scale| scale.is_finite() && *scale > 0.0)
        && weights.all(|weight| weight.abs() <= MAGNITUDE_MAX);
    match are_in_range {
        true => Ok(()),
        false => Err("a parameter is out of range".to_owned()),
    }
}

impl Predictor for Logistic {
    fn predict(&self, row: &[f64], probabilities: &mut [f64]) -> Prediction {
        Prediction::Class(self.classify(row, probabilities))
    }

    fn check(&self, features: &[Feature], class_count: usize) -> Result<(), String> {
        if class_count < 2 {
            return Err("a logistic regression predicts classes, but there are none".to_owned());
        }
        self.categories.check(features)?;
        let width = self.categories.width(features.len());
        let lengths_match = self.means.len() == width
            && self.scales.len() == width
            && self.intercepts.len() == class_count
            && self.coefficients.len() == width
            && { self.coefficients.iter() }.all(|weights| weights.len() == class_count);
        if !lengths_match {
            return Err("the parameters do not fit the features and classes".to_owned());
        }
        let weights = self.coefficients.iter().flatten().chain(&self.intercepts);
        check_ranges(&self.means, &self.scales, weights)
    }

    fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// The weights as a table: one line per column, one column per class.
    fn describe(&self, names: Names, _depth_max: u32) -> Vec<String> {
        let mut head = ["", "mean", "scale"].map(str::to_owned).to_vec();
        head.extend(names.labels.iter().map(|label| label.to_string()));
        let mut table = vec![head];
        let names = self.categories.names(names.features);
        for (name, (mean, scale, weights)) in names.iter().zip(self.weights()) {
            let numbers = [mean, scale].into_iter().chain(weights.iter().copied());
            table.push(
                [
                    vec![name.clone()],
                    numbers.map(six_significant_digits).collect(),
                ]
                .concat(),
            );
        }
        let mut last = ["(intercept)", "", ""].map(str::to_owned).to_vec();
        last.extend(self.intercepts.iter().copied().map(six_significant_digits));
        table.push(last);
        let mut lines =
            vec!["coefficients of the standardised features, (value - mean) / scale:".to_owned()];
        lines.extend(aligned(&table));
        lines
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn features(count: usize) -> Vec<Feature> {
        let names = (0..count).map(|index| index.to_string());
        names.map(Feature::number).collect()
    }

    fn model() -> Logistic {
        Logistic {
            categories: OneHot::default(),
            means: vec![f64::MAX, 0.0],
            scales: vec![f64::MIN_POSITIVE, 1.0],
            intercepts: vec![0.0, 1.0, 2.0],
            coefficients: vec![
                vec![MAGNITUDE_MAX, 0.0, -MAGNITUDE_MAX],
                vec![-MAGNITUDE_MAX, 1.0, MAGNITUDE_MAX],
            ],
        }
    }

    proptest! {
        #[test]
        fn probabilities_of_any_finite_row_sum_to_one(
            first in proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
            second in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL,
        ) {
            let mut probabilities = [0.0; 3];
            let class = model().classify(&[first, second], &mut probabilities);
            prop_assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            prop_assert!(probabilities.iter().all(|other| *other <= probabilities[class]));
        }
    }

    #[test]
    fn parameters_that_do_not_fit_are_refused() {
        assert_eq!(model().check(&features(2), 3), Ok(()));
        assert!(model().check(&features(3), 3).is_err() && model().check(&features(2), 2).is_err());
        for spoil in [
            |model: &mut Logistic| model.scales[0] = 0.0,
            |model: &mut Logistic| model.scales[0] = -1.0,
            |model: &mut Logistic| model.intercepts[2] = 1e101,
            |model: &mut Logistic| model.coefficients[1][0] = f64::NAN,
            |model: &mut Logistic| model.means[1] = f64::INFINITY,
            |model: &mut Logistic| {
                model.coefficients[1].pop();
            },
        ] {
            let mut spoilt = model();
            spoil(&mut spoilt);
            assert!(spoilt.check(&features(2), 3).is_err());
        }
    }
}
