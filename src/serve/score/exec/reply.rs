//! Reads the replies of a program from their text.

use crate::serve::score::answer::{Answer, ModelError};
use crate::stage::report::shown;
use crate::wire::object::{Object, array_items, decode_string, parse_value};

/// The longest error text that is taken from a reply, in characters.
const MESSAGE_CHARS_MAX: usize = 1000;

/// The outcome of one request.
pub type Outcome = Result<Answer, ModelError>;

/// Reads a line that answers `count` inputs. The line is given without its newline. If
/// `is_batch` is set, the line must be an array of `count` replies. Otherwise the line
/// is the reply to one input. Returns exactly `count` outcomes, in the order of the
/// inputs.
pub fn read_line(line: &[u8], count: usize, is_batch: bool) -> Vec<Outcome> {
    let outcomes = match json(line) {
        Ok(text) if is_batch => read_batch(text, count),
        Ok(text) => Ok(vec![read_one(text)]),
        Err(error) => Err(error),
    };
    outcomes.unwrap_or_else(|error| vec![Err(error); count])
}

/// The JSON value in a line.
fn json(line: &[u8]) -> Result<&str, ModelError> {
    let Ok(text) = std::str::from_utf8(line) else {
        return Err(ModelError::new(format!(
            "the program wrote invalid UTF-8: {}",
            shown(&String::from_utf8_lossy(line))
        )));
    };
    if text.trim().is_empty() {
        return Err(ModelError::new("the program wrote an empty line"));
    }
    parse_value(text).map_err(|fault| {
        let remedy = match text.contains("NaN") || text.contains("Infinity") {
            true => "; JSON has no NaN and no Infinity",
            false => "",
        };
        ModelError::new(format!(
            "the program wrote {}, which is not JSON ({fault}){remedy}",
            shown(text)
        ))
    })
}

fn read_batch(text: &str, count: usize) -> Result<Vec<Outcome>, ModelError> {
    let Some(replies) = array_items(text) else {
        return Err(ModelError::new(format!(
            "the program wrote {} instead of an array of {count} replies; with --batch a line is an array, and so is its reply",
            shown(text)
        )));
    };
    if replies.len() != count {
        return Err(ModelError::new(format!(
            "the program wrote an array of {} for {count} inputs",
            replies.len()
        )));
    }
    Ok(replies.into_iter().map(read_one).collect())
}

/// Reads the reply to one input.
fn read_one(text: &str) -> Outcome {
    let whole = || Ok(Answer::of_result(text.to_owned()));
    if !text.starts_with('{') {
        return whole();
    }
    let Ok(object) = Object::parse(text) else {
        return whole();
    };
    let members = &object.members;
    if !members.is_empty() && members.iter().all(|member| member.is("error")) {
        let error = object.get("error").unwrap_or_default();
        return Err(ModelError::new(error_text(error)));
    }
    let is_result_form = object.get("result").is_some()
        && members.iter().all(|member| {
            ["result", "confidence", "probabilities"]
                .iter()
                .any(|name| member.is(name))
        });
    match is_result_form {
        true => read_result_form(&object),
        false => whole(),
    }
}

fn read_result_form(object: &Object) -> Outcome {
    let given = |name| object.get(name).filter(|text| *text != "null");
    let confidence = given("confidence");
    if let Some(text) = confidence.filter(|text| !is_probability(text)) {
        return Err(ModelError::new(format!(
            "the program wrote the confidence {}, which is not a number from 0 to 1",
            shown(text)
        )));
    }
    let probabilities = given("probabilities");
    if let Some(text) = probabilities {
        let all = Object::parse(text).ok();
        let are_valid =
            all.is_some_and(|all| all.members.iter().all(|it| is_probability(it.value)));
        if !are_valid {
            return Err(ModelError::new(format!(
                "the program wrote the probabilities {}, which are not an object of numbers from 0 to 1",
                shown(text)
            )));
        }
    }
    Ok(Answer {
        result: object.get("result").unwrap_or("null").to_owned(),
        confidence: confidence.map(str::to_owned),
        probabilities: probabilities.map(str::to_owned),
    })
}

fn is_probability(text: &str) -> bool {
    // Rust also parses texts such as `inf`. They are not JSON, so they were refused
    // before.
    let number: Result<f64, _> = text.parse();
    number.is_ok_and(|number| (0.0..=1.0).contains(&number))
}

