//! The training function of each algorithm. A new algorithm gets its match arm here,
//! and another in `model/families.rs`.

use anyhow::bail;

use crate::model::description::Hyperparameters;
use crate::model::families::Algorithm;
use crate::train::trainer::Trainer;
use crate::train::{cart, linfa_logistic, linfa_tree};

/// The trainer of an algorithm.
pub fn trainer_of(algorithm: Algorithm) -> Trainer {
    match algorithm {
        Algorithm::DecisionTree => cart::TRAINER,
        Algorithm::LinfaTree => linfa_tree::TRAINER,
        Algorithm::LogisticRegression => linfa_logistic::TRAINER,
        Algorithm::RandomForest | Algorithm::GradientBoosting => Trainer {
            defaults: Hyperparameters::default(),
            fit: |_, _| bail!("this algorithm cannot be trained; import a model of it"),
        },
    }
}
