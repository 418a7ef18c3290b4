//! A policy as it is written, and what has to hold for it to be one.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use crate::serve::rendezvous::policy::{
    Index, MeasureFrom, ModelId, Policy, Selector, Share, Split, Step,
};
use crate::wire::hash::sha256_hex;
use crate::wire::message::{MODEL_NAME_BYTES_MAX, is_model_name};
use crate::wire::micros::Micros;
use crate::wire::text::Text;

/// The longest deadline, so that times in microseconds stay far from their
/// bounds.
const DEADLINE_MAX: Micros = Micros(24 * 3600 * 1_000_000);

/// Reads and checks a policy. The error says where in the text something is
/// wrong, and what.
pub fn read(text: &str) -> Result<Policy, Fault> {
    let written: Written = toml::from_str(text)
        .map_err(|error| (error.span().unwrap_or_default(), error.message().to_owned()))?;
    Checker { written: &written }.check(text)
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
pub type Fault = (Range<usize>, String);

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
        let expect = self.expect()?;
        let steps = self.steps(deadline)?;
        let split = self.split()?;
        let shares = self.shares(deadline)?;
        Ok(Policy {
            index: Index::new(&expect, &steps, &shares),
            deadline,
            measure_from: written.measure_from,
            expect,
            steps,
            split,
            shares,
            default: self.default()?,
            hash: sha256_hex(text)[..16].to_owned(),
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

    fn expect(&self) -> Result<Vec<ModelId>, Fault> {
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
            let mut selectors = Vec::with_capacity(models.len());
            let mut seen = HashSet::new();
            for model in models {
                let selector = match model.get_ref().as_str() {
                    "*" => Selector::Any,
                    _ => Selector::Model(self.model(model)?),
                };
                if !seen.insert(selector.clone()) {
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
        let mut by_start: BTreeMap<u64, usize> = BTreeMap::new();
        for written in &self.written.share {
            let WrittenShare {
                model,
                from,
                to,
                until_ms,
            } = written.get_ref();
            // The bits of numbers from 0 up are in the order of the numbers; the sum
            // makes 0 of -0.
            let draws = *from + 0.0..*to;
            let start = draws.start.to_bits();
            // Also refuses NaN.
            if !(0.0 <= *from && from < to && *to <= 1.0) {
                let message =
                    format!("a share lies within 0 and 1, from < to, and {from}..{to} does not");
                return Err((written.span(), message));
            }
            // Shares do not overlap, so only the neighbours can meet this one.
            let before = by_start.range(..=start).next_back();
            let behind = by_start.range(start..).next();
            let neighbours = before.into_iter().chain(behind);
            let met = neighbours
                .map(|(_, place)| &shares[*place])
                .find(|other| other.draws.start < draws.end && draws.start < other.draws.end);
            if let Some(other) = met {
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
            by_start.insert(start, shares.len());
            shares.push(Share {
                model: self.model(model)?,
                draws,
                until,
            });
        }
        Ok(shares)
    }

    fn default(&self) -> Result<Text, Fault> {
        let Some(default) = &self.written.default else {
            return Ok("null".into());
        };
        let value = toml::Value::Table(default.modelResult.get_ref().clone());
        json(&value).map(Text::from).ok_or_else(|| {
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
