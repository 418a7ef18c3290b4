//! What a model is.
//!
//! [`train`](crate::train) makes models. A model becomes answers:
//! [`Model`] reads the features out of a request and asks its `tree` or its
//! `logistic` weights. [`inspect`] shows one to people.
//!
//! A model file holds numbers and names only, so loading one runs no code.

pub mod file;
pub mod inspect;
pub mod logistic;
pub mod metrics;
pub mod profile;
pub mod tree;

use std::collections::HashMap;

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::file::{at_most_classes, at_most_features};
use crate::model::logistic::Logistic;
use crate::model::metrics::Metrics;
use crate::model::profile::Profile;
use crate::model::tree::Tree;
use crate::stage::report::shown;
use crate::train::label::{Kind, LABEL_BYTES_MAX};
use crate::train::table::duplicate;
use crate::wire::object::{self, Member, Object, decode_string};

/// How many digits of the SHA-256 name a model.
const HASH_DIGITS: usize = 16;

/// How a model learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// CART with the Gini impurity; the same data give the same tree, with the
    /// shares of the classes in its leaves as probabilities.
    DecisionTree,
    /// The decision tree of linfa-trees. Not deterministic: two runs on the same
    /// data may give different trees, and no seed helps. It takes values less
    /// than 0.00001 apart as equal, misses some splits, and needs long for many
    /// rows.
    LinfaTree,
    /// Linear in the standardised features, with an L2 penalty; by
    /// linfa-logistic.
    LogisticRegression,
}

impl Algorithm {
    /// What it is called on the command line and in the file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Algorithm::DecisionTree => "decision-tree",
            Algorithm::LinfaTree => "linfa-tree",
            Algorithm::LogisticRegression => "logistic-regression",
        }
    }
}

/// What a file says about its model, but for the parameters learned.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) algorithm: Algorithm,
    pub(crate) target: String,
    #[serde(deserialize_with = "at_most_features")]
    pub(crate) features: Vec<String>,
    #[serde(deserialize_with = "at_most_classes")]
    pub(crate) classes: Vec<Box<RawValue>>,
    pub(crate) training: Trained,
    pub(crate) metrics: Measured,
    pub(crate) profile: Profile,
}

/// How the training went.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Trained {
    pub(crate) rows: u64,
    pub(crate) held_out: u64,
    pub(crate) left_out: u64,
    pub(crate) seed: u64,
    pub(crate) holdout: f64,
    pub(crate) parameters: Hyperparameters,
}

/// What the algorithm was told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hyperparameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_depth: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min_leaf: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) l2: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_iterations: Option<u64>,
}

/// How well it does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    /// Null where no row was held out.
    pub(crate) held_out: Option<Metrics>,
}

/// What the algorithm learned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Learned {
    Tree(Tree),
    Logistic(Logistic),
}

impl Learned {
    pub(crate) fn evaluate(&self, row: &[f64], probabilities: &mut [f64]) -> usize {
        match self {
            Learned::Tree(tree) => tree.evaluate(row, probabilities),
            Learned::Logistic(logistic) => logistic.evaluate(row, probabilities),
        }
    }

    fn check(&self, features: usize, classes: usize) -> Result<(), String> {
        match self {
            Learned::Tree(tree) => tree.check(features, classes),
            Learned::Logistic(logistic) => logistic.check(features, classes),
        }
    }
}

/// The members of `parameters` in a file, for trees.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TreeParameters<T> {
    pub(crate) nodes: T,
}

/// A model that is ready to answer.
#[derive(Debug)]
pub struct Model {
    pub(crate) about: About,
    pub(crate) learned: Learned,
    pub(crate) hash: String,
    /// By name, the place of a feature in a row.
    pub(crate) places: HashMap<String, usize>,
}

impl Model {
    /// Reads and checks a model file. The error names the file and the remedy.
    pub fn load(path: &str) -> Result<Model> {
        let text = file::read_text(path)?;
        Model::from_text(&text).map_err(|fault| anyhow!("{path}: {fault}"))
    }

