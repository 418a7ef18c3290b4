//! The description in a model file: everything except the parameters.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::bounds::{
    LABEL_BYTES_MAX, at_most_classes, at_most_features, check_name, first_duplicate,
};
use crate::model::families::Algorithm;
use crate::model::feature::Feature;
use crate::model::metrics::Metrics;
use crate::model::profile::Profile;
use crate::model::scalar::ScalarType;
use crate::stage::report::shown;

/// Everything in a model file except the parameters, in the order of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// The name in policies and records.
    pub name: String,
    /// The version, which distinguishes models of the same name.
    pub version: u64,
    /// The algorithm of the training.
    pub algorithm: Algorithm,
    /// The name of the column that the model predicts.
    pub target: String,
    /// The inputs of the model, in the order of a row.
    #[serde(deserialize_with = "at_most_features")]
    pub features: Vec<Feature>,
    /// The labels that the model can predict, as JSON text, in the order of the
    /// classes. A model of numbers has none.
    #[serde(deserialize_with = "at_most_classes")]
    pub classes: Vec<Box<RawValue>>,
    /// The rule that predicts a class if its probability reaches a threshold. `None` if
    /// the model predicts the most probable class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Threshold>,
    /// The data and the settings of the training. `None` for an imported model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainingRun>,
    /// The file that the model was imported from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Import>,
    /// The measured quality.
    #[serde(default)]
    pub metrics: MeasuredMetrics,
    /// The distributions of the inputs and of the predictions in training. `None` for
    /// an imported model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// A rule for two classes: predict `label` if its probability is at least `probability`,
/// and the other class otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Threshold {
    /// The label, as JSON text.
    pub label: Box<RawValue>,
    /// The smallest probability, from 0 to 1.
    pub probability: f64,
}

/// A [`Threshold`] whose class is known by its index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassThreshold {
    /// The index of the class.
    pub class: usize,
    /// The smallest probability.
    pub probability: f64,
}

impl ClassThreshold {
    /// The index of the class that the rule predicts. `probabilities` has one entry for
    /// each of the two classes.
    pub fn class(self, probabilities: &[f64]) -> usize {
        match probabilities[self.class] >= self.probability {
            true => self.class,
            false => 1 - self.class,
        }
    }
}

/// The file that a model was imported from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// The library that wrote the file.
    pub from: String,
    /// The name that the library gives to the objective.
    pub objective: String,
    /// The SHA-256 of the file.
    pub sha256: String,
}

/// The data and the settings of a training.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrainingRun {
    /// The number of rows in the training.
    pub rows: u64,
    /// The number of rows that were held out to measure the model.
    pub held_out: u64,
    /// The number of rows of the data that could not be used.
    pub left_out: u64,
    /// The seed of all random choices.
    pub seed: u64,
    /// The share of the rows that is held out, from 0 to below 1.
    pub holdout: f64,
    /// The way in which the held-out rows were chosen.
    #[serde(default)]
    pub held_out_by: HeldOutBy,
    /// The name of the rule for the weights of the classes. Without a rule, all rows
    /// have the same weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_weight: Option<ClassWeight>,
    /// The SHA-256 of the training data, uncompressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_sha256: Option<String>,
    /// The SHA-256 of the file of held-out rows, uncompressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout_sha256: Option<String>,
    /// The name and the version of the program that trained the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The settings of the algorithm.
    pub parameters: Hyperparameters,
}

/// The way in which held-out rows are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HeldOutBy {
    /// By the seed, the same share of each class.
    #[default]
    Seed,
    /// The last rows of the data.
    Last,
    /// All rows of another file.
    File,
}

/// A rule for the weights of the classes in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClassWeight {
    /// All classes together weigh the same, however many rows they have.
    Balanced,
}

