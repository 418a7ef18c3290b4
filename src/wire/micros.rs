//! Times as the records have them: whole microseconds.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A time or a span in whole microseconds. What it is measured from is the
/// business of whoever holds it: the Unix epoch, a program's start, or a
/// request.
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

    /// From one of the standard library's spans; one too long becomes the
    /// longest there is.
    pub fn from_duration(duration: Duration) -> Micros {
        Micros(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
    }

    /// As a span of the standard library; one before zero becomes zero.
    pub fn to_duration(self) -> Duration {
        Duration::from_micros(u64::try_from(self.0).unwrap_or(0))
    }

    /// Prints as milliseconds with three decimals, as records have it.
    pub fn as_millis(self) -> impl fmt::Display {
        Decimal {
            micros: self.0,
            unit: 1_000,
            digits: 3,
        }
    }

    /// Prints as seconds with six decimals, as records have it.
    pub fn as_seconds(self) -> impl fmt::Display {
        Decimal {
            micros: self.0,
            unit: 1_000_000,
            digits: 6,
        }
    }
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

/// Exact decimals of a whole number of microseconds.
struct Decimal {
    micros: i64,
    unit: u64,
    digits: usize,
}

impl fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let sign = if self.micros < 0 { "-" } else { "" };
        let micros = self.micros.unsigned_abs();
        let (whole, fraction) = (micros / self.unit, micros % self.unit);
        let digits = self.digits;
        write!(formatter, "{sign}{whole}.{fraction:0digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
