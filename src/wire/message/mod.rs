//! The records: requests, scores and responses, and the rules for a valid one.
//!
//! A [`Record`] borrows from the line it was read from. A stage that changes a record
//! removes its own members and appends the new ones at the end; all other members keep
//! their exact bytes.

mod outcome;
mod quick;
pub mod quick_decision;

use std::borrow::Cow;

pub use crate::wire::message::outcome::{Outcome, OutcomeKind};

use crate::wire::micros::Micros;
use crate::wire::object::{Object, ObjectWriter, decode_string};
use crate::wire::reject::Reject;

/// The members that stages know by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Field {
    /// The id of the request, which is unique.
    MessageId,
    /// When the request was accepted.
    Timestamp,
    /// The input of the models.
    ModelInput,
    /// The stream that wants the response.
    ReturnAddress,
    /// A field that is passed on for compatibility and never read.
    ScoreTopic,
    /// The provenance: one entry for each stage.
    Provenance,
    /// The answer of a model.
    Result,
    /// The failure of a model.
    Error,
    /// The results of earlier models, after a rescoring.
    Previous,
    /// The answer that the rendezvous chose.
    ModelResult,
    /// The refusal that is the answer.
    ModelError,
    /// All scores of a request, in its decision.
    Candidates,
}

/// The keys of all fields, in the order of [`Field`].
const FIELDS: [&str; 12] = [
    "messageId",
    "timestamp",
    "modelInput",
    "returnAddress",
    "scoreTopic",
    "provenance",
    "result",
    "error",
    "previous",
    "modelResult",
    "modelError",
    "candidates",
];

impl Field {
    /// The key of the field.
    pub fn name(self) -> &'static str {
        FIELDS[self as usize]
    }

    /// The field with the key `name`, if there is one.
    fn named(name: &str) -> Option<Field> {
        // A match compares lengths first, and most keys already differ in length.
        Some(match name {
            "messageId" => Field::MessageId,
            "timestamp" => Field::Timestamp,
            "modelInput" => Field::ModelInput,
            "returnAddress" => Field::ReturnAddress,
            "scoreTopic" => Field::ScoreTopic,
            "provenance" => Field::Provenance,
            "result" => Field::Result,
            "error" => Field::Error,
            "previous" => Field::Previous,
            "modelResult" => Field::ModelResult,
            "modelError" => Field::ModelError,
            "candidates" => Field::Candidates,
            _ => return None,
        })
    }
}

/// The longest `messageId`, in bytes after its escapes are decoded.
pub const MESSAGE_ID_BYTES_MAX: usize = 256;

/// The longest `modelName`, in bytes after its escapes are decoded.
pub const MODEL_NAME_BYTES_MAX: usize = 256;

/// A JSON object in which each known field occurs at most once.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    object: Object<'a>,
    /// The index of each field among the members.
    places: [Option<usize>; FIELDS.len()],
}

impl<'a> Record<'a> {
    /// Parses a line. The error describes the fault.
    pub fn parse(line: &'a [u8]) -> Result<Record<'a>, Reject> {
        Record::of_text(text_of(line)?)
    }

    /// Parses a text. The error describes the fault.
    pub fn of_text(text: &'a str) -> Result<Record<'a>, Reject> {
        let object = Object::parse(text).map_err(Reject::Syntax)?;
        let mut places = [None; FIELDS.len()];
        for (index, member) in object.members.iter().enumerate() {
            let Some(field) = Field::named(&member.name()) else {
                continue;
            };
            if places[field as usize].replace(index).is_some() {
                return Err(wrong(field, "occurs twice"));
            }
        }
        Ok(Record { object, places })
    }

    /// The unchanged text of the record.
    pub fn text(&self) -> &'a str {
        self.object.text()
    }

    /// The record as a list of its members.
    pub fn object(&self) -> &Object<'a> {
        &self.object
    }

