//! The interface of the algorithms for training.

use anyhow::Result;

use crate::model::description::Hyperparameters;
use crate::model::feature::Feature;
use crate::model::prediction::Predictor;
use crate::train::table::Rows;

/// The data that an algorithm learns from.
#[derive(Debug)]
pub struct TrainingData<'a> {
    /// The features, in the order of a row.
    pub features: &'a [Feature],
    /// The number of classes.
    pub class_count: usize,
    /// The rows to learn from; at least two of each class.
    pub training: Rows,
    /// The held-out rows. An algorithm may use them only to check its predictor.
    pub held_out: Rows,
}

/// An algorithm for training.
#[derive(Clone, Debug)]
pub struct Trainer {
    /// The hyperparameters that the algorithm has, with their defaults.
    pub defaults: Hyperparameters,
    /// Trains a predictor. Only the hyperparameters with a default are set.
    pub fit: fn(&TrainingData, &Hyperparameters) -> Result<Box<dyn Predictor>>,
}
