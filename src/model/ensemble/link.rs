//! The functions that turn the sums of an ensemble into its prediction.

use serde::{Deserialize, Serialize};

/// The function that turns the combined outputs into the prediction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Link {
    /// The outputs are already the predicted number or the probabilities.
    Identity,
    /// `1 / (1 + exp(-scale * x))`. With two classes, this is the probability of the
    /// second one.
    Logistic {
        /// The number that multiplies the output.
        scale: f64,
    },
    /// The probabilities are proportional to `exp(x)`.
    Softmax,
    /// `exp(x)`.
    Exponential,
    /// `ln(1 + exp(x))`.
    LogOnePlusExponential,
    /// The square of the output, with the sign of the output.
    SignedSquare,
    /// 1 if the output is above 0, else 0. With two classes, this number is the index
    /// of the predicted class.
    Step,
}

impl Link {
    /// Applies the link to the outputs of a classifier, which become probabilities.
    pub fn apply_to_classes(self, outputs: &mut [f64]) {
        match self {
            Link::Softmax => softmax(outputs),
            Link::Logistic { scale } => {
                for output in outputs {
                    *output = logistic(scale * *output);
                }
            }
            _ => {}
        }
    }

    /// Applies the link to the single output of a model. The result is finite.
    pub fn apply(self, number: f64) -> f64 {
        let linked = match self {
            Link::Identity | Link::Softmax => number,
            Link::Logistic { scale } => logistic(scale * number),
            Link::Exponential => number.exp(),
            Link::LogOnePlusExponential => number.exp().ln_1p(),
            Link::SignedSquare => number.abs() * number,
            Link::Step => f64::from(number > 0.0),
        };
        // A score is written as JSON, and JSON has no infinity.
        linked.clamp(-f64::MAX, f64::MAX)
    }

    /// Checks that the link fits the number of outputs and of classes. A model of
    /// numbers has no classes.
    pub fn check(self, outputs: usize, class_count: usize) -> Result<(), String> {
        let is_fitting = match self {
            Link::Identity => true,
            Link::Logistic { scale } => scale.is_finite(),
            Link::Softmax => outputs > 1,
            Link::Step => outputs == 1,
            Link::Exponential | Link::LogOnePlusExponential | Link::SignedSquare => {
                class_count == 0
            }
        };
        match is_fitting {
            true => Ok(()),
            false => Err("the link does not fit the classes".to_owned()),
        }
    }
}

fn logistic(number: f64) -> f64 {
    1.0 / (1.0 + (-number).exp())
}

/// The softmax function. The largest output is subtracted first, so that no exponential
/// overflows.
fn softmax(outputs: &mut [f64]) {
    let largest = outputs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut total = 0.0;
    for output in outputs.iter_mut() {
        *output = (*output - largest).exp();
        total += *output;
    }
    for output in outputs {
        *output /= total;
    }
}
