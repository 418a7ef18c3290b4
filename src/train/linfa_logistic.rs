//! Trains a logistic regression with linfa-logistic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, anyhow, bail};
use linfa::DatasetBase;
use linfa::traits::{Fit, Predict};
use linfa_logistic::{LogisticRegression, MultiLogisticRegression};
use ndarray::{Array1, Array2};

use crate::model::description::Hyperparameters;
use crate::model::logistic::{Logistic, standardised};
use crate::model::prediction::Predictor;
use crate::stage::report::shown;
use crate::train::linfa_rows::{classes, matrix};
use crate::train::table::Rows;
use crate::train::trainer::{Trainer, TrainingData};

/// The default weight of the L2 penalty.
const L2_DEFAULT: f64 = 1.0;

/// The default limit of iterations.
const ITERATIONS_MAX_DEFAULT: u64 = 1000;

/// The training has converged if the norm of the gradient, divided by the number of
/// rows, is at most this.
const GRADIENT_MAX: f64 = 1e-4;

/// linfa stops at this norm of the gradient per row.
const GRADIENT_TARGET: f64 = 1e-6;

/// Two classes whose probabilities differ by less than this count as equally
/// probable.
const PROBABILITY_TOLERANCE: f64 = 1e-9;

/// Logistic regression on standardised features, fitted by linfa-logistic.
pub const TRAINER: Trainer = Trainer {
    defaults: Hyperparameters {
        max_depth: None,
        min_leaf: None,
        l2: Some(L2_DEFAULT),
        max_iterations: Some(ITERATIONS_MAX_DEFAULT),
    },
    fit,
};

fn fit(data: &TrainingData, parameters: &Hyperparameters) -> Result<Box<dyn Predictor>> {
    let settings = Settings {
        l2: parameters.l2.unwrap_or(L2_DEFAULT),
        iterations_max: parameters.max_iterations.unwrap_or(ITERATIONS_MAX_DEFAULT),
    };
    Ok(Box::new(train(data, settings)?))
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    /// The weight of the penalty. The loss includes half of this weight times the sum
    /// of the squared weights of the model.
    l2: f64,
    iterations_max: u64,
}

/// Trains a logistic regression. Its predictions must agree with those of
/// linfa-logistic on every row.
fn train(data: &TrainingData, settings: Settings) -> Result<Logistic> {
    let (means, scales) = scaling(data)?;
    let standardise = |rows: &Rows| {
        let mut rows = rows.clone();
        for (index, value) in rows.values.iter_mut().enumerate() {
            let feature = index % rows.width;
            *value = standardised(*value, means[feature], scales[feature]);
        }
        rows
    };
    let (training, held_out) = (standardise(&data.training), standardise(&data.held_out));
    // The line search of linfa's optimiser panics on an intermediate result that
    // is not finite.
    let fitted = catch_unwind(AssertUnwindSafe(|| match data.class_count {
        2 => fit_two_classes(&training, &held_out, settings),
        _ => fit_many_classes(&training, &held_out, settings),
    }));
    let fitted = fitted.unwrap_or_else(|_| Err(anyhow!("it met a number that is not finite")));
    let fitted = fitted.map_err(|error| not_converged(&format!("{error:#}")))?;
    let model = Logistic {
        means,
        scales,
        intercepts: fitted.intercepts,
        coefficients: fitted.coefficients,
    };
    model
        .check(data.features, data.class_count)
        .map_err(|fault| not_converged(&fault))?;
    let gradient = gradient_norm_per_row(&model, &data.training, settings.l2);
    if gradient.is_nan() || gradient > GRADIENT_MAX {
        return Err(not_converged(&format!(
            "the gradient is still {gradient:.1e} per row after at most {} iterations",
            settings.iterations_max
        )));
    }
    for (rows, classes) in [
        (&data.training, fitted.on_training),
        (&data.held_out, fitted.on_held_out),
    ] {
        compare_predictions(&model, rows, &classes)?;
    }
    Ok(model)
}

