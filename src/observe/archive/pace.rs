//! When each record of a recording leaves: as fast as it goes, so many a second, or
//! as they once came.

use std::time::Duration;

use crate::wire::micros::Micros;

/// The pace of a stream of records.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// As fast as it goes.
    Free,
    /// Evenly.
    Rate {
        /// Records a second.
        per_second: f64,
        /// How many have been asked about.
        count: u64,
    },
    /// By their timestamps.
    Recorded {
        /// How many times as fast as it was.
        speed: f64,
        /// The timestamp of the first one.
        first: Option<Micros>,
        /// When the latest was due.
        latest: Duration,
    },
}

impl Pace {
    /// Evenly, so many a second.
    pub fn rate(per_second: f64) -> Pace {
        Pace::Rate {
            per_second,
            count: 0,
        }
    }

    /// By the timestamps of the records, `speed` times as fast.
    pub fn recorded(speed: f64) -> Pace {
        Pace::Recorded {
            speed,
            first: None,
            latest: Duration::ZERO,
        }
    }

    /// When the next record is due, from the first one on; `None` where it need not
    /// wait. One without a time of its own goes with the one before it, and so does
    /// one that is older.
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

/// So many seconds; more than can be counted is a year.
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
        // A gap of ages is a long wait and no fault.
        let mut pace = Pace::recorded(1e-9);
        millis(&mut pace, Some(0.0));
        assert!(millis(&mut pace, Some(1e12)) > 1_000_000_000);
    }
}
