//! The interface of the algorithms for training.

use std::num::NonZero;

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
    /// The number of classes; 0 if the target is a number.
    pub class_count: usize,
    /// The rows to learn from. There are at least two of each class, and their missing
    /// values are filled.
    pub training: Rows,
    /// For each class, the weight of one of its rows. Empty if all rows have the same
    /// weight.
    pub class_weights: Vec<f64>,
    /// The held-out rows. An algorithm may use them only to check its predictor.
    pub held_out: Rows,
    /// The seed of all random choices.
    pub seed: u64,
    /// The largest number of threads. The result does not depend on this number.
    pub threads: Option<NonZero<usize>>,
}

/// An algorithm for training.
#[derive(Clone, Debug)]
pub struct Trainer {
    /// The hyperparameters that the algorithm has, with their defaults.
    pub defaults: Hyperparameters,
    /// Trains a predictor. Of the hyperparameters, only those with a default are set.
    pub fit: fn(&TrainingData, &Hyperparameters) -> Result<Box<dyn Predictor>>,
}
