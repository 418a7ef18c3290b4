//! The list of algorithms, and the family of models that each of them produces. A new
//! family gets its match arm here, and another in `train/algorithms.rs`.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::model::ensemble::Ensemble;
use crate::model::linear::Linear;
use crate::model::logistic::Logistic;
use crate::model::prediction::Predictor;
use crate::model::tree::Tree;

/// The algorithm of a training, under its name on the command line and in the model
/// file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Many trees, each on a random sample of the rows, with a random sample of the
    /// features at each split. Their answers are averaged. For classes and for numbers.
    RandomForest,
    /// One tree: CART with Gini impurity for classes, with variance for numbers. The
    /// probabilities are the shares of the classes in a leaf.
    DecisionTree,
    /// For classes: multinomial logistic regression on standardised features with an L2
    /// penalty. A category has one 0/1 column per value.
    LogisticRegression,
    /// For numbers: least squares on standardised features with an L2 penalty. A
    /// category has one 0/1 column per value.
    LinearRegression,
    /// The decision tree of linfa-trees, for classes and features of numbers. It is not
    /// deterministic: two runs on the same data can give different trees, and there is
    /// no seed. It treats values less than 0.00001 apart as equal, misses some splits,
    /// and is slow on many rows.
    LinfaTree,
    /// Many trees whose answers are added, imported from another library.
    #[value(skip)]
    GradientBoosting,
}

impl Algorithm {
    /// Reads the parameters of a model that this algorithm has trained. The error
    /// describes the fault.
    pub fn read_parameters(self, json: &str) -> serde_json::Result<Box<dyn Predictor>> {
        Ok(match self {
            Algorithm::DecisionTree | Algorithm::LinfaTree => Box::new(Tree::from_json(json)?),
            Algorithm::LogisticRegression => Box::new(Logistic::from_json(json)?),
            Algorithm::LinearRegression => Box::new(Linear::from_json(json)?),
            Algorithm::RandomForest | Algorithm::GradientBoosting => {
                Box::new(Ensemble::from_json(json)?)
            }
        })
    }

    /// The algorithm's name on the command line and in the model file.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_algorithm_has_the_same_name_on_the_command_line_and_in_the_file() {
        for algorithm in Algorithm::value_variants() {
            let in_file = serde_json::to_string(algorithm).unwrap();
            assert_eq!(in_file, format!("\"{}\"", algorithm.name()));
        }
    }
}
