//! What the answer is chosen by: a policy, as its author wrote it and checked.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use toml::Spanned;
use xxhash_rust::xxh3::xxh3_64;

use crate::wire::micros::Micros;
use crate::wire::object::{at_pointer, decode_string};

/// The longest deadline, so that times in microseconds stay far from their
/// bounds.
const DEADLINE_MAX: Micros = Micros(24 * 3600 * 1_000_000);

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
    pub default: Arc<str>,
    /// The first 16 hex digits of the SHA-256 of the policy's text.
    pub hash: String,
    /// The policy as it was written.
    pub text: String,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
        let at = |span: Range<usize>, message: &str| {
            let line = 1 + text[..span.start.min(text.len())].matches('\n').count();
            format!("{name}:{line}: {message}")
        };
        let written: Written = toml::from_str(text)
            .map_err(|error| at(error.span().unwrap_or_default(), error.message()))?;
        Checker { written: &written }
            .check(text)
            .map_err(|(span, message)| at(span, &message))
    }

    /// The policy of a command line: the first model alone from the start, and
    /// each next one from an equal part of the deadline on.
    pub fn from_preference(models: &[String], deadline: Duration) -> Result<Policy, String> {
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
        self.shares
            .iter()
            .position(|share| share.draws.contains(&draw))
    }

    /// Whether a place in a step means this model.
    pub fn selects(&self, selector: &Selector, name: &str, version: u64) -> bool {
        match selector {
            Selector::Model(model) => model.is(name, version),
            Selector::Any => !self
                .shares
                .iter()
                .any(|share| share.model.is(name, version)),
        }
    }
}

/// A policy as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    deadline_ms: Spanned<f64>,
    #[serde(default = "timestamp")]
    measure_from: MeasureFrom,
    #[serde(default)]
    expect: Vec<Spanned<String>>,
    #[serde(default)]
    versions: BTreeMap<Spanned<String>, u64>,
    #[serde(default)]
    prefer: Vec<Spanned<WrittenStep>>,
    split: Option<WrittenSplit>,
    #[serde(default)]
    share: Vec<Spanned<WrittenShare>>,
    default: Option<WrittenDefault>,
}

