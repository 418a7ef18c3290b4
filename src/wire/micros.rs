//! Times of records, in whole microseconds.

use std::fmt;
use std::ops::{Add, Deref, Sub};
use std::time::Duration;

use chrono::DateTime;

/// A time or a duration in whole microseconds. The context of a time tells its zero:
/// the Unix epoch, a program's start, or a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

impl Micros {
    /// The nearest microsecond to a number of seconds.
    pub fn from_seconds(seconds: f64) -> Micros {
        Micros((seconds * 1e6).round() as i64)
    }

    /// The nearest microsecond to a number of milliseconds.
    pub fn from_millis(millis: f64) -> Micros {
        Micros((millis * 1e3).round() as i64)
    }

    /// Parses a decimal number of seconds from a record. Returns `None` if `raw` is
    /// not a number, or is more than a hundred thousand years.
    pub fn parse_seconds(raw: &str) -> Option<Micros> {
        plain_decimal(raw, 6).or_else(|| {
            let seconds: f64 = raw.parse().ok()?;
            // Every value within this bound fits into an `i64` of microseconds.
            (seconds.abs() < 3e12).then(|| Micros::from_seconds(seconds))
        })
    }

    /// Parses the `timestamp` of a record: a number of seconds since 1970, within the
    /// years 0 to 9999. All programs use this rule. The error continues a sentence that
    /// begins with the field's name. It says what the text probably is, and how to
    /// correct it.
    pub fn parse_timestamp(raw: &str) -> Result<Micros, String> {
        match Micros::parse_seconds(raw) {
            Some(time) if (YEAR_0..YEAR_10000).contains(&time) => Ok(time),
            _ => Err(fault_of_timestamp(raw)),
        }
    }

    /// Like [`parse_seconds`](Micros::parse_seconds), for milliseconds.
    pub fn parse_millis(raw: &str) -> Option<Micros> {
        plain_decimal(raw, 3).or_else(|| {
            let millis: f64 = raw.parse().ok()?;
            (millis.abs() < 1e15).then(|| Micros::from_millis(millis))
        })
    }

    /// Converts a duration of the standard library. One that is too long becomes the
    /// maximum.
    pub fn from_duration(duration: Duration) -> Micros {
        Micros(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
    }

    /// Converts to a duration of the standard library. A negative value becomes zero.
    pub fn to_duration(self) -> Duration {
        Duration::from_micros(u64::try_from(self.0).unwrap_or(0))
    }

    /// Formats as milliseconds with three decimals, as in records.
    pub fn as_millis(self) -> Decimal {
        Decimal::new(self.0, 3)
    }

    /// Formats as seconds with six decimals, as in records.
    pub fn as_seconds(self) -> Decimal {
        Decimal::new(self.0, 6)
    }
}

/// The first moment of the year 0.
const YEAR_0: Micros = Micros(-62_167_219_200_000_000);

/// The first moment after the year 9999.
const YEAR_10000: Micros = Micros(253_402_300_800_000_000);

/// Describes why `raw` is not a timestamp, with the remedy.
fn fault_of_timestamp(raw: &str) -> String {
    const WANTED: &str = "is not a number of seconds since 1970";
    if let Some(text) = raw.strip_prefix('"').and_then(|it| it.strip_suffix('"')) {
        let remedy = if let Ok(date) = DateTime::parse_from_rfc3339(text) {
            let seconds = Micros(date.timestamp_micros()).as_seconds();
            format!("a date; write {seconds} (in jq, `fromdate` makes seconds of a date)")
        } else if Micros::parse_seconds(text).is_some() {
            "a number in quotes; leave them out".to_owned()
        } else {
            "a string".to_owned()
        };
        return format!("{WANTED} but {remedy}");
    }
    let Ok(number) = raw.parse::<f64>() else {
        return WANTED.to_owned();
    };
    if !number.is_finite() {
        return WANTED.to_owned();
    }
    let units = [
        ("milliseconds", 1e3),
        ("microseconds", 1e6),
        ("nanoseconds", 1e9),
    ];
    let span = YEAR_0.0 as f64 / 1e6..YEAR_10000.0 as f64 / 1e6;
    let unit = units
        .iter()
        .find(|(_, a_second)| span.contains(&(number / a_second)));
    match unit {
        Some((unit, a_second)) => format!(
            "is outside of the years 0 to 9999 as seconds since 1970; are these {unit}? Divide \
             them by {a_second}"
        ),
        None => "is outside of the years 0 to 9999 as seconds since 1970".to_owned(),
    }
}

/// Parses the usual form of numbers in records: digits and perhaps a point, without
/// fractions of a microsecond. `digits` is 6 for seconds and 3 for milliseconds. `None`
/// for other numbers.
fn plain_decimal(raw: &str, digits: usize) -> Option<Micros> {
    // Below this bound, a float differs by less than half a microsecond, so it rounds
    // to the same value.
    const BOUND: u64 = 1 << 51;
    let (mut number, mut point) = (0u64, None);
    for (place, byte) in raw.bytes().enumerate().take(19) {
        match byte {
            b'0'..=b'9' => number = number * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() => point = Some(place + 1),
            _ => return None,
        }
    }
    let decimals = point.map_or(0, |point| raw.len() - point);
    let missing = digits.checked_sub(decimals)?;
    if raw.len() == usize::from(point.is_some()) || raw.len() > 19 {
        return None;
    }
    let micros = number.checked_mul(10u64.pow(missing as u32))?;
    (micros < BOUND).then_some(Micros(micros as i64))
}

impl Add for Micros {
    type Output = Micros;
    fn add(self, other: Micros) -> Micros {
        Micros(self.0.saturating_add(other.0))
    }
}

impl Sub for Micros {
    type Output = Micros;
    fn sub(self, other: Micros) -> Micros {
        Micros(self.0.saturating_sub(other.0))
    }
}

/// A decimal number as text. The digits are written directly, without `fmt`, which is
/// slower: every record contains decimal numbers.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    text: [u8; TEXT_BYTES],
    /// The index of the number's first character. The number extends to the end.
    start: usize,
}