/// The mean and the scale of each feature.
fn scaling(data: &TrainingData) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut means = Vec::with_capacity(data.features.len());
    let mut scales = Vec::with_capacity(data.features.len());
    for (index, feature) in data.features.iter().enumerate() {
        let (mean, scale) = mean_and_scale(&data.training, index);
        if !mean.is_finite() || !scale.is_finite() || scale <= 0.0 {
            bail!(
                "the values of {} are too large to be standardised; scale that column down",
                shown(&feature.name)
            );
        }
        means.push(mean);
        scales.push(scale);
    }
    Ok((means, scales))
}

/// Compares the model's predictions with those of linfa-logistic.
fn compare_predictions(model: &Logistic, rows: &Rows, expected: &Array1<usize>) -> Result<()> {
    let mut probabilities = vec![0.0; model.intercepts.len()];
    for (index, expected) in expected.iter().enumerate() {
        let class = model.classify(rows.row(index), &mut probabilities);
        // linfa adds the terms in another order, so equally probable classes may
        // be exchanged.
        let difference = probabilities[class] - probabilities[*expected];
        if class != *expected && difference > PROBABILITY_TOLERANCE {
            bail!("the predictions differ from those of linfa-logistic; this is a defect");
        }
    }
    Ok(())
}

fn not_converged(reason: &str) -> anyhow::Error {
    anyhow!(
        "logistic regression found no solution: {reason}; raise --l2 or --max-iterations, or leave \
         out features"
    )
}

/// The mean of a feature and its standard deviation. A constant feature gets a scale of
/// 1.
fn mean_and_scale(rows: &Rows, feature: usize) -> (f64, f64) {
    let values = || (0..rows.len()).map(|index| rows.row(index)[feature]);
    let count = rows.len() as f64;
    let lowest = values().fold(f64::INFINITY, f64::min);
    if values().all(|value| value == lowest) {
        return (lowest, 1.0);
    }
    // Relative to the lowest value, so that a large offset costs no precision.
    let mean = lowest + values().map(|value| (value - lowest) / count).sum::<f64>();
    let variance = values()
        .map(|value| (value - mean).powi(2) / count)
        .sum::<f64>();
    // The values are so similar that their squared differences underflow.
    if variance < f64::MIN_POSITIVE {
        return (mean, 1.0);
    }
    (mean, variance.sqrt())
}

/// The parameters from linfa, and its predictions.
struct Fitted {
    intercepts: Vec<f64>,
    coefficients: Vec<Vec<f64>>,
    on_training: Array1<usize>,
    on_held_out: Array1<usize>,
}

fn fit_two_classes(training: &Rows, held_out: &Rows, settings: Settings) -> Result<Fitted> {
    let dataset = DatasetBase::new(matrix(training)?, classes(training));
    let fitted = LogisticRegression::default()
        .alpha(settings.l2)
        .max_iterations(settings.iterations_max)
        .gradient_tolerance(GRADIENT_TARGET * training.len() as f64)
        .fit(&dataset)?;
    // The weights are those of the class that linfa calls positive.
    let sign = match fitted.labels().pos.class {
        1 => 1.0,
        _ => -1.0,
    };
    let weights = fitted.params().iter();
    Ok(Fitted {
        intercepts: vec![0.0, sign * fitted.intercept()],
        coefficients: weights.map(|weight| vec![0.0, sign * weight]).collect(),
        on_training: fitted.predict(&matrix(training)?),
        on_held_out: fitted.predict(&matrix(held_out)?),
    })
}