fn timestamp() -> MeasureFrom {
    MeasureFrom::Timestamp
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStep {
    after_ms: Spanned<f64>,
    models: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSplit {
    key: Spanned<String>,
    #[serde(default)]
    salt: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenShare {
    model: Spanned<String>,
    from: f64,
    to: f64,
    until_ms: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(non_snake_case)]
struct WrittenDefault {
    modelResult: Spanned<toml::Table>,
}

/// Where something is wrong, and what.
type Fault = (Range<usize>, String);

struct Checker<'a> {
    written: &'a Written,
}

impl Checker<'_> {
    fn check(&self, text: &str) -> Result<Policy, Fault> {
        let written = self.written;
        self.check_versions()?;
        let deadline = self.time("deadline_ms", &written.deadline_ms)?;
        if deadline.0 <= 0 || deadline > DEADLINE_MAX {
            let message = "deadline_ms must be more than 0 and at most a day";
            return Err((written.deadline_ms.span(), message.to_owned()));
        }
        if written.prefer.is_empty() && written.share.is_empty() {
            let message = "no model can answer: add a [[prefer]] step with its `models`";
            return Err((0..0, message.to_owned()));
        }
        Ok(Policy {
            deadline,
            measure_from: written.measure_from,
            expect: self.expect()?,
            steps: self.steps(deadline)?,
            split: self.split()?,
            shares: self.shares(deadline)?,
            default: self.default()?,
            hash: hash(text),
            text: text.to_owned(),
        })
    }

    fn check_versions(&self) -> Result<(), Fault> {
        for name in self.written.versions.keys() {
            let text = name.get_ref();
            if text.is_empty() || text.contains('@') || text == "*" {
                let message = format!("[versions] pins bare names, and {text:?} is none");
                return Err((name.span(), message));
            }
        }
        Ok(())
    }

    fn time(&self, key: &str, written: &Spanned<f64>) -> Result<Micros, Fault> {
        let millis = *written.get_ref();
        if millis.is_finite() && (0.0..=1e12).contains(&millis) {
            Ok(Micros::from_millis(millis))
        } else {
            Err((
                written.span(),
                format!("{key} must be a number of milliseconds from 0 up"),
            ))
        }
    }

    fn model(&self, written: &Spanned<String>) -> Result<ModelId, Fault> {
        let text = written.get_ref().as_str();
        if text == "*" {
            let message = "\"*\" stands for any model, and only in the `models` of a step";
            return Err((written.span(), message.to_owned()));
        }
        let (name, version) = match text.rsplit_once('@') {
            Some((name, version)) => {
                let version = version.parse().map_err(|_| {
                    let message = format!("{text:?}: a version is a whole number, as in \"dt@1\"");
                    (written.span(), message)
                })?;
                (name, version)
            }
            None => {
                let pins = &self.written.versions;
                let pin = pins.iter().find(|(name, _)| name.get_ref() == text);
                let version = pin.map(|(_, version)| *version).ok_or_else(|| {
                    let message = format!(
                        "{text:?} has no version: write \"{text}@1\", or pin it with `{text} = 1` \
                         under [versions]"
                    );
                    (written.span(), message)
                })?;
                (text, version)
            }
        };
        if name.is_empty() || name == "*" {
            let message = format!("{text:?} names no model; write it as \"name@version\"");
            return Err((written.span(), message));
        }
        Ok(ModelId {
            name: name.to_owned(),
            version,
        })
    }

    fn expect(&self) -> Result<Vec<ModelId>, Fault> {
        let mut expect = Vec::new();
        for written in &self.written.expect {
            let model = self.model(written)?;
            if expect.contains(&model) {
                return Err((written.span(), format!("{model} is expected twice")));
            }
            expect.push(model);
        }
        Ok(expect)
    }

    fn steps(&self, deadline: Micros) -> Result<Vec<Step>, Fault> {
        let mut steps: Vec<Step> = Vec::new();
        for written in &self.written.prefer {
            let WrittenStep { after_ms, models } = written.get_ref();
            let after = self.time("after_ms", after_ms)?;
            if steps.last().is_some_and(|last| last.after >= after) {
                let message = "steps must stand in the order of their after_ms, each later than \
                               the one before";
                return Err((after_ms.span(), message.to_owned()));
            }
            if after > deadline {
                let message = format!(
                    "this step begins after the deadline of {} ms and would never count",
                    deadline.as_millis()
                );
                return Err((after_ms.span(), message));
            }
            if models.is_empty() {
                let message = "this step accepts no model: name one in `models`, or leave the \
                               step out";
                return Err((written.span(), message.to_owned()));
            }
            let mut selectors = Vec::new();
            for model in models {
                let selector = match model.get_ref().as_str() {
                    "*" => Selector::Any,
                    _ => Selector::Model(self.model(model)?),
                };
                if selectors.contains(&selector) {
                    let message = format!("{:?} stands twice in this step", model.get_ref());
                    return Err((model.span(), message));
                }
                selectors.push(selector);
            }
            steps.push(Step { after, selectors });
        }
        Ok(steps)
    }

    fn split(&self) -> Result<Option<Split>, Fault> {
        let Some(written) = &self.written.split else {
            return match self.written.share.first() {
                None => Ok(None),
                Some(share) => {
                    let message = "a share needs a [split] that says what is drawn, as in \
                                   `key = \"messageId\"`";
                    Err((share.span(), message.to_owned()))
                }
            };
        };
        let key = written.key.get_ref();
        let pointer = match key.as_str() {
            "messageId" => "/messageId".to_owned(),
            pointer if pointer.starts_with('/') => pointer.to_owned(),
            _ => {
                let message = format!(
                    "{key:?} is neither \"messageId\" nor a JSON pointer such as \
                     \"/modelInput/customer\""
                );
                return Err((written.key.span(), message));
            }
        };
        Ok(Some(Split {
            pointer,
            salt: written.salt.clone(),
        }))
    }

    fn shares(&self, deadline: Micros) -> Result<Vec<Share>, Fault> {
        let mut shares: Vec<Share> = Vec::new();
        for written in &self.written.share {
            let WrittenShare {
                model,
                from,
                to,
                until_ms,
            } = written.get_ref();
            let draws = *from..*to;
            // Also refuses NaN.
            if !(0.0 <= *from && from < to && *to <= 1.0) {
                let message =
                    format!("a share lies within 0 and 1, from < to, and {from}..{to} does not");
                return Err((written.span(), message));
            }
            if let Some(other) = shares
                .iter()
                .find(|other| other.draws.start < draws.end && draws.start < other.draws.end)
            {
                let message = format!(
                    "overlaps the share {}..{} of {}: a request has one draw and waits for one \
                     model",
                    other.draws.start, other.draws.end, other.model
                );
                return Err((written.span(), message));
            }
            let until = match until_ms {
                Some(until) => self.time("until_ms", until)?,
                None => deadline,
            };
            if until > deadline {
                let span = until_ms.as_ref().map_or(written.span(), Spanned::span);
                let message = format!(
                    "until_ms is past the deadline of {} ms",
                    deadline.as_millis()
                );
                return Err((span, message));
            }
            shares.push(Share {
                model: self.model(model)?,
                draws,
                until,
            });
        }
        Ok(shares)
    }

    fn default(&self) -> Result<Arc<str>, Fault> {
        let Some(default) = &self.written.default else {
            return Ok("null".into());
        };
        let value = toml::Value::Table(default.modelResult.get_ref().clone());
        json(&value).map(Arc::from).ok_or_else(|| {
            let message = "modelResult must be what JSON can say: no dates, no infinities";
            (default.modelResult.span(), message.to_owned())
        })
    }
}

/// A TOML value as JSON text; `None` for a date or a number that JSON has not.
fn json(value: &toml::Value) -> Option<String> {
    use toml::Value;
    let quoted = |text: &str| serde_json::to_string(text).ok();
    match value {
        Value::String(text) => quoted(text),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => serde_json::Number::from_f64(*number).map(|it| it.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Datetime(_) => None,
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(json).collect();
            Some(format!("[{}]", items?.join(",")))
        }
        Value::Table(members) => {
            let members: Option<Vec<String>> = members
                .iter()
                .map(|(key, value)| Some(format!("{}:{}", quoted(key)?, json(value)?)))
                .collect();
            Some(format!("{{{}}}", members?.join(",")))
        }
    }
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
deadline_ms = 100
measure_from = "arrival"
expect = ["dt", "lr"]

[versions]
dt = 1
lr = 0

[[prefer]]
after_ms = 0
models = ["dt"]

[[prefer]]
after_ms = 50.5
models = ["dt", "lr@3", "*"]

[split]
key = "/modelInput/customer"
salt = "rollout-7"

[[share]]
model = "dt@2"
from = 0.00
to = 0.5
until_ms = 80

[default]
modelResult = { result = 0.50, modelName = "default", more = [1, true] }
"#;

    fn model(name: &str, version: u64) -> ModelId {
        ModelId {
            name: name.to_owned(),
            version,
        }
    }

    #[test]
    fn a_whole_policy_is_read() {
        let policy = Policy::parse(WHOLE, "policy.toml").unwrap();
        assert_eq!(policy.deadline, Micros(100_000));
        assert_eq!(policy.measure_from, MeasureFrom::Arrival);
        assert_eq!(policy.expect, [model("dt", 1), model("lr", 0)]);
        assert_eq!(policy.steps[1].after, Micros(50_500));
        assert_eq!(
            policy.steps[1].selectors,
            [
                Selector::Model(model("dt", 1)),
                Selector::Model(model("lr", 3)),
                Selector::Any
            ]
        );
        assert_eq!(policy.shares[0].until, Micros(80_000));
        assert_eq!(
            &*policy.default,
            r#"{"result":0.5,"modelName":"default","more":[1,true]}"#
        );
        assert_eq!(policy.hash.len(), 16);
        assert!(policy.selects(&Selector::Any, "x", 9));
        assert!(!policy.selects(&Selector::Any, "dt", 2));
    }

    #[test]
    fn each_fault_is_named_with_its_line_and_remedy() {
        for (from, to, expected) in [
            ("expect =", "expects =", "p:4: unknown field `expects`"),
            (
                "dt = 1",
                "",
                "p:4: \"dt\" has no version: write \"dt@1\", or pin it with `dt = 1` under [versions]",
            ),
            ("dt = 1", "dt = -1", "p:7: "),
            (
                "dt = 1",
                "\"dt@1\" = 1",
                "p:7: [versions] pins bare names, and \"dt@1\" is none",
            ),
            (
                "lr@3",
                "lr@x",
                "p:16: \"lr@x\": a version is a whole number, as in \"dt@1\"",
            ),
            (
                "lr@3",
                "@3",
                "p:16: \"@3\" names no model; write it as \"name@version\"",
            ),
            ("lr@3", "dt@1", "p:16: \"dt@1\" stands twice in this step"),
            (
                "after_ms = 50.5",
                "after_ms = 0",
                "p:15: steps must stand in the order",
            ),
            (
                "after_ms = 50.5",
                "after_ms = 101",
                "p:15: this step begins after the deadline",
            ),
            (
                "after_ms = 50.5",
                "after_ms = nan",
                "p:15: after_ms must be a number of milliseconds from 0 up",
            ),
            (
                "deadline_ms = 100",
                "deadline_ms = 0",
                "p:2: deadline_ms must be more than 0",
            ),
            ("deadline_ms = 100", "", "p:1: missing field `deadline_ms`"),
            ("to = 0.5", "to = 1.5", "p:22: a share lies within 0 and 1"),
            ("to = 0.5", "to = 0.0", "p:22: a share lies within 0 and 1"),
            (
                "until_ms = 80",
                "until_ms = 101",
                "p:26: until_ms is past the deadline",
            ),
            (
                "[split]\nkey = \"/modelInput/customer\"\nsalt = \"rollout-7\"",
                "",
                "p:20: a share needs a [split]",
            ),
            (
                "key = \"/modelInput/customer\"",
                "key = \"customer\"",
                "p:19: \"customer\" is neither \"messageId\" nor a JSON pointer",
            ),
            (
                "[default]",
                "[[share]]\nmodel = \"x@1\"\nfrom = 0.4\nto = 0.6\n[default]",
                "p:28: overlaps the share 0..0.5 of dt@2",
            ),
            (
                "result = 0.50",
                "result = 1979-05-27",
                "p:29: modelResult must be what JSON can say",
            ),
            (
                "models = [\"dt\"]",
                "models = []",
                "p:10: this step accepts no model",
            ),
            (
                "expect = [\"dt\", \"lr\"]",
                "expect = [\"dt\", \"dt@1\"]",
                "p:4: dt@1 is expected twice",
            ),
        ] {
            let text = WHOLE.replacen(from, to, 1);
            assert_ne!(text, WHOLE, "{from}");
            let error = Policy::parse(&text, "p").unwrap_err();
            assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
        }
        assert_eq!(
            Policy::parse("deadline_ms = 1", "p").unwrap_err(),
            "p:1: no model can answer: add a [[prefer]] step with its `models`"
        );
    }

    #[test]
    fn a_preference_gives_each_next_model_an_equal_part_of_the_deadline() {
        let models = ["dt@1".to_owned(), "lr@0".to_owned()];
        let policy = Policy::from_preference(&models, Duration::from_millis(100)).unwrap();
        let dt = Selector::Model(model("dt", 1));
        let lr = Selector::Model(model("lr", 0));
        let expected = [
            Step {
                after: Micros(0),
                selectors: vec![dt.clone()],
            },
            Step {
                after: Micros(50_000),
                selectors: vec![dt, lr],
            },
        ];
        assert_eq!(policy.steps, expected);
        assert!(Policy::from_preference(&["dt".to_owned()], Duration::from_secs(1)).is_err());
    }

    #[test]
    fn the_draw_of_a_request_is_fixed_by_salt_and_key() {
        let policy = |from: f64, to: f64| {
            let share = format!("from = {from:?}\nto = {to:?}");
            let text = WHOLE.replace("from = 0.00\nto = 0.5", &share);
            Policy::parse(&text, "p").unwrap()
        };
        let request = |key: &str| format!(r#"{{"modelInput":{{"customer":{key}}}}}"#);
        // xxh3_64(b"rollout-7\0alice") / 2**64 and xxh3_64(b"rollout-7\x0017") / 2**64
        // by the reference implementation in Python.
        for (key, draw) in DRAWS {
            let (below, above) = (draw - 1e-9, draw + 1e-9);
            assert_eq!(
                policy(below, above).share_of(&request(key)),
                Some(0),
                "{key}"
            );
        }
        for nothing in ["null", "[1]", "{}"] {
            assert_eq!(
                policy(0.0, 1.0).share_of(&request(nothing)),
                None,
                "{nothing}"
            );
        }
        assert_eq!(policy(0.0, 1.0).share_of("{}"), None);
    }

    const DRAWS: [(&str, f64); 3] = [
        ("\"alice\"", ALICE),
        ("\"al\\u0069ce\"", ALICE),
        ("17", SEVENTEEN),
    ];
    const ALICE: f64 = 0.876_049_729_269_474_3;
    const SEVENTEEN: f64 = 0.241_120_278_130_805_2;
}
