//! Logistic regression on standardised features: trained by linfa-logistic,
//! evaluated here.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, anyhow, bail};
use linfa::DatasetBase;
use linfa::traits::{Fit, Predict};
use linfa_logistic::{LogisticRegression, MultiLogisticRegression};
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use crate::train::linfa_tree::matrix;
use crate::train::table::Rows;

/// No weight and no standardised value may be larger, so that no sum overflows
/// whatever the row.
const MAGNITUDE_MAX: f64 = 1e100;

/// What is learned, with everything that evaluation needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logistic {
    /// For each feature, what is subtracted from its value.
    means: Vec<f64>,
    /// For each feature, what the rest is divided by.
    scales: Vec<f64>,
    /// One a class.
    intercepts: Vec<f64>,
    /// For each feature one weight a class. Of two classes the first has zeros.
    coefficients: Vec<Vec<f64>>,
}

/// How the weights are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The weight of the penalty: half of it times the sum of the squares.
    pub l2: f64,
    /// The most steps.
    pub iterations_max: u64,
}

impl Logistic {
    /// For each feature its mean, its scale, and one coefficient a class.
    pub fn coefficients(&self) -> impl Iterator<Item = (f64, f64, &[f64])> {
        let scaling = self.means.iter().zip(&self.scales);
        let features = scaling.zip(&self.coefficients);
        features.map(|((mean, scale), weights)| (*mean, *scale, weights.as_slice()))
    }

    /// One a class.
    pub fn intercepts(&self) -> &[f64] {
        &self.intercepts
    }

    /// The class of a row and the probability of each.
    pub fn evaluate(&self, row: &[f64], probabilities: &mut [f64]) -> usize {
        probabilities.copy_from_slice(&self.intercepts);
        for (value, (mean, scale, weights)) in row.iter().zip(self.coefficients()) {
            let value = ((value - mean) / scale).clamp(-MAGNITUDE_MAX, MAGNITUDE_MAX);
            for (sum, weight) in probabilities.iter_mut().zip(weights) {
                *sum += value * weight;
            }
        }
        let mut best = 0;
        for (class, sum) in probabilities.iter().enumerate() {
            if *sum > probabilities[best] {
                best = class;
            }
        }
        // Relative to the largest, so that no exponential overflows.
        let largest = probabilities[best];
        let mut all = 0.0;
        for sum in probabilities.iter_mut() {
            *sum = (*sum - largest).exp();
            all += *sum;
        }
        for probability in probabilities {
            *probability /= all;
        }
        best
    }

    /// Checks what was read from a file.
    pub fn check(&self, features: usize, classes: usize) -> Result<(), String> {
        let lengths_match = self.means.len() == features
            && self.scales.len() == features
            && self.intercepts.len() == classes
            && self.coefficients.len() == features
            && { self.coefficients.iter() }.all(|weights| weights.len() == classes);
        if !lengths_match {
            return Err("the parameters do not fit the features and classes".to_owned());
        }
        let weights = self.coefficients.iter().flatten().chain(&self.intercepts);
        let are_finite = self.means.iter().all(|mean| mean.is_finite())
            && self
                .scales
                .iter()
                .all(|scale| scale.is_finite() && *scale > 0.0)
            && { weights }.all(|weight| weight.abs() <= MAGNITUDE_MAX);
        if !are_finite {
            return Err("a parameter is out of range".to_owned());
        }
        Ok(())
    }
}

