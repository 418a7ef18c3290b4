//! One request, as bytes -> its score, as bytes: what does not change from record
//! to record is put into words once.

use std::time::Duration;

use crate::model::Model;
use crate::model::prediction::Prediction;
use crate::stage::clock::Clock;
use crate::wire::message::{Field, Record};
use crate::wire::micros::{Decimal, Micros};
use crate::wire::object::{ObjectWriter, decode_string};

/// How scores are written.
#[derive(Clone, Debug)]
pub struct Manner {
    /// With the probability of every class.
    pub probabilities: bool,
    /// Requests older than this are not evaluated.
    pub skip_older: Option<Duration>,
    /// The requests are recorded ones.
    pub rescore: bool,
    /// An earlier result is kept.
    pub keep_previous: bool,
    /// What is written as the time since the request.
    pub assume_elapsed: Option<Duration>,
    /// Where times come from.
    pub clock: Clock,
}

/// A model with all that it takes to write its scores. Any number of threads can
/// use one.
#[derive(Debug)]
pub struct Evaluator {
    model: Model,
    manner: Manner,
    /// A result up to its confidence, by class.
    results: Vec<String>,
    /// The names of the classes, as keys of an object.
    class_names: Vec<String>,
    /// An error up to its message.
    error: String,
    /// The entry in `provenance` up to its first time.
    entry: String,
}

/// What a thread needs to itself, made once.
#[derive(Debug, Default)]
pub struct Scratch {
    row: Vec<f64>,
    probabilities: Vec<f64>,
}

/// What came of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scored {
    /// Whether the score is an error.
    pub failed: bool,
    /// How long the evaluation took.
    pub evaluation: Micros,
}

/// The members that `write` writes, as JSON text without the braces.
fn members(write: impl FnOnce(&mut ObjectWriter)) -> String {
    let mut text = Vec::new();
    let mut object = ObjectWriter::new(&mut text);
    write(&mut object);
    String::from_utf8(text.split_off(1)).expect("written from strings")
}

impl Evaluator {
    /// Puts into words what can be.
    pub fn new(model: Model, manner: Manner) -> Evaluator {
        let name = model.name();
        let labels = model.description().labels();
        let result = |label: &str| {
            let inner = members(|result| {
                result.string("modelName", name).raw("result", label);
            });
            format!("\"result\":{{{inner},\"confidence\":")
        };
        let class_name = |label: &str| {
            let name = decode_string(label).unwrap_or(label.into());
            members(|all| {
                all.raw(&name, "");
            })
        };
        let error = members(|error| {
            error.string("modelName", name);
        });
        let entry = members(|entry| {
            entry
                .string("modelName", name)
                .display("modelVersion", model.version())
                .string("modelHash", model.hash());
        });
        Evaluator {
            results: labels.iter().map(|label| result(label)).collect(),
            class_names: labels.iter().map(|label| class_name(label)).collect(),
            error,
            entry,
            model,
            manner,
        }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The same manner with another model.
    pub fn with_model(&self, model: Model) -> Evaluator {
        Evaluator::new(model, self.manner.clone())
    }

    /// The class of the model's choice.
    pub fn evaluate(&self, scratch: &mut Scratch, model_input: &str) -> Result<Prediction, String> {
        self.model.read_input(model_input, &mut scratch.row)?;
        let row = &scratch.row;
        Ok(self.model.predict(row, &mut scratch.probabilities))
    }

    /// Appends the score of one request to `out`. The error says why the line is
    /// no request.
    pub fn score(
        &self,
        scratch: &mut Scratch,
        line: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Scored, String> {
        let record = Record::parse(line)?;
        record.message_id()?;
        let timestamp = record.timestamp()?;
        let model_input = record.model_input()?;
        let provenance = record.provenance()?;

        let manner = &self.manner;
        let begun = manner.clock.monotonic();
        // The age of a recorded request says nothing.
        let age = match manner.rescore {
            true => Micros(0),
            false => manner.clock.unix() - timestamp,
        };
        let stale = manner
            .skip_older
            .filter(|limit| age > Micros::from_duration(*limit));
        let outcome = match stale {
            Some(limit) => Err(format!(
                "not evaluated: the request is older than {}",
                humantime::format_duration(limit)
            )),
            None => self.evaluate(scratch, model_input),
        };
        let evaluation = manner.clock.monotonic() - begun;
        let elapsed = match manner.assume_elapsed {
            Some(assumed) => Micros::from_duration(assumed),
            None => age + evaluation,
        };

        let earlier = record.get(Field::Result).or(record.get(Field::Error));
        let earlier = earlier.filter(|_| manner.keep_previous);
        let owned = [
            Field::Result,
            Field::Error,
            Field::Provenance,
            Field::Previous,
        ];
        // Without an earlier result to keep, what is kept already stays.
        let owned = &owned[..owned.len() - usize::from(earlier.is_none())];
        let mut score = record.rewrite(out, owned);
        if let Some(earlier) = earlier {
            score.raw("previous", earlier);
        }
        match &outcome {
            Ok(Prediction::Class(class)) => {
                self.write_result(&mut score, *class, &scratch.probabilities);
            }
            Ok(Prediction::Number(_)) => unreachable!("every family is a classifier"),
            Err(message) => {
                score.object("error", |error| {
                    error.members(&[&self.error]).string("message", message);
                });
            }
        }
        score.object_with("provenance", provenance.as_ref(), "model", |entry| {
            entry.members(&[
                &self.entry,
                ",\"elapsedTimeAfterRequest\":",
                &elapsed.as_millis(),
                ",\"evaluationTime\":",
                &evaluation.as_millis(),
                if manner.rescore {
                    ",\"rescored\":true"
                } else {
                    ""
                },
            ]);
        });
        score.end();
        out.push(b'\n');
        Ok(Scored {
            failed: outcome.is_err(),
            evaluation,
        })
    }

    fn write_result(&self, score: &mut ObjectWriter, class: usize, probabilities: &[f64]) {
        let begins = &self.results[class];
        let confidence = six_digits(probabilities[class]);
        if !self.manner.probabilities {
            score.members(&[begins, &confidence, "}"]);
            return;
        }
        score.members(&[begins, &confidence, ",\"probabilities\":{"]);
        let mut comma = "";
        for (name, probability) in self.class_names.iter().zip(probabilities) {
            score.append(&[comma, name, &six_digits(*probability)]);
            comma = ",";
        }
        score.append(&["}}"]);
    }
}

/// A probability with six digits, rounded as `{:.6}` does it: to the nearest, by
/// the exact value. Where the product may hide on which side of the middle that
/// lies, the long way decides.
fn six_digits(probability: f64) -> Decimal {
    let millionths = probability * 1e6;
    let whole = millionths.floor();
    let fraction = millionths - whole;
    if (fraction - 0.5).abs() > 1e-6 && (0.0..=1e6).contains(&millionths) {
        return Decimal::new(whole as i64 + i64::from(fraction > 0.5), 6);
    }
    let text = format!("{probability:.6}");
    let digits: String = text.split('.').collect();
    Decimal::new(digits.parse().unwrap_or_default(), 6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn six_digits_are_those_of_the_formatter(
            probability in prop_oneof![
                0.0..=1.0f64,
                (0u32..2_000_001).prop_map(|halves| f64::from(halves) / 2e6),
                (0u32..1000, 1u32..1000).prop_map(|(a, b)| f64::from(a.min(b)) / f64::from(b)),
            ],
        ) {
            prop_assert_eq!(six_digits(probability).to_string(), format!("{:.6}", probability));
        }
    }
}
