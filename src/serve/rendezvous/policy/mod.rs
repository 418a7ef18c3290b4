//! A policy: which scores may answer a request, and from which time on.

mod index;
mod parse;
mod parts;

use xxhash_rust::xxh3::xxh3_64;

pub use crate::serve::rendezvous::policy::index::{AcceptingSteps, NamedModel, PolicyIndex};
pub use crate::serve::rendezvous::policy::parts::{
    Expected, MeasureFrom, ModelId, Selector, Share, Split, Step,
};
use crate::wire::micros::Micros;
use crate::wire::object::{at_pointer, decode_string};
use crate::wire::text::Text;

/// A checked policy. [`Policy::parse`] makes one from its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The latest time of an answer, measured from a request's origin.
    pub deadline: Micros,
    /// The meaning of a request's origin.
    pub measure_from: MeasureFrom,
    /// The models whose reports end the wait for further scores; `None` if any model may
    /// answer, so that no set of reports can end the wait.
    pub expected: Option<Expected>,
    /// The steps, in the order of time.
    pub steps: Vec<Step>,
    /// How the draw of a request is computed; `None` without shares.
    pub split: Option<Split>,
    /// The shares. A request in a share waits for the share's model first.
    pub shares: Vec<Share>,
    /// The answer if no acceptable score arrives, as JSON text.
    pub default: Text,
    /// The first 16 hex digits of the SHA-256 of the policy's text.
    pub hash: String,
    /// The policy's text, as it was read.
    pub text: String,
    /// The rules of the policy, by model.
    pub index: PolicyIndex,
}

impl Policy {
    /// The current step at `at`. Before any step has begun, returns the first step.
    pub fn step_at(&self, at: Micros) -> usize {
        let begun = self.steps.partition_point(|step| step.after <= at);
        begun.saturating_sub(1)
    }

    /// The share of a request, as its index in [`shares`](Policy::shares).
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
