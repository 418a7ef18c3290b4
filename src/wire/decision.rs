//! Reads the records of decisions and their candidates, for every program that needs
//! them.

use std::borrow::Cow;

use crate::wire::message::{Field, Outcome, Record, answering_model};
use crate::wire::micros::Micros;
use crate::wire::object::{Object, array_items, decode_string};
use crate::wire::reject::Reject;

/// The members that a rendezvous adds to the request in a decision.
pub const DECISION_FIELDS: [Field; 4] = [
    Field::ModelResult,
    Field::ModelError,
    Field::Provenance,
    Field::Candidates,
];

/// A recorded decision. [`Decision::candidates`] reads its candidates.
#[derive(Clone, Debug)]
pub struct Decision<'a> {
    /// The decoded id of the request.
    pub message_id: Cow<'a, str>,
    /// When the request was accepted.
    pub timestamp: Micros,
    /// The answer, as JSON text. It is null for a refusal.
    pub model_result: &'a str,
    /// The error of the model that refused the request, as JSON text; `None` if the
    /// answer is not a refusal.
    pub model_error: Option<&'a str>,
    /// The model that answered or refused, such as `dt@1`; `None` for the policy's
    /// default.
    pub model: Option<String>,
    /// The name of the rule that gave the answer.
    pub reason: Cow<'a, str>,
    /// The time from the request's origin to the answer.
    pub answered_after: Option<Micros>,
    /// The hash of the policy that chose the answer.
    pub policy_hash: Cow<'a, str>,
    record: Record<'a>,
}

impl<'a> Decision<'a> {
    /// Parses a decision from its line. The error describes the fault.
    pub fn parse(line: &'a [u8]) -> Result<Decision<'a>, Reject> {
        let record = Record::parse(line)?;
        let message_id = record.message_id()?;
        let timestamp = record.timestamp()?;
        record.model_input()?;
        let model_result = record
            .get(Field::ModelResult)
            .ok_or_else(|| wrong("modelResult", "is missing"))?;
        let rendezvous = record
            .provenance()?
            .and_then(|all| all.get("rendezvous"))
            .ok_or_else(|| wrong("provenance.rendezvous", "is missing"))?;
        let rendezvous = Object::parse(rendezvous)
            .map_err(|_| wrong("provenance.rendezvous", "is not an object"))?;
        let text = |name: &str| {
            let raw = rendezvous.get(name).and_then(decode_string);
            raw.ok_or_else(|| wrong(&format!("provenance.rendezvous.{name}"), "is not a string"))
        };
        let version: Option<u64> = rendezvous
            .get("modelVersion")
            .and_then(|raw| raw.parse().ok());
        let model_error = record.refusal();
        let name = answering_model(model_result, model_error);
        Ok(Decision {
            message_id,
            timestamp,
            model_result,
            model_error,
            model: version
                .zip(name)
                .map(|(version, name)| format!("{name}@{version}")),
            reason: text("reason")?,
            answered_after: rendezvous
                .get("answeredAfter")
                .and_then(Micros::parse_millis),
            policy_hash: text("policyHash")?,
            record,
        })
    }

    /// Reads every candidate with `read`. The error names the candidate by its index,
    /// from 0.
    pub fn candidates<T>(
        &self,
        read: impl Fn(&Candidate<'a>) -> Result<T, String>,
    ) -> Result<Vec<T>, Reject> {
        let named = |(place, candidate): (usize, Result<Candidate<'a>, String>)| {
            candidate
                .and_then(|candidate| read(&candidate))
                .map_err(|fault| Reject::Field(format!("candidate {place}: {fault}")))
        };
        candidates_of(&self.record)?
            .enumerate()
            .map(named)
            .collect()
    }

    /// The request as it was before the decision.
    pub fn request(&self) -> Result<String, Reject> {
        let mut out = Vec::with_capacity(self.record.text().len());
        let mut request = self.record.rewrite(&mut out, &DECISION_FIELDS);
        if let Some(provenance) = self.record.provenance()? {
            let is_added = |index: usize| provenance.members[index].is("rendezvous");
            if (0..provenance.members.len()).any(|index| !is_added(index)) {
                let mut kept = Vec::new();
                provenance.rewrite(&mut kept, is_added).end();
                request.raw("provenance", &String::from_utf8_lossy(&kept));
            }
        }
        request.end();
        String::from_utf8(out).map_err(|error| Reject::not_utf8(error.utf8_error()))
    }
}

/// Rejects the value at a path such as `provenance.rendezvous`.
fn wrong(path: &str, fault: &str) -> Reject {
    Reject::Field(format!("field \"{path}\" {fault}"))
}

/// The candidates of a record. Returns an error if the record is not a decision, or if a
/// candidate is not an object.
pub fn candidates_of<'a>(
    record: &Record<'a>,
) -> Result<impl Iterator<Item = Result<Candidate<'a>, String>> + use<'a>, Reject> {
    let candidates = record
        .get(Field::Candidates)
        .ok_or_else(|| wrong("candidates", "is missing; a decision has it"))?;
    let candidates =
        array_items(candidates).ok_or_else(|| wrong("candidates", "is not an array"))?;
    Ok(candidates.into_iter().map(Candidate::parse))
}

/// One score of a decision. A field is checked when it is read, and each error names
/// its field. So a reader accepts a candidate if the fields that it needs are valid.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    entry: Object<'a>,
}

impl<'a> Candidate<'a> {
    fn parse(raw: &'a str) -> Result<Candidate<'a>, String> {
        let entry = Object::parse(raw).map_err(|_| "not an object")?;
        Ok(Candidate { entry })
    }

    fn string(&self, name: &str) -> Result<Cow<'a, str>, String> {
        self.entry
            .get(name)
            .and_then(decode_string)
            .ok_or_else(|| format!("field \"{name}\" is not a string"))
    }