fn fit_many_classes(training: &Rows, held_out: &Rows, settings: Settings) -> Result<Fitted> {
    let dataset = DatasetBase::new(matrix(training)?, classes(training));
    let fit = |l2: f64, gradient: f64, start: Option<Array2<f64>>| {
        let mut learner = MultiLogisticRegression::default()
            .alpha(l2)
            .max_iterations(settings.iterations_max)
            .gradient_tolerance(gradient * training.len() as f64);
        if let Some(start) = start {
            learner = learner.initial_params(start);
        }
        let fitted = learner.fit(&dataset)?;
        let mut weights = fitted.params().iter().chain(fitted.intercept());
        if !weights.all(|weight| weight.is_finite()) {
            // linfa's predict would panic.
            bail!("a weight is not finite");
        }
        Ok(fitted)
    };
    // For several classes, linfa's loss is wrong if the scores of one row exceed those
    // of another by more than 34. From zero weights, the first step can lead there. A
    // strong penalty prevents such a step. The weights fitted with it are a good start
    // for the next weaker penalty.
    let mut start = None;
    for l2 in falling_penalties(settings.l2, training.len()) {
        let fitted = fit(l2, GRADIENT_MAX, start)?;
        let mut weights = fitted.params().clone();
        weights.push_row(fitted.intercept().view())?;
        start = Some(weights);
    }
    let fitted = fit(settings.l2, GRADIENT_TARGET, start)?;
    let weights = fitted.params().rows().into_iter();
    Ok(Fitted {
        intercepts: fitted.intercept().to_vec(),
        coefficients: weights.map(|row| row.to_vec()).collect(),
        on_training: fitted.predict(&matrix(training)?),
        on_held_out: fitted.predict(&matrix(held_out)?),
    })
}

/// A decreasing sequence of penalties from about the number of rows to `l2`.
fn falling_penalties(l2: f64, rows: usize) -> impl Iterator<Item = f64> {
    let rising = std::iter::successors(Some(l2), |l2| Some((l2 * 10.0).max(1.0)));
    let rising: Vec<f64> = rising
        .skip(1)
        .take_while(|l2| *l2 < 10.0 * rows as f64)
        .collect();
    rising.into_iter().rev()
}

