//! One cell of a table as it is read. What a cell means is decided later, when all
//! cells of its column are known.

use std::borrow::Cow;

/// What a cell looks like, without regard to the other cells of its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CellKind {
    /// The cell is empty, absent or `null`, or a marker that --missing names.
    Missing,
    /// A finite number.
    Number,
    /// `true`.
    True,
    /// `false`.
    False,
    /// A number that is not finite, or out of range.
    Infinite,
    /// A text that stands for a missing value in a column of numbers, such as `NA`.
    Marker,
    /// A number with a decimal comma in a file whose numbers have a decimal point, or
    /// the other way round.
    OtherDecimal,
    /// Any other text.
    Word,
    /// An object or an array.
    Nested,
    /// Bytes that are not Unicode.
    NotUnicode,
    /// The member occurs twice in its object.
    Twice,
}

impl CellKind {
    /// The number of kinds.
    pub const COUNT: usize = 11;

    const ALL: [CellKind; CellKind::COUNT] = [
        CellKind::Missing,
        CellKind::Number,
        CellKind::True,
        CellKind::False,
        CellKind::Infinite,
        CellKind::Marker,
        CellKind::OtherDecimal,
        CellKind::Word,
        CellKind::Nested,
        CellKind::NotUnicode,
        CellKind::Twice,
    ];

    /// Whether the cell has a text, which can be a category or a label.
    pub fn is_text(self) -> bool {
        !matches!(
            self,
            CellKind::Missing | CellKind::Nested | CellKind::NotUnicode | CellKind::Twice
        )
    }
}

/// A cell in eight bytes: a finite number is itself, and any other cell is a NaN that
/// carries the kind and the index of the text in the column.
#[derive(Clone, Copy, Debug)]
pub struct Cell(f64);

/// The bits of a quiet NaN without a payload.
const NAN_BITS: u64 = 0x7ff8_0000_0000_0000;

/// The index of a cell whose text was not kept.
const NO_TEXT: u32 = u32::MAX;

impl Cell {
    /// A cell without a value.
    pub const MISSING: Cell = Cell(f64::from_bits(NAN_BITS | NO_TEXT as u64));

    /// A finite number whose text was not kept.
    pub fn number(value: f64) -> Cell {
        Cell(value)
    }

    /// A cell of a kind, with the index of its text in the column if it was kept.
    pub fn of(kind: CellKind, text: Option<u32>) -> Cell {
        let payload = (kind as u64) << 32 | u64::from(text.unwrap_or(NO_TEXT));
        Cell(f64::from_bits(NAN_BITS | payload))
    }

    /// What the cell looks like.
    pub fn kind(self) -> CellKind {
        if !self.0.is_nan() {
            return CellKind::Number;
        }
        let kind = (self.0.to_bits() >> 32 & 0xff) as usize;
        CellKind::ALL.get(kind).copied().unwrap_or(CellKind::Word)
    }

    /// The number of a cell whose text was not kept.
    pub fn as_number(self) -> Option<f64> {
        (!self.0.is_nan()).then_some(self.0)
    }

    /// The index of the text in the column, if it was kept.
    pub fn text_index(self) -> Option<usize> {
        let index = self.0.to_bits() as u32;
        (self.0.is_nan() && index != NO_TEXT).then_some(index as usize)
    }
}

/// How the texts of cells are read.
#[derive(Clone, Debug, Default)]
pub struct CellSyntax {
    /// The texts that --missing names, in lower case.
    markers: Vec<String>,
    /// The texts in `markers` that are numbers, as numbers.
    marker_numbers: Vec<f64>,
    /// Whether numbers in CSV have a decimal comma instead of a point.
    decimal_comma: bool,
}

/// The texts that stand for a missing value in a CSV column of numbers, in lower case.
pub const DEFAULT_MARKERS: [&str; 7] = ["na", "n/a", "nan", "null", "none", "?", "-"];

