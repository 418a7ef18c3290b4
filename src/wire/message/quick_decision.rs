//! A fast parser for decisions of the usual form, in one pass.
//!
//! The parser reads only what a comparison of models needs. Unusual texts, such as those
//! with an escape in a key, a repeated member or a wrong type, are left to
//! [`Record`](super::Record), which accepts them or gives the error message.

use std::borrow::Cow;

use super::quick::{name, require_plain, store_once};
use super::{FIELDS, Field, Outcome, valid_id};
use crate::wire::micros::Micros;
use crate::wire::object::decode_string;
use crate::wire::scan;

/// The parts of a decision that a comparison reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuickDecision<'a> {
    /// The decoded id of the request.
    pub message_id: Cow<'a, str>,
    /// When the request was accepted.
    pub timestamp: Micros,
    /// The input of the models, as JSON text.
    pub model_input: Option<&'a str>,
    /// The `result` that the client got, as JSON text.
    pub answered: Option<&'a str>,
}

/// The parts of a candidate that a comparison reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuickCandidate<'a> {
    /// The decoded name of the model.
    pub model_name: Cow<'a, str>,
    /// The version of the model.
    pub model_version: u64,
    /// The time from the request's origin to the reading of the score.
    pub arrived_after: Option<Micros>,
    /// The whole result or error, as JSON text.
    pub outcome: Outcome<'a>,
    /// The `result` within the outcome, as JSON text.
    pub answer: Option<&'a str>,
    /// Whether the fate is `late`.
    pub is_late: bool,
}

/// Parses the decision that is all of `text`, and calls `show` with each candidate.
/// `None` if the text is invalid or unusual. The caller must then discard the candidates
/// that `show` received.
pub fn decision<'a>(
    text: &'a str,
    mut show: impl FnMut(QuickCandidate<'a>),
) -> Option<QuickDecision<'a>> {
    let mut fields = [None; FIELDS.len()];
    let mut answered = None;
    scan::whole_object(text, |key, at| {
        let field = Field::named(name(key));
        let ends = match field {
            Some(Field::Candidates) => scan::array(text, at, |at| {
                let (candidate, ends) = candidate(text, at)?;
                show(candidate);
                Some(ends)
            })?,
            Some(Field::ModelResult) => answer(text, at, &mut answered)?,
            _ => scan::value(text, at)?,
        };
        match field {
            Some(field) => store_once(&mut fields[field as usize], text.get(at..ends)?)?,
            None => require_plain(key)?,
        }
        Some(ends)
    })?;
    let field = |field: Field| fields[field as usize];
    field(Field::Candidates)?;
    Some(QuickDecision {
        message_id: valid_id(decode_string(field(Field::MessageId)?)?).ok()?,
        timestamp: Micros::parse_timestamp(field(Field::Timestamp)?).ok()?,
        model_input: field(Field::ModelInput),
        answered,
    })
}

/// The index after the value at `at`. If the value is an object, stores its member
/// `result`.
fn answer<'a>(text: &'a str, at: usize, found: &mut Option<&'a str>) -> Option<usize> {
    if text.as_bytes().get(at) != Some(&b'{') {
        return scan::value(text, at);
    }
    scan::object(text, at, |key, at| {
        let ends = scan::value(text, at)?;
        match name(key) {
            "result" => store_once(found, text.get(at..ends)?)?,
            _ => require_plain(key)?,
        }
        Some(ends)
    })
}

fn candidate(text: &str, at: usize) -> Option<(QuickCandidate<'_>, usize)> {
    let (mut model_name, mut version, mut arrived, mut fate) = (None, None, None, None);
    let (mut result, mut error, mut inner) = (None, None, None);
    let ends = scan::object(text, at, |key, at| {
        let (place, ends) = match name(key) {
            "result" => (&mut result, answer(text, at, &mut inner)?),
            "error" => (&mut error, scan::value(text, at)?),
            "modelName" => (&mut model_name, scan::value(text, at)?),
            "modelVersion" => (&mut version, scan::value(text, at)?),
            "arrivedAfter" => (&mut arrived, scan::value(text, at)?),
            "fate" => (&mut fate, scan::value(text, at)?),
            _ => return require_plain(key).and_then(|()| scan::value(text, at)),
        };
        store_once(place, text.get(at..ends)?)?;
        Some(ends)
    })?;
    let candidate = QuickCandidate {
        model_name: decode_string(model_name?)?,
        model_version: version?.parse().ok()?,
        arrived_after: arrived.and_then(Micros::parse_millis),
        outcome: match (result, error) {
            (Some(result), None) => Outcome::Result(result),
            (None, Some(error)) => Outcome::Error(error),
            _ => return None,
        },
        answer: inner,
        is_late: fate == Some("\"late\""),
    };
    Some((candidate, ends))
}

