//! Determines which models of a decision gave equal results. A service without scripts
//! cannot compare members of a document, so the sink compares them.

use crate::wire::answer::is_same;
use crate::wire::decision::{Candidate, candidates_of};
use crate::wire::message::{Outcome, Record};
use crate::wire::object::{Object, ObjectWriter};

/// The largest number of models that are compared. More models would make too many pairs.
const MODELS_MAX: usize = 16;

/// The member that is added to the document.
const NAME: &str = "agreement";

/// The pairs of models that answered a request: `dt@1|lr@0`, names in ascending
/// order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    same: Vec<String>,
    different: Vec<String>,
}

impl Agreement {
    /// Compares the models of a decision. Returns `None` for other records, and for a
    /// decision that already has a member `agreement`.
    pub fn of(record: &Record) -> Option<Agreement> {
        let candidates = candidates_of(record).ok()?;
        if Object::parse(record.text()).ok()?.get(NAME).is_some() {
            return None;
        }
        let mut answers: Vec<(String, &str)> = Vec::new();
        // An entry that is not a valid candidate is not compared.
        for candidate in candidates.flatten() {
            if let Some((model, answer)) = answer(&candidate)
                && !answers.iter().any(|(earlier, _)| *earlier == model)
            {
                answers.push((model, answer));
            }
        }
        answers.sort();
        answers.truncate(MODELS_MAX);
        let mut agreement = Agreement::default();
        for (index, (one, this)) in answers.iter().enumerate() {
            for (other, that) in &answers[index + 1..] {
                let pair = format!("{one}|{other}");
                if is_same(this, that) {
                    agreement.same.push(pair);
                } else {
                    agreement.different.push(pair);
                }
            }
        }
        Some(agreement)
    }

    /// Appends the member to the document.
    pub fn write(&self, document: &mut ObjectWriter) {
        let list = |pairs: &[String]| {
            let quoted: Vec<String> = pairs
                .iter()
                .map(|pair| serde_json::Value::from(pair.as_str()).to_string())
                .collect();
            format!("[{}]", quoted.join(","))
        };
        document.object(NAME, |agreement| {
            agreement
                .raw("same", &list(&self.same))
                .raw("different", &list(&self.different));
        });
    }
}

/// A candidate's model, such as `dt@1`, and the text of its result. Returns `None` for an
/// error, also if the error is a refusal and the answer. A candidate without a version has version 0, like a score without a version.
fn answer<'a>(candidate: &Candidate<'a>) -> Option<(String, &'a str)> {
    let name = candidate.model_name().ok()?;
    let version = candidate.model_version().unwrap_or(0);
    let Outcome::Result(result) = candidate.outcome().ok()? else {
        return None;
    };
    let answer = Object::parse(result).ok()?.get("result")?;
    Some((format!("{name}@{version}"), answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(candidates: &str) -> Option<Agreement> {
        let record = format!(r#"{{"messageId":"a","candidates":{candidates}}}"#);
        Agreement::of(&Record::parse(record.as_bytes()).unwrap())
    }

    fn candidate(name: &str, version: u32, answer: &str) -> String {
        format!(
            r#"{{"modelName":"{name}","modelVersion":{version},"result":{{"result":{answer}}}}}"#
        )
    }

    #[test]
    fn each_pair_of_models_is_compared_once() {
        let all = [
            candidate("lr", 0, "1"),
            candidate("dt", 2, "1.0"),
            candidate("dt", 1, "\"1\""),
            candidate("dt", 1, "1"),
            r#"{"modelName":"x","modelVersion":1,"error":{"message":"no"}}"#.to_owned(),
            r#"{"modelName":"y","modelVersion":1,"error":{"status":422},"fate":"used"}"#.to_owned(),
            "7".to_owned(),
        ];
        let agreement = of(&format!("[{}]", all.join(","))).unwrap();
        assert_eq!(agreement.same, ["dt@2|lr@0"]);
        assert_eq!(agreement.different, ["dt@1|dt@2", "dt@1|lr@0"]);
        assert_eq!(of("[]"), Some(Agreement::default()));
        assert_eq!(of("{}"), None);
        let own = br#"{"messageId":"a","candidates":[],"agreement":1}"#;
        assert_eq!(Agreement::of(&Record::parse(own).unwrap()), None);
    }

    #[test]
    fn many_models_are_not_all_compared() {
        let all: Vec<String> = (0..40)
            .map(|version| candidate("m", version, "1"))
            .collect();
        let agreement = of(&format!("[{}]", all.join(","))).unwrap();
        assert_eq!(agreement.same.len(), MODELS_MAX * (MODELS_MAX - 1) / 2);
    }
}