impl CellSyntax {
    /// The syntax with the markers of --missing and the decimal separator.
    pub fn new(markers: &[String], decimal_comma: bool) -> CellSyntax {
        let markers = markers.iter().map(|marker| marker.trim().to_lowercase());
        let markers: Vec<String> = markers.collect();
        CellSyntax {
            marker_numbers: markers
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
            markers,
            decimal_comma,
        }
    }

    /// Returns the kind of a CSV field without white space around it, and its number.
    /// The number is NaN if the field is not a number.
    pub fn of_field(&self, text: &str) -> (CellKind, f64) {
        let (kind, value) = self.of_text(text);
        match text.is_empty() || self.is_missing(text, value) {
            true => (CellKind::Missing, f64::NAN),
            false => (kind, value),
        }
    }

    fn of_text(&self, text: &str) -> (CellKind, f64) {
        let parsed = match self.decimal_comma {
            false => text.parse::<f64>().ok(),
            true if text.contains('.') => None,
            true => text.replacen(',', ".", 1).parse().ok(),
        };
        match parsed {
            Some(value) if value.is_finite() => return (CellKind::Number, value),
            Some(value) if value.is_nan() => return (CellKind::Marker, f64::NAN),
            Some(_) => return (CellKind::Infinite, f64::NAN),
            None => {}
        }
        let is = |word: &str| text.eq_ignore_ascii_case(word);
        let kind = if is("true") {
            CellKind::True
        } else if is("false") {
            CellKind::False
        } else if DEFAULT_MARKERS.iter().any(|marker| is(marker)) {
            CellKind::Marker
        } else if self.has_other_decimal(text) {
            CellKind::OtherDecimal
        } else {
            CellKind::Word
        };
        (kind, f64::NAN)
    }

    /// The number in a CSV field as JSON writes it. `None` if JSON has no number that is
    /// written like the field, such as `01`, `+1` or `.5`.
    pub fn json_number<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        let number = match self.decimal_comma {
            false => Cow::Borrowed(text),
            true if text.contains('.') => return None,
            true => Cow::Owned(text.replacen(',', ".", 1)),
        };
        is_json_number(&number).then_some(number)
    }

    /// Whether a text is a number with the decimal separator that the numbers of the
    /// file do not have.
    fn has_other_decimal(&self, text: &str) -> bool {
        let other = if self.decimal_comma { '.' } else { ',' };
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let is_digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        unsigned
            .split_once(other)
            .is_some_and(|(integer, decimals)| is_digits(integer) && is_digits(decimals))
    }

    /// Whether --missing names any marker.
    pub fn has_markers(&self) -> bool {
        !self.markers.is_empty()
    }

    /// Returns the kind of a number in JSON, and its value. The value is NaN if the
    /// number is out of range or stands for a missing value.
    pub fn of_json_number(&self, raw: &str) -> (CellKind, f64) {
        match raw.parse::<f64>() {
            Ok(value) if self.is_missing(raw, value) => (CellKind::Missing, f64::NAN),
            Ok(value) if value.is_finite() => (CellKind::Number, value),
            _ => (CellKind::Infinite, f64::NAN),
        }
    }

    /// Returns the kind of the decoded text of a JSON string. The kind is never a
    /// number, because a string in a request is not a number either.
    pub fn of_json_string(&self, text: &str) -> CellKind {
        match text.is_empty() || !self.is_missing(text.trim(), f64::NAN) {
            true => CellKind::Word,
            false => CellKind::Missing,
        }
    }

    /// Whether --missing names this text or this number.
    fn is_missing(&self, text: &str, value: f64) -> bool {
        !self.markers.is_empty()
            && (self.marker_numbers.contains(&value) || self.markers.contains(&text.to_lowercase()))
    }
}

