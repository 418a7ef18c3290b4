//! Writes scores. The parts that are equal in all scores are prepared once.

use crate::model::prediction::Prediction;
use crate::serve::score::answer::{Answer, ModelError};
use crate::serve::score::identity::Identity;
use crate::wire::message::{Field, Record};
use crate::wire::micros::{Decimal, Micros};
use crate::wire::object::{Object, ObjectWriter, decode_string};

/// Writes the scores of one model.
#[derive(Debug)]
pub struct ScoreWriter {
    /// The beginning of the member `result` for a number, up to the number itself.
    number_result: String,
    /// For each class, the text from the member `result` up to the value of the
    /// confidence.
    class_results: Vec<String>,
    /// For each class, its label as the key of a member.
    label_keys: Vec<String>,
    /// The beginning of the member `error`, up to the message.
    error: String,
    /// The beginning of the member `provenance.model`, up to the times.
    provenance: String,
    /// Whether the probability of every class is written.
    pub with_probabilities: bool,
    /// Whether an earlier result or error is kept as `previous`.
    pub keeps_previous: bool,
    /// Whether the scores are marked as rescored.
    pub is_rescoring: bool,
}

/// The times in a score.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The time since the request was accepted.
    pub since_request: Micros,
    /// The time in the model alone.
    pub evaluation: Micros,
}

impl ScoreWriter {
    /// Prepares the scores of a model. `labels` are the labels of its classes, as JSON text.
    pub fn new(identity: &Identity, labels: &[&str]) -> ScoreWriter {
        let Identity {
            name,
            version,
            hash,
        } = identity;
        let result = members(|result| {
            result.string("modelName", name).raw("result", "");
        });
        let number_result = format!("\"result\":{{{result}");
        let class_result = |label: &&str| format!("{number_result}{label},\"confidence\":");
        let label_key = |label: &&str| {
            let name = decode_string(label).unwrap_or((*label).into());
            members(|all| {
                all.raw(&name, "");
            })
        };
        let error = members(|error| {
            error.string("modelName", name);
        });
        let provenance = members(|entry| {
            entry
                .string("modelName", name)
                .display("modelVersion", version);
            if let Some(hash) = hash {
                entry.string("modelHash", hash);
            }
        });
        let labels = labels.iter();
        ScoreWriter {
            class_results: labels.clone().map(class_result).collect(),
            label_keys: labels.map(label_key).collect(),
            number_result,
            error,
            provenance,
            with_probabilities: false,
            keeps_previous: false,
            is_rescoring: false,
        }
    }

    /// Begins the score of a request in `out` with a copy of the request, without an
    /// earlier score.
    pub fn begin<'o>(&self, request: &Record, out: &'o mut Vec<u8>) -> ObjectWriter<'o> {
        const REPLACED: [Field; 4] = [
            Field::Result,
            Field::Error,
            Field::Provenance,
            Field::Previous,
        ];
        let earlier = request.get(Field::Result).or(request.get(Field::Error));
        match earlier.filter(|_| self.keeps_previous) {
            Some(earlier) => {
                let mut score = request.rewrite(out, &REPLACED);
                score.raw("previous", earlier);
                score
            }
            // If the request already has a member `previous`, that member is kept.
            None => request.rewrite(out, &REPLACED[..3]),
        }
    }

    /// Writes the member `result`.
    pub fn write_result(
        &self,
        score: &mut ObjectWriter,
        prediction: Prediction,
        probabilities: &[f64],
    ) {
        let class = match prediction {
            Prediction::Class(class) => class,
            Prediction::Number(number) => {
                score.members(&[&self.number_result, &shortest(number), "}"]);
                return;
            }
        };
        let confidence = six_digits(probabilities[class]);
        let begins = &self.class_results[class];
        if !self.with_probabilities {
            score.members(&[begins, &confidence, "}"]);
            return;
        }
        score.members(&[begins, &confidence]);
        let mut separator = ",\"probabilities\":{";
        for (key, probability) in self.label_keys.iter().zip(probabilities) {
            score.append(&[separator, key, &six_digits(*probability)]);
            separator = ",";
        }
        score.append(&["}}"]);
    }

    /// Writes the member `result` with the answer of a model that has no file of rv's
    /// own.
    pub fn write_answer(&self, score: &mut ObjectWriter, answer: &Answer) {
        score.members(&[&self.number_result, &answer.result]);
        if let Some(confidence) = &answer.confidence {
            score.append(&[",\"confidence\":", confidence]);
        }
        let probabilities = answer.probabilities.as_ref();
        if let Some(probabilities) = probabilities.filter(|_| self.with_probabilities) {
            score.append(&[",\"probabilities\":", probabilities]);
        }
        score.append(&["}"]);
    }

    /// Writes the member `error`.
    pub fn write_error(&self, score: &mut ObjectWriter, fault: &ModelError) {
        score.object("error", |error| {
            error
                .members(&[&self.error])
                .string("message", &fault.message);
            if let Some((status, body)) = &fault.reply {
                error.display("status", status).raw("body", body);
            }
        });
    }

    /// Writes the model's entry in `provenance`, and ends the score.
    pub fn end(&self, mut score: ObjectWriter, provenance: Option<&Object>, times: Times) {
        score.object_with("provenance", provenance, "model", |entry| {
            entry.members(&[
                &self.provenance,
                ",\"elapsedTimeAfterRequest\":",
                &times.since_request.as_millis(),
                ",\"evaluationTime\":",
                &times.evaluation.as_millis(),
                if self.is_rescoring {
                    ",\"rescored\":true"
                } else {
                    ""
                },
            ]);
        });
        score.end();
    }
}

