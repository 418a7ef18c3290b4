//! Makes the `modelInput` of a request from the cells of a row. A model reads this object
//! in the same way as that of a request. The cells are read as in training.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::model::feature::{Domain, Feature};
use crate::train::cell::{CellKind, CellSyntax};
use crate::train::fields::kind_of_json;
use crate::wire::object::{Object, ObjectWriter, at_pointer};

/// Writes the `modelInput` of rows.
#[derive(Debug)]
pub struct InputWriter<'a> {
    features: Vec<InputFeature<'a>>,
    syntax: &'a CellSyntax,
}

/// A feature, with its categories as a set.
#[derive(Debug)]
struct InputFeature<'a> {
    feature: &'a Feature,
    categories: HashSet<&'a str>,
}

/// A value as JSON.
enum Value<'f> {
    /// JSON text.
    Json(Cow<'f, str>),
    /// The text of a string.
    Text(&'f str),
}

impl<'a> InputWriter<'a> {
    /// A writer for these features, whose cells have this syntax.
    pub fn new(features: &'a [Feature], syntax: &'a CellSyntax) -> InputWriter<'a> {
        let of_feature = |feature: &'a Feature| InputFeature {
            feature,
            categories: { feature.categories().unwrap_or_default() }
                .iter()
                .map(String::as_str)
                .collect(),
        };
        InputWriter {
            features: features.iter().map(of_feature).collect(),
            syntax,
        }
    }

    /// Appends the `modelInput` of a CSV record to `out`. `fields` has the text of each
    /// feature. A feature without a column has no text.
    pub fn write_fields<'f>(
        &self,
        out: &mut Vec<u8>,
        fields: impl Iterator<Item = Option<&'f str>>,
    ) {
        let mut object = ObjectWriter::new(out);
        for (one, field) in self.features.iter().zip(fields) {
            if let Some(value) = field.and_then(|field| self.value(one, field)) {
                write_member(&mut object, &one.feature.name, &value);
            }
        }
        object.end();
    }

    /// Appends the features in a JSON object to `out`, without those that --missing
    /// takes for missing. The error is the reason why the text is not an object.
    pub fn write_members(&self, out: &mut Vec<u8>, text: &str) -> Result<(), String> {
        let source = Object::parse(text)?;
        let mut object = ObjectWriter::new(out);
        for one in &self.features {
            let name = &one.feature.name;
            let mut write = |raw: &str| {
                if kind_of_json(raw, self.syntax).0 != CellKind::Missing {
                    write_member(&mut object, name, &Value::Json(raw.into()));
                }
            };
            match name.starts_with('/') {
                true => at_pointer(text, name).into_iter().for_each(&mut write),
                // A member that occurs twice is written twice, and the model refuses it.
                false => source
                    .members
                    .iter()
                    .filter(|member| member.is(name))
                    .for_each(|member| write(member.value)),
            }
        }
        object.end();
        Ok(())
    }

    /// What a CSV field is in JSON; `None` if the value is missing. The model refuses a
    /// text that should be a number, and says why.
    fn value<'f>(&self, one: &InputFeature, field: &'f str) -> Option<Value<'f>> {
        let is_numbers = one.feature.domain == Domain::Numbers;
        let (kind, number) = self.syntax.of_field(field);
        let markers = &one.feature.markers;
        Some(match kind {
            CellKind::Missing => return None,
            CellKind::Marker if is_numbers => return None,
            _ if markers.iter().any(|marker| marker == field) => return None,
            // A text that is a category is that category, whatever else it looks like.
            _ if one.categories.contains(field) => Value::Text(field),
            CellKind::True => Value::Json("true".into()),
            CellKind::False => Value::Json("false".into()),
            CellKind::Number | CellKind::Infinite => match self.syntax.json_number(field) {
                Some(json) => Value::Json(json),
                None if is_numbers && number.is_finite() => Value::Json(number.to_string().into()),
                None => Value::Text(field),
            },
            _ => Value::Text(field),
        })
    }
}

