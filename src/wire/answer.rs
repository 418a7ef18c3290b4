//! The answer of a model, and when two answers are equal. The sink and the comparison
//! share this notion, so that they never report different agreements.

use std::borrow::Cow;

use crate::wire::decimal::{canonical_number, finite_number};
use crate::wire::object::{Object, array_items, decode_string, parse_value, value_of};

/// Deeper nesting is compared by its text.
const DEPTH_MAX: usize = 128;

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

/// The number that an answer is; `None` for any other value, and for a number that is
/// too large for a 64-bit float.
pub fn number(text: &str) -> Option<f64> {
    finite_number(text)
}

/// A text that is the same for equal values: objects have sorted members, and numbers
/// one form. A text that is not JSON is returned as given.
pub fn canonical(text: &str) -> Cow<'_, str> {
    let is_small = text.len() < 16 && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_small && (text.len() == 1 || !text.starts_with('0')) && !text.is_empty() {
        return Cow::Borrowed(text);
    }
    match parse_value(text) {
        Ok(value) => {
            let mut out = String::with_capacity(value.len());
            write_canonical(value, DEPTH_MAX, &mut out);
            Cow::Owned(out)
        }
        Err(_) => Cow::Borrowed(text),
    }
}

/// Appends a valid JSON value. At most `depth` levels of nesting are made canonical.
fn write_canonical(value: &str, depth: usize, out: &mut String) {
    match value.as_bytes().first() {
        Some(b'{') if depth > 0 => match Object::parse(value) {
            Ok(object) => write_members(&object, depth - 1, out),
            Err(_) => out.push_str(value),
        },
        Some(b'[') if depth > 0 => match array_items(value) {
            Some(items) => {
                out.push('[');
                for (index, item) in items.into_iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_canonical(item, depth - 1, out);
                }
                out.push(']');
            }
            None => out.push_str(value),
        },
        Some(b'"') => write_text(value, out),
        Some(b'-' | b'0'..=b'9') => out.push_str(&canonical_number(value)),
        _ => out.push_str(value),
    }
}

fn write_members(object: &Object, depth: usize, out: &mut String) {
    let mut members: Vec<(Cow<str>, &str, &str)> = object
        .members
        .iter()
        .map(|member| (member.name(), member.key, member.value))
        .collect();
    // The sort is stable, so that the last of several equal keys counts.
    members.sort_by(|one, other| one.0.cmp(&other.0));
    out.push('{');
    let mut is_first = true;
    for (index, (name, key, value)) in members.iter().enumerate() {
        if members.get(index + 1).is_some_and(|next| next.0 == *name) {
            continue;
        }
        if !std::mem::take(&mut is_first) {
            out.push(',');
        }
        write_text(key, out);
        out.push(':');
        write_canonical(value, depth, out);
    }
    out.push('}');
}

/// Appends a JSON string in one spelling. A string with a lone surrogate is appended as
/// given.
fn write_text(raw: &str, out: &mut String) {
    match decode_string(raw) {
        Some(text) if raw.contains('\\') => {
            out.push_str(&serde_json::Value::from(&*text).to_string());
        }
        _ => out.push_str(raw),
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

    #[test]
    fn numbers_of_many_digits_keep_their_values() {
        assert!(!is_same("9007199254740993", "9007199254740992"));
        assert!(!is_same(
            r#"{"id":[12345678901234567891]}"#,
            r#"{"id":[12345678901234567890]}"#
        ));
        assert!(is_same(
            r#"{"id":[12345678901234567890]}"#,
            r#"{"id":[1.2345678901234567890e19]}"#
        ));
        assert!(!is_same("[1e400]", "[2e400]") && is_same("[1e400]", "[10e399]"));
        assert_eq!(number("1e400"), None);
    }

    #[test]
    fn nesting_and_repeated_members_are_compared() {
        assert!(is_same(r#"{"a":1,"\u0061":2}"#, r#"{"a":2}"#));
        assert!(!is_same(r#"{"a":1,"a":2}"#, r#"{"a":1}"#));
        assert!(is_same(r#"{"\ud800":[ 1 ]}"#, r#"{ "\ud800": [1.0] }"#));
        let deep = |number: u32| format!("{}{number}{}", "[".repeat(1000), "]".repeat(1000));
        assert!(is_same(&deep(1), &deep(1)) && !is_same(&deep(1), &deep(2)));
    }

    proptest! {
        #[test]
        fn numbers_are_equal_exactly_if_their_values_are(one in -1e17..1e17_f64, text in "[0-9]{1,17}") {
            let exact: u64 = text.parse().unwrap();
            if text == "0" || !text.starts_with('0') {
                let with_exponent = format!("{text}.0e0");
                prop_assert!(is_same(&text, &with_exponent));
                prop_assert!(!is_same(&text, &(exact + 1).to_string()));
            }
            let with_exponent = format!("{one:e}");
            prop_assert!(is_same(&one.to_string(), &with_exponent));
        }

        #[test]
        fn equal_values_have_one_canonical_text(value in any_value()) {
            let parsed: serde_json::Value = serde_json::from_str(&value).unwrap();
            let pretty = serde_json::to_string_pretty(&parsed).unwrap();
            prop_assert_eq!(canonical(&value), canonical(&pretty));
            let again: serde_json::Value = serde_json::from_str(&canonical(&value)).unwrap();
            prop_assert_eq!(again, parsed);
        }
    }

    /// JSON without floats, which a round trip would print anew.
    fn any_value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(|it| it.to_string()),
            Just("null".to_owned()),
            Just("true".to_owned()),
            "[a-c\u{e4}\"\\\\ ]{0,3}".prop_map(|it| serde_json::Value::from(it).to_string()),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let members = proptest::collection::vec(("[a-c]{1,2}", inner.clone()), 0..4);
            let member = |(name, value): (String, String)| format!("\"{name}\":{value}");
            prop_oneof![
                proptest::collection::vec(inner, 0..4)
                    .prop_map(|it| format!("[{}]", it.join(" , "))),
                members.prop_map(move |it| {
                    let all: Vec<String> = it.into_iter().map(member).collect();
                    format!("{{{}}}", all.join(" , "))
                }),
            ]
        })
    }
}
