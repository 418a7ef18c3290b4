//! Reads the features of a model from the `modelInput` of a request into a row.

use std::collections::HashMap;

use crate::model::feature::{Domain, Feature, Missing, Unseen};
use crate::model::feature_names::{FeatureNames, Row};
use crate::model::scalar::ScalarType;
use crate::stage::report::shown;
use crate::wire::object::decode_string;

/// Marks a feature that no member has set yet. The bits of this NaN differ from the NaN
/// of a missing value, so a second value for the same feature is noticed.
const ABSENT: u64 = 0x7ff8_0000_0000_5eed;

/// What a `modelInput` has for one feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Observed {
    /// A number.
    Number(f64),
    /// A category, by its index.
    Category(usize),
    /// A value that the training has not seen, such as an unknown category or a text in
    /// the place of a number.
    Unseen,
    /// No value.
    Missing,
}

/// Reads the features of a model from a `modelInput`.
#[derive(Debug)]
pub struct FeatureReader {
    features: Vec<Feature>,
    names: FeatureNames,
    /// For each feature, the index of each category.
    codes: Vec<HashMap<String, u32>>,
    /// Whether numbers are rounded to single precision, as the model's own library does.
    single_precision: bool,
}

impl FeatureReader {
    /// A reader for these features, in the order of a row.
    pub fn new(features: Vec<Feature>, single_precision: bool) -> FeatureReader {
        let names = features.iter().map(|feature| feature.name.clone());
        let codes = features.iter().map(|feature| {
            let categories = feature.categories().unwrap_or_default();
            categories.iter().cloned().zip(0..).collect()
        });
        FeatureReader {
            names: FeatureNames::new(names.collect()),
            codes: codes.collect(),
            features,
            single_precision,
        }
    }

    /// Reads the features in the text of a `modelInput` into `row`. The error describes
    /// the fault in a few words.
    pub fn read(&self, model_input: &str, row: &mut Vec<f64>) -> Result<(), String> {
        row.resize(self.features.len(), 0.0);
        self.names
            .read(model_input, &mut NumberRow { reader: self, row })?;
        self.fill_missing(row)?;
        if self.single_precision {
            for value in row {
                *value = f64::from(*value as f32);
            }
        }
        Ok(())
    }

    /// Calls `show` with the index of each feature and what a `modelInput` has for it,
    /// before missing values are replaced. What the model would refuse is unseen.
    pub fn observe(&self, model_input: &str, mut show: impl FnMut(usize, Observed)) {
        let mut observed = ObservedRow {
            reader: self,
            row: vec![Observed::Missing; self.features.len()],
        };
        if self.names.read(model_input, &mut observed).is_err() {
            observed.clear();
        }
        for (index, value) in observed.row.into_iter().enumerate() {
            show(index, value);
        }
    }

    fn observed(&self, index: usize, raw: &str) -> Observed {
        let is_number = self.features[index].domain == Domain::Numbers;
        match self.value(index, raw) {
            Ok(value) if !value.is_nan() && is_number => Observed::Number(value),
            // A model may treat an unknown category as missing. It is unseen nevertheless.
            _ if !is_number
                && ScalarType::of_json(raw).is_some()
                && !self.is_missing(index, raw) =>
            {
                let code = self.code(index, raw);
                code.map_or(Observed::Unseen, |code| Observed::Category(code as usize))
            }
            Ok(value) if value.is_nan() => Observed::Missing,
            _ => Observed::Unseen,
        }
    }

    fn is_missing(&self, index: usize, raw: &str) -> bool {
        let feature = &self.features[index];
        !feature.markers.is_empty() && is_marker(feature, raw)
    }

    /// Replaces missing values as the features say. The error names a feature that may
    /// not be missing.
    fn fill_missing(&self, row: &mut [f64]) -> Result<(), String> {
        if !row.iter().any(|value| value.is_nan()) {
            return Ok(());
        }
        for (value, feature) in row.iter_mut().zip(&self.features) {
            if value.is_nan() {
                *value = match feature.missing {
                    Missing::Fill(fill) => fill,
                    Missing::Pass => f64::NAN,
                    Missing::Error => {
                        return Err(format!("feature {} is missing", shown(&feature.name)));
                    }
                };
            }
        }
        Ok(())
    }

    /// The value of one feature. A missing value is NaN. The error describes the fault.
    fn value(&self, index: usize, raw: &str) -> Result<f64, String> {
        let feature = &self.features[index];
        let scalar = ScalarType::of_json(raw);
        match (scalar, &feature.domain) {
            (Some(_), _) if !feature.markers.is_empty() && is_marker(feature, raw) => Ok(f64::NAN),
            (Some(ScalarType::Number), Domain::Numbers) => {
                finite_number(raw).ok_or_else(|| "is out of range".to_owned())
            }
            (Some(ScalarType::Boolean), Domain::Numbers) => Ok(f64::from(raw == "true")),
            (None, _) if raw == "null" => Ok(f64::NAN),
            (_, Domain::Numbers) => Err("is not a number".to_owned()),
            (None, Domain::Categories { .. }) => {
                Err("is not a string, a number or a boolean".to_owned())
            }
            (Some(_), Domain::Categories { categories, unseen }) => {
                match (self.code(index, raw), unseen) {
                    (Some(code), _) => Ok(f64::from(code)),
                    (None, Unseen::Missing) => Ok(f64::NAN),
                    (None, Unseen::Other) => Ok(categories.len() as f64),
                    (None, Unseen::Error) => {
                        let text = decode_string(raw).unwrap_or(raw.into());
                        Err(format!("has the unknown category {}", shown(&text)))
                    }
                }
            }
        }
    }

