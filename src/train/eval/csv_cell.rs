//! Makes a `modelInput` from a record of a CSV file. A model reads this object in the
//! same way as the `modelInput` of a request.

use crate::model::feature::{Domain, Feature};
use crate::wire::object::ObjectWriter;

/// The texts that stand for a missing value in a column of numbers, in any case.
const MARKERS: [&str; 7] = ["na", "n/a", "nan", "null", "none", "?", "-"];

/// Whether a field stands for a missing value in a column of numbers.
pub fn is_marker(field: &str) -> bool {
    field.is_empty()
        || MARKERS
            .iter()
            .any(|marker| field.eq_ignore_ascii_case(marker))
}

/// Rewrites a field with a decimal comma with a decimal point.
pub fn with_point(field: &str) -> String {
    match field.matches(',').count() {
        1 => field.replace(',', "."),
        _ => field.to_owned(),
    }
}

/// Appends the `modelInput` of a record to `out`. `fields` has the text of each
/// feature. A feature without a column has no text.
pub fn write_input<'f>(
    out: &mut Vec<u8>,
    decimal_comma: bool,
    fields: impl Iterator<Item = (&'f Feature, Option<&'f str>)>,
) {
    let mut object = ObjectWriter::new(out);
    for (feature, field) in fields {
        let Some(field) = field.filter(|field| !field.is_empty()) else {
            continue;
        };
        match decimal_comma && feature.domain == Domain::Numbers {
            true => write_member(&mut object, &feature.name, feature, &with_point(field)),
            false => write_member(&mut object, &feature.name, feature, field),
        }
    }
    object.end();
}

/// Writes a member. If `name` is a JSON pointer, the member is written inside of nested
/// objects.
fn write_member(object: &mut ObjectWriter, name: &str, feature: &Feature, field: &str) {
    let Some(pointer) = name.strip_prefix('/') else {
        write_value(object, name, feature, field);
        return;
    };
    let (token, rest) = match pointer.find('/') {
        Some(slash) => pointer.split_at(slash),
        None => (pointer, ""),
    };
    let token = token.replace("~1", "/").replace("~0", "~");
    match rest.is_empty() {
        true => write_value(object, &token, feature, field),
        false => {
            object.object(&token, |inner| write_member(inner, rest, feature, field));
        }
    }
}

fn write_value(object: &mut ObjectWriter, name: &str, feature: &Feature, field: &str) {
    if feature.markers.iter().any(|marker| marker == field) {
        object.raw(name, "null");
        return;
    }
    if feature.domain != Domain::Numbers {
        object.string(name, field);
        return;
    }
    if is_json_number(field) {
        object.raw(name, field);
        return;
    }
    match field.parse::<f64>() {
        Ok(number) if number.is_finite() => object.display(name, number),
        _ if is_marker(field) => object.raw(name, "null"),
        _ if field.eq_ignore_ascii_case("true") => object.raw(name, "true"),
        _ if field.eq_ignore_ascii_case("false") => object.raw(name, "false"),
        // The model refuses this value, and says why.
        _ => object.string(name, field),
    };
}

/// Whether a text is a number as JSON writes it.
fn is_json_number(text: &str) -> bool {
    let bytes = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let digits = |bytes: &[u8]| {
        bytes
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let whole = digits(bytes);
    if whole == 0 || (whole > 1 && bytes[0] == b'0') {
        return false;
    }
    let mut rest = &bytes[whole..];
    if let Some((b'.', fraction)) = rest.split_first() {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let Some((b'e' | b'E', exponent)) = rest.split_first() {
        let exponent = match exponent.split_first() {
            Some((b'+' | b'-', digits)) => digits,
            _ => exponent,
        };
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::tests::category;

    #[test]
    fn numbers_are_recognised_as_a_json_parser_recognises_them() {
        let texts = "0 -0 10 01 1. .5 1.5 -1.5e3 1e 1e+ 1E-07 1e5x - +1 1_0 0x1 inf NaN 1.2.3 00.5";
        for text in texts.split(' ').chain([""]) {
            let is_json = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(is_json_number(text), is_json, "{text}");
        }
    }

    #[test]
    fn fields_become_values_of_the_type_of_their_feature() {
        let features = [
            Feature::number("x"),
            category("kind", &["1", "NA"]),
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
                r#"{"x":null,"kind":"NA","a":{"b":true},"last":"x\""}"#,
            ),
            (
                [Some("1e400"), None, None, None, Some("+.5")],
                r#"{"x":1e400,"last":0.5}"#,
            ),
        ] {
            let mut out = Vec::new();
            write_input(&mut out, false, features.iter().zip(fields));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        let marked = Feature {
            markers: vec!["999".to_owned()],
            ..Feature::number("m")
        };
        for (field, expected) in [
            ("999", r#"{"m":null}"#),
            ("1,5", r#"{"m":1.5}"#),
            ("1,234,5", r#"{"m":"1,234,5"}"#),
        ] {
            let mut out = Vec::new();
            write_input(&mut out, true, [(&marked, Some(field))].into_iter());
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
