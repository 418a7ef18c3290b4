//! The time at which each record of a recording is written: at once, at a rate, or at the
//! recorded intervals.

use std::time::Duration;

use crate::wire::micros::Micros;

/// The times at which the records of a stream are due.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Each record is due at once.
    Free,
    /// Records are due at equal intervals.
    Rate {
        /// The number of records a second.
        per_second: f64,
        /// The number of earlier records.
        count: u64,
    },
    /// Records are due at the intervals of their timestamps.
    Recorded {
        /// The factor by which the replay is faster than the recording.
        speed: f64,
        /// The timestamp of the first record that has one.
        first: Option<Micros>,
        /// The time at which the last record was due.
        latest: Duration,
    },
}

impl Pace {
    /// A pace of `per_second` records a second, at equal intervals.
    pub fn rate(per_second: f64) -> Pace {
        Pace::Rate {
            per_second,
            count: 0,
        }
    }

    /// A pace that keeps the intervals of the timestamps, divided by `speed`.
    pub fn recorded(speed: f64) -> Pace {
        Pace::Recorded {
            speed,
            first: None,
            latest: Duration::ZERO,
        }
    }

    /// The time at which the next record is due, measured from the first one; `None`
    /// if the record need not wait. If a record has no timestamp, or an older
    /// timestamp than the previous record, it is due together with the previous
    /// record.
    pub fn due(&mut self, time: Option<Micros>) -> Option<Duration> {
        match self {
            Pace::Free => None,
            Pace::Rate { per_second, count } => {
                let due = span(*count as f64 / *per_second);
                *count += 1;
                Some(due)
            }
            Pace::Recorded {
                speed,
                first,
                latest,
            } => {
                if let Some(time) = time {
                    let since = time - *first.get_or_insert(time);
                    let due = span(since.0.max(0) as f64 / 1e6 / *speed);
                    *latest = due.max(*latest);
                }
                Some(*latest)
            }
        }
    }
}

/// Turns seconds into a duration. A duration of more than a year is shortened to a
/// year.
fn span(seconds: f64) -> Duration {
    let year = Duration::from_secs(366 * 24 * 3600);
    Duration::try_from_secs_f64(seconds).map_or(year, |span| span.min(year))
}

/// Reads a positive number, for rates and speeds.
pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("must be a number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(pace: &mut Pace, seconds: Option<f64>) -> u128 {
        pace.due(seconds.map(Micros::from_seconds))
            .unwrap()
            .as_millis()
    }

    #[test]
    fn a_rate_spreads_records_evenly() {
        let mut pace = Pace::rate(4.0);
        let dues = [0; 5].map(|_| millis(&mut pace, None));
        assert_eq!(dues, [0, 250, 500, 750, 1000]);
        assert_eq!(Pace::Free.due(None), None);
    }

    #[test]
    fn recorded_times_keep_their_distances() {
        let times = [
            None,
            Some(100.0),
            Some(100.5),
            None,
            Some(99.0),
            Some(102.0),
        ];
        let mut pace = Pace::recorded(1.0);
        let dues = times.map(|time| millis(&mut pace, time));
        assert_eq!(dues, [0, 0, 500, 500, 500, 2000]);
        let mut pace = Pace::recorded(10.0);
        let dues = times.map(|time| millis(&mut pace, time));
        assert_eq!(dues, [0, 0, 50, 50, 50, 200]);
        // A gap of many years is a long wait and not an error.
        let mut pace = Pace::recorded(1e-9);
        millis(&mut pace, Some(0.0));
        assert!(millis(&mut pace, Some(1e12)) > 1_000_000_000);
    }
}
