//! The flags of `rv-score train` that choose the algorithm, its settings and the held-out
//! rows, and their checks.

use std::num::NonZero;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::model::description::{ClassWeight, Hyperparameters};
use crate::model::families::Algorithm;
use crate::stage::report::shown;
use crate::stage::usage;
use crate::stream::address::Address;
use crate::train::algorithms::{self, class_trainer, number_trainer};
use crate::train::options::Task;
use crate::train::trainer::Trainer;

/// The share of the rows that is held out if no flag says otherwise.
const HOLDOUT_DEFAULT: f64 = 0.2;

/// The flags.
#[derive(Args, Clone, Debug)]
pub struct FitArgs {
    /// The training algorithm. Default: random-forest, for classes and for numbers
    #[arg(short, long, value_enum, value_name = "ALGORITHM")]
    algorithm: Option<Algorithm>,

    /// The seed of all random choices: the held-out rows, and the samples of a forest
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// The share of the rows, of each class alike, that is held out of training to
    /// measure the model. With 0 the model learns from all rows and is not measured.
    /// Default: 0.2
    #[arg(long, value_name = "FRACTION", conflicts_with_all = ["holdout_file", "holdout_last"])]
    holdout: Option<f64>,

    /// Hold out the last rows of the data, for data in the order of time: `20%` or `0.2`
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with = "holdout_file")]
    holdout_last: Option<f64>,

    /// Learn from all rows, and measure the model on the rows of FILE
    #[arg(long, value_name = "FILE")]
    holdout_file: Option<Address>,

    /// With `balanced`, all classes weigh the same in training, however many rows they
    /// have. The held-out metrics count each row once
    #[arg(long, value_enum, value_name = "RULE")]
    class_weight: Option<ClassWeight>,

    /// For two classes: predict LABEL if its probability is at least P, and the other
    /// class otherwise
    #[arg(long, value_name = "LABEL=P", value_parser = threshold)]
    threshold: Option<(String, f64)>,

    /// For forests: the number of trees, from 1 to 10000. Default: 100
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trees: Option<u32>,

    /// For trees and forests: the largest number of splits on a path, from 1 to 128.
    /// Default: 32
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=128))]
    max_depth: Option<u32>,

    /// For trees and forests: the smallest number of rows in a leaf. Default: 1; 5 for a
    /// tree of numbers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    min_leaf: Option<u32>,

    /// For logistic and linear regression: the weight of the L2 penalty, from 0 to 1e9.
    /// Default: 1
    #[arg(long, value_name = "WEIGHT")]
    l2: Option<f64>,

    /// For logistic regression: the largest number of iterations. Default: 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_iterations: Option<u64>,

    /// For forests and logistic regression: train with N threads. The model does not
    /// depend on N. Default: one for each processor
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
}

/// The rows on which a model is measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Holdout {
    /// This share of each class, chosen by the seed.
    Share(f64),
    /// The last rows of the data. They are this share of all rows.
    Last(f64),
    /// All rows of a file.
    File(Address),
}

/// The checked options.
#[derive(Clone, Debug)]
pub struct FitOptions {
    /// The training algorithm.
    pub algorithm: Algorithm,
    /// The settings of the algorithm that the user has set.
    given: Hyperparameters,
    /// The rows on which the model is measured.
    pub holdout: Holdout,
    /// The rule for the weights of the classes.
    pub class_weight: Option<ClassWeight>,
    /// A label, and the smallest probability for which the model predicts it.
    pub threshold: Option<(String, f64)>,
    /// The seed of all random choices.
    pub seed: u64,
    /// The number of threads.
    pub threads: Option<NonZero<usize>>,
}

impl FitArgs {
    /// Checks the flags.
    pub fn check(self) -> Result<FitOptions> {
        let holdout = match (self.holdout, self.holdout_last, &self.holdout_file) {
            (_, _, Some(file)) => Holdout::File(file.clone()),
            (_, Some(last), None) => Holdout::Last(last),
            (share, None, None) => Holdout::Share(share.unwrap_or(HOLDOUT_DEFAULT)),
        };
        if let Holdout::Share(share) = holdout
            && !(0.0..1.0).contains(&share)
        {
            return Err(usage("--holdout must be a number from 0 to below 1"));
        }
        if !self.l2.is_none_or(|l2| (0.0..=1e9).contains(&l2)) {
            return Err(usage("--l2 must be a number from 0 to 1e9"));
        }
        let algorithm = self.algorithm.unwrap_or(algorithms::DEFAULT);
        if algorithm == Algorithm::LinfaTree && self.class_weight.is_some() {
            return Err(usage("--class-weight is not for linfa-tree; leave it out"));
        }
        let available = || std::thread::available_parallelism().ok();
        Ok(FitOptions {
            given: self.hyperparameters(algorithm)?,
            algorithm,
            holdout,
            class_weight: self.class_weight,
            threshold: self.threshold,
            seed: self.seed,
            threads: self.threads.or_else(available),
        })
    }

