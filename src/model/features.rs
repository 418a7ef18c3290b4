//! Reads the features of a model from the `modelInput` of a request into a row.

use std::collections::HashMap;

use crate::model::scalar::ScalarType;
use crate::stage::report::shown;
use crate::wire::object::{self, Member, Object, decode_string};

/// Finds the features of a model among the members of a `modelInput`.
#[derive(Debug)]
pub struct FeatureReader {
    names: Vec<String>,
    /// The index of each feature in a row, by its name.
    indices: HashMap<String, usize>,
}

impl FeatureReader {
    /// A reader for features of these names, in the order of a row.
    pub fn new(names: Vec<String>) -> FeatureReader {
        let indices = names.iter().cloned().zip(0..).collect();
        FeatureReader { names, indices }
    }

    /// Reads the features in the text of a `modelInput` into `row`. The error describes
    /// the fault in a few words.
    pub fn read(&self, model_input: &str, row: &mut Vec<f64>) -> Result<(), String> {
        row.clear();
        // No feature is NaN, so NaN marks those that are still missing.
        row.resize(self.names.len(), f64::NAN);
        if !model_input.trim_ascii_start().starts_with('{') {
            return Err("modelInput is not an object".to_owned());
        }
        let mut partial = PartialRow::new(self, row);
        if object::each_member(model_input, |member| partial.take(&member)).is_none() {
            // The fast scanner does not accept invalid JSON or deep nesting. Then the
            // full parser decides.
            let object =
                Object::parse(model_input).map_err(|fault| format!("modelInput is {fault}"))?;
            row.fill(f64::NAN);
            partial = PartialRow::new(self, row);
            for member in &object.members {
                partial.take(member);
            }
        }
        if let Some(fault) = partial.fault {
            return Err(fault);
        }
        match row.iter().position(|value| value.is_nan()) {
            Some(index) => Err(format!("feature {} is missing", shown(&self.names[index]))),
            None => Ok(()),
        }
    }
}

/// A row that is being filled from the members of a `modelInput`.
struct PartialRow<'r> {
    reader: &'r FeatureReader,
    row: &'r mut [f64],
    /// The index of the feature that is probably next: most clients write the
    /// features in the model's order.
    expected: usize,
    /// The first fault.
    fault: Option<String>,
}

impl<'r> PartialRow<'r> {
    fn new(reader: &'r FeatureReader, row: &'r mut [f64]) -> PartialRow<'r> {
        PartialRow {
            reader,
            row,
            expected: 0,
            fault: None,
        }
    }

    fn take(&mut self, member: &Member) {
        if self.fault.is_some() {
            return;
        }
        let FeatureReader { names, indices } = self.reader;
        let index = match names.get(self.expected) {
            Some(name) if member.is(name) => Some(self.expected),
            _ => decode_string(member.key).and_then(|name| indices.get(&*name).copied()),
        };
        let Some(index) = index else {
            return;
        };
        self.expected = index + 1;
        let outcome = if !self.row[index].is_nan() {
            Err("occurs twice")
        } else if ScalarType::of_json(member.value) != Some(ScalarType::Number) {
            Err("is not a number")
        } else {
            finite_number(member.value).ok_or("is out of range")
        };
        match outcome {
            Ok(value) => self.row[index] = value,
            Err(what) => {
                self.fault = Some(format!("feature {} {what}", shown(&names[index])));
            }
        }
    }
}

/// The value of a JSON number; `None` if it is not finite. Most numbers are short
/// decimals, which need one division: both operands are exact, so the quotient is
/// correctly rounded.
fn finite_number(text: &str) -> Option<f64> {
    const POWERS_OF_TEN: [f64; 16] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    let parsed = || {
        let value: f64 = text.parse().ok()?;
        value.is_finite().then_some(value)
    };
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1.0, digits),
        None => (1.0, text),
    };
    if digits.len() > POWERS_OF_TEN.len() {
        return parsed();
    }
    let (mut integer, mut decimals, mut has_point) = (0u64, 0, false);
    for byte in digits.bytes() {
        match byte {
            b'0'..=b'9' => {
                integer = integer * 10 + u64::from(byte - b'0');
                decimals += usize::from(has_point);
            }
            b'.' if !has_point => has_point = true,
            _ => return parsed(),
        }
    }
    if integer >= 1 << 53 || digits.is_empty() {
        return parsed();
    }
    Some(sign * (integer as f64 / POWERS_OF_TEN[decimals]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_what_the_standard_library_parses(
            text in "-?(0|[1-9][0-9]{0,18})(\\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?",
        ) {
            let expected = text.parse::<f64>().unwrap();
            let expected = expected.is_finite().then_some(expected.to_bits());
            prop_assert_eq!(finite_number(&text).map(f64::to_bits), expected, "{}", text);
        }
    }

    #[test]
    fn features_are_read_in_any_order_and_bad_ones_are_named() {
        let names = ["sepalLength", "sepalWidth", "petalLength", "petalWidth"];
        let reader = FeatureReader::new(names.map(str::to_owned).to_vec());
        let mut row = vec![1.0; 40];
        let input = r#"{"petalWidth":0.2,"sepalLength":5.1,"other":[1],"sepalWidth":3.5,"petalLength":1.4}"#;
        assert_eq!(reader.read(input, &mut row), Ok(()));
        assert_eq!(row, [5.1, 3.5, 1.4, 0.2]);

        let good = r#"{"sepalLength":5.1,"sepalWidth":3.5,"petalLength":1.4,"petalWidth":0.2}"#;
        for (from, to, reason) in [
            (good, "[1]", "modelInput is not an object"),
            (good, "null", "modelInput is not an object"),
            (
                ",\"petalWidth\":0.2",
                "",
                "feature \"petalWidth\" is missing",
            ),
            ("0.2", "\"0.2\"", "feature \"petalWidth\" is not a number"),
            ("0.2", "null", "feature \"petalWidth\" is not a number"),
            ("0.2", "1e400", "feature \"petalWidth\" is out of range"),
            ("0.2", "-1e400", "feature \"petalWidth\" is out of range"),
            (
                "sepalWidth",
                "petalWidth",
                "feature \"petalWidth\" occurs twice",
            ),
        ] {
            let input = good.replacen(from, to, 1);
            assert_eq!(reader.read(&input, &mut row), Err(reason.to_owned()));
        }
        for input in [
            good.to_owned(),
            good.replace("petalWidth", "petal\\u0057idth"),
            good.replace("0.2", "12345678901234567890123"),
            good.replace("0.2", "1e-400"),
            format!(" {good} "),
        ] {
            assert_eq!(reader.read(&input, &mut row), Ok(()), "{input}");
            assert_eq!(row.len(), 4);
        }
    }
}
