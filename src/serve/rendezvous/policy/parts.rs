//! The parts of a policy: its steps, its shares, and the models that they name.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;

use crate::wire::micros::Micros;

/// The moment from which the times of a request are counted: its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeasureFrom {
    /// The request's own `timestamp`.
    Timestamp,
    /// The moment at which the rendezvous read the request.
    Arrival,
}

/// One model: a name and a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId {
    /// The model's name.
    pub name: String,
    /// The version. Other versions of the model do not match.
    pub version: u64,
}

impl ModelId {
    /// Whether this model has the given name and version.
    pub fn is(&self, name: &str, version: u64) -> bool {
        self.version == version && self.name == name
    }
}

impl Step {
    /// The model whose refusal the step accepts as the answer: the model that the first
    /// selector names. `None` if the first selector is `"*"`, which names no model.
    pub fn first_model(&self) -> Option<&ModelId> {
        match self.selectors.first() {
            Some(Selector::Model(model)) => Some(model),
            _ => None,
        }
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}@{}", self.name, self.version)
    }
}

/// The models whose reports end the wait for further scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The models, each once.
    pub models: Vec<ModelId>,
    /// Whether the policy has the list in `expect`. Otherwise these are the models that
    /// the steps name.
    pub is_written: bool,
}

/// The models that may answer from a certain time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When the step begins, measured from the request's origin.
    pub after: Micros,
    /// The models, in order of preference.
    pub selectors: Vec<Selector>,
}

/// One entry in the preference of a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// One model.
    Model(ModelId),
    /// Any model that no share names.
    Any,
}

/// How the draw of a request is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The key that is hashed: a JSON pointer into the request.
    pub pointer: String,
    /// A text that is hashed with the key. Policies with different salts have
    /// independent draws.
    pub salt: String,
}

/// A part of the requests that waits for one model before the steps apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// The model.
    pub model: ModelId,
    /// The draws of the share, within 0 to 1. A request is in the share if its draw
    /// is in this range.
    pub draws: Range<f64>,
    /// The time until which a request of the share waits for the model, measured from
    /// the request's origin.
    pub until: Micros,
}