/// The norm of the gradient of the loss at a model's weights, divided by the number
/// of rows. linfa does not report whether it has converged, and for several classes
/// its own gradient can be wrong.
fn gradient_norm_per_row(model: &Logistic, rows: &Rows, l2: f64) -> f64 {
    let class_count = model.intercepts.len();
    let mut gradient = vec![0.0; class_count * (rows.width + 1)];
    let mut probabilities = vec![0.0; class_count];
    for index in 0..rows.len() {
        let row = rows.row(index);
        model.classify(row, &mut probabilities);
        probabilities[rows.class_of[index] as usize] -= 1.0;
        for (class, difference) in probabilities.iter().enumerate() {
            let part = &mut gradient[class * (rows.width + 1)..][..rows.width + 1];
            for (feature, value) in row.iter().enumerate() {
                let value = (value - model.means[feature]) / model.scales[feature];
                part[feature] += difference * value;
            }
            part[rows.width] += difference;
        }
    }
    // With two classes, only the second class has weights.
    let first = usize::from(class_count == 2);
    let mut squares = 0.0;
    for class in first..class_count {
        let part = &gradient[class * (rows.width + 1)..][..rows.width + 1];
        for (feature, slope) in part.iter().enumerate() {
            // The intercept has no penalty.
            let weights = model.coefficients.get(feature);
            let penalty = weights.map_or(0.0, |weights| l2 * weights[class]);
            squares += (slope + penalty).powi(2);
        }
    }
    squares.sqrt() / rows.len() as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::feature::Feature;

    const SETTINGS: Settings = Settings {
        l2: 1.0,
        iterations_max: 1000,
    };

    /// Trains on rows whose features are called `f0`, `f1` and so on.
    fn train_on(
        training: &Rows,
        held_out: Option<&Rows>,
        class_count: usize,
        settings: Settings,
    ) -> Result<Logistic> {
        let features: Vec<Feature> = { 0..training.width }
            .map(|index| Feature::number(format!("f{index}")))
            .collect();
        let none = Rows {
            width: training.width,
            ..Rows::default()
        };
        let data = TrainingData {
            features: &features,
            class_count,
            training: training.clone(),
            held_out: held_out.cloned().unwrap_or(none),
        };
        train(&data, settings)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        // `train` compares the predictions itself.
        #[test]
        fn the_predictions_agree_with_linfa(
            values in proptest::collection::vec(-5.0..5.0f64, 3 * 60),
            class_count in 2u32..5,
            shift in prop_oneof![Just(0.0), Just(1e9)],
        ) {
            let values: Vec<f64> = values.iter().map(|value| value + shift).collect();
            let (training, held_out) = values.split_at(3 * 40);
            let training = Rows {
                width: 3,
                values: training.to_vec(),
                class_of: (0..40).map(|index| index % class_count).collect(),
                ..Rows::default()
            };
            let held_out = Rows { width: 3, values: held_out.to_vec(), class_of: vec![0; 20], ..Rows::default() };
            let classes = class_count as usize;
            let fitted = train_on(&training, Some(&held_out), classes, SETTINGS).unwrap();
            prop_assert_eq!(fitted.check(&["a", "b", "c"].map(Feature::number), classes), Ok(()));
            let again = train_on(&training, Some(&held_out), classes, SETTINGS).unwrap();
            prop_assert_eq!(fitted, again);
        }
    }

    #[test]
    fn the_gradient_is_small_at_a_solution_only() {
        for class_count in [2, 3] {
            let rows = Rows {
                width: 1,
                values: (0..30).map(f64::from).collect(),
                class_of: (0..30).map(|row| (row / 4) % class_count).collect(),
                ..Rows::default()
            };
            let mut model = train_on(&rows, None, class_count as usize, SETTINGS).unwrap();
            assert!(gradient_norm_per_row(&model, &rows, SETTINGS.l2) < GRADIENT_MAX);
            model.coefficients[0][1] += 0.1;
            assert!(gradient_norm_per_row(&model, &rows, SETTINGS.l2) > GRADIENT_MAX);
        }
    }

    #[test]
    fn penalties_fall_from_the_number_of_rows() {
        let penalties = |l2, rows| falling_penalties(l2, rows).collect::<Vec<_>>();
        assert_eq!(penalties(1.0, 1442), [10_000.0, 1000.0, 100.0, 10.0]);
        assert_eq!(penalties(0.0, 5), [10.0, 1.0]);
        assert!(penalties(1e9, 5).is_empty());
    }

    #[test]
    fn a_constant_column_can_be_trained_on() {
        for constant in [0.1, 0.0, -1e300] {
            let rows = Rows {
                width: 2,
                values: (0..20).flat_map(|row| [f64::from(row), constant]).collect(),
                class_of: (0..20).map(|row| u32::from(row > 9)).collect(),
                ..Rows::default()
            };
            let fitted = train_on(&rows, None, 2, SETTINGS).unwrap();
            assert_eq!((fitted.means[1], fitted.scales[1]), (constant, 1.0));
            let mut probabilities = [0.0; 2];
            assert_eq!(fitted.classify(&[19.0, constant], &mut probabilities), 1);
        }
    }

    #[test]
    fn a_problem_without_a_solution_is_an_error_with_a_remedy() {
        let rows = |scale: f64| Rows {
            width: 1,
            values: (0..20).map(|row| f64::from(row) * scale).collect(),
            class_of: (0..20).map(|row| u32::from(row > 9)).collect(),
            ..Rows::default()
        };
        let few = Settings {
            l2: 1.0,
            iterations_max: 1,
        };
        let error = train_on(&rows(1.0), None, 2, few).unwrap_err();
        assert!(error.to_string().contains("--max-iterations"), "{error}");
        let error = train_on(&rows(1e307), None, 2, SETTINGS).unwrap_err();
        assert!(
            error.to_string().contains("\"f0\" are too large"),
            "{error}"
        );
    }
}
