//! Reads the features of an ONNX model from the `modelInput` of a request.

use crate::model::feature_names::{FeatureNames, Row};
use crate::model::scalar::ScalarType;
use crate::stage::report::shown;
use crate::wire::object::decode_string;

/// The type of a feature's value in its tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number with 32 bits.
    Float32,
    /// A number with 64 bits.
    Float64,
    /// An integer with 64 bits.
    Int64,
    /// An integer with 32 bits.
    Int32,
    /// `true` or `false`.
    Bool,
    /// A string.
    Text,
}

/// The value of a feature.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// No value yet.
    Absent,
    /// A number; NaN stands for a missing value.
    Float(f64),
    /// An integer in the range of its tensor.
    Int(i64),
    /// `true` or `false`.
    Bool(bool),
    /// A string.
    Text(String),
}

/// Reads the features of one model.
#[derive(Debug)]
pub struct FeatureRow {
    names: FeatureNames,
    kinds: Vec<Kind>,
    missing_is_nan: bool,
}

impl FeatureRow {
    /// A reader for these features, in order. A name that begins with a slash is a JSON
    /// pointer.
    pub fn new(features: Vec<(String, Kind)>, missing_is_nan: bool) -> FeatureRow {
        let (names, kinds) = features.into_iter().unzip();
        FeatureRow {
            names: FeatureNames::new(names),
            kinds,
            missing_is_nan,
        }
    }

    /// Reads the features in the text of a `modelInput` into `cells`. The error
    /// describes the fault in a few words.
    pub fn read(&self, model_input: &str, cells: &mut Vec<Cell>) -> Result<(), String> {
        cells.resize(self.kinds.len(), Cell::Absent);
        let mut row = CellRow {
            kinds: &self.kinds,
            cells,
            nulls: Vec::new(),
        };
        self.names.read(model_input, &mut row)?;
        self.fill_missing(cells)
    }

    fn fill_missing(&self, cells: &mut [Cell]) -> Result<(), String> {
        let features = self.names.iter().zip(&self.kinds);
        for (cell, (name, kind)) in cells.iter_mut().zip(features) {
            if *cell == Cell::Absent {
                let takes_nan = matches!(kind, Kind::Float32 | Kind::Float64);
                if !takes_nan || !self.missing_is_nan {
                    return Err(format!("feature {} is missing", shown(name)));
                }
                *cell = Cell::Float(f64::NAN);
            }
        }
        Ok(())
    }
}

/// A row that is being read.
struct CellRow<'r> {
    kinds: &'r [Kind],
    cells: &'r mut [Cell],
    /// The features that were found with the value null.
    nulls: Vec<usize>,
}

impl Row for CellRow<'_> {
    fn clear(&mut self) {
        self.cells.fill(Cell::Absent);
        self.nulls.clear();
    }

    fn set(&mut self, index: usize, raw: &str) -> Result<(), String> {
        if self.cells[index] != Cell::Absent || self.nulls.contains(&index) {
            return Err("occurs twice".to_owned());
        }
        match cell(self.kinds[index], raw.trim_ascii())? {
            Some(cell) => self.cells[index] = cell,
            None => self.nulls.push(index),
        }
        Ok(())
    }
}

/// The cell for a JSON value; `None` for null. The error completes "feature x ...".
fn cell(kind: Kind, value: &str) -> Result<Option<Cell>, &'static str> {
    if value == "null" {
        return Ok(None);
    }
    let scalar = ScalarType::of_json(value);
    let is_true = value == "true";
    let cell = match (kind, scalar) {
        (Kind::Float32 | Kind::Float64, Some(ScalarType::Boolean)) => {
            Cell::Float(f64::from(u8::from(is_true)))
        }
        (Kind::Int64 | Kind::Int32, Some(ScalarType::Boolean)) => Cell::Int(i64::from(is_true)),
        (Kind::Bool, Some(ScalarType::Boolean)) => Cell::Bool(is_true),
        (Kind::Float64, Some(ScalarType::Number)) => Cell::Float(number(value)?),
        (Kind::Float32, Some(ScalarType::Number)) => {
            let number = number(value)?;
            if !(number as f32).is_finite() {
                return Err("is out of range");
            }
            Cell::Float(number)
        }
        (Kind::Int64, Some(ScalarType::Number)) => Cell::Int(integer(value)?),
        (Kind::Int32, Some(ScalarType::Number)) => {
            let integer = i32::try_from(integer(value)?);
            Cell::Int(integer.map_err(|_| "is out of range")?.into())
        }
        (Kind::Text, Some(ScalarType::String)) => {
            let text = decode_string(value).ok_or("holds half a character")?;
            // onnxruntime takes strings that end at the first zero byte, so a string
            // with such a byte is refused.
            if text.contains('\0') {
                return Err("holds a zero character");
            }
            Cell::Text(text.into_owned())
        }
        (Kind::Text, _) => return Err("is not a string"),
        (Kind::Bool, _) => return Err("is neither true nor false"),
        _ => return Err("is not a number"),
    };
    Ok(Some(cell))
}