/// Room for a sign, the 19 digits of the longest number, a point, and a zero before the
/// point.
const TEXT_BYTES: usize = 22;

impl Decimal {
    /// The number `units` with a point before the last `digits` digits.
    pub fn new(units: i64, digits: usize) -> Decimal {
        let mut text = [b'0'; TEXT_BYTES];
        let (mut rest, mut start, mut written) = (units.unsigned_abs(), TEXT_BYTES, 0);
        while rest > 0 || written <= digits {
            if written == digits && digits > 0 {
                start -= 1;
                text[start] = b'.';
            }
            start -= 1;
            text[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            written += 1;
        }
        if units < 0 {
            start -= 1;
            text[start] = b'-';
        }
        Decimal { text, start }
    }
}

impl Deref for Decimal {
    type Target = str;
    fn deref(&self) -> &str {
        std::str::from_utf8(&self.text[self.start..]).unwrap_or_default()
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]
        #[test]
        fn a_plain_decimal_is_what_a_float_rounds_to(
            raw in r"[0-9]{0,11}\.?[0-9]{0,7}|1[0-9]{9}\.[0-9]{6}|22[0-9]{8}\.[0-9]{6}|[0-9]{1,20}|-?[0-9]\.[0-9]e[0-9]|[.0-9]{0,4}",
        ) {
            let float = raw.parse::<f64>().ok();
            if let Some(micros) = plain_decimal(&raw, 6) {
                prop_assert_eq!(Some(micros), float.map(Micros::from_seconds), "{}", raw);
            }
            if let Some(micros) = plain_decimal(&raw, 3) {
                prop_assert_eq!(Some(micros), float.map(Micros::from_millis), "{}", raw);
            }
        }
    }

    #[test]
    fn numbers_are_plain_where_records_have_them_so() {
        assert_eq!(plain_decimal("3", 3), Some(Micros(3_000)));
        assert_eq!(plain_decimal("3.000", 3), Some(Micros(3_000)));
        assert_eq!(
            plain_decimal("1700000000.000498", 6),
            Some(Micros(1_700_000_000_000_498))
        );
        for raw in ["", ".", "1.2.3", "-1", "1e3", "0.1234567", "9999999999"] {
            assert_eq!(plain_decimal(raw, 6), None, "{raw}");
        }
        assert_eq!(Micros::parse_seconds("1e-6"), Some(Micros(1)));
        for wrong in ["\"1\"", "null", "inf", "nan", "1e400", "3e12"] {
            assert_eq!(Micros::parse_seconds(wrong), None, "{wrong}");
        }
        assert_eq!(Micros::parse_millis("-1.5"), Some(Micros(-1_500)));
        assert_eq!(Micros::parse_millis("1e15"), None);
    }

    #[test]
    fn a_timestamp_lies_in_the_years_0_to_9999_and_another_unit_is_named() {
        for (raw, micros) in [
            ("1644370787.021771", 1_644_370_787_021_771),
            ("0", 0),
            ("-1.5", -1_500_000),
            ("253402300799.5", 253_402_300_799_500_000),
            ("-62167219200", -62_167_219_200_000_000),
        ] {
            assert_eq!(Micros::parse_timestamp(raw), Ok(Micros(micros)), "{raw}");
        }
        for (raw, said) in [
            ("253402300800", "milliseconds? Divide them by 1000"),
            ("1700000000000", "milliseconds? Divide them by 1000"),
            ("1.7e12", "milliseconds? Divide them by 1000"),
            ("-1700000000000", "milliseconds? Divide them by 1000"),
            ("1700000000000000", "microseconds? Divide them by 1000000"),
            (
                "1700000000000000000",
                "nanoseconds? Divide them by 1000000000",
            ),
            ("1e30", "is outside of the years 0 to 9999"),
            ("1e400", "is not a number of seconds"),
            ("null", "is not a number of seconds"),
            ("{}", "is not a number of seconds"),
            (
                "\"2026-01-01T00:00:00Z\"",
                "a date; write 1767225600.000000",
            ),
            (
                "\"2026-01-01T01:00:00.5+01:00\"",
                "a date; write 1767225600.500000",
            ),
            ("\"1767225600\"", "a number in quotes"),
            (
                "\"now\"",
                "is not a number of seconds since 1970 but a string",
            ),
        ] {
            let fault = Micros::parse_timestamp(raw).unwrap_err();
            assert!(fault.contains(said), "{raw}: {fault}");
        }
    }

    #[test]
    fn times_print_with_all_their_digits() {
        assert_eq!(Micros(-1_500).as_millis().to_string(), "-1.500");
        assert_eq!(Micros(50_007).as_millis().to_string(), "50.007");
        assert_eq!(
            Micros(1_644_370_787_021_771).as_seconds().to_string(),
            "1644370787.021771"
        );
        assert_eq!(
            Micros(i64::MIN).as_millis().to_string(),
            "-9223372036854775.808"
        );
        assert_eq!(Micros(0).as_seconds().to_string(), "0.000000");
        assert_eq!(Micros(7).as_seconds().to_string(), "0.000007");
        assert_eq!(Decimal::new(-70, 0).to_string(), "-70");
    }
}
