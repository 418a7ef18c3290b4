//! The family of linear regressions on standardised features.

use serde::{Deserialize, Serialize};

use crate::model::feature::Feature;
use crate::model::logistic::{check_ranges, standardised};
use crate::model::one_hot::OneHot;
use crate::model::prediction::{Names, Prediction, Predictor};
use crate::model::text_table::{aligned, six_significant_digits};

/// The parameters, in the form of a model file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// The columns that the features become.
    #[serde(default, skip_serializing_if = "OneHot::is_plain")]
    pub categories: OneHot,
    /// For each column, the mean. The mean is subtracted from the value of the column.
    pub means: Vec<f64>,
    /// For each column, the scale. The difference of value and mean is divided by the
    /// scale.
    pub scales: Vec<f64>,
    /// The prediction for a row whose columns are all 0.
    pub intercept: f64,
    /// One weight for each column.
    pub coefficients: Vec<f64>,
}

impl Linear {
    /// Reads the parameters from a model file. Call [`check`](Predictor::check) before
    /// using them.
    pub fn from_json(parameters: &str) -> serde_json::Result<Linear> {
        serde_json::from_str(parameters)
    }
}

impl Predictor for Linear {
    fn predict(&self, row: &[f64], _probabilities: &mut [f64]) -> Prediction {
        let mut sum = self.intercept;
        self.categories.each_column(row, |column, value| {
            let value = standardised(value, self.means[column], self.scales[column]);
            sum += value * self.coefficients[column];
        });
        Prediction::Number(sum.clamp(-f64::MAX, f64::MAX))
    }

    fn check(&self, features: &[Feature], class_count: usize) -> Result<(), String> {
        if class_count > 0 {
            return Err("a linear regression predicts numbers, but there are classes".to_owned());
        }
        self.categories.check(features)?;
        let width = self.categories.width(features.len());
        let lengths = [&self.means, &self.scales, &self.coefficients];
        if lengths.iter().any(|list| list.len() != width) {
            return Err("the parameters do not fit the features".to_owned());
        }
        let weights = self.coefficients.iter().chain([&self.intercept]);
        check_ranges(&self.means, &self.scales, weights)
    }

    fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn describe(&self, names: Names, _depth_max: u32) -> Vec<String> {
        let head = ["", "mean", "scale", "weight"].map(str::to_owned).to_vec();
        let mut table = vec![head];
        for (column, name) in self.categories.names(names.features).iter().enumerate() {
            let numbers = [
                self.means[column],
                self.scales[column],
                self.coefficients[column],
            ];
            let mut line = vec![name.clone()];
            line.extend(numbers.map(six_significant_digits));
            table.push(line);
        }
        let intercept = six_significant_digits(self.intercept);
        table.push(vec![
            "(intercept)".to_owned(),
            String::new(),
            String::new(),
            intercept,
        ]);
        let mut lines =
            vec!["weights of the standardised features, (value - mean) / scale:".to_owned()];
        lines.extend(aligned(&table));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::logistic::MAGNITUDE_MAX;

    #[test]
    fn parameters_that_do_not_fit_are_refused() {
        let features = [Feature::number("x"), Feature::number("y")];
        let model = Linear {
            categories: OneHot::default(),
            means: vec![1.0, 2.0],
            scales: vec![2.0, 1.0],
            intercept: 3.0,
            coefficients: vec![4.0, -1.0],
        };
        assert_eq!(model.check(&features, 0), Ok(()));
        assert_eq!(
            model.predict(&[3.0, 7.0], &mut []),
            Prediction::Number(3.0 + 4.0 - 5.0)
        );
        assert!(model.check(&features, 2).is_err() && model.check(&features[..1], 0).is_err());
        for spoil in [
            |model: &mut Linear| model.scales[0] = 0.0,
            |model: &mut Linear| model.intercept = f64::NAN,
            |model: &mut Linear| model.coefficients[1] = 1e101,
            |model: &mut Linear| model.means[1] = f64::INFINITY,
            |model: &mut Linear| {
                model.coefficients.pop();
            },
        ] {
            let mut spoilt = model.clone();
            spoil(&mut spoilt);
            assert!(spoilt.check(&features, 0).is_err());
        }
    }

    #[test]
    fn a_prediction_is_finite_for_any_row() {
        let model = Linear {
            categories: OneHot::default(),
            means: vec![-f64::MAX, 0.0],
            scales: vec![f64::MIN_POSITIVE, f64::MIN_POSITIVE],
            intercept: 0.0,
            coefficients: vec![MAGNITUDE_MAX, MAGNITUDE_MAX],
        };
        for row in [[f64::MAX, 1.0], [1.0, -f64::MAX]] {
            let Prediction::Number(number) = model.predict(&row, &mut []) else {
                panic!("a number");
            };
            assert!(number.is_finite());
        }
    }
}
