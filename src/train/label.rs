//! What the rows of a table are to be told apart by: texts in the data, class
//! numbers in a model.

use std::collections::HashMap;

use crate::wire::object::{decode_string, write_string};

/// The most classes a model may have.
pub const CLASSES_MAX: usize = 1000;

/// The longest label, in bytes as JSON: every score carries one.
pub const LABEL_BYTES_MAX: usize = 1024;

/// What the labels of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Fields of a CSV file: numbers if all of them are, strings otherwise.
    Field,
    /// JSON numbers.
    Number,
    /// JSON strings.
    String,
    /// JSON booleans.
    Boolean,
}

impl Kind {
    /// The kind of a JSON value that can be a label, by its text.
    pub fn of_json(raw: &str) -> Option<Kind> {
        match raw.as_bytes().first()? {
            b'"' => Some(Kind::String),
            b't' | b'f' => Some(Kind::Boolean),
            b'-' | b'0'..=b'9' => Some(Kind::Number),
            _ => None,
        }
    }

    /// For messages, in the plural.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Field => "fields",
            Kind::Number => "numbers",
            Kind::String => "strings",
            Kind::Boolean => "booleans",
        }
    }
}

/// The labels seen so far while a table is read.
#[derive(Debug, Default)]
pub struct Labels {
    kind: Option<Kind>,
    /// By text: the place in `texts`.
    seen: HashMap<String, u32>,
    /// In the order in which they came.
    texts: Vec<String>,
}

impl Labels {
    /// The number of a field of a CSV file among the labels.
    pub fn field(&mut self, text: &str) -> Result<u32, String> {
        self.kind = Some(Kind::Field);
        self.intern(text)
    }

    /// The number of a JSON value among the labels.
    pub fn json(&mut self, raw: &str) -> Result<u32, String> {
        let kind = Kind::of_json(raw)
            .ok_or_else(|| "a label has to be a string, a number or a boolean".to_owned())?;
        let before = *self.kind.get_or_insert(kind);
        if before != kind {
            return Err(format!(
                "the label {raw} is not like those before it, which are {}; \
                 write all labels as strings or all as numbers",
                before.name()
            ));
        }
        if kind != Kind::String {
            return self.intern(raw);
        }
        // One label may be written with different escapes.
        let text = decode_string(raw).ok_or("the label is not valid Unicode")?;
        self.intern(&text)
    }

    fn intern(&mut self, text: &str) -> Result<u32, String> {
        if let Some(index) = self.seen.get(text) {
            return Ok(*index);
        }
        if json_string(text).len() > LABEL_BYTES_MAX {
            return Err(format!("the label is longer than {LABEL_BYTES_MAX} bytes"));
        }
        if self.kind == Some(Kind::Number) && Number::parse(text).is_none() {
            return Err(format!("the label {text} is out of range"));
        }
        let index = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.seen.insert(text.to_owned(), index);
        Ok(index)
    }

    /// Whether there are more than a model may have.
    pub fn are_too_many(&self) -> bool {
        self.texts.len() > CLASSES_MAX
    }

    /// The classes in their order, numbers ascending, all else by bytes, as JSON
    /// texts; and for each label seen its class.
    pub fn into_classes(self) -> (Vec<String>, Vec<u32>) {
        let numbers: Option<Vec<Number>> = match self.kind {
            Some(Kind::Field | Kind::Number) => {
                self.texts.iter().map(|text| Number::parse(text)).collect()
            }
            _ => None,
        };
        let mut order: Vec<usize> = (0..self.texts.len()).collect();
        match &numbers {
            Some(numbers) => order.sort_by(|a, b| numbers[*a].compare(&numbers[*b])),
            None => order.sort_by(|a, b| self.texts[*a].cmp(&self.texts[*b])),
        }
        let mut classes: Vec<String> = Vec::new();
        let mut class_of = vec![0; order.len()];
        let mut last: Option<usize> = None;
        for index in order {
            let is_same = match (&numbers, last) {
                // The sort is stable: the text that came first is the one kept.
                (Some(numbers), Some(last)) => numbers[index].compare(&numbers[last]).is_eq(),
                _ => false,
            };
            if !is_same {
                classes.push(match (&numbers, self.kind) {
                    (None, Some(Kind::Field | Kind::String)) => json_string(&self.texts[index]),
                    _ => self.texts[index].clone(),
                });
            }
            class_of[index] = (classes.len() - 1) as u32;
            last = Some(index);
        }
        (classes, class_of)
    }
}