fn number(text: &str) -> Result<f64, &'static str> {
    let number: f64 = text.parse().map_err(|_| "is not a number")?;
    match number.is_finite() {
        true => Ok(number),
        false => Err("is out of range"),
    }
}

/// An integer, which may be written as `3.0` or `3e2`.
fn integer(text: &str) -> Result<i64, &'static str> {
    if let Ok(integer) = text.parse() {
        return Ok(integer);
    }
    let number = number(text)?;
    if number.fract() != 0.0 {
        return Err("is not an integer");
    }
    // A float beyond this number does not stand for one single integer.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    match number.abs() <= EXACT_MAX {
        true => Ok(number as i64),
        false => Err("is out of range"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(missing_is_nan: bool) -> FeatureRow {
        let features = [
            ("f", Kind::Float32),
            ("d", Kind::Float64),
            ("i", Kind::Int64),
            ("s", Kind::Int32),
            ("b", Kind::Bool),
            ("t", Kind::Text),
            ("/in/0", Kind::Float32),
        ];
        let features = features.map(|(name, kind)| (name.to_owned(), kind));
        FeatureRow::new(features.to_vec(), missing_is_nan)
    }

    const GOOD: &str = r#"{"x":[1],"f":1.5,"d":-2e300,"i":9007199254740993,"s":3.0,"b":true,"t":"a\u0062","in":[4]}"#;

    #[test]
    fn each_kind_takes_its_values() {
        let mut cells = Vec::new();
        let expected = [
            Cell::Float(1.5),
            Cell::Float(-2e300),
            Cell::Int(9_007_199_254_740_993),
            Cell::Int(3),
            Cell::Bool(true),
            Cell::Text("ab".to_owned()),
            Cell::Float(4.0),
        ];
        for input in [
            GOOD.to_owned(),
            // This nesting is too deep for the fast scanner.
            GOOD.replace("[1]", &format!("{}{}", "[".repeat(200), "]".repeat(200))),
        ] {
            reader(false).read(&input, &mut cells).unwrap();
            assert_eq!(cells, expected, "{input}");
        }
        let other = GOOD.replace("1.5", "true").replace("3.0", "false");
        reader(false).read(&other, &mut cells).unwrap();
        assert_eq!((&cells[0], &cells[3]), (&Cell::Float(1.0), &Cell::Int(0)));
    }

    #[test]
    fn a_wrong_value_is_an_error_that_names_the_feature() {
        for (from, to, reason) in [
            (GOOD, "[1]", "modelInput is not an object"),
            ("1.5", "\"1.5\"", "feature \"f\" is not a number"),
            ("1.5", "1e39", "feature \"f\" is out of range"),
            ("-2e300", "1e400", "feature \"d\" is out of range"),
            ("9007199254740993", "1.5", "feature \"i\" is not an integer"),
            ("9007199254740993", "1e19", "feature \"i\" is out of range"),
            ("3.0", "3000000000", "feature \"s\" is out of range"),
            ("true", "1", "feature \"b\" is neither true nor false"),
            ("\"a\\u0062\"", "7", "feature \"t\" is not a string"),
            (
                "a\\u0062",
                "\\u0000",
                "feature \"t\" holds a zero character",
            ),
            (
                "a\\u0062",
                "\\ud800",
                "feature \"t\" holds half a character",
            ),
            ("[4]", "[[4]]", "feature \"/in/0\" is not a number"),
            ("\"d\"", "\"f\"", "feature \"f\" occurs twice"),
            ("\"x\":[1]", "\"f\":null", "feature \"f\" occurs twice"),
            ("\"x\":[1]", "\"in\":[5]", "feature \"/in/0\" occurs twice"),
        ] {
            let input = GOOD.replacen(from, to, 1);
            for missing_is_nan in [false, true] {
                let read = reader(missing_is_nan).read(&input, &mut Vec::new());
                assert_eq!(read, Err(reason.to_owned()));
            }
        }
    }

    #[test]
    fn a_missing_number_is_an_error_or_nan() {
        for (from, to, name) in [
            ("1.5", "null", "f"),
            (",\"f\":1.5", "", "f"),
            ("[4]", "[]", "/in/0"),
            ("[4]", "[null]", "/in/0"),
        ] {
            let (input, mut cells) = (GOOD.replacen(from, to, 1), Vec::new());
            let expected = format!("feature \"{name}\" is missing");
            assert_eq!(reader(false).read(&input, &mut cells), Err(expected));
            reader(true).read(&input, &mut cells).unwrap();
            let is_nan = |cell: &Cell| matches!(cell, Cell::Float(number) if number.is_nan());
            assert_eq!(cells.iter().filter(|cell| is_nan(cell)).count(), 1);
        }
        for (from, name) in [("3.0", "s"), ("true", "b"), ("\"a\\u0062\"", "t")] {
            let input = GOOD.replacen(from, "null", 1);
            let expected = format!("feature \"{name}\" is missing");
            assert_eq!(reader(true).read(&input, &mut Vec::new()), Err(expected));
        }
    }
}
