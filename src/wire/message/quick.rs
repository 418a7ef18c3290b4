//! A fast parser for requests and scores of the usual form, in one pass.
//!
//! The parser reads only the values that a rendezvous needs, even nested ones. Unusual
//! texts, such as those with an escape in a key, a repeated member or a wrong type, are
//! left to [`Record`](super::Record), which accepts them or gives the error message.

use super::{FIELDS, Field, Outcome, Request, Score, is_model_name, valid_id};
use crate::wire::micros::Micros;
use crate::wire::object::decode_string;
use crate::wire::scan;

/// Parses the request that is all of `text`; `None` if it is invalid or unusual.
pub fn request(text: &str) -> Option<Request<'_>> {
    let mut fields = [None; FIELDS.len()];
    scan::whole_object(text, |key, at| {
        let ends = scan::value(text, at)?;
        match Field::named(name(key)) {
            Some(field) => store_once(&mut fields[field as usize], text.get(at..ends)?)?,
            None => require_plain(key)?,
        }
        Some(ends)
    })?;
    let field = |field: Field| fields[field as usize];
    field(Field::ModelInput)?;
    if let Some(provenance) = field(Field::Provenance) {
        provenance.starts_with('{').then_some(())?;
    }
    if let Some(address) = field(Field::ReturnAddress) {
        decode_string(address)?;
    }
    Some(Request {
        message_id: valid_id(decode_string(field(Field::MessageId)?)?).ok()?,
        timestamp: Micros::parse_timestamp(field(Field::Timestamp)?).ok()?,
        text,
    })
}

/// Parses `text` as one score, with nothing after it; `None` if the text is invalid or
/// unusual.
pub fn score(text: &str) -> Option<Score<'_>> {
    let found = ScoreTexts::find(text)?;
    let field = |field: Field| found.fields[field as usize];
    Some(Score {
        message_id: valid_id(decode_string(field(Field::MessageId)?)?).ok()?,
        model_name: decode_string(found.model_name?).filter(|name| is_model_name(name))?,
        model_version: match found.version {
            Some(raw) => raw.parse().ok()?,
            None => 0,
        },
        model_hash: found.hash.and_then(decode_string),
        elapsed: found.elapsed,
        timestamp: match field(Field::Timestamp) {
            None | Some("null") => None,
            Some(raw) => Some(Micros::parse_timestamp(raw).ok()?),
        },
        outcome: match (field(Field::Result), field(Field::Error)) {
            (Some(result), None) => Outcome::Result(result),
            (None, Some(error)) => Outcome::Error(error),
            _ => return None,
        },
    })
}

/// Those values of a score that the rendezvous needs, as JSON texts.
struct ScoreTexts<'a> {
    fields: [Option<&'a str>; FIELDS.len()],
    model_name: Option<&'a str>,
    version: Option<&'a str>,
    hash: Option<&'a str>,
    elapsed: Option<&'a str>,
}

impl<'a> ScoreTexts<'a> {
    fn find(text: &'a str) -> Option<ScoreTexts<'a>> {
        let mut fields = [None; FIELDS.len()];
        let mut model_name = None;
        let (mut model, mut version, mut hash, mut elapsed) = (None, None, None, None);
        let mut of_outcome = |key, at| {
            let ends = scan::value(text, at)?;
            match name(key) {
                "modelName" => store_once(&mut model_name, text.get(at..ends)?)?,
                _ => require_plain(key)?,
            }
            Some(ends)
        };
        let mut of_model = |key, at| {
            let ends = scan::value(text, at)?;
            let place = match name(key) {
                "modelVersion" => &mut version,
                "modelHash" => &mut hash,
                "elapsedTimeAfterRequest" => &mut elapsed,
                _ => return require_plain(key).map(|()| ends),
            };
            store_once(place, text.get(at..ends)?)?;
            Some(ends)
        };
        let mut of_provenance = |key, at| {
            if name(key) != "model" {
                require_plain(key)?;
                return scan::value(text, at);
            }
            let ends = scan::object(text, at, &mut of_model)?;
            store_once(&mut model, text.get(at..ends)?)?;
            Some(ends)
        };
        scan::whole_object(text, |key, at| {
            let field = Field::named(name(key));
            let ends = match field {
                Some(Field::Result | Field::Error) => scan::object(text, at, &mut of_outcome)?,
                Some(Field::Provenance) => scan::object(text, at, &mut of_provenance)?,
                _ => scan::value(text, at)?,
            };
            match field {
                Some(field) => store_once(&mut fields[field as usize], text.get(at..ends)?)?,
                None => require_plain(key)?,
            }
            Some(ends)
        })?;
        Some(ScoreTexts {
            fields,
            model_name,
            version,
            hash,
            elapsed,
        })
    }
}

/// The text between the quotes of a key.
pub(super) fn name(key: &str) -> &str {
    key.get(1..key.len() - 1).unwrap_or_default()
}

/// Returns `None` for a key with escapes, because it may be a known name in disguise.
pub(super) fn require_plain(key: &str) -> Option<()> {
    scan::is_plain(name(key)).then_some(())
}

/// Stores a value; `None` if one is already stored.
pub(super) fn store_once<'a>(place: &mut Option<&'a str>, value: &'a str) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::super::Record;
    use super::*;
    use proptest::prelude::*;

