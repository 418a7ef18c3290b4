//! The canonical text of a JSON number.
//!
//! Two numbers are equal if their values are. Whole numbers are compared exactly,
//! because ids and amounts may have more digits than a 64-bit float. Other numbers are
//! compared as 64-bit floats, because models compute with them: `0.1` and
//! `0.10000000000000001` are the same float.

/// A whole number with more digits than this is written with an exponent.
const PLAIN_DIGITS_MAX: usize = 40;

/// The canonical text of a JSON number. A text that is not a JSON number, and a number
/// whose exponent has more than 15 digits, is returned as given.
pub fn canonical_number(text: &str) -> String {
    match Decimal::read(text) {
        Some(decimal) => decimal.canonical(text),
        None => text.to_owned(),
    }
}

/// The number that a JSON text is, if a 64-bit float can hold it; `None` for any other
/// value.
pub fn finite_number(text: &str) -> Option<f64> {
    let may_be = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let number: Option<f64> = may_be.then(|| text.parse().ok()).flatten();
    number.filter(|number| number.is_finite())
}

/// A number as its sign, its digits without zeros at either end, and the power of ten of
/// the last digit.
struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn read(text: &str) -> Option<Decimal> {
        let (is_negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(place) => (&rest[..place], &rest[place + 1..]),
            None => (rest, "0"),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_valid = is_digits(whole)
            && is_digits(fraction)
            && !whole.is_empty()
            && (whole == "0" || !whole.starts_with('0'));
        if !is_valid || exponent.len() > 16 {
            return None;
        }
        let exponent: i64 = exponent.parse().ok()?;
        let all = [whole, fraction].concat();
        let digits = all.trim_end_matches('0');
        let dropped = (all.len() - digits.len()) as i64 - fraction.len() as i64;
        let digits = digits.trim_start_matches('0').to_owned();
        let exponent = match digits.is_empty() {
            true => 0,
            false => exponent + dropped,
        };
        Some(Decimal {
            is_negative: is_negative && !digits.is_empty(),
            digits,
            exponent,
        })
    }

    fn canonical(&self, text: &str) -> String {
        let sign = if self.is_negative { "-" } else { "" };
        let Decimal {
            digits, exponent, ..
        } = self;
        if digits.is_empty() {
            return "0".to_owned();
        }
        if *exponent < 0 {
            // A number that is too small for a float is not zero.
            match finite_number(text).filter(|number| *number != 0.0) {
                Some(number) => return number.to_string(),
                None => return format!("{sign}{digits}e{exponent}"),
            }
        }
        let zeros = usize::try_from(*exponent).unwrap_or(usize::MAX);
        match digits.len().saturating_add(zeros) <= PLAIN_DIGITS_MAX {
            true => format!("{sign}{digits}{}", "0".repeat(zeros)),
            false => format!("{sign}{digits}e{exponent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_has_one_canonical_text() {
        for (spellings, canonical) in [
            (&["0", "-0", "0.0", "-0e5", "0E-3"][..], "0"),
            (&["1", "1.0", "10e-1", "0.1e1", "1E+0"], "1"),
            (&["-1200", "-1.2e3", "-12E2"], "-1200"),
            (
                &["9007199254740993", "9007199254740993.0"],
                "9007199254740993",
            ),
            (&["0.1", "0.10", "1e-1", "0.10000000000000001"], "0.1"),
            (&["1e400", "10e399"], "1e400"),
            (&["1e-400", "0.1e-399"], "1e-400"),
            (&["2e41"], "2e41"),
            (&["1e99999999999999999999"], "1e99999999999999999999"),
        ] {
            for spelling in spellings {
                assert_eq!(canonical_number(spelling), canonical, "{spelling}");
                assert_eq!(canonical_number(canonical), canonical);
            }
        }
        for text in ["01", "", "-", ".5", "1e", "nan", "1.5.2", "1e5e5"] {
            assert_eq!(canonical_number(text), text);
        }
        assert_eq!(finite_number("1e400"), None);
        assert_eq!(finite_number("-2.5"), Some(-2.5));
        assert_eq!(finite_number("inf"), None);
    }

    proptest! {
        #[test]
        fn whole_numbers_keep_all_digits(one in any::<i128>(), zeros in 0..4_usize) {
            let with_fraction = format!("{one}.{}", "0".repeat(zeros.max(1)));
            prop_assert_eq!(canonical_number(&with_fraction), one.to_string());
            let with_exponent = format!("{one}{}e-{zeros}", "0".repeat(zeros));
            prop_assert_eq!(canonical_number(&with_exponent), one.to_string());
        }

        #[test]
        fn floats_are_equal_exactly_if_their_values_are(one in -1e9..1e9_f64, other in -1e9..1e9_f64) {
            let with_exponent = format!("{one:e}");
            prop_assert_eq!(canonical_number(&one.to_string()), canonical_number(&with_exponent));
            prop_assert_eq!(
                canonical_number(&one.to_string()) == canonical_number(&other.to_string()),
                one == other
            );
        }
    }
}
