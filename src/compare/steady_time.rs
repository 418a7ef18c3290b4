//! The time of a stream, by the timestamps of its records.

use crate::wire::micros::Micros;

/// The number of records in a row that make a jump of the time believable.
const BELIEVED_AFTER: u32 = 2;

/// Follows the timestamps of a stream. The time moves on with the records, but a single
/// record whose timestamp is far from the time, such as one of the far future, does not
/// move it: all waiting requests would seem to be old.
#[derive(Clone, Debug)]
pub struct SteadyTime {
    /// A larger step needs several records in a row.
    step_max: Micros,
    now: Option<Micros>,
    /// The records in a row that are far from the time, and the nearest of their times.
    far: Option<(u32, Micros)>,
}

impl SteadyTime {
    /// Starts without a record.
    pub fn new(step_max: Micros) -> SteadyTime {
        SteadyTime {
            step_max,
            now: None,
            far: None,
        }
    }

    /// Takes the timestamp of the next record. Returns the time of the stream, and the
    /// timestamp if it is believable, else the time of the stream.
    pub fn take(&mut self, timestamp: Micros) -> (Micros, Micros) {
        let now = self.now.unwrap_or(timestamp);
        let distance = timestamp.0.saturating_sub(now.0);
        if distance.saturating_abs() <= self.step_max.0 {
            self.far = None;
            let now = now.max(timestamp);
            self.now = Some(now);
            return (now, timestamp);
        }
        let (count, nearest) = match self.far {
            // Only records on the same side of the time count.
            Some((count, nearest)) if (nearest > now) == (timestamp > now) => {
                let is_nearer = (timestamp > now) == (timestamp < nearest);
                (count + 1, if is_nearer { timestamp } else { nearest })
            }
            _ => (1, timestamp),
        };
        if count < BELIEVED_AFTER {
            self.far = Some((count, nearest));
            return (now, now);
        }
        self.far = None;
        self.now = Some(nearest);
        (nearest, timestamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time of the stream after each timestamp, with steps of at most 10.
    fn times(timestamps: &[i64]) -> Vec<i64> {
        let mut steady = SteadyTime::new(Micros(10));
        let times = timestamps.iter().map(|time| steady.take(Micros(*time)).0.0);
        times.collect()
    }

    #[test]
    fn the_time_follows_the_records_and_one_wrong_record_does_not_move_it() {
        assert_eq!(times(&[1, 5, 3, 12]), [1, 5, 5, 12]);
        assert_eq!(times(&[1, i64::MAX, 5, i64::MIN, 6]), [1, 1, 5, 5, 6]);
        // A pause moves it with the second record.
        assert_eq!(times(&[1, 100, 104, 110]), [1, 1, 100, 110]);
        // A first record that is wrong is left behind.
        assert_eq!(times(&[1000, 1, 2, 3]), [1000, 1000, 2, 3]);
        let mut steady = SteadyTime::new(Micros(10));
        steady.take(Micros(1));
        assert_eq!(steady.take(Micros(500)), (Micros(1), Micros(1)));
        assert_eq!(steady.take(Micros(7)), (Micros(7), Micros(7)));
    }
}
