//! The prediction of a model, and the interface of a family of models.

use std::fmt;

/// The prediction for one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Prediction {
    /// One of the model's classes, by its index. The caller's buffer holds the
    /// probabilities of all classes.
    Class(usize),
    /// A finite number. Such a model has no probabilities.
    #[allow(
        dead_code,
        reason = "the text of a score and the measures of training are ready for it"
    )]
    Number(f64),
}

/// The names that make a model's parameters readable.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The features, in the order of a row.
    pub features: &'a [String],
    /// The labels of the classes as JSON text, in the order of the classes.
    pub labels: &'a [&'a str],
}

/// The learned parameters of a model, which are all that a family of models needs to
/// predict. Each family is one file with one implementation.
pub trait Predictor: fmt::Debug + Send + Sync {
    /// Predicts for a row of finite values, one per feature. A classifier sets
    /// `probabilities`, which has one entry per class; their sum is 1.
    fn predict(&self, row: &[f64], probabilities: &mut [f64]) -> Prediction;

    /// Checks parameters from a file. After this check, [`predict`](Predictor::predict)
    /// can neither panic nor loop, and returns an existing class. The error describes
    /// the fault.
    fn check(&self, feature_count: usize, class_count: usize) -> Result<(), String>;

    /// The parameters as JSON text, in the form of the model file.
    fn to_json(&self) -> serde_json::Result<String>;

    /// The parameters as readable lines. Trees are cut off below `depth_max`.
    fn describe(&self, names: Names, depth_max: u32) -> Vec<String>;
}
