//! The answer of a model, and when two answers are equal. The sink and the comparison
//! share this notion, so that they never report different agreements.

use std::borrow::Cow;

use serde_json::Value;

use crate::wire::object::value_of;

/// The answer in a model's `result`: the text of its inner `result`, or of null if that
/// is missing.
pub fn answer_of(outcome: &str) -> &str {
    value_of(outcome, "result").unwrap_or("null")
}

/// Whether two answers are equal as values: `1` and `1.0` are, and so are two objects
/// with the same members in another order.
pub fn is_same(one: &str, other: &str) -> bool {
    one == other || canonical(one) == canonical(other)
}

/// The number that an answer is; `None` for any other value.
pub fn number(text: &str) -> Option<f64> {
    let may_be = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    may_be.then(|| text.parse().ok()).flatten()
}

/// A text that is the same for equal values. A text that is not JSON is returned as
/// given.
pub fn canonical(text: &str) -> Cow<'_, str> {
    let is_small = text.len() < 16 && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_small && (text.len() == 1 || !text.starts_with('0')) {
        return Cow::Borrowed(text);
    }
    match serde_json::from_str(text) {
        Ok(value) => {
            let mut out = String::with_capacity(text.len());
            write_canonical(&value, &mut out);
            Cow::Owned(out)
        }
        Err(_) => Cow::Borrowed(text),
    }
}

/// Appends a value with sorted keys, and with numbers in one form.
pub fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => match number.as_f64() {
            // Zero has two forms.
            Some(0.0) => out.push('0'),
            Some(value) => out.push_str(&value.to_string()),
            None => out.push_str(&number.to_string()),
        },
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (index, (name, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_canonical(member, out);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_spelling_of_an_answer_does_not_matter() {
        for (one, other) in [
            (r#"{"a":1, "b":2}"#, r#"{"b":2,"a":1.0}"#),
            ("1e1", "10"),
            ("0", "-0.0"),
            (r#""a""#, r#""\u0061""#),
            ("[1,2]", "[1.0, 2]"),
        ] {
            assert!(is_same(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("1", "true"),
            ("1", "\"1\""),
            ("nan", "nan2"),
            ("01", "1"),
            ("[1,2]", "[2,1]"),
        ] {
            assert!(!is_same(one, other), "{one} {other}");
        }
        assert_eq!(answer_of(r#"{"modelName":"dt","result":2}"#), "2");
        assert_eq!(answer_of(r#"{"modelName":"dt"}"#), "null");
    }

    proptest! {
        #[test]
        fn numbers_are_equal_exactly_if_their_values_are(one in -1e17..1e17_f64, text in "[0-9]{1,17}") {
            let whole = text.parse::<f64>().unwrap();
            let with_exponent = format!("{whole:e}");
            if text == "0" || !text.starts_with('0') {
                prop_assert!(is_same(&text, &with_exponent));
            }
            let with_exponent = format!("{one:e}");
            prop_assert!(is_same(&one.to_string(), &with_exponent));
            prop_assert_eq!(is_same(&one.to_string(), &text), one == whole);
        }
    }
}