    /// JSON values: some that occur in valid records, and others.
    fn any_value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("1".to_owned()),
            Just("-1".to_owned()),
            Just("1700000000.000498".to_owned()),
            Just("3.000".to_owned()),
            Just("null".to_owned()),
            Just("\"dt\"".to_owned()),
            Just("\"\"".to_owned()),
            Just("\"d\\u0074\"".to_owned()),
            Just("\"\\ud800\"".to_owned()),
            Just("nonsense".to_owned()),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                4 => any_object(inner.clone()),
                1 => proptest::collection::vec(inner, 0..3)
                    .prop_map(|items| format!("[{}]", items.join(","))),
            ]
        })
    }

    fn any_object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
        let key = prop_oneof![
            4 => Just("modelName"),
            4 => Just("model"),
            2 => Just("modelVersion"),
            2 => Just("modelHash"),
            2 => Just("elapsedTimeAfterRequest"),
            1 => Just("model\\u004eame"),
            1 => Just("mode\\u006c"),
            1 => Just("other"),
        ];
        proptest::collection::vec((key, value), 0..4).prop_map(|members| {
            let members: Vec<String> = members
                .iter()
                .map(|(key, value)| format!("\"{key}\":{value}"))
                .collect();
            format!("{{{}}}", members.join(", "))
        })
    }

    /// Records with further members. Most of them have the required members of a
    /// request or a score.
    fn any_record() -> impl Strategy<Value = String> {
        let usual = prop_oneof![
            6 => Just(r#""messageId":"a","timestamp":1.5,"modelInput":{"x":1}"#),
            1 => Just(r#""messageId":"a""#),
            1 => Just(r#""messageId":"""#),
            1 => Just(r#""timestamp":"now","messageId":"a","modelInput":1"#),
            1 => Just(r#""timestamp":1700000000000,"messageId":"a","modelInput":1"#),
            1 => Just(r#""timestamp":null,"messageId":"a","modelInput":1"#),
        ];
        let outcome = prop_oneof![
            4 => Just(r#","result":{"modelName":"dt","result":1}"#.to_owned()),
            1 => Just(r#","error":{"modelName":"dt"}"#.to_owned()),
            1 => Just(String::new()),
        ];
        let more = proptest::collection::vec(
            (
                prop_oneof![
                    6 => Just("provenance"),
                    2 => Just("result"),
                    1 => Just("error"),
                    1 => Just("returnAddress"),
                    1 => Just("message\\u0049d"),
                    1 => Just("candidates"),
                    2 => Just("other"),
                ],
                any_value(),
            ),
            0..3,
        );
        (usual, outcome, more).prop_map(|(usual, outcome, more)| {
            let more: Vec<String> = more
                .iter()
                .map(|(key, value)| format!(",\"{key}\" : {value}"))
                .collect();
            format!("{{{usual}{outcome}{}}}", more.concat())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]
        #[test]
        fn the_fast_parser_returns_the_same_as_the_record(text in any_record()) {
            let record = Record::parse(text.as_bytes());
            if let Some(request) = request(&text) {
                prop_assert_eq!(Ok(request), record.clone().and_then(|it| Request::read(&it)));
            }
            if let Some(score) = score(&text) {
                prop_assert_eq!(Ok(score), record.and_then(|it| Score::read(&it)));
            }
        }
    }

    #[test]
    fn the_fast_parser_accepts_usual_records() {
        let text = r#"{"messageId":"a\n","timestamp":1.5,"modelInput":[{}],"returnAddress":"r","provenance":{"x":{}},"other":"\u00e9"}"#;
        assert!(request(text).is_some());
        let text = r#"{"messageId":"a","result":{"modelName":"dt","more":1},"provenance":{"model":{"modelVersion":3,"modelHash":"ff","more":[1]},"more":{}},"more":"\n"}"#;
        assert!(score(text).is_some());
        let text = r#" { "messageId" : "a" , "error" : { "modelName" : "dt" } } "#;
        assert!(score(text).is_some());
    }

    #[test]
    fn the_fast_parser_leaves_unusual_records_to_the_record() {
        const RESULT: &str = r#""result":{"modelName":"dt"}"#;
        for members in [
            r#""result":{"modelName":"dt","modelName":"lr"}"#,
            r#""result":{"modelName":"dt","model\u004eame":"lr"}"#,
            r#""result":{"modelName":"dt"},"error":{}"#,
            r#""result":{"modelName":1}"#,
            r#""result":"dt""#,
            &format!(r#"{RESULT},"messageId":"b""#),
            &format!(r#"{RESULT},"message\u0049d":"b""#),
            &format!(r#"{RESULT},"candidates":1,"candidates":2"#),
            &format!(r#"{RESULT},"provenance":1"#),
            &format!(r#"{RESULT},"provenance":{{"model":1}}"#),
            &format!(r#"{RESULT},"provenance":{{"model":{{"modelVersion":1}},"model":{{}}}}"#),
            &format!(r#"{RESULT},"provenance":{{"mode\u006c":{{"modelVersion":1}}}}"#),
            &format!(r#"{RESULT},"provenance":{{"model":{{"modelVersion":-1}}}}"#),
            &format!(r#"{RESULT},"provenance":{{"model":{{"modelHash":"f","modelHash":"e"}}}}"#),
            &format!(r#"{RESULT},"provenance":{{"model":{{"model\u0048ash":"f"}}}}"#),
            &format!("{RESULT}}} {{"),
        ] {
            let text = format!(r#"{{"messageId":"a",{members}}}"#);
            assert_eq!(score(&text), None, "{text}");
        }
        for members in [
            r#""timestamp":1"#,
            r#""modelInput":1"#,
            r#""modelInput":1,"timestamp":"1""#,
            r#""modelInput":1,"timestamp":1,"provenance":[]"#,
            r#""modelInput":1,"timestamp":1,"returnAddress":1"#,
            r#""modelInput":1,"timestamp":1,"timest\u0061mp":2"#,
        ] {
            let text = format!(r#"{{"messageId":"a",{members}}}"#);
            assert_eq!(request(&text), None, "{text}");
        }
    }
}