/// The members that `write` writes, as JSON text without the braces.
fn members(write: impl FnOnce(&mut ObjectWriter)) -> String {
    let mut text = Vec::new();
    let mut object = ObjectWriter::new(&mut text);
    write(&mut object);
    String::from_utf8(text.split_off(1)).expect("written from strings")
}

/// The shortest text of a finite number that reads back as the same number.
fn shortest(number: f64) -> String {
    let (plain, scientific) = (number.to_string(), format!("{number:e}"));
    if plain.len() <= scientific.len() {
        plain
    } else {
        scientific
    }
}

/// A probability with six digits, rounded to the nearest like `{:.6}`. The
/// multiplication by a million is rounded, too. If the product is so close to the
/// middle between two results that this rounding could matter, the formatter decides.
fn six_digits(probability: f64) -> Decimal {
    let millionths = probability * 1e6;
    let floor = millionths.floor();
    let fraction = millionths - floor;
    if (fraction - 0.5).abs() > 1e-6 && (0.0..=1e6).contains(&millionths) {
        return Decimal::new(floor as i64 + i64::from(fraction > 0.5), 6);
    }
    let text = format!("{probability:.6}");
    let digits: String = text.split('.').collect();
    Decimal::new(digits.parse().unwrap_or_default(), 6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn writer(labels: &[&str]) -> ScoreWriter {
        let identity = Identity {
            name: "m".to_owned(),
            version: 1,
            hash: Some("0f".to_owned()),
        };
        ScoreWriter::new(&identity, labels)
    }

    fn result(writer: &ScoreWriter, prediction: Prediction, probabilities: &[f64]) -> String {
        let mut out = Vec::new();
        let mut score = ObjectWriter::new(&mut out);
        writer.write_result(&mut score, prediction, probabilities);
        score.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_class_has_its_label_and_probabilities() {
        let mut writer = writer(&["\"a\"", "\"b\\n\""]);
        let class = Prediction::Class(1);
        assert_eq!(
            result(&writer, class, &[0.25, 0.75]),
            r#"{"result":{"modelName":"m","result":"b\n","confidence":0.750000}}"#
        );
        writer.with_probabilities = true;
        assert_eq!(
            result(&writer, class, &[0.25, 0.75]),
            r#"{"result":{"modelName":"m","result":"b\n","confidence":0.750000,"probabilities":{"a":0.250000,"b\n":0.750000}}}"#
        );
    }

    #[test]
    fn a_number_has_no_confidence_and_its_shortest_form() {
        let mut writer = writer(&[]);
        writer.with_probabilities = true;
        for (number, text) in [
            (1.0, "1"),
            (-0.1, "-0.1"),
            (1e300, "1e300"),
            (5e-324, "5e-324"),
            (1_644_370_787.5, "1644370787.5"),
        ] {
            let expected = format!(r#"{{"result":{{"modelName":"m","result":{text}}}}}"#);
            assert_eq!(result(&writer, Prediction::Number(number), &[]), expected);
            assert_eq!(text.parse(), Ok(number));
        }
    }

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
