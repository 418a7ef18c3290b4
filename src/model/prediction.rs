//! The prediction of a model, and the interface of a family of models.

use std::fmt;

use crate::model::feature::Feature;

/// The prediction for one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Prediction {
    /// One of the model's classes, by its index. The caller's buffer holds the
    /// probabilities of all classes.
    Class(usize),
    /// A finite number. Such a model has no probabilities.
    Number(f64),
}

/// The names that make a model's parameters readable.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The features, in the order of a row.
    pub features: &'a [Feature],
    /// The labels of the classes as JSON text, in the order of the classes.
    pub labels: &'a [&'a str],
}

/// The learned parameters of a model, which are all that a family of models needs to
/// predict. Each family is one file with one implementation.
pub trait Predictor: fmt::Debug + Send + Sync {
    /// Predicts for a row, one value per feature; [`Feature`] says how a category and a
    /// missing value are written. A classifier sets `probabilities`, which has one entry
    /// per class. A model of numbers gets an empty list.
    fn predict(&self, row: &[f64], probabilities: &mut [f64]) -> Prediction;

    /// Checks parameters from a file. After this check, [`predict`](Predictor::predict)
    /// can neither panic nor loop, and returns an existing class. A model of numbers has
    /// no classes. The error describes the fault.
    fn check(&self, features: &[Feature], class_count: usize) -> Result<(), String>;

    /// Whether the values of a row are rounded to single precision first.
    fn is_single_precision(&self) -> bool {
        false
    }

    /// The parameters as JSON text, in the form of the model file.
    fn to_json(&self) -> serde_json::Result<String>;

    /// The parameters as readable lines. Trees are cut off below `depth_max`.
    fn describe(&self, names: Names, depth_max: u32) -> Vec<String>;
}