    /// The text of a field's value.
    pub fn get(&self, field: Field) -> Option<&'a str> {
        self.places[field as usize].map(|index| self.object.members[index].value)
    }

    fn required(&self, field: Field) -> Result<&'a str, Reject> {
        self.get(field).ok_or_else(|| wrong(field, "is missing"))
    }

    /// An optional field that must be a string, decoded.
    fn string(&self, field: Field) -> Result<Option<Cow<'a, str>>, Reject> {
        self.get(field)
            .map(|raw| decode_string(raw).ok_or_else(|| wrong(field, "is not a string")))
            .transpose()
    }

    /// The decoded id.
    pub fn message_id(&self) -> Result<Cow<'a, str>, Reject> {
        self.required(Field::MessageId)?;
        valid_id(self.string(Field::MessageId)?.unwrap_or_default())
    }

    /// When the request was accepted.
    pub fn timestamp(&self) -> Result<Micros, Reject> {
        timestamp_of(self.required(Field::Timestamp)?)
    }

    /// Like [`timestamp`](Record::timestamp), but the field may be absent or null.
    fn timestamp_if_any(&self) -> Result<Option<Micros>, Reject> {
        let given = self.get(Field::Timestamp).filter(|raw| *raw != "null");
        given.map(timestamp_of).transpose()
    }

    /// The input of the models, as JSON text.
    pub fn model_input(&self) -> Result<&'a str, Reject> {
        self.required(Field::ModelInput)
    }

    /// The stream that wants the response.
    pub fn return_address(&self) -> Result<Option<Cow<'a, str>>, Reject> {
        self.string(Field::ReturnAddress)
    }

    /// The entries of all stages so far.
    pub fn provenance(&self) -> Result<Option<Object<'a>>, Reject> {
        self.object_at(Field::Provenance)
    }

    fn object_at(&self, field: Field) -> Result<Option<Object<'a>>, Reject> {
        self.get(field)
            .map(|raw| Object::parse(raw).map_err(|_| wrong(field, "is not an object")))
            .transpose()
    }

    /// The error of the model that refused the request, in a response or a decision.
    pub fn refusal(&self) -> Option<&'a str> {
        self.get(Field::ModelError).filter(|raw| *raw != "null")
    }

    /// Begins a copy of the record without the fields `owned`, which the caller then
    /// appends.
    pub fn rewrite<'o>(&self, out: &'o mut Vec<u8>, owned: &[Field]) -> ObjectWriter<'o> {
        self.object.rewrite(out, |index| {
            owned
                .iter()
                .any(|field| self.places[*field as usize] == Some(index))
        })
    }
}

fn text_of(line: &[u8]) -> Result<&str, Reject> {
    std::str::from_utf8(line).map_err(Reject::not_utf8)
}

fn timestamp_of(raw: &str) -> Result<Micros, Reject> {
    Micros::parse_timestamp(raw).map_err(|fault| wrong(Field::Timestamp, &fault))
}

/// Rejects the value of a field.
fn wrong(field: Field, fault: &str) -> Reject {
    wrong_at(field.name(), fault)
}

/// Rejects the value at a path such as `result.modelName`.
fn wrong_at(path: &str, fault: &str) -> Reject {
    Reject::Field(format!("field \"{path}\" {fault}"))
}

fn valid_id(id: Cow<str>) -> Result<Cow<str>, Reject> {
    match id.len() {
        1..=MESSAGE_ID_BYTES_MAX => Ok(id),
        0 => Err(wrong(Field::MessageId, "is empty")),
        length => {
            let fault = format!("has {length} bytes, more than {MESSAGE_ID_BYTES_MAX}");
            Err(wrong(Field::MessageId, &fault))
        }
    }
}

