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
    /// The column that it predicts.
    pub target: String,
    /// Its inputs, in the order of a row.
    #[serde(deserialize_with = "at_most_features")]
    pub features: Vec<Feature>,
    /// The labels that it can predict, as JSON text, in the order of the classes. A model
    /// of numbers has none.
    #[serde(deserialize_with = "at_most_classes")]
    pub classes: Vec<Box<RawValue>>,
    /// The data and the settings of the training. `None` for an imported model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainingRun>,
    /// The file that the model was imported from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Import>,
    /// The measured quality.
    #[serde(default)]
    pub metrics: MeasuredMetrics,
    /// The distributions of its inputs and answers in training. `None` for an imported
    /// model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// The file that a model was imported from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// The library that wrote the file.
    pub from: String,
    /// The library's name of the objective.
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
    /// The seed that selects the held-out rows.
    pub seed: u64,
    /// The share of each class that is held out, from 0 to below 1.
    pub holdout: f64,
    /// The settings of the algorithm.
    pub parameters: Hyperparameters,
}

/// The settings of an algorithm. Each algorithm has some of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hyperparameters {
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
            return vec!["no row was held out, so the accuracy is not known".to_owned()];
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
        let names = self.features.iter().map(|feature| &feature.name);
        match &self.profile {
            Some(profile) => profile.check(names, class_count),
            None => Ok(()),
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