/// What the numbers of the kind [`OtherDecimal`](CellKind::OtherDecimal) have, and how
/// they are read as numbers. `text` is one of them.
pub fn other_decimal(text: &str) -> (&'static str, &'static str) {
    match text.contains(',') {
        true => ("decimal comma", "--decimal , reads decimal commas"),
        false => (
            "decimal point",
            "without --decimal , a number has a decimal point",
        ),
    }
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cell_is_what_it_was_made_of(
            value in proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
            kind in 0..CellKind::COUNT,
            index in 0..u32::MAX,
        ) {
            prop_assert_eq!(Cell::number(value).as_number(), Some(value));
            prop_assert_eq!(Cell::number(value).kind(), CellKind::Number);
            prop_assert_eq!(Cell::number(value).text_index(), None);
            let kind = CellKind::ALL[kind];
            for (text, expected) in [(Some(index), Some(index as usize)), (None, None)] {
                let cell = Cell::of(kind, text);
                prop_assert_eq!(cell.kind(), kind);
                prop_assert_eq!(cell.text_index(), expected);
                prop_assert_eq!(cell.as_number(), None);
            }
        }

        #[test]
        fn a_number_with_a_comma_is_the_number_with_a_point(text in "-?[0-9]{1,6}\\.[0-9]{1,6}") {
            let (plain, comma) = (CellSyntax::new(&[], false), CellSyntax::new(&[], true));
            let with_comma = text.replace('.', ",");
            prop_assert_eq!(comma.of_field(&with_comma), plain.of_field(&text));
            prop_assert_eq!(plain.of_field(&with_comma).0, CellKind::OtherDecimal);
            prop_assert_eq!(comma.of_field(&text).0, CellKind::OtherDecimal);
            prop_assert_eq!(comma.json_number(&with_comma), plain.json_number(&text));
            prop_assert_eq!(comma.json_number(&text), None);
        }
    }

    #[test]
    fn numbers_are_recognised_as_a_json_parser_recognises_them() {
        let texts = "0 -0 10 01 1. .5 1.5 -1.5e3 1e 1e+ 1E-07 1e5x - +1 1_0 0x1 inf NaN 1.2.3 00.5";
        for text in texts.split(' ').chain([""]) {
            let is_json = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(is_json_number(text), is_json, "{text}");
        }
    }

    #[test]
    fn a_field_is_what_it_looks_like() {
        let syntax = CellSyntax::new(&["-999".to_owned(), " Unknown ".to_owned()], false);
        for (text, kind) in [
            ("", CellKind::Missing),
            ("unknown", CellKind::Missing),
            ("UNKNOWN", CellKind::Missing),
            ("-999", CellKind::Missing),
            ("-999.0", CellKind::Missing),
            ("999", CellKind::Number),
            ("1e5", CellKind::Number),
            ("True", CellKind::True),
            ("FALSE", CellKind::False),
            ("inf", CellKind::Infinite),
            ("-Infinity", CellKind::Infinite),
            ("1e999", CellKind::Infinite),
            ("NaN", CellKind::Marker),
            ("n/A", CellKind::Marker),
            ("?", CellKind::Marker),
            ("1,5", CellKind::OtherDecimal),
            ("-1,5", CellKind::OtherDecimal),
            ("1,5,6", CellKind::Word),
            (",5", CellKind::Word),
            ("5 kg", CellKind::Word),
        ] {
            assert_eq!(syntax.of_field(text).0, kind, "{text:?}");
        }
        assert_eq!(syntax.of_json_number("-999").0, CellKind::Missing);
        assert_eq!(syntax.of_json_number("1e999").0, CellKind::Infinite);
        assert_eq!(syntax.of_json_string("5"), CellKind::Word);
        assert_eq!(syntax.of_json_string("NA"), CellKind::Word);
        assert_eq!(syntax.of_json_string("unknown"), CellKind::Missing);
        let plain = CellSyntax::new(&[], false);
        assert_eq!(plain.of_json_string(""), CellKind::Word);
        let zero = CellSyntax::new(&["0".to_owned()], false);
        assert_eq!(zero.of_field("word").0, CellKind::Word);
        assert_eq!(zero.of_field("0.0").0, CellKind::Missing);
    }
}
