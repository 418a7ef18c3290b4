//! What rv-up needs to know of a policy: which models may answer, which models it expects,
//! and the deadline. `rv-rendezvous check` has checked the policy before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

/// A model, as a policy names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelId {
    /// The name.
    pub name: String,
    /// The version.
    pub version: u64,
}

impl fmt::Display for ModelId {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}@{}", self.name, self.version)
    }
}

/// The models that a policy names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedModels {
    /// The models that may answer.
    pub answering: BTreeSet<ModelId>,
    /// Whether any model may answer, because a step holds `*`.
    pub any: bool,
    /// The models that the policy expects to report.
    pub expected: BTreeSet<ModelId>,
    /// The deadline in milliseconds.
    pub deadline_ms: f64,
}

#[derive(Deserialize)]
struct Written {
    deadline_ms: f64,
    #[serde(default)]
    expect: Vec<String>,
    #[serde(default)]
    versions: BTreeMap<String, u64>,
    #[serde(default)]
    prefer: Vec<Step>,
    #[serde(default)]
    share: Vec<Share>,
}

#[derive(Deserialize)]
struct Step {
    models: Vec<String>,
}

#[derive(Deserialize)]
struct Share {
    model: String,
}

impl NamedModels {
    /// Reads a policy. The error says why it cannot be read.
    pub fn read(text: &str) -> Result<NamedModels, String> {
        let written: Written = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let mut named = NamedModels {
            deadline_ms: written.deadline_ms,
            ..NamedModels::default()
        };
        let of = |selector: &str| match selector.rsplit_once('@') {
            Some((name, version)) => version.parse().ok().map(|version| ModelId {
                name: name.to_owned(),
                version,
            }),
            None => written.versions.get(selector).map(|version| ModelId {
                name: selector.to_owned(),
                version: *version,
            }),
        };
        let steps = written.prefer.iter().flat_map(|step| &step.models);
        let shares = written.share.iter().map(|share| &share.model);
        for selector in steps.chain(shares) {
            named.any |= selector == "*";
            named.answering.extend(of(selector));
        }
        named.expected = written.expect.iter().filter_map(|it| of(it)).collect();
        if written.expect.is_empty() {
            named.expected.clone_from(&named.answering);
        }
        Ok(named)
    }

    /// Whether this model may answer.
    pub fn may_answer(&self, model: &ModelId) -> bool {
        self.any || self.answering.contains(model)
    }
}

/// The policy under which one model alone answers, within ten seconds.
pub fn production_alone(model: &ModelId) -> String {
    format!(
        "# rv-up wrote this policy, because there is no other: {model} alone answers.\n\
         deadline_ms = {DEADLINE_MS}\n\n[[prefer]]\nafter_ms = 0\nmodels = [{:?}]\n",
        model.to_string()
    )
}

/// The deadline of the policy that rv-up writes.
const DEADLINE_MS: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str, version: u64) -> ModelId {
        ModelId {
            name: name.to_owned(),
            version,
        }
    }

    #[test]
    fn selectors_of_steps_and_shares_may_answer_and_expected_models_may_not() {
        let text = "deadline_ms = 100\nexpect = [\"dt\", \"lr@3\"]\n[versions]\ndt = 1\n\
            [[prefer]]\nafter_ms = 0\nmodels = [\"dt\"]\n\
            [[share]]\nmodel = \"dt@2\"\nfrom = 0\nto = 0.1\n[split]\nkey = \"messageId\"";
        let named = NamedModels::read(text).unwrap();
        assert!(named.may_answer(&id("dt", 1)) && named.may_answer(&id("dt", 2)));
        assert!(!named.may_answer(&id("lr", 3)) && !named.any);
        assert_eq!(named.expected, [id("dt", 1), id("lr", 3)].into());
        assert_eq!(named.deadline_ms, 100.0);
    }

    #[test]
    fn a_star_lets_every_model_answer() {
        let text = "deadline_ms = 1\n[[prefer]]\nafter_ms = 0\nmodels = [\"*\"]";
        assert!(NamedModels::read(text).unwrap().may_answer(&id("x", 9)));
    }

    #[test]
    fn under_the_written_policy_the_production_model_alone_answers() {
        let named = NamedModels::read(&production_alone(&id("a \"b\"", 4))).unwrap();
        assert_eq!(named.answering, [id("a \"b\"", 4)].into());
        assert_eq!((named.any, named.deadline_ms), (false, 10_000.0));
    }
}
