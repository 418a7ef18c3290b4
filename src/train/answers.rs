//! The answers of a model for rows whose labels are known.

use anyhow::{Result, bail};

use crate::model::metrics::{ClassMetrics, Metrics, NumberMetrics, log_loss};
use crate::model::prediction::Prediction;

/// The largest absolute value of a number to predict, and of a prediction that is
/// measured. The interval of the root mean squared error needs the fourth power of an
/// error, which could overflow for larger numbers.
pub const NUMBER_MAX: f64 = 1e70;

/// The true answer for a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Truth {
    /// A class, by its index.
    Class(usize),
    /// A number.
    Number(f64),
}

/// The answer for a row with a class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassAnswer {
    /// The class of the label.
    pub actual: usize,
    /// The predicted class.
    pub predicted: usize,
    /// The probability of the predicted class.
    pub confidence: f64,
    /// The probability of the label's class.
    pub of_actual: f64,
    /// The probability of the last class.
    pub of_last: f64,
}

/// The answers for all rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Answers {
    /// The answers for rows with classes.
    Classes(Vec<ClassAnswer>),
    /// For each row with a number, the true number and the predicted one.
    Numbers(Vec<(f64, f64)>),
}

impl Answers {
    /// An empty list of answers of a model with this number of classes. The number is 0
    /// for a model of numbers.
    pub fn new(class_count: usize) -> Answers {
        match class_count {
            0 => Answers::Numbers(Vec::new()),
            _ => Answers::Classes(Vec::new()),
        }
    }

    /// Adds the answer for one row. The error says why it cannot be measured.
    pub fn push(
        &mut self,
        truth: Truth,
        prediction: Prediction,
        probabilities: &[f64],
    ) -> Result<()> {
        match (self, truth, prediction) {
            (Answers::Classes(answers), Truth::Class(actual), Prediction::Class(predicted)) => {
                answers.push(ClassAnswer {
                    actual,
                    predicted,
                    confidence: probabilities[predicted],
                    of_actual: probabilities[actual],
                    of_last: probabilities.last().copied().unwrap_or_default(),
                });
            }
            (Answers::Numbers(_), _, Prediction::Number(predicted))
                if predicted.abs() > NUMBER_MAX =>
            {
                bail!("the prediction {predicted:e} is too large to be measured");
            }
            (Answers::Numbers(pairs), Truth::Number(actual), Prediction::Number(predicted)) => {
                pairs.push((actual, predicted));
            }
            _ => bail!("the model predicts another kind of target; this is a defect"),
        }
        Ok(())
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        match self {
            Answers::Classes(answers) => answers.len(),
            Answers::Numbers(pairs) => pairs.len(),
        }
    }

    /// The metrics of the rows, of which there must be at least one.
    pub fn metrics(&self, class_count: usize) -> Metrics {
        match self {
            Answers::Classes(answers) => {
                let losses = answers.iter().map(|answer| log_loss(answer.of_actual));
                let mean_loss = losses.sum::<f64>() / answers.len().max(1) as f64;
                let pairs = answers
                    .iter()
                    .map(|answer| (answer.actual, answer.predicted));
                Metrics::Classes(ClassMetrics::count(class_count, pairs, mean_loss))
            }
            Answers::Numbers(pairs) => Metrics::Numbers(NumberMetrics::measure(pairs)),
        }
    }
}