    /// A model from the text of its file. The error says what is wrong and what
    /// helps.
    pub(crate) fn from_text(text: &str) -> Result<Model, String> {
        #[derive(Deserialize)]
        struct WithParameters<'a> {
            #[serde(borrow)]
            parameters: &'a RawValue,
        }
        let (text, sha256) = file::unwrap(text)?;
        let invalid = |fault: String| format!("is not a valid model: {fault}; train it again");
        let invalid_json = |error: serde_json::Error| invalid(error.to_string());
        let about: About = serde_json::from_str(text).map_err(invalid_json)?;
        about.check().map_err(invalid)?;
        let raw: WithParameters = serde_json::from_str(text).map_err(invalid_json)?;
        let raw = raw.parameters.get();
        let learned = match about.algorithm {
            Algorithm::DecisionTree | Algorithm::LinfaTree => {
                let parameters: TreeParameters<Tree> =
                    serde_json::from_str(raw).map_err(invalid_json)?;
                Learned::Tree(parameters.nodes)
            }
            Algorithm::LogisticRegression => {
                Learned::Logistic(serde_json::from_str(raw).map_err(invalid_json)?)
            }
        };
        learned
            .check(about.features.len(), about.classes.len())
            .map_err(invalid)?;
        let places = about.features.iter().cloned().zip(0..).collect();
        Ok(Model {
            about,
            learned,
            hash: sha256[..HASH_DIGITS].to_owned(),
            places,
        })
    }

    /// What policies and records call it.
    pub fn name(&self) -> &str {
        &self.about.name
    }

    /// Tells it from its predecessors.
    pub fn version(&self) -> u64 {
        self.about.version
    }

    /// The first 16 hexadecimal digits of the SHA-256 of its content.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The names of its inputs, in the order of a row.
    pub fn features(&self) -> &[String] {
        &self.about.features
    }

    /// How many classes it tells apart.
    pub fn class_count(&self) -> usize {
        self.about.classes.len()
    }

    /// The JSON text of the label of a class, such as `2` or `"virginica"`.
    pub fn label(&self, class: usize) -> &str {
        self.about.classes[class].get()
    }

    /// Reads the features out of the text of a `modelInput` into `row`, in the
    /// order of [`features`](Model::features). Other members are ignored. The
    /// error says in a few words what is wrong.
    pub fn read_input(&self, model_input: &str, row: &mut Vec<f64>) -> Result<(), String> {
        let features = &self.about.features;
        row.clear();
        // No feature is NaN, so NaN marks those that are still to come.
        row.resize(features.len(), f64::NAN);
        if !model_input.trim_ascii_start().starts_with('{') {
            return Err("modelInput is not an object".to_owned());
        }
        let mut reading = Reading {
            model: self,
            row,
            expected: 0,
            fault: None,
        };
        if object::each_member(model_input, |member| reading.take(&member)).is_none() {
            // What was seen is no JSON, or deeper than a quick look goes.
            let object =
                Object::parse(model_input).map_err(|fault| format!("modelInput is {fault}"))?;
            reading.row.fill(f64::NAN);
            (reading.expected, reading.fault) = (0, None);
            for member in &object.members {
                reading.take(member);
            }
        }
        if let Some(fault) = reading.fault {
            return Err(fault);
        }
        match row.iter().position(|value| value.is_nan()) {
            Some(place) => Err(format!("feature {} is missing", shown(&features[place]))),
            None => Ok(()),
        }
    }

    /// The class of a row of finite values, as many as there are features.
    /// `probabilities` gets one value a class; their sum is 1.
    pub fn evaluate(&self, row: &[f64], probabilities: &mut Vec<f64>) -> usize {
        probabilities.resize(self.class_count(), 0.0);
        self.learned.evaluate(row, probabilities)
    }
}

/// The features that were read of a `modelInput` so far.
struct Reading<'r> {
    model: &'r Model,
    row: &'r mut [f64],
    /// Most clients name the features in one order, the model's.
    expected: usize,
    /// The first thing that is wrong.
    fault: Option<String>,
}

impl Reading<'_> {
    fn take(&mut self, member: &Member) {
        if self.fault.is_some() {
            return;
        }
        let features = &self.model.about.features;
        let place = match features.get(self.expected) {
            Some(name) if member.is(name) => Some(self.expected),
            _ => decode_string(member.key).and_then(|name| self.model.places.get(&*name).copied()),
        };
        let Some(place) = place else {
            return;
        };
        self.expected = place + 1;
        let outcome = if !self.row[place].is_nan() {
            Err("stands there twice")
        } else if Kind::of_json(member.value) != Some(Kind::Number) {
            Err("is not a number")
        } else {
            finite_number(member.value).ok_or("is out of range")
        };
        match outcome {
            Ok(value) => self.row[place] = value,
            Err(what) => {
                self.fault = Some(format!("feature {} {what}", shown(&features[place])));
            }
        }
    }
}

/// The value of a JSON number; `None` where it is not finite. Short decimals,
/// which most are, need one division: both sides of it are exact, so its result
/// is the nearest there is.
pub(crate) fn finite_number(text: &str) -> Option<f64> {
    const TENS: [f64; 16] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    let parsed = || {
        let value: f64 = text.parse().ok()?;
        value.is_finite().then_some(value)
    };
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1.0, digits),
        None => (1.0, text),
    };
    if digits.len() > TENS.len() {
        return parsed();
    }
    let (mut whole, mut decimals, mut point) = (0u64, 0, false);
    for byte in digits.bytes() {
        match byte {
            b'0'..=b'9' => {
                whole = whole * 10 + u64::from(byte - b'0');
                decimals += usize::from(point);
            }
            b'.' if !point => point = true,
            _ => return parsed(),
        }
    }
    if whole >= 1 << 53 || digits.is_empty() {
        return parsed();
    }
    Some(sign * (whole as f64 / TENS[decimals]))
}

impl About {
    /// Checks what a file says, as far as the program relies on it.
    fn check(&self) -> Result<(), String> {
        file::check_name(&self.name)?;
        if self.features.is_empty() {
            return Err("it has no features".to_owned());
        }
        if let Some(name) = duplicate(self.features.iter().map(String::as_str)) {
            return Err(format!("feature {} stands there twice", shown(name)));
        }
        let labels: Vec<&str> = self.classes.iter().map(|class| class.get()).collect();
        if labels.len() < 2 {
            return Err("it has fewer than two classes".to_owned());
        }
        let kind = Kind::of_json(labels[0]);
        if { labels.iter() }
            .any(|label| Kind::of_json(label) != kind || label.len() > LABEL_BYTES_MAX)
            || kind.is_none()
        {
            return Err("its classes are not all strings, or numbers, or booleans".to_owned());
        }
        if let Some(label) = duplicate(labels.iter().copied()) {
            return Err(format!("class {} stands there twice", shown(label)));
        }
        if let Some(metrics) = &self.metrics.held_out {
            metrics.check(labels.len())?;
        }
        self.profile.check(&self.features, labels.len())
    }
}