    /// The decoded name of the model.
    pub fn model_name(&self) -> Result<Cow<'a, str>, String> {
        self.string("modelName")
    }

    /// The model's version.
    pub fn model_version(&self) -> Result<u64, String> {
        let version = self.entry.get("modelVersion");
        let version = version.and_then(|raw| raw.parse().ok());
        version.ok_or_else(|| "field \"modelVersion\" is not a whole number from 0 up".to_owned())
    }

    /// The hash of the model's content, if the score named it.
    pub fn model_hash(&self) -> Option<Cow<'a, str>> {
        self.string("modelHash").ok()
    }

    /// The time from the request's origin to the reading of the score.
    pub fn arrived_after(&self) -> Result<Micros, String> {
        let arrived = self.entry.get("arrivedAfter");
        arrived
            .and_then(Micros::parse_millis)
            .ok_or_else(|| "field \"arrivedAfter\" is not a number of milliseconds".to_owned())
    }

    /// The whole result or error, as JSON text.
    pub fn outcome(&self) -> Result<Outcome<'a>, String> {
        match (self.entry.get("result"), self.entry.get("error")) {
            (Some(result), None) => Ok(Outcome::Result(result)),
            (None, Some(error)) => Ok(Outcome::Error(error)),
            _ => Err("does not have exactly one of \"result\" and \"error\"".to_owned()),
        }
    }

    /// Whether the score came from a shadow, so that it could not answer.
    pub fn is_shadow(&self) -> Result<bool, String> {
        match self.entry.get("shadow") {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err("field \"shadow\" is neither true nor false".to_owned()),
        }
    }

    /// The name of the score's fate.
    pub fn fate(&self) -> Result<Cow<'a, str>, String> {
        self.string("fate")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"messageId":"\u0061","x":1.10,"timestamp":2,"modelInput":{},"modelResult":{"modelName":"dt","result":1},"provenance":{"tee":1,"rendezvous":{"modelVersion":1,"reason":"preferred","answeredAfter":5.000,"policyHash":"00ff"}},"candidates":[{"modelName":"dt","modelVersion":1,"modelHash":"da","arrivedAfter":5.000,"result":{"modelName":"dt","result":1},"fate":"used"},{"modelName":"lr","modelVersion":0,"arrivedAfter":8.5,"error":{"modelName":"lr"},"fate":"failed"}]}"#;

    #[test]
    fn a_decision_is_read_back_with_its_request_and_its_candidates() {
        let decision = Decision::parse(LINE.as_bytes()).unwrap();
        assert_eq!(decision.message_id, "a");
        assert_eq!(decision.timestamp, Micros(2_000_000));
        assert_eq!(decision.model.as_deref(), Some("dt@1"));
        assert_eq!(decision.reason, "preferred");
        assert_eq!(decision.answered_after, Some(Micros(5_000)));
        assert_eq!(
            decision.request().unwrap(),
            r#"{"messageId":"\u0061","x":1.10,"timestamp":2,"modelInput":{},"provenance":{"tee":1}}"#
        );
        let candidates = decision.candidates(|it| {
            let model = format!("{}@{}", it.model_name()?, it.model_version()?);
            Ok((
                model,
                it.model_hash(),
                it.arrived_after()?,
                it.outcome()?,
                it.fate()?,
            ))
        });
        let result = Outcome::Result(r#"{"modelName":"dt","result":1}"#);
        let error = Outcome::Error(r#"{"modelName":"lr"}"#);
        assert_eq!(
            candidates.unwrap(),
            [
                (
                    "dt@1".to_owned(),
                    Some("da".into()),
                    Micros(5_000),
                    result,
                    "used".into()
                ),
                (
                    "lr@0".to_owned(),
                    None,
                    Micros(8_500),
                    error,
                    "failed".into()
                ),
            ]
        );
    }

    #[test]
    fn each_fault_of_a_decision_is_named() {
        for (from, to, reason) in [
            (
                r#""modelResult":"#,
                r#""m":"#,
                "field \"modelResult\" is missing",
            ),
            (
                r#""rendezvous":"#,
                r#""r":"#,
                "field \"provenance.rendezvous\" is missing",
            ),
            (
                r#""reason":"preferred""#,
                r#""reason":1"#,
                "field \"provenance.rendezvous.reason\" is not a string",
            ),
            (
                r#""candidates":"#,
                r#""c":"#,
                "field \"candidates\" is missing; a decision has it",
            ),
            (
                r#""candidates":["#,
                r#""candidates":[7,"#,
                "candidate 0: not an object",
            ),
            (
                r#""modelVersion":0"#,
                r#""modelVersion":-1"#,
                "candidate 1: field \"modelVersion\" is not a whole number from 0 up",
            ),
            (
                r#""arrivedAfter":8.5"#,
                r#""arrivedAfter":"soon""#,
                "candidate 1: field \"arrivedAfter\" is not a number of milliseconds",
            ),
            (
                r#""error":"#,
                r#""e":"#,
                "candidate 1: does not have exactly one of \"result\" and \"error\"",
            ),
            (
                r#""fate":"failed""#,
                r#""fate":null"#,
                "candidate 1: field \"fate\" is not a string",
            ),
        ] {
            let line = LINE.replacen(from, to, 1);
            assert_ne!(line, LINE, "{from}");
            let read = Decision::parse(line.as_bytes()).and_then(|decision| {
                decision.candidates(|it| {
                    it.model_version()?;
                    it.arrived_after()?;
                    it.outcome()?;
                    it.fate()?;
                    Ok(())
                })
            });
            assert_eq!(read.unwrap_err().to_string(), reason, "{line}");
        }
    }
}