/// Trains on `training`. linfa-logistic and the evaluation here have to agree on
/// every row of `training` and of `held_out`.
pub fn train(
    training: &Rows,
    held_out: &Rows,
    features: &[String],
    class_count: usize,
    settings: Settings,
) -> Result<Logistic> {
    let mut means = Vec::with_capacity(training.width);
    let mut scales = Vec::with_capacity(training.width);
    for (feature, name) in features.iter().enumerate() {
        let (mean, scale) = mean_and_scale(training, feature);
        if !mean.is_finite() || !scale.is_finite() || scale <= 0.0 {
            bail!(
                "the values of {name:?} are too large to be standardised; scale that column down"
            );
        }
        means.push(mean);
        scales.push(scale);
    }
    let standardised = |rows: &Rows| {
        let mut rows = rows.clone();
        for (index, value) in rows.values.iter_mut().enumerate() {
            let feature = index % rows.width;
            let standardised = (*value - means[feature]) / scales[feature];
            *value = standardised.clamp(-MAGNITUDE_MAX, MAGNITUDE_MAX);
        }
        rows
    };
    let (training_std, held_out_std) = (standardised(training), standardised(held_out));
    // What is not finite among the intermediate results makes the line search
    // of linfa's optimiser panic.
    let fitted = catch_unwind(AssertUnwindSafe(|| {
        if class_count == 2 {
            fit_two(&training_std, &held_out_std, settings)
        } else {
            fit_many(&training_std, &held_out_std, settings)
        }
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
        .check(training.width, class_count)
        .map_err(|fault| not_converged(&fault))?;
    let slope = model.slope(training, settings.l2);
    if slope.is_nan() || slope > SLOPE_MAX {
        return Err(not_converged(&format!(
            "the slope is still {slope:.1e} a row after at most {} iterations",
            settings.iterations_max
        )));
    }
    let mut probabilities = vec![0.0; class_count];
    let predicted = [
        (training, fitted.on_training),
        (held_out, fitted.on_held_out),
    ];
    for (rows, classes) in predicted {
        for (index, class) in classes.iter().enumerate() {
            let own = model.evaluate(rows.row(index), &mut probabilities);
            // The sums are added up in another order there, so that two classes
            // that are level may change places.
            if own != *class && probabilities[own] - probabilities[*class] > 1e-9 {
                bail!("the evaluation differs from that of linfa-logistic; this is a defect");
            }
        }
    }
    Ok(model)
}

fn not_converged(reason: &str) -> anyhow::Error {
    anyhow!(
        "logistic regression found no solution: {reason}; raise --l2 or --max-iterations, or leave out features"
    )
}

/// The length of the gradient, divided by the number of rows, below which the
/// weights count as found.
const SLOPE_MAX: f64 = 1e-4;

/// The same at which linfa may stop.
const SLOPE_WANTED: f64 = 1e-6;

/// The mean of a feature and its standard deviation; 1 for a constant one.
fn mean_and_scale(rows: &Rows, feature: usize) -> (f64, f64) {
    let values = || (0..rows.len()).map(|index| rows.row(index)[feature]);
    let count = rows.len() as f64;
    let lowest = values().fold(f64::INFINITY, f64::min);
    if values().all(|value| value == lowest) {
        return (lowest, 1.0);
    }
    // From the lowest on, so that a large constant part costs no digits.
    let mean = lowest + values().map(|value| (value - lowest) / count).sum::<f64>();
    let variance = values()
        .map(|value| (value - mean).powi(2) / count)
        .sum::<f64>();
    // Values so near to each other that their squares vanish.
    if variance < f64::MIN_POSITIVE {
        return (mean, 1.0);
    }
    (mean, variance.sqrt())
}

/// What linfa found, and what it predicts.
struct Fitted {
    intercepts: Vec<f64>,
    coefficients: Vec<Vec<f64>>,
    on_training: Array1<usize>,
    on_held_out: Array1<usize>,
}

fn classes(rows: &Rows) -> Array1<usize> {
    rows.class_of.iter().map(|class| *class as usize).collect()
}

fn fit_two(training: &Rows, held_out: &Rows, settings: Settings) -> Result<Fitted> {
    let dataset = DatasetBase::new(matrix(training)?, classes(training));
    let fitted = LogisticRegression::default()
        .alpha(settings.l2)
        .max_iterations(settings.iterations_max)
        .gradient_tolerance(SLOPE_WANTED * training.len() as f64)
        .fit(&dataset)?;
    // Its weights are those of the class that it calls positive.
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

fn fit_many(training: &Rows, held_out: &Rows, settings: Settings) -> Result<Fitted> {
    let dataset = DatasetBase::new(matrix(training)?, classes(training));
    let fit = |l2: f64, slope: f64, start: Option<Array2<f64>>| {
        let mut learner = MultiLogisticRegression::default()
            .alpha(l2)
            .max_iterations(settings.iterations_max)
            .gradient_tolerance(slope * training.len() as f64);
        if let Some(start) = start {
            learner = learner.initial_params(start);
        }
        let fitted = learner.fit(&dataset)?;
        let mut weights = fitted.params().iter().chain(fitted.intercept());
        if !weights.all(|weight| weight.is_finite()) {
            // Its prediction would panic.
            bail!("a weight is not finite");
        }
        Ok(fitted)
    };
    // For several classes the loss in linfa is wrong where one row is 34 times
    // as sure as another, in powers of e, and from zero weights its first step
    // can lead there. A strong penalty keeps it away, and the solution under
    // that one is near to the next.
    let mut start = None;
    for l2 in falling_penalties(settings.l2, training.len()) {
        let fitted = fit(l2, SLOPE_MAX, start)?;
        let mut weights = fitted.params().clone();
        weights.push_row(fitted.intercept().view())?;
        start = Some(weights);
    }
    let fitted = fit(settings.l2, SLOPE_WANTED, start)?;
    let weights = fitted.params().rows().into_iter();
    Ok(Fitted {
        intercepts: fitted.intercept().to_vec(),
        coefficients: weights.map(|row| row.to_vec()).collect(),
        on_training: fitted.predict(&matrix(training)?),
        on_held_out: fitted.predict(&matrix(held_out)?),
    })
}

/// Penalties that fall from the number of rows towards `l2`.
fn falling_penalties(l2: f64, rows: usize) -> impl Iterator<Item = f64> {
    let rising = std::iter::successors(Some(l2), |l2| Some((l2 * 10.0).max(1.0)));
    let rising: Vec<f64> = rising
        .skip(1)
        .take_while(|l2| *l2 < 10.0 * rows as f64)
        .collect();
    rising.into_iter().rev()
}

impl Logistic {
    /// The length of the gradient of the loss at these weights, divided by the
    /// number of rows. linfa does not say whether it converged, and for several
    /// classes its own gradient can be wrong.
    fn slope(&self, rows: &Rows, l2: f64) -> f64 {
        let class_count = self.intercepts.len();
        let mut gradient = vec![0.0; class_count * (rows.width + 1)];
        let mut probabilities = vec![0.0; class_count];
        for index in 0..rows.len() {
            let row = rows.row(index);
            self.evaluate(row, &mut probabilities);
            probabilities[rows.class_of[index] as usize] -= 1.0;
            for (class, difference) in probabilities.iter().enumerate() {
                let part = &mut gradient[class * (rows.width + 1)..][..rows.width + 1];
                for (feature, value) in row.iter().enumerate() {
                    let value = (value - self.means[feature]) / self.scales[feature];
                    part[feature] += difference * value;
                }
                part[rows.width] += difference;
            }
        }
        // Of two classes only the second has weights of its own.
        let first = usize::from(class_count == 2);
        let mut squares = 0.0;
        for class in first..class_count {
            let part = &gradient[class * (rows.width + 1)..][..rows.width + 1];
            for (feature, slope) in part.iter().enumerate() {
                // The intercept has no penalty.
                let weights = self.coefficients.get(feature);
                let penalty = weights.map_or(0.0, |weights| l2 * weights[class]);
                squares += (slope + penalty).powi(2);
            }
        }
        squares.sqrt() / rows.len() as f64
    }
}

#[cfg(test)]
mod tests;