#[cfg(test)]
mod tests {
    use super::super::Record;
    use super::*;
    use crate::wire::decision::candidates_of;
    use crate::wire::object::value_of;
    use proptest::prelude::*;

    /// The decision by the parser that accepts everything.
    fn slow(text: &str) -> Option<(QuickDecision<'_>, Vec<QuickCandidate<'_>>)> {
        let record = Record::of_text(text).ok()?;
        let mut candidates = Vec::new();
        for candidate in candidates_of(&record).ok()? {
            let candidate = candidate.ok()?;
            let outcome = candidate.outcome().ok()?;
            candidates.push(QuickCandidate {
                model_name: candidate.model_name().ok()?,
                model_version: candidate.model_version().ok()?,
                arrived_after: candidate.arrived_after().ok(),
                answer: match outcome {
                    Outcome::Result(result) => value_of(result, "result"),
                    Outcome::Error(_) => None,
                },
                outcome,
                is_late: candidate.fate().is_ok_and(|fate| fate == "late"),
            });
        }
        let result = record.get(Field::ModelResult);
        let decision = QuickDecision {
            message_id: record.message_id().ok()?,
            timestamp: record.timestamp().ok()?,
            model_input: record.get(Field::ModelInput),
            answered: result.and_then(|it| value_of(it, "result")),
        };
        Some((decision, candidates))
    }

    fn quick(text: &str) -> Option<(QuickDecision<'_>, Vec<QuickCandidate<'_>>)> {
        let mut candidates = Vec::new();
        let decision = decision(text, |it| candidates.push(it))?;
        Some((decision, candidates))
    }

    const USUAL: &str = r#"{"messageId":"a","timestamp":2.5,"modelInput":{"x":[1]},"more":{"candidates":1},"modelResult":{"modelName":"dt","result":1},"provenance":{"rendezvous":{}},"candidates":[{"modelName":"dt","modelVersion":1,"modelHash":"da","arrivedAfter":5.000,"result":{"modelName":"dt","result":{"a":1}},"fate":"used"},{"modelName":"lr","modelVersion":0,"arrivedAfter":8.5,"error":{"modelName":"lr"},"fate":"late"}]}"#;

    #[test]
    fn a_usual_decision_is_read_quickly() {
        let (decision, candidates) = quick(USUAL).unwrap();
        assert_eq!(decision.answered, Some("1"));
        assert_eq!(candidates[0].answer, Some("{\"a\":1}"));
        assert!(candidates[1].is_late && candidates.len() == 2);
        assert_eq!(quick(USUAL), slow(USUAL));
    }

    proptest! {
        #[test]
        fn the_quick_parser_and_the_slow_parser_agree(
            changes in proptest::collection::vec((0..USUAL.len(), any::<prop::sample::Index>()), 1..4),
        ) {
            const PIECES: [&str; 12] = [
                "", "\"", "{", "}", "[", "]", ",", ":", " ", "\\u0061", "null", "\"result\":2,",
            ];
            let mut text = USUAL.to_owned();
            for (place, piece) in &changes {
                let place = place % text.len();
                let piece = PIECES[piece.index(PIECES.len())];
                // A piece is inserted, or it replaces a character.
                let ends = place + usize::from(piece.len() != 11 && place.is_multiple_of(2));
                text.replace_range(place..ends, piece);
            }
            if let Some(quick) = quick(&text) {
                prop_assert_eq!(Some(quick), slow(&text), "{}", text);
            }
        }
    }
}