/// Whether a model may have this name: 1 to [`MODEL_NAME_BYTES_MAX`] bytes without
/// control characters. The name is used in HTTP headers, in labels of the stats and on
/// terminals.
pub fn is_model_name(name: &str) -> bool {
    (1..=MODEL_NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// The parts of a request that a rendezvous reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The id of the request, which is unique.
    pub message_id: Cow<'a, str>,
    /// When the request was accepted.
    pub timestamp: Micros,
    /// The whole record.
    pub text: &'a str,
}

impl<'a> Request<'a> {
    /// Parses a request from its line. The error describes the fault.
    pub fn parse(line: &'a [u8]) -> Result<Request<'a>, Reject> {
        let text = text_of(line)?;
        match quick::request(text) {
            Some(request) => Ok(request),
            None => Request::read(&Record::of_text(text)?),
        }
    }

    fn read(record: &Record<'a>) -> Result<Request<'a>, Reject> {
        let request = Request {
            message_id: record.message_id()?,
            timestamp: record.timestamp()?,
            text: record.text(),
        };
        record.model_input()?;
        record.provenance()?;
        record.return_address()?;
        Ok(request)
    }
}

/// The parts of a score that a rendezvous reads. Any program can be a model, so only
/// the id, the model's name and the outcome are required.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Score<'a> {
    /// The id of the request that was scored.
    pub message_id: Cow<'a, str>,
    /// The name of the model.
    pub model_name: Cow<'a, str>,
    /// The version of the model; 0 if the score has none.
    pub model_version: u64,
    /// The hash of the model's content, if the score has one.
    pub model_hash: Option<Cow<'a, str>>,
    /// The time from the request's timestamp to the score, in milliseconds, as JSON
    /// text, if the score has it.
    pub elapsed: Option<&'a str>,
    /// When the request was accepted, if the score has it.
    pub timestamp: Option<Micros>,
    /// The whole answer or failure, as JSON text.
    pub outcome: Outcome<'a>,
}

impl<'a> Score<'a> {
    /// Parses a score from its line. The error describes the fault.
    pub fn parse(line: &'a [u8]) -> Result<Score<'a>, Reject> {
        let text = text_of(line)?;
        match quick::score(text) {
            Some(score) => Ok(score),
            None => Score::read(&Record::of_text(text)?),
        }
    }

    /// Reads a score from its record. The error describes the fault.
    pub fn read(record: &Record<'a>) -> Result<Score<'a>, Reject> {
        let message_id = record.message_id()?;
        let (field, raw) = match (record.get(Field::Result), record.get(Field::Error)) {
            (Some(result), None) => (Field::Result, result),
            (None, Some(error)) => (Field::Error, error),
            (None, None) => return Err(wrong(Field::Result, "is missing")),
            (Some(_), Some(_)) => {
                return Err(Reject::Field(
                    "has both \"result\" and \"error\"".to_owned(),
                ));
            }
        };
        let answer = record.object_at(field)?;
        let wrong_name = |fault| wrong_at(&format!("{}.modelName", field.name()), fault);
        let model_name = answer
            .and_then(|answer| answer.get("modelName"))
            .ok_or_else(|| wrong_name("is missing"))?;
        let model_name = decode_string(model_name).ok_or_else(|| wrong_name("is not a string"))?;
        if !is_model_name(&model_name) {
            return Err(wrong_name(&format!(
                "is not a name of 1 to {MODEL_NAME_BYTES_MAX} bytes without control characters"
            )));
        }
        let outcome = match field {
            Field::Result => Outcome::Result(raw),
            _ => Outcome::Error(raw),
        };
        let model = match record.provenance()?.and_then(|all| all.get("model")) {
            Some(raw) => Some(
                Object::parse(raw).map_err(|_| wrong_at("provenance.model", "is not an object"))?,
            ),
            None => None,
        };
        let entry = |name| model.as_ref().and_then(|entries| entries.get(name));
        let model_version = match entry("modelVersion") {
            Some(raw) => raw.parse().map_err(|_| {
                wrong_at(
                    "provenance.model.modelVersion",
                    "is not a whole number from 0 up",
                )
            })?,
            None => 0,
        };
        Ok(Score {
            message_id,
            model_name,
            model_version,
            model_hash: entry("modelHash").and_then(decode_string),
            elapsed: entry("elapsedTimeAfterRequest"),
            timestamp: record.timestamp_if_any()?,
            outcome,
        })
    }
}

/// The parts of a response that a front end reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The id of the request that was answered.
    pub message_id: Cow<'a, str>,
    /// Whether `modelResult` is an answer. It is null for a refusal, and if no model
    /// answered and the policy has no default.
    pub has_answer: bool,
    /// The error of the model that refused the request, as JSON text; `None` if the
    /// answer is not a refusal.
    pub refusal: Option<&'a str>,
    /// The model that answered or refused, as `dt@1`, or only its name if it has no version. `None` also for an
    /// invalid name: any program can write a response.
    pub model: Option<String>,
    /// The reason for the policy's choice.
    pub reason: Option<Cow<'a, str>>,
}

impl<'a> Response<'a> {
    /// Reads a response from its record. The error describes the fault.
    pub fn read(record: &Record<'a>) -> Result<Response<'a>, Reject> {
        let model_result = record.required(Field::ModelResult)?;
        let provenance = record.provenance()?;
        let rendezvous = provenance
            .and_then(|all| all.get("rendezvous"))
            .and_then(|raw| Object::parse(raw).ok());
        let entry = |name| rendezvous.as_ref().and_then(|entries| entries.get(name));
        let refusal = record.refusal();
        let name = answering_model(model_result, refusal).filter(|name| is_model_name(name));
        let version: Option<u64> = entry("modelVersion").and_then(|raw| raw.parse().ok());
        let model = name.map(|name| match version {
            Some(version) => format!("{name}@{version}"),
            None => name.into_owned(),
        });
        Ok(Response {
            message_id: record.message_id()?,
            has_answer: model_result != "null",
            refusal,
            model,
            reason: entry("reason").and_then(decode_string),
        })
    }
}

/// The decoded name of the model that gave an answer: `model_result` is the answer, and
/// `refusal` the error of a model that refused the request.
pub fn answering_model<'a>(
    model_result: &'a str,
    refusal: Option<&'a str>,
) -> Option<Cow<'a, str>> {
    let answer = Object::parse(refusal.unwrap_or(model_result)).ok()?;
    answer.get("modelName").and_then(decode_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORE: &str = r#"{"messageId":"a","result":{"modelName":"dt","result":2},"provenance":{"model":{"modelVersion":3,"modelHash":"ff"}}}"#;

    #[test]
    fn a_score_needs_only_its_id_and_its_models_name() {
        let score = Score::parse(SCORE.as_bytes()).unwrap();
        assert_eq!((&*score.model_name, score.model_version), ("dt", 3));
        assert_eq!(score.model_hash.as_deref(), Some("ff"));
        let bare = br#"{"messageId":"a","error":{"modelName":"lr"}}"#;
        let score = Score::parse(bare).unwrap();
        assert_eq!((&*score.model_name, score.model_version), ("lr", 0));
        assert_eq!(score.outcome, Outcome::Error(r#"{"modelName":"lr"}"#));
    }

    #[test]
    fn each_fault_of_a_record_is_named() {
        for (line, reason) in [
            (r#"{"messageId":"a"}"#, "field \"result\" is missing"),
            (
                r#"{"result":{"modelName":"dt"}}"#,
                "field \"messageId\" is missing",
            ),
            (
                r#"{"messageId":1,"result":{"modelName":"dt"}}"#,
                "field \"messageId\" is not a string",
            ),
            (
                r#"{"messageId":"","result":{"modelName":"dt"}}"#,
                "field \"messageId\" is empty",
            ),
            (
                r#"{"messageId":"\ud800","result":{"modelName":"dt"}}"#,
                "field \"messageId\" is not a string",
            ),
            (
                r#"{"messageId":"a","messageId":"a"}"#,
                "field \"messageId\" occurs twice",
            ),
            (
                r#"{"messageId":"a","message\u0049d":"a"}"#,
                "field \"messageId\" occurs twice",
            ),
            (
                r#"{"messageId":"a","result":3}"#,
                "field \"result\" is not an object",
            ),
            (
                r#"{"messageId":"a","result":{}}"#,
                "field \"result.modelName\" is missing",
            ),
            (
                r#"{"messageId":"a","result":{"modelName":null}}"#,
                "field \"result.modelName\" is not a string",
            ),
            (
                r#"{"messageId":"a","result":{"modelName":"d\u000dt"}}"#,
                "field \"result.modelName\" is not a name of 1 to 256 bytes without control characters",
            ),
            (
                r#"{"messageId":"a","error":{"modelName":""}}"#,
                "field \"error.modelName\" is not a name of 1 to 256 bytes without control characters",
            ),
            (
                r#"{"messageId":"a","result":{"modelName":"x"},"error":{"modelName":"x"}}"#,
                "has both \"result\" and \"error\"",
            ),
            (
                r#"{"messageId":"a","result":{"modelName":"x"},"provenance":[]}"#,
                "field \"provenance\" is not an object",
            ),
            (
                r#"{"messageId":"a","result":{"modelName":"x"},"provenance":{"model":1}}"#,
                "field \"provenance.model\" is not an object",
            ),
            (
                r#"{"messageId":"a","result":{"modelName":"x"},"provenance":{"model":{"modelVersion":-1}}}"#,
                "field \"provenance.model.modelVersion\" is not a whole number from 0 up",
            ),
        ] {
            let reject = Score::parse(line.as_bytes()).unwrap_err();
            assert_eq!(reject, Reject::Field(reason.to_owned()), "{line}");
        }
        let long = format!(r#"{{"messageId":"{}"}}"#, "a".repeat(257));
        assert_eq!(
            Record::parse(long.as_bytes())
                .unwrap()
                .message_id()
                .unwrap_err(),
            Reject::Field("field \"messageId\" has 257 bytes, more than 256".to_owned())
        );
        assert_eq!(
            Record::parse(b"{\"\xff\":1}").unwrap_err(),
            Reject::Syntax("not UTF-8 at byte 2".to_owned())
        );
    }

    #[test]
    fn the_length_of_a_models_name_is_bounded() {
        let score =
            |name: &str| format!(r#"{{"messageId":"a","result":{{"modelName":"{name}"}}}}"#);
        let longest = "ä".repeat(MODEL_NAME_BYTES_MAX / 2);
        assert!(Score::parse(score(&longest).as_bytes()).is_ok());
        let reject = Score::parse(score(&(longest + "x")).as_bytes()).unwrap_err();
        let reason = reject.to_string();
        assert!(reason.contains("1 to 256 bytes"), "{reason}");
    }

    #[test]
    fn a_response_names_no_model_that_no_header_can_carry() {
        for name in ["a\\r\\nX-Forged: 1", "", &"x".repeat(257)] {
            let line = format!(r#"{{"messageId":"a","modelResult":{{"modelName":"{name}"}}}}"#);
            let response = Response::read(&Record::parse(line.as_bytes()).unwrap()).unwrap();
            assert_eq!(
                (response.model, response.has_answer),
                (None, true),
                "{name}"
            );
        }
    }

    #[test]
    fn a_response_names_its_model_and_reason() {
        let line = br#"{"messageId":"a","modelResult":{"modelName":"dt","result":2},"provenance":{"rendezvous":{"modelVersion":1,"reason":"preferred"}}}"#;
        let response = Response::read(&Record::parse(line).unwrap()).unwrap();
        assert_eq!(response.model.as_deref(), Some("dt@1"));
        assert_eq!(response.reason.as_deref(), Some("preferred"));
        let line = br#"{"messageId":"a","modelResult":null}"#;
        let response = Response::read(&Record::parse(line).unwrap()).unwrap();
        assert!(!response.has_answer);
        assert_eq!(response.refusal, None);
    }

    #[test]
    fn a_response_names_the_model_that_refused() {
        let error = r#"{"modelName":"dt","status":422,"body":{"detail":"no"}}"#;
        let line = format!(
            r#"{{"messageId":"a","modelResult":null,"modelError":{error},"provenance":{{"rendezvous":{{"modelVersion":1,"reason":"refused"}}}}}}"#
        );
        let response = Response::read(&Record::parse(line.as_bytes()).unwrap()).unwrap();
        assert_eq!(response.refusal, Some(error));
        assert_eq!(response.model.as_deref(), Some("dt@1"));
        assert_eq!(response.reason.as_deref(), Some("refused"));
        assert!(!response.has_answer);
    }
}
