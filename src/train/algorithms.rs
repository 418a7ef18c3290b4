//! The training function of each algorithm. A new algorithm gets its match arms here,
//! and another in `model/families.rs`.

use crate::model::families::Algorithm;
use crate::train::trainer::Trainer;
use crate::train::{cart, forest, linear, linfa_tree, logistic};

/// The algorithm if the user names none. It is a good one for most tables, whether the
/// target has classes or is a number.
pub const DEFAULT: Algorithm = Algorithm::RandomForest;

/// The trainer of an algorithm for classes; `None` if it has none.
pub fn class_trainer(algorithm: Algorithm) -> Option<Trainer> {
    match algorithm {
        Algorithm::RandomForest => Some(forest::TRAINER),
        Algorithm::DecisionTree => Some(cart::TRAINER),
        Algorithm::LogisticRegression => Some(logistic::TRAINER),
        Algorithm::LinfaTree => Some(linfa_tree::TRAINER),
        Algorithm::LinearRegression | Algorithm::GradientBoosting => None,
    }
}

/// The trainer of an algorithm for numbers; `None` if it has none.
pub fn number_trainer(algorithm: Algorithm) -> Option<Trainer> {
    match algorithm {
        Algorithm::RandomForest => Some(forest::REGRESSION_TRAINER),
        Algorithm::DecisionTree => Some(cart::REGRESSION_TRAINER),
        Algorithm::LinearRegression => Some(linear::TRAINER),
        Algorithm::LogisticRegression | Algorithm::LinfaTree | Algorithm::GradientBoosting => None,
    }
}
