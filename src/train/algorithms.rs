//! The training function of each algorithm. A new algorithm gets its match arms here,
//! and another in `model/families.rs`.

use crate::model::families::Algorithm;
use crate::train::trainer::Trainer;
use crate::train::{cart, forest, linear, linfa_tree, logistic};

/// The algorithm that is used if the user names none. It works well on most tables, for
/// classes and for numbers.
pub const DEFAULT: Algorithm = Algorithm::RandomForest;

/// The trainer of an algorithm for classes; `None` if the algorithm cannot predict
/// classes.
pub fn class_trainer(algorithm: Algorithm) -> Option<Trainer> {
    match algorithm {
        Algorithm::RandomForest => Some(forest::TRAINER),
        Algorithm::DecisionTree => Some(cart::TRAINER),
        Algorithm::LogisticRegression => Some(logistic::TRAINER),
        Algorithm::LinfaTree => Some(linfa_tree::TRAINER),
        Algorithm::LinearRegression | Algorithm::GradientBoosting => None,
    }
}

/// The trainer of an algorithm for numbers; `None` if the algorithm cannot predict
/// numbers.
pub fn number_trainer(algorithm: Algorithm) -> Option<Trainer> {
    match algorithm {
        Algorithm::RandomForest => Some(forest::REGRESSION_TRAINER),
        Algorithm::DecisionTree => Some(cart::REGRESSION_TRAINER),
        Algorithm::LinearRegression => Some(linear::TRAINER),
        Algorithm::LogisticRegression | Algorithm::LinfaTree | Algorithm::GradientBoosting => None,
    }
}
