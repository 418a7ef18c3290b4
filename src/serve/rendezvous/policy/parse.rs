//! Reads a policy from its TOML text, and checks it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::serve::rendezvous::policy::{
    Expected, MeasureFrom, ModelId, Policy, PolicyIndex, Selector, Share, Split, Step,
};
use crate::wire::message::{MODEL_NAME_BYTES_MAX, is_model_name};
use crate::wire::micros::Micros;
use crate::wire::sha256::short_hash;
use crate::wire::text::Text;

/// The longest deadline. Because of this limit, sums of times in microseconds cannot
/// overflow.
const DEADLINE_MAX: Micros = Micros(24 * 3600 * 1_000_000);

/// The largest number of models in `--prefer`. Each step names all models before it, so
/// the text grows with the square of their number.
const PREFERRED_MAX: usize = 256;

impl Policy {
    /// Parses a policy. The error starts with `name`, and gives the line, the fault
    /// and the remedy.
    pub fn parse(text: &str, name: &str) -> Result<Policy, String> {
        read(text).map_err(|(span, message)| {
            let line = 1 + text[..span.start.min(text.len())].matches('\n').count();
            format!("{name}:{line}: {message}")
        })
    }

    /// The policy of `--prefer` and `--deadline`: the first model may answer from the
    /// start. The deadline is divided into as many equal parts as there are models, and
    /// each further model may answer one part later.
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
}

/// A fault of a policy: the faulty range of the text, in bytes, and the message.
type PolicyFault = (Range<usize>, String);

fn read(text: &str) -> Result<Policy, PolicyFault> {
    let written: WrittenPolicy = toml::from_str(text)
        .map_err(|error| (error.span().unwrap_or_default(), error.message().to_owned()))?;
    Checker { written: &written }.check(text)
}

/// The content of a policy's text, before the checks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPolicy {
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

struct Checker<'a> {
    written: &'a WrittenPolicy,
}

impl Checker<'_> {
    fn check(&self, text: &str) -> Result<Policy, PolicyFault> {
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
        let expect = self.expect()?;
        let steps = self.steps(deadline)?;
        let expected = expected(expect, &steps);
        let models = expected.as_ref().map_or(&[][..], |it| &it.models);
        let split = self.split()?;
        let shares = self.shares(deadline)?;
        Ok(Policy {
            index: PolicyIndex::new(models, &steps, &shares),
            deadline,
            measure_from: written.measure_from,
            expected,
            steps,
            split,
            shares,
            default: self.default()?,
            hash: short_hash(text),
            text: text.to_owned(),
        })
    }

    fn check_versions(&self) -> Result<(), PolicyFault> {
        for name in self.written.versions.keys() {
            let text = name.get_ref();
            if text.is_empty() || text.contains('@') || text == "*" {
                let message = format!(
                    "[versions] needs the name of a model without a version, and {text:?} is not one"
                );
                return Err((name.span(), message));
            }
        }
        Ok(())
    }

    fn time(&self, key: &str, written: &Spanned<f64>) -> Result<Micros, PolicyFault> {
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

    fn model(&self, written: &Spanned<String>) -> Result<ModelId, PolicyFault> {
        let text = written.get_ref().as_str();
        if text == "*" {
            let message = "\"*\" means any model, and is allowed only in the `models` of a step";
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
                let pin = self.written.versions.get(text);
                let version = pin.copied().ok_or_else(|| {
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
        if !is_model_name(name) {
            let message = format!(
                "no score can name this model: a name has at most {MODEL_NAME_BYTES_MAX} bytes and no \
                 control characters"
            );
            return Err((written.span(), message));
        }
        Ok(ModelId {
            name: name.to_owned(),
            version,
        })
    }

    fn expect(&self) -> Result<Vec<ModelId>, PolicyFault> {
        let mut expect = Vec::new();
        let mut seen = HashSet::new();
        for written in &self.written.expect {
            let model = self.model(written)?;
            if !seen.insert(model.clone()) {
                return Err((written.span(), format!("{model} is expected twice")));
            }
            expect.push(model);
        }
        Ok(expect)
    }

    fn steps(&self, deadline: Micros) -> Result<Vec<Step>, PolicyFault> {
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
            let mut selectors = Vec::with_capacity(models.len());
            let mut seen = HashSet::new();
            for model in models {
                let selector = match model.get_ref().as_str() {
                    "*" => Selector::Any,
                    _ => Selector::Model(self.model(model)?),
                };
                if !seen.insert(selector.clone()) {
                    let message = format!("{:?} appears twice in this step", model.get_ref());
                    return Err((model.span(), message));
                }
                selectors.push(selector);
            }
            steps.push(Step { after, selectors });
        }
        Ok(steps)
    }

    fn split(&self) -> Result<Option<Split>, PolicyFault> {
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

    fn shares(&self, deadline: Micros) -> Result<Vec<Share>, PolicyFault> {
        let mut shares: Vec<Share> = Vec::new();
        let mut by_start: BTreeMap<u64, usize> = BTreeMap::new();
        for written in &self.written.share {
            let WrittenShare {
                model,
                from,
                to,
                until_ms,
            } = written.get_ref();
            // The bit patterns of non-negative floats have the same order as the
            // floats. Adding 0 turns -0 into 0.
            let draws = *from + 0.0..*to;
            let start = draws.start.to_bits();
            // These comparisons also refuse NaN.
            if !(0.0 <= *from && from < to && *to <= 1.0) {
                let message = format!(
                    "a share must be within 0 and 1, with from < to, and {from}..{to} is not"
                );
                return Err((written.span(), message));
            }
            // The earlier shares do not overlap each other, so only the two
            // neighbours of this share can overlap it.
            let before = by_start.range(..=start).next_back();
            let behind = by_start.range(start..).next();
            let neighbours = before.into_iter().chain(behind);
            let overlapped = neighbours
                .map(|(_, place)| &shares[*place])
                .find(|other| other.draws.start < draws.end && draws.start < other.draws.end);
            if let Some(other) = overlapped {
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
                    "until_ms is after the deadline of {} ms",
                    deadline.as_millis()
                );
                return Err((span, message));
            }
            by_start.insert(start, shares.len());
            shares.push(Share {
                model: self.model(model)?,
                draws,
                until,
            });
        }
        Ok(shares)
    }

    fn default(&self) -> Result<Text, PolicyFault> {
        let Some(default) = &self.written.default else {
            return Ok("null".into());
        };
        let value = toml::Value::Table(default.modelResult.get_ref().clone());
        json(&value).map(Text::from).ok_or_else(|| {
            let message = "modelResult must be a value that JSON can hold, so dates and infinities are refused";
            (default.modelResult.span(), message.to_owned())
        })
    }
}

/// The models whose reports end the wait: the models in `expect`, or else the models
/// that the steps name. A step with `"*"` accepts models that are not known in advance.
fn expected(written: Vec<ModelId>, steps: &[Step]) -> Option<Expected> {
    if !written.is_empty() {
        return Some(Expected {
            models: written,
            is_written: true,
        });
    }
    let mut models = BTreeSet::new();
    for selector in steps.iter().flat_map(|step| &step.selectors) {
        match selector {
            Selector::Model(model) => models.insert(model.clone()),
            Selector::Any => return None,
        };
    }
    Some(Expected {
        models: models.into_iter().collect(),
        is_written: false,
    })
}

/// A TOML value as JSON text; `None` for dates and for numbers that JSON cannot hold.
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