    /// The hyperparameters that the flags set. Returns an error if the algorithm does not
    /// have one of them.
    fn hyperparameters(&self, algorithm: Algorithm) -> Result<Hyperparameters> {
        let given = Hyperparameters {
            trees: self.trees,
            max_depth: self.max_depth,
            min_leaf: self.min_leaf,
            l2: self.l2,
            max_iterations: self.max_iterations,
        };
        let known = known_flags(algorithm);
        let unknown = flags(&given).into_iter().find(|flag| !known.contains(flag));
        if let Some(flag) = unknown {
            let others = Algorithm::value_variants().iter();
            let others = others.filter(|other| known_flags(**other).contains(&flag));
            let others: Vec<String> = others.map(|other| other.name()).collect();
            return Err(usage(format!(
                "{flag} is for {}, not for {}; leave it out",
                others.join(" and "),
                algorithm.name()
            )));
        }
        Ok(given)
    }
}

impl FitOptions {
    /// What the algorithm predicts, if it can predict only classes or only numbers.
    pub fn only_task(&self) -> Option<Task> {
        let of_classes = class_trainer(self.algorithm).is_some();
        let of_numbers = number_trainer(self.algorithm).is_some();
        match (of_classes, of_numbers) {
            (true, false) => Some(Task::Classify),
            (false, true) => Some(Task::Regress),
            _ => None,
        }
    }

    /// The trainer for a target with classes or of numbers, and its settings, including
    /// the defaults. The error is a usage error.
    pub fn trainer(&self, has_classes: bool, target: &str) -> Result<(Trainer, Hyperparameters)> {
        let trainer_of = if has_classes {
            class_trainer
        } else {
            number_trainer
        };
        let Some(trainer) = trainer_of(self.algorithm) else {
            let kind = if has_classes { "classes" } else { "numbers" };
            let others = Algorithm::value_variants().iter();
            let others = others.filter(|other| trainer_of(**other).is_some());
            let others: Vec<String> = others.map(|other| other.name()).collect();
            return Err(usage(format!(
                "{} cannot predict the {kind} of column {}; use {}",
                self.algorithm.name(),
                shown(target),
                others.join(" or ")
            )));
        };
        if !has_classes && (self.class_weight.is_some() || self.threshold.is_some()) {
            return Err(usage(format!(
                "column {} has numbers, but --class-weight and --threshold are for classes; leave \
                 them out",
                shown(target)
            )));
        }
        let parameters = self.given.or(&trainer.defaults);
        Ok((trainer, parameters))
    }
}

/// The flags of the hyperparameters that an algorithm has.
fn known_flags(algorithm: Algorithm) -> Vec<&'static str> {
    let trainer = class_trainer(algorithm).or_else(|| number_trainer(algorithm));
    trainer.map_or_else(Vec::new, |trainer| flags(&trainer.defaults))
}

/// The flags of the hyperparameters that are set.
fn flags(hyperparameters: &Hyperparameters) -> Vec<&'static str> {
    let Hyperparameters {
        trees,
        max_depth,
        min_leaf,
        l2,
        max_iterations,
    } = hyperparameters;
    let flags = [
        ("--trees", trees.is_some()),
        ("--max-depth", max_depth.is_some()),
        ("--min-leaf", min_leaf.is_some()),
        ("--l2", l2.is_some()),
        ("--max-iterations", max_iterations.is_some()),
    ];
    let set = flags.iter().filter(|(_, is_set)| *is_set);
    set.map(|(flag, _)| *flag).collect()
}

/// Parses a share between 0 and 1: `20%` or `0.2`.
fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if number > 0.0 && number / unit < 1.0 => Ok(number / unit),
        _ => Err("give a share between 0 and 1, such as 20% or 0.2".to_owned()),
    }
}

/// Parses `LABEL=P`.
fn threshold(text: &str) -> Result<(String, f64), String> {
    let fault = || "give LABEL=P with a probability P from 0 to 1, such as yes=0.3".to_owned();
    let (label, probability) = text.rsplit_once('=').ok_or_else(fault)?;
    match probability.parse::<f64>() {
        Ok(probability) if (0.0..=1.0).contains(&probability) && !label.is_empty() => {
            Ok((label.to_owned(), probability))
        }
        _ => Err(fault()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_thresholds_are_parsed() {
        for (text, expected) in [
            ("20%", Some(0.2)),
            ("0.25", Some(0.25)),
            ("12.5 %", Some(0.125)),
            ("0", None),
            ("100%", None),
            ("NaN", None),
            ("x%", None),
        ] {
            assert_eq!(share(text).ok(), expected, "{text}");
        }
        assert_eq!(threshold("a=b=0.5"), Ok(("a=b".to_owned(), 0.5)));
        for text in ["a", "=0.5", "a=1.1", "a=NaN", "a="] {
            assert!(threshold(text).is_err(), "{text}");
        }
    }
}
