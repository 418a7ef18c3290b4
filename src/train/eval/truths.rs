//! What the labels of rows mean for a model: one of its classes, or a number.

use std::collections::HashMap;

use crate::model::scalar::ScalarType;
use crate::stage::report::shown;
use crate::train::answers::{NUMBER_MAX, Truth};
use crate::train::cell::{CellKind, CellSyntax, other_decimal};
use crate::train::fields::kind_of_json;
use crate::train::label_file::Label;
use crate::wire::object::decode_string;

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

    /// The true answer that a label means; `None` if the label is missing. The error is
    /// the reason why the label cannot be used.
    pub fn of(&self, label: &Label, syntax: &CellSyntax) -> Result<Option<Truth>, String> {
        let (kind, value, text) = match label {
            Label::Field(text) => {
                let (kind, value) = syntax.of_field(text);
                let number = self.are_numbers.then(|| syntax.json_number(text)).flatten();
                (kind, value, number.unwrap_or(text.as_str().into()))
            }
            Label::Json(raw) => {
                let (kind, value, _, text) = kind_of_json(raw, syntax);
                (kind, value, text)
            }
        };
        match kind {
            CellKind::Missing => return Ok(None),
            CellKind::Marker if self.are_numbers || self.classes.is_empty() => return Ok(None),
            CellKind::Nested => {
                return Err("a label must be a string, a number or a boolean".to_owned());
            }
            CellKind::NotUnicode => return Err("the label is not valid Unicode".to_owned()),
            _ if self.classes.is_empty() => return number(kind, value, &text).map(Some),
            _ => {}
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

/// The number that a label is.
fn number(kind: CellKind, value: f64, text: &str) -> Result<Truth, String> {
    let text = shown(text);
    match kind {
        CellKind::Number if value.abs() <= NUMBER_MAX => Ok(Truth::Number(value)),
        CellKind::Number => Err(format!(
            "the label {text} is too large; scale the target down, and train again"
        )),
        CellKind::Infinite => Err(format!("the label {text} is not a finite number")),
        CellKind::OtherDecimal => {
            let (what, remedy) = other_decimal(&text);
            Err(format!("the label {text} has a {what}; {remedy}"))
        }
        _ => Err(format!("the label {text} is not a number")),
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
    truths.of(&field, &CellSyntax::default()) == Ok(Some(Truth::Class(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_means_the_class_with_its_value() {
        let plain = CellSyntax::default();
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
            assert_eq!(
                truths.of(&label, &plain),
                Ok(class.map(Truth::Class)),
                "{label:?}"
            );
        }
        for label in [field("maybe"), json("\"\""), json("1")] {
            assert!(words.of(&label, &plain).is_err(), "{label:?}");
        }
        assert!(numbers.of(&field("12345678901234567891"), &plain).is_err());
        let numbers = Truths::new(&[]);
        assert_eq!(
            numbers.of(&field("1e3"), &plain),
            Ok(Some(Truth::Number(1000.0)))
        );
        assert_eq!(numbers.of(&field("?"), &plain), Ok(None));
        assert!(
            numbers.of(&field("inf"), &plain).is_err() && numbers.of(&field("x"), &plain).is_err()
        );
        assert!(same_label("\"yes\"", "yes") && same_label("1.0", "1"));
        assert!(!same_label("\"yes\"", "no"));
    }
}