    /// The index of a category. The texts of numbers and booleans are compared with the
    /// categories. If no category has the text of a number, its shortest form is
    /// compared: `5` for `5.0`.
    fn code(&self, index: usize, raw: &str) -> Option<u32> {
        let codes = &self.codes[index];
        if let Some(text) = decode_string(raw) {
            return codes.get(&*text).copied();
        }
        let shortest = || codes.get(&finite_number(raw)?.to_string());
        codes.get(raw).or_else(shortest).copied()
    }
}

/// Whether a JSON string or number is one of the feature's markers of a missing value.
/// A number and its marker may be written in two ways, such as `5` and `5.0`.
fn is_marker(feature: &Feature, raw: &str) -> bool {
    let mut markers = feature.markers.iter();
    match decode_string(raw) {
        Some(text) => markers.any(|marker| *marker == *text),
        None => markers.any(|marker| {
            *marker == raw || finite_number(raw).is_some_and(|number| marker.parse() == Ok(number))
        }),
    }
}

/// A row that is being read.
struct NumberRow<'r> {
    reader: &'r FeatureReader,
    row: &'r mut [f64],
}

impl Row for NumberRow<'_> {
    fn clear(&mut self) {
        self.row.fill(f64::from_bits(ABSENT));
    }

    fn set(&mut self, index: usize, raw: &str) -> Result<(), String> {
        if self.row[index].to_bits() != ABSENT {
            return Err("occurs twice".to_owned());
        }
        self.row[index] = self.reader.value(index, raw)?;
        Ok(())
    }
}

/// The observed values of a row that is being read. Of a feature that occurs twice, the
/// last value counts.
struct ObservedRow<'r> {
    reader: &'r FeatureReader,
    row: Vec<Observed>,
}

impl Row for ObservedRow<'_> {
    fn clear(&mut self) {
        self.row.fill(Observed::Missing);
    }

    fn set(&mut self, index: usize, raw: &str) -> Result<(), String> {
        self.row[index] = self.reader.observed(index, raw);
        Ok(())
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
        let features = names.map(Feature::number).to_vec();
        let reader = FeatureReader::new(features, false);
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
            ("0.2", "null", "feature \"petalWidth\" is missing"),
            ("0.2", "[1]", "feature \"petalWidth\" is not a number"),
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
    #[test]
    fn categories_missing_values_and_pointers_are_read() {
        let category = |name: &str, unseen, missing| Feature {
            domain: Domain::Categories {
                categories: ["a", "1", "true"].map(str::to_owned).to_vec(),
                unseen,
            },
            missing,
            ..Feature::number(name)
        };
        let features = vec![
            Feature {
                missing: Missing::Fill(2.5),
                markers: vec!["NA".to_owned(), "-999".to_owned()],
                ..Feature::number("x")
            },
            category("c", Unseen::Other, Missing::Error),
            category("/in/0/d", Unseen::Missing, Missing::Pass),
            category("e", Unseen::Error, Missing::Fill(1.0)),
        ];
        let reader = FeatureReader::new(features, false);
        let mut row = Vec::new();
        for (input, expected) in [
            (
                r#"{"c":"a","in":[{"d":"true"}],"e":"a"}"#,
                [2.5, 0.0, 2.0, 0.0],
            ),
            (
                r#"{"x":-999.0,"c":"a","in":[{"d":"true"}],"e":"a"}"#,
                [2.5, 0.0, 2.0, 0.0],
            ),
            (
                r#"{"x":"NA","c":1,"in":[{"d":true}],"e":1.0}"#,
                [2.5, 1.0, 2.0, 1.0],
            ),
            (
                r#"{"x":true,"c":"zz","in":[{"d":"a"}],"e":null}"#,
                [1.0, 3.0, 0.0, 1.0],
            ),
        ] {
            assert_eq!(reader.read(input, &mut row), Ok(()), "{input}");
            assert_eq!(row, expected, "{input}");
        }
        let mut observed = Vec::new();
        let input = r#"{"x":"NA","c":"zz","in":[{"d":true}],"e":[]}"#;
        reader.observe(input, |_, it| observed.push(it));
        reader.observe(r#"{"x":2,"c":"a","in":[{"d":"zz"}]}"#, |_, it| {
            observed.push(it)
        });
        reader.observe("[]", |_, it| observed.push(it));
        let (missing, unseen) = (Observed::Missing, Observed::Unseen);
        assert_eq!(
            observed[..4],
            [missing, unseen, Observed::Category(2), unseen]
        );
        let found = [
            Observed::Number(2.0),
            Observed::Category(0),
            unseen,
            missing,
        ];
        assert_eq!(observed[4..8], found);
        assert_eq!(observed[8..], [missing; 4]);
        for input in [
            r#"{"c":"a"}"#,
            r#"{"c":"a","in":[{"d":"zz"}]}"#,
            r#"{"c":"a","in":[]}"#,
            r#"{"c":"a","in":3}"#,
        ] {
            assert_eq!(reader.read(input, &mut row), Ok(()), "{input}");
            assert!(row[2].is_nan(), "{input}");
        }
        for (input, reason) in [
            (r#"{"in":[{"d":"a"}]}"#, "feature \"c\" is missing"),
            (
                r#"{"c":"a","e":"z"}"#,
                "feature \"e\" has the unknown category",
            ),
            (r#"{"c":["a"]}"#, "feature \"c\" is not a string"),
            (r#"{"c":"a","x":"5"}"#, "feature \"x\" is not a number"),
            (r#"{"c":null,"c":"a"}"#, "feature \"c\" occurs twice"),
        ] {
            let fault = reader.read(input, &mut row).unwrap_err();
            assert!(fault.starts_with(reason), "{input}: {fault}");
        }
    }
}