/// `text` as a JSON string.
pub fn json_string(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    String::from_utf8(out).unwrap_or_default()
}

/// A label that is a number, so that `1` and `1.0` are one class and two
/// 20-digit integers are two.
#[derive(Clone, Copy, Debug)]
struct Number {
    value: f64,
    /// The whole number exactly, where it is one.
    whole: i128,
}

impl Number {
    /// The number that `text` is in JSON, if it is one and finite.
    fn parse(text: &str) -> Option<Number> {
        if Kind::of_json(text) != Some(Kind::Number) {
            return None;
        }
        let value: f64 = serde_json::from_str(text).ok()?;
        // -0 is 0, and a float of up to 2^53 is exact.
        let value = value + 0.0;
        let whole = text.parse().unwrap_or(if value.fract() == 0.0 {
            value as i128
        } else {
            0
        });
        value.is_finite().then_some(Number { value, whole })
    }

    fn compare(&self, other: &Number) -> std::cmp::Ordering {
        let by_value = self.value.total_cmp(&other.value);
        by_value.then(self.whole.cmp(&other.whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(texts: &[&str]) -> (Vec<String>, Vec<u32>) {
        let mut labels = Labels::default();
        for text in texts {
            labels.field(text).unwrap();
        }
        labels.into_classes()
    }

    #[test]
    fn labels_are_numbers_where_all_of_them_are() {
        for (texts, classes, class_of) in [
            (
                &["10", "9", "-1"][..],
                &["-1", "9", "10"][..],
                &[2, 1, 0][..],
            ),
            (&["1.0", "1", "0"], &["0", "1.0"], &[1, 1, 0]),
            (&["0", "-0", "1"], &["0", "1"], &[0, 0, 1]),
            (&["10", "9", "x"], &["\"10\"", "\"9\"", "\"x\""], &[0, 1, 2]),
            (&["01", "2"], &["\"01\"", "\"2\""], &[0, 1]),
            (&["1e999", "2"], &["\"1e999\"", "\"2\""], &[0, 1]),
            (&["NaN", "2"], &["\"2\"", "\"NaN\""], &[1, 0]),
            (
                &["12345678901234567891", "12345678901234567890"],
                &["12345678901234567890", "12345678901234567891"],
                &[1, 0],
            ),
            (&["b\"\u{1b}", "a"], &["\"a\"", "\"b\\\"\\u001b\""], &[1, 0]),
        ] {
            let found = fields(texts);
            assert_eq!(
                (&found.0[..], &found.1[..]),
                (
                    &classes
                        .iter()
                        .map(|class| class.to_string())
                        .collect::<Vec<_>>()[..],
                    class_of
                )
            );
        }
    }

    #[test]
    fn json_labels_keep_their_type_and_may_not_mix() {
        let mut labels = Labels::default();
        assert_eq!(labels.json("\"b\""), Ok(0));
        assert_eq!(labels.json(r#""\u0062""#), Ok(0));
        assert_eq!(labels.json("\"a\""), Ok(1));
        let reason = labels.json("1").unwrap_err();
        assert!(reason.contains("which are strings"), "{reason}");
        assert_eq!(labels.into_classes().0, ["\"a\"", "\"b\""]);

        let mut labels = Labels::default();
        labels.json("true").unwrap();
        labels.json("false").unwrap();
        assert_eq!(labels.into_classes().0, ["false", "true"]);

        let mut labels = Labels::default();
        assert!(labels.json("1e999").unwrap_err().contains("out of range"));
        assert!(labels.json("null").unwrap_err().contains("has to be"));
        assert!(labels.json("[1]").is_err() && labels.json("{}").is_err());
    }
}
