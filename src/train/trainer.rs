//! What each algorithm has to offer for training.

use anyhow::Result;

use crate::model::description::Hyperparameters;
use crate::model::prediction::Predictor;
use crate::train::table::Rows;

/// What an algorithm learns from.
#[derive(Debug)]
pub struct TrainingData<'a> {
    /// The names of the features, in the order of a row.
    pub features: &'a [String],
    /// How many classes there are.
    pub class_count: usize,
    /// The rows to learn from; at least two of each class.
    pub training: Rows,
    /// The rows that are held out. An algorithm may only use them to check its
    /// predictor.
    pub held_out: Rows,
}

/// How one algorithm learns.
#[derive(Clone, Debug)]
pub struct Trainer {
    /// The hyperparameters that the algorithm has, with their defaults.
    pub defaults: Hyperparameters,
    /// Trains a predictor. Exactly the hyperparameters that have a default are
    /// set.
    pub fit: fn(&TrainingData, &Hyperparameters) -> Result<Box<dyn Predictor>>,
}