/// The settings of an algorithm. Each algorithm has some of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hyperparameters {
    /// The number of trees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trees: Option<u32>,
    /// The largest number of splits on a path of a tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_depth: Option<u32>,
    /// The smallest number of rows in a leaf of a tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_leaf: Option<u32>,
    /// The weight of the L2 penalty. The loss includes half of this weight times the
    /// sum of the squared coefficients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l2: Option<f64>,
    /// The largest number of iterations of the optimiser.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_iterations: Option<u64>,
}

impl Hyperparameters {
    /// No settings.
    pub const NONE: Hyperparameters = Hyperparameters {
        trees: None,
        max_depth: None,
        min_leaf: None,
        l2: None,
        max_iterations: None,
    };

    /// Returns these settings. A setting that is not set here is taken from `others`.
    pub fn or(&self, others: &Hyperparameters) -> Hyperparameters {
        Hyperparameters {
            trees: self.trees.or(others.trees),
            max_depth: self.max_depth.or(others.max_depth),
            min_leaf: self.min_leaf.or(others.min_leaf),
            l2: self.l2.or(others.l2),
            max_iterations: self.max_iterations.or(others.max_iterations),
        }
    }
}

/// The metrics of a model, by the rows they were measured on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeasuredMetrics {
    /// The metrics on held-out rows; null if no row was held out.
    pub held_out: Option<Metrics>,
}

impl Description {
    /// The JSON text of each class's label, in the order of the classes.
    pub fn labels(&self) -> Vec<&str> {
        self.classes.iter().map(|class| class.get()).collect()
    }

    /// The metrics as lines of text for people.
    pub fn metrics_lines(&self) -> Vec<String> {
        let Some(metrics) = &self.metrics.held_out else {
            return vec!["no row was held out, so the quality is not known".to_owned()];
        };
        let mut lines = metrics.lines(&self.labels());
        lines[0].insert_str(0, "held-out ");
        lines
    }

    /// Checks the parts of a description on which the program relies, after reading it
    /// from a file. The error describes the fault.
    pub fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        if self.features.is_empty() {
            return Err("it has no features".to_owned());
        }
        if let Some(name) = first_duplicate(self.features.iter().map(|one| one.name.as_str())) {
            return Err(format!("feature {} occurs twice", shown(name)));
        }
        self.features.iter().try_for_each(Feature::check)?;
        self.check_labels()?;
        let class_count = self.classes.len();
        if let Some(metrics) = &self.metrics.held_out {
            metrics.check(class_count)?;
        }
        self.class_threshold()?;
        match &self.profile {
            Some(profile) => profile.check(&self.features, class_count),
            None => Ok(()),
        }
    }

    /// The threshold, with its class. The error describes the fault.
    pub fn class_threshold(&self) -> Result<Option<ClassThreshold>, String> {
        let Some(threshold) = &self.threshold else {
            return Ok(None);
        };
        let labels = self.labels();
        let class = labels
            .iter()
            .position(|label| *label == threshold.label.get());
        let probability = threshold.probability;
        match class {
            Some(class) if labels.len() == 2 && (0.0..=1.0).contains(&probability) => {
                Ok(Some(ClassThreshold { class, probability }))
            }
            _ => Err("it has a threshold that does not fit its classes".to_owned()),
        }
    }

    /// Checks the labels of the classes.
    fn check_labels(&self) -> Result<(), String> {
        let labels = self.labels();
        let Some(first) = labels.first() else {
            return Ok(());
        };
        if labels.len() == 1 {
            return Err("it has fewer than two classes".to_owned());
        }
        let first_type = ScalarType::of_json(first);
        let is_valid = |label: &&str| {
            ScalarType::of_json(label) == first_type && label.len() <= LABEL_BYTES_MAX
        };
        if first_type.is_none() || !labels.iter().all(is_valid) {
            return Err("its classes are not all strings, all numbers or all booleans".to_owned());
        }
        if let Some(label) = first_duplicate(labels.iter().copied()) {
            return Err(format!("class {} occurs twice", shown(label)));
        }
        Ok(())
    }
}
