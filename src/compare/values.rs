//! Compares two answers: classes by equality, numbers within a tolerance, other JSON
//! field by field.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::wire::answer::{is_same, number, write_canonical};

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
type Leaves = BTreeMap<String, Vec<Value>>;

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
        if let (Some(one), Some(other)) = (number(one), number(other)) {
            return is_near(one, other, tolerance);
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
                        && values.iter().zip(&others).all(|it| self.is_same_leaf(it))
                }
                None => false,
            };
            fields.push((path, is_same));
        }
        fields.extend(other.into_keys().map(|path| (path, false)));
        fields
    }

    fn is_same_leaf(self, (one, other): (&Value, &Value)) -> bool {
        if let (Some(tolerance), Some(one), Some(other)) =
            (self.tolerance, one.as_f64(), other.as_f64())
        {
            return is_near(one, other, tolerance);
        }
        let text = |value: &Value| {
            let mut text = String::new();
            write_canonical(value, &mut text);
            text
        };
        one == other || text(one) == text(other)
    }
}

fn is_near(one: f64, other: f64, tolerance: f64) -> bool {
    (one - other).abs() <= tolerance
}

fn leaves(answer: &str) -> Leaves {
    let mut leaves = Leaves::new();
    // A text that is not JSON has no fields. Records were checked when they were read,
    // so this happens only for nesting that is too deep.
    if let Ok(value) = serde_json::from_str(answer) {
        collect(value, String::new(), &mut leaves);
    }
    leaves
}

fn collect(value: Value, path: String, leaves: &mut Leaves) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, member) in members {
                let path = match path.is_empty() {
                    true => name,
                    false => format!("{path}.{name}"),
                };
                collect(member, path, leaves);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let path = path + "[]";
            for item in items {
                collect(item, path.clone(), leaves);
            }
        }
        leaf => leaves.entry(path).or_default().push(leaf),
    }
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