/// The message in the member `error`: the text of a string, or the JSON text of any
/// other value.
fn error_text(error: &str) -> String {
    let text = decode_string(error).unwrap_or(error.into());
    let cut: String = text.chars().take(MESSAGE_CHARS_MAX).collect();
    match cut.len() < text.len() {
        true => format!("{cut}..."),
        false => cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Outcome {
        let outcomes = read_line(text.as_bytes(), 1, false);
        assert_eq!(outcomes.len(), 1);
        outcomes.into_iter().next().unwrap()
    }

    #[test]
    fn each_form_of_a_reply_is_read_by_the_rule() {
        for whole in [
            "1.10",
            "\"a\"",
            "null",
            "[1,2]",
            "{}",
            r#"{"result":1,"other":2}"#,
            r#"{"error":"x","code":2}"#,
            r#"{"confidence":1}"#,
            r#"{"probabilities":{}}"#,
            r#"{"Result":1}"#,
        ] {
            assert_eq!(one(whole), Ok(Answer::of_result(whole.to_owned())));
        }
        let answer = one(r#" {"result":{"a":1.0}, "confidence" : 0.50,"probabilities":{"x":1}} "#);
        assert_eq!(
            answer,
            Ok(Answer {
                result: "{\"a\":1.0}".to_owned(),
                confidence: Some("0.50".to_owned()),
                probabilities: Some("{\"x\":1}".to_owned()),
            })
        );
        assert_eq!(
            one(r#"{"result":null,"confidence":null,"probabilities":null}"#),
            Ok(Answer::of_result("null".to_owned()))
        );
        assert_eq!(
            one(r#"{"error":"no \"age\""}"#),
            Err(ModelError::new("no \"age\""))
        );
        assert_eq!(
            one(r#"{"error":{"code":1}}"#),
            Err(ModelError::new("{\"code\":1}"))
        );
        let long = one(&format!("{{\"error\":\"{}\"}}", "x".repeat(5000))).unwrap_err();
        assert_eq!(long.message.len(), MESSAGE_CHARS_MAX + 3);
    }

    #[test]
    fn nonsense_is_an_error_that_shows_it() {
        for (text, message) in [
            (
                &b"loading model"[..],
                "\"loading model\", which is not JSON",
            ),
            (b"{\"result\":NaN}", "JSON has no NaN"),
            (b"1 2", "not JSON"),
            (b"", "empty line"),
            (b"\r", "empty line"),
            (b"\"\xff\"", "invalid UTF-8"),
            (b"{\"result\":1,\"confidence\":1.1}", "from 0 to 1"),
            (b"{\"result\":1,\"confidence\":\"high\"}", "from 0 to 1"),
            (b"{\"result\":1,\"probabilities\":[1]}", "not an object"),
            (
                b"{\"result\":1,\"probabilities\":{\"a\":2}}",
                "not an object",
            ),
        ] {
            let outcomes = read_line(text, 1, false);
            let error = outcomes[0].as_ref().unwrap_err();
            assert!(error.message.contains(message), "{}", error.message);
        }
        let deep = "[".repeat(100_000);
        assert!(one(&deep).is_err());
    }

    #[test]
    fn a_batch_of_another_length_fails_as_a_whole() {
        for text in ["[1]", "[1,2,3]", "[]", "1", "{\"error\":\"x\"}", "[1,2"] {
            let outcomes = read_line(text.as_bytes(), 2, true);
            assert!(
                outcomes.len() == 2 && outcomes.iter().all(Result::is_err),
                "{text}: {outcomes:?}"
            );
        }
        let outcomes = read_line(b"[1,{\"error\":\"no\"},{\"result\":[2]}]\r", 3, true);
        assert_eq!(outcomes[0], Ok(Answer::of_result("1".to_owned())));
        assert_eq!(outcomes[1], Err(ModelError::new("no")));
        assert_eq!(outcomes[2], Ok(Answer::of_result("[2]".to_owned())));
    }

    proptest! {
        #[test]
        fn any_bytes_give_one_outcome_for_each_input(
            line in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..60),
                "[\\[\\]{}\",:0-9a-z ]{0,40}".prop_map(String::into_bytes),
                "(\\[|)\\{\"(result|error|confidence)\":[0-9.]{1,3}(,\"confidence\":0.5|)\\}(,1\\]|\\]|)"
                    .prop_map(String::into_bytes),
            ],
            count in 1usize..5,
        ) {
            prop_assert_eq!(read_line(&line, count, true).len(), count);
            for outcome in read_line(&line, 1, false).into_iter().flatten() {
                prop_assert!(parse_value(&outcome.result).is_ok());
            }
        }
    }
}
