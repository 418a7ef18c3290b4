//! Collects the labels while a table is read, and turns them into the classes of a
//! model.

use std::collections::HashMap;

use crate::model::bounds::LABEL_BYTES_MAX;
use crate::model::scalar::ScalarType;
use crate::wire::object::{decode_string, json_string};

/// The type of the labels of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LabelType {
    /// Fields of a CSV file: numbers if all of them are numbers, else strings.
    CsvField,
    /// JSON values of one type.
    Json(ScalarType),
}

impl LabelType {
    /// The plural name in messages.
    fn plural(self) -> &'static str {
        match self {
            LabelType::CsvField => "fields",
            LabelType::Json(ScalarType::Number) => "numbers",
            LabelType::Json(ScalarType::String) => "strings",
            LabelType::Json(ScalarType::Boolean) => "booleans",
        }
    }
}

/// The labels seen so far.
#[derive(Debug, Default)]
pub struct Labels {
    label_type: Option<LabelType>,
    /// For each text, its index in `texts`.
    indices: HashMap<String, u32>,
    /// The labels in the order of their first occurrence.
    texts: Vec<String>,
}

impl Labels {
    /// The index of a CSV field among the labels. The error describes its fault.
    pub fn field(&mut self, text: &str) -> Result<u32, String> {
        self.label_type = Some(LabelType::CsvField);
        self.intern(text)
    }

    /// The index of a JSON value among the labels. The error describes its fault.
    pub fn json(&mut self, raw: &str) -> Result<u32, String> {
        let scalar = ScalarType::of_json(raw)
            .ok_or_else(|| "a label must be a string, a number or a boolean".to_owned())?;
        self.set_type(scalar, raw)?;
        if scalar != ScalarType::String {
            return self.intern(raw);
        }
        // One label can be written with different escapes.
        let text = decode_string(raw).ok_or("the label is not valid Unicode")?;
        self.intern(&text)
    }

    /// The index of the decoded text of a JSON string among the labels. The error
    /// describes its fault.
    pub fn string(&mut self, text: &str) -> Result<u32, String> {
        self.set_type(ScalarType::String, text)?;
        self.intern(text)
    }

    /// Sets the type of the labels. If earlier labels have set a type, compares the two
    /// types.
    fn set_type(&mut self, scalar: ScalarType, raw: &str) -> Result<(), String> {
        let label_type = LabelType::Json(scalar);
        let earlier = *self.label_type.get_or_insert(label_type);
        if earlier != label_type {
            return Err(format!(
                "the label {raw} is of another type than the earlier ones, which are {}; write all \
                 labels as strings or all as numbers",
                earlier.plural()
            ));
        }
        Ok(())
    }

    fn intern(&mut self, text: &str) -> Result<u32, String> {
        if let Some(index) = self.indices.get(text) {
            return Ok(*index);
        }
        if json_string(text).len() > LABEL_BYTES_MAX {
            return Err(format!("the label is longer than {LABEL_BYTES_MAX} bytes"));
        }
        if self.label_type == Some(LabelType::Json(ScalarType::Number))
            && Number::parse(text).is_none()
        {
            return Err(format!("the label {text} is out of range"));
        }
        let index = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.indices.insert(text.to_owned(), index);
        Ok(index)
    }

    /// Returns the classes as JSON text, and for each label its class. Classes that are
    /// numbers are in ascending order. Other classes are in the order of their bytes.
    pub fn into_classes(self) -> (Vec<String>, Vec<u32>) {
        let numbers: Option<Vec<Number>> = match self.label_type {
            Some(LabelType::CsvField | LabelType::Json(ScalarType::Number)) => {
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
                // The sort is stable, so the text that occurred first is kept.
                (Some(numbers), Some(last)) => numbers[index].compare(&numbers[last]).is_eq(),
                _ => false,
            };
            if !is_same {
                classes.push(match (&numbers, self.label_type) {
                    (None, Some(LabelType::CsvField | LabelType::Json(ScalarType::String))) => {
                        json_string(&self.texts[index])
                    }
                    _ => self.texts[index].clone(),
                });
            }
            class_of[index] = (classes.len() - 1) as u32;
            last = Some(index);
        }
        (classes, class_of)
    }
}

/// A label that is a number. `1` and `1.0` are one class. Two different integers of 20
/// digits are different classes.
#[derive(Clone, Copy, Debug)]
struct Number {
    value: f64,
    /// The exact value of an integer.
    integer: i128,
}

impl Number {
    /// Parses a JSON number. Returns `None` if `text` is not a number or not finite.
    fn parse(text: &str) -> Option<Number> {
        if ScalarType::of_json(text) != Some(ScalarType::Number) {
            return None;
        }
        let value: f64 = serde_json::from_str(text).ok()?;
        // Adding 0 turns -0 into 0. A float holds every integer up to 2^53 exactly.
        let value = value + 0.0;
        let integer = text.parse().unwrap_or(if value.fract() == 0.0 {
            value as i128
        } else {
            0
        });
        value.is_finite().then_some(Number { value, integer })
    }

    fn compare(&self, other: &Number) -> std::cmp::Ordering {
        let by_value = self.value.total_cmp(&other.value);
        by_value.then(self.integer.cmp(&other.integer))
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
    fn labels_are_numbers_if_all_of_them_are() {
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
        assert!(labels.json("null").unwrap_err().contains("must be"));
        assert!(labels.json("[1]").is_err() && labels.json("{}").is_err());
    }
}
