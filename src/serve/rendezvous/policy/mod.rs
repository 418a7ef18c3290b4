//! What the answer is chosen by: a policy, as its author wrote it and checked.

mod index;
mod written;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

pub use crate::serve::rendezvous::policy::index::{Accepting, Index, step_at};
use crate::wire::micros::Micros;
use crate::wire::object::{at_pointer, decode_string};
use crate::wire::text::Text;

/// The most models of a preference on the command line.
const PREFERRED_MAX: usize = 256;

/// A checked policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The last moment of an answer, from a request's origin.
    pub deadline: Micros,
    /// What a request's origin is.
    pub measure_from: MeasureFrom,
    /// The models that report on every request; empty where nothing was said.
    pub expect: Vec<ModelId>,
    /// What is acceptable from when on, in the order of time.
    pub steps: Vec<Step>,
    /// Which part of a request decides its share; `None` without shares.
    pub split: Option<Split>,
    /// Requests that wait for one model first.
    pub shares: Vec<Share>,
    /// The answer when nothing acceptable came, as JSON text.
    pub default: Text,
    /// The first 16 hex digits of the SHA-256 of the policy's text.
    pub hash: String,
    /// The policy as it was written.
    pub text: String,
    /// Which steps accept which model.
    pub index: Index,
}

/// What time is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeasureFrom {
    /// The request's own `timestamp`.
    Timestamp,
    /// Its arrival at the rendezvous.
    Arrival,
}

/// One model: a name and a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId {
    /// The model's name.
    pub name: String,
    /// The version that is meant, and no other.
    pub version: u64,
}

impl ModelId {
    /// Whether this is the model of that name and version.
    pub fn is(&self, name: &str, version: u64) -> bool {
        self.version == version && self.name == name
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}@{}", self.name, self.version)
    }
}

/// What is acceptable from a moment on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// From a request's origin.
    pub after: Micros,
    /// In order of preference.
    pub selectors: Vec<Selector>,
}

/// Which models a place in a step means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// One model.
    Model(ModelId),
    /// Any model that no share names.
    Any,
}

/// What the draw of a request is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// A JSON pointer into the request.
    pub pointer: String,
    /// Makes the draws of two policies independent of each other.
    pub salt: String,
}

/// The requests that wait for one model first.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// The model that they wait for.
    pub model: ModelId,
    /// The draws that belong to it.
    pub draws: Range<f64>,
    /// How long they wait for it alone.
    pub until: Micros,
}

impl Policy {
    /// Reads a policy. The error names the line, what is wrong and the remedy;
    /// `name` is what it calls the policy.
    pub fn parse(text: &str, name: &str) -> Result<Policy, String> {
        written::read(text).map_err(|(span, message)| {
            let line = 1 + text[..span.start.min(text.len())].matches('\n').count();
            format!("{name}:{line}: {message}")
        })
    }

    /// The policy of a command line: the first model alone from the start, and
    /// each next one from an equal part of the deadline on.
    /// A step names all models before it, so their number is bounded.
    pub fn from_preference(models: &[String], deadline: Duration) -> Result<Policy, String> {
        if models.len() > PREFERRED_MAX {
            return Err(format!(
                "--prefer names {} models, more than {PREFERRED_MAX}: write a policy file",
                models.len()
            ));
        }
        let deadline = Micros::from_duration(deadline);
        let mut text = format!("deadline_ms = {}\n", deadline.as_millis());
        for count in 1..=models.len() {
            let after = deadline.0 / models.len() as i64 * (count as i64 - 1);
            let names: Vec<String> = models[..count]
                .iter()
                .map(|name| format!("{name:?}"))
                .collect();
            text += &format!(
                "\n[[prefer]]\nafter_ms = {}\nmodels = [{}]\n",
                Micros(after).as_millis(),
                names.join(", ")
            );
        }
        Policy::parse(&text, "--prefer")
    }

    /// The share that a request belongs to, by its place among
    /// [`shares`](Policy::shares).
    pub fn share_of(&self, request: &str) -> Option<usize> {
        let split = self.split.as_ref()?;
        let value = at_pointer(request, &split.pointer)?;
        let key = match decode_string(value) {
            Some(text) => text,
            None if value.starts_with(['{', '[', '"']) || value == "null" => return None,
            None => value.into(),
        };
        let mut drawn = Vec::with_capacity(split.salt.len() + 1 + key.len());
        drawn.extend_from_slice(split.salt.as_bytes());
        drawn.push(0);
        drawn.extend_from_slice(key.as_bytes());
        let draw = xxh3_64(&drawn) as f64 / 2f64.powi(64);
        let share = self.index.share_from(draw)?;
        self.shares[share].draws.contains(&draw).then_some(share)
    }
}

#[cfg(test)]
mod tests;