/// Writes a member. If `name` is a JSON pointer, the member is written inside of nested
/// objects.
fn write_member(object: &mut ObjectWriter, name: &str, value: &Value) {
    let Some(pointer) = name.strip_prefix('/') else {
        write_value(object, name, value);
        return;
    };
    let (token, rest) = match pointer.find('/') {
        Some(slash) => pointer.split_at(slash),
        None => (pointer, ""),
    };
    let token = token.replace("~1", "/").replace("~0", "~");
    match rest.is_empty() {
        true => write_value(object, &token, value),
        false => {
            object.object(&token, |inner| write_member(inner, rest, value));
        }
    }
}

fn write_value(object: &mut ObjectWriter, name: &str, value: &Value) {
    match value {
        Value::Json(json) => object.raw(name, json),
        Value::Text(text) => object.string(name, text),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::tests::category;

    fn written(features: &[Feature], syntax: &CellSyntax, fields: &[Option<&str>]) -> String {
        let mut out = Vec::new();
        let writer = InputWriter::new(features, syntax);
        writer.write_fields(&mut out, fields.iter().copied());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_become_values_of_the_type_of_their_feature() {
        let plain = CellSyntax::default();
        let features = [
            Feature::number("x"),
            category("kind", &["1", "NA", "TRUE", "false"]),
            Feature::number("/a/b"),
            Feature::number("/c"),
            Feature::number("last"),
        ];
        for (fields, expected) in [
            (
                [Some("1.50"), Some("1"), Some("2"), Some("3"), None],
                r#"{"x":1.50,"kind":"1","a":{"b":2},"c":3}"#,
            ),
            (
                [Some("n/a"), Some("NA"), Some("TRUE"), Some(""), Some("x\"")],
                r#"{"kind":"NA","a":{"b":true},"last":"x\""}"#,
            ),
            (
                [Some("1e400"), Some("1.0"), None, None, Some("+.5")],
                r#"{"x":1e400,"kind":1.0,"last":0.5}"#,
            ),
            (
                [Some("1,5"), Some("TRUE"), None, None, Some("inf")],
                r#"{"x":"1,5","kind":"TRUE","last":"inf"}"#,
            ),
            ([None, Some("False"), None, None, None], r#"{"kind":false}"#),
        ] {
            assert_eq!(written(&features, &plain, &fields), expected);
        }
    }

    #[test]
    fn markers_and_the_decimal_comma_are_read_as_in_training() {
        let marked = [
            Feature {
                markers: vec!["999".to_owned(), "lost".to_owned()],
                ..Feature::number("m")
            },
            category("c", &["1,5", "2"]),
        ];
        let syntax = CellSyntax::new(&["Unknown".to_owned(), "-1".to_owned()], true);
        for (fields, expected) in [
            (["999", "1,5"], r#"{"c":"1,5"}"#),
            (["lost", "unknown"], "{}"),
            (["UNKNOWN", "2,0"], r#"{"c":2.0}"#),
            (["-1,0", "2"], r#"{"c":"2"}"#),
            (["1,5", ""], r#"{"m":1.5}"#),
            (["1.234", "?"], r#"{"m":"1.234","c":"?"}"#),
            (["1,234,5", ""], r#"{"m":"1,234,5"}"#),
        ] {
            assert_eq!(written(&marked, &syntax, &fields.map(Some)), expected);
        }
        let features = [Feature::number("m"), Feature::number("/a/b")];
        let writer = InputWriter::new(&features, &syntax);
        for (text, expected) in [
            (r#"{"m":-1.0,"a":{"b":2,"c":3}}"#, r#"{"a":{"b":2}}"#),
            (r#"{"m":1.50,"a":{"b":"unknown"},"z":1}"#, r#"{"m":1.50}"#),
            (r#"{"m":1,"m":2,"a":null}"#, r#"{"m":1,"m":2}"#),
        ] {
            let mut out = Vec::new();
            writer.write_members(&mut out, text).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        assert!(writer.write_members(&mut Vec::new(), "[1]").is_err());
    }
}
