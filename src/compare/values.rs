//! Compares two answers: classes by equality, numbers within a tolerance, other JSON
//! field by field.

use std::collections::BTreeMap;

use crate::wire::answer::{is_same, number};
use crate::wire::object::{Object, array_items};

/// Deeper nesting is one field.
const DEPTH_MAX: usize = 128;

/// When two answers are equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Equality {
    /// The largest difference of two equal numbers; `None` if answers are classes.
    pub tolerance: Option<f64>,
}

/// Whether an answer has fields.
pub fn is_compound(answer: &str) -> bool {
    answer.starts_with(['{', '['])
}

/// The leaves of an answer by their path: `box.x`, `boxes[].x`. The items of an array
/// share one path, in their order.
type Leaves<'a> = BTreeMap<String, Vec<&'a str>>;

impl Equality {
    /// Whether two answers are equal.
    #[inline]
    pub fn is_same(self, one: &str, other: &str) -> bool {
        if one == other {
            return true;
        }
        let Some(tolerance) = self.tolerance else {
            return is_same(one, other);
        };
        if let Some(is_near) = is_near(one, other, tolerance) {
            return is_near;
        }
        if is_compound(one) && is_compound(other) {
            return self.fields(one, other).iter().all(|(_, is_same)| *is_same);
        }
        is_same(one, other)
    }

    /// For each field of two compound answers: its path, and whether it is equal. A
    /// field that one answer lacks differs.
    pub fn fields(self, one: &str, other: &str) -> Vec<(String, bool)> {
        let (one, mut other) = (leaves(one), leaves(other));
        let mut fields = Vec::with_capacity(one.len());
        for (path, values) in one {
            let is_same = match other.remove(&path) {
                Some(others) => {
                    values.len() == others.len()
                        && values
                            .iter()
                            .zip(&others)
                            .all(|it| self.is_same_leaf(it.0, it.1))
                }
                None => false,
            };
            fields.push((path, is_same));
        }
        fields.extend(other.into_keys().map(|path| (path, false)));
        fields
    }

    fn is_same_leaf(self, one: &str, other: &str) -> bool {
        let near = |tolerance| is_near(one, other, tolerance);
        let is_near = self.tolerance.and_then(near);
        is_near.unwrap_or_else(|| is_same(one, other))
    }
}

/// Whether two numbers differ by at most `tolerance`. `None` if one of the texts is not a
/// number, or a number too large for a float.
fn is_near(one: &str, other: &str, tolerance: f64) -> Option<bool> {
    let floats = (number(one)?, number(other)?);
    // The floats of two large whole numbers may be equal although the numbers are not.
    let difference = match (one.parse::<i128>(), other.parse::<i128>()) {
        (Ok(one), Ok(other)) => one.checked_sub(other).map(|it| it.unsigned_abs() as f64),
        _ => None,
    };
    let (one, other) = floats;
    Some(difference.unwrap_or((one - other).abs()) <= tolerance)
}

fn leaves(answer: &str) -> Leaves<'_> {
    let mut leaves = Leaves::new();
    collect(answer, String::new(), DEPTH_MAX, &mut leaves);
    leaves
}

/// Adds the leaves of a value. What cannot be taken apart is one leaf, so that two
/// different texts never count as equal.
fn collect<'a>(value: &'a str, path: String, depth: usize, leaves: &mut Leaves<'a>) {
    if depth > 0 && value.starts_with('{') {
        if let Ok(object) = Object::parse(value)
            && !object.members.is_empty()
        {
            // The last of several equal keys counts.
            let members: BTreeMap<_, _> = object
                .members
                .iter()
                .map(|member| (member.name(), member.value))
                .collect();
            for (name, value) in members {
                let path = match path.is_empty() {
                    true => name.into_owned(),
                    false => format!("{path}.{name}"),
                };
                collect(value, path, depth - 1, leaves);
            }
            return;
        }
    } else if depth > 0
        && value.starts_with('[')
        && let Some(items) = array_items(value)
        && !items.is_empty()
    {
        let path = path + "[]";
        for item in items {
            collect(item, path.clone(), depth - 1, leaves);
        }
        return;
    }
    leaves.entry(path).or_default().push(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXACT: Equality = Equality { tolerance: None };
    const NEAR: Equality = Equality {
        tolerance: Some(0.1),
    };

    #[test]
    fn numbers_are_equal_within_the_tolerance() {
        assert!(NEAR.is_same("1", "1.05") && !NEAR.is_same("1", "1.2"));
        assert!(!EXACT.is_same("1", "1.05") && EXACT.is_same("1", "1.0"));
        assert!(!NEAR.is_same("1", "\"1\""));
        assert!(NEAR.is_same(r#"{"x":1,"n":"a"}"#, r#"{"n":"a","x":1.09}"#));
        assert!(!NEAR.is_same(r#"{"x":1}"#, r#"{"x":1,"y":2}"#));
    }

    #[test]
    fn what_is_no_number_is_never_near() {
        for (one, other) in [
            ("null", "true"),
            ("1e400", "2e400"),
            ("\"a\"", "\"b\""),
            ("9007199254740993", "9007199254740992"),
            (r#"{"x":1e400}"#, r#"{"x":2e400}"#),
            (r#"{"x":"a"}"#, r#"{"x":"b"}"#),
            ("[]", "{}"),
        ] {
            assert!(!NEAR.is_same(one, other), "{one} {other}");
            assert!(!EXACT.is_same(one, other), "{one} {other}");
        }
        // Nesting beyond every limit.
        let deep = |number: u32| format!("{}{number}{}", "[".repeat(5000), "]".repeat(5000));
        let (one, other) = (deep(1), deep(2));
        assert!(NEAR.is_same(&one, &one) && !NEAR.is_same(&one, &other));
        assert!(!EXACT.is_same(&one, &other));
        assert!(EXACT.fields(&one, &other).iter().all(|(_, same)| !same));
        let one = r#"{"x":1,"x":2}"#;
        assert!(NEAR.is_same(one, r#"{"x":2.05}"#) && !NEAR.is_same(one, r#"{"x":1}"#));
    }

    #[test]
    fn fields_are_compared_by_path() {
        let one = r#"{"label":"a","boxes":[{"x":1,"y":2},{"x":3,"y":4}],"e":[]}"#;
        let other = r#"{"label":"b","boxes":[{"x":1.0,"y":2},{"x":3.05,"y":4}],"more":1,"e":[]}"#;
        let named = |fields: Vec<(String, bool)>| -> Vec<String> {
            let differ = fields.into_iter().filter(|(_, same)| !same);
            differ.map(|(path, _)| path).collect()
        };
        assert_eq!(
            named(EXACT.fields(one, other)),
            ["boxes[].x", "label", "more"]
        );
        assert_eq!(named(NEAR.fields(one, other)), ["label", "more"]);
        assert_eq!(NEAR.fields(one, other).len(), 5);
        let shorter = r#"{"boxes":[{"x":1,"y":2}]}"#;
        assert!(named(NEAR.fields(one, shorter)).contains(&"boxes[].x".to_owned()));
    }
}
