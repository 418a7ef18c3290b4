//! The labels of rows, compared with the classes of a model.

use std::collections::HashMap;

use crate::model::scalar::ScalarType;
use crate::stage::report::shown;
use crate::train::answers::Truth;
use crate::train::eval::csv_cell::is_marker;
use crate::wire::object::decode_string;

/// A label as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    /// A field of a CSV file.
    Field(String),
    /// A JSON value.
    Json(String),
}

/// The true answers that labels can mean for a model.
#[derive(Debug)]
pub struct Truths {
    /// The index of each class, by the text of the class. This is the text of a string,
    /// the shortest form of a number, or `true` or `false`. The map is empty if the
    /// model predicts numbers.
    classes: HashMap<String, usize>,
    /// Whether the classes are numbers.
    are_numbers: bool,
}

impl Truths {
    /// The true answers for a model with these labels, which are JSON text. A model
    /// without labels predicts numbers.
    pub fn new(labels: &[&str]) -> Truths {
        let first = labels.first().and_then(|label| ScalarType::of_json(label));
        let are_numbers = first == Some(ScalarType::Number);
        let class = |(index, label): (usize, &&str)| {
            let text = decode_string(label).map_or_else(|| (*label).to_owned(), |text| text.into());
            (key(&text, are_numbers), index)
        };
        Truths {
            classes: labels.iter().enumerate().map(class).collect(),
            are_numbers,
        }
    }

    /// Whether the labels are numbers, as classes or as the numbers to predict.
    pub fn are_numbers(&self) -> bool {
        self.are_numbers || self.classes.is_empty()
    }

    /// The true answer that a label means; `None` if the label is missing. The error is
    /// the reason why the label cannot be used.
    pub fn of(&self, label: &Label) -> Result<Option<Truth>, String> {
        let text = match label {
            Label::Json(raw) if raw == "null" => return Ok(None),
            Label::Json(raw) => decode_string(raw).map_or(raw.as_str().into(), |text| text),
            Label::Field(text) => text.as_str().into(),
        };
        if text.is_empty() && matches!(label, Label::Field(_)) {
            return Ok(None);
        }
        if self.are_numbers() && matches!(label, Label::Field(_)) && is_marker(&text) {
            return Ok(None);
        }
        if self.classes.is_empty() {
            return match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Some(Truth::Number(number))),
                _ => Err(format!("the label {} is not a number", shown(&text))),
            };
        }
        match self.classes.get(&key(&text, self.are_numbers)) {
            Some(class) => Ok(Some(Truth::Class(*class))),
            None => Err(format!(
                "the label {} is none of the model's classes",
                shown(&text)
            )),
        }
    }
}

/// The text under which a class is found. `1` and `1.0` are one class. Integers that a
/// float cannot hold are compared by their digits.
fn key(text: &str, is_number: bool) -> String {
    match text.parse::<f64>() {
        Ok(number) if is_number && number.abs() < (1u64 << 53) as f64 => (number + 0.0).to_string(),
        _ => text.to_owned(),
    }
}

/// Whether a text on the command line means this label. The label is JSON text.
pub fn same_label(label: &str, text: &str) -> bool {
    let truths = Truths::new(&[label]);
    let field = Label::Field(text.to_owned());
    truths.of(&field) == Ok(Some(Truth::Class(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_means_the_class_with_its_value() {
        let field = |text: &str| Label::Field(text.to_owned());
        let json = |text: &str| Label::Json(text.to_owned());
        let words = Truths::new(&["\"no\"", "\"yes\"", "\"NA\""]);
        let numbers = Truths::new(&["0", "1.0", "12345678901234567890"]);
        let flags = Truths::new(&["false", "true"]);
        for (truths, label, class) in [
            (&words, field("yes"), Some(1)),
            (&words, json("\"y\\u0065s\""), Some(1)),
            (&words, field("NA"), Some(2)),
            (&words, field(""), None),
            (&words, json("null"), None),
            (&numbers, field("1"), Some(1)),
            (&numbers, field("-0.0"), Some(0)),
            (&numbers, json("1e0"), Some(1)),
            (&numbers, field("na"), None),
            (&numbers, field("12345678901234567890"), Some(2)),
            (&flags, json("true"), Some(1)),
            (&flags, field("false"), Some(0)),
        ] {
            assert_eq!(truths.of(&label), Ok(class.map(Truth::Class)), "{label:?}");
        }
        for label in [field("maybe"), json("\"\""), json("1")] {
            assert!(words.of(&label).is_err(), "{label:?}");
        }
        assert!(numbers.of(&field("12345678901234567891")).is_err());
        let numbers = Truths::new(&[]);
        assert_eq!(numbers.of(&field("1e3")), Ok(Some(Truth::Number(1000.0))));
        assert_eq!(numbers.of(&field("?")), Ok(None));
        assert!(numbers.of(&field("inf")).is_err() && numbers.of(&field("x")).is_err());
        assert!(same_label("\"yes\"", "yes") && same_label("1.0", "1"));
        assert!(!same_label("\"yes\"", "no"));
    }
}
