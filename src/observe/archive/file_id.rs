//! The id in the name of an archive's file. Ids sort by time, even if the clock steps
//! back.

use std::fmt;

use chrono::{DateTime, NaiveDateTime};

use crate::wire::micros::Micros;

/// The form of the time in an id: fixed width, UTC, whole milliseconds.
const TIME_FORMAT: &str = "%Y%m%dT%H%M%S%.3fZ";

/// The last millisecond whose year has four digits.
const MILLIS_MAX: i64 = 253_402_300_799_999;

/// The last sequence number in one millisecond.
const SEQUENCE_MAX: u32 = 999_999;

/// The creation time of a file and a sequence number: `20220209T013947.021Z-000000`. The
/// number grows while the clock does not advance. Ids and their texts have the same
/// order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    millis: i64,
    sequence: u32,
}

impl FileId {
    /// The id of a file that is created at `now`. The id is greater than `greatest`.
    /// Returns `None` if `greatest` is the last possible id.
    pub fn after(greatest: Option<FileId>, now: Micros) -> Option<FileId> {
        let fresh = FileId {
            millis: now.0.div_euclid(1000).clamp(0, MILLIS_MAX),
            sequence: 0,
        };
        match greatest {
            Some(last) if last >= fresh => last.next(),
            _ => Some(fresh),
        }
    }

    /// The next greater id; `None` after the last one.
    pub fn next(self) -> Option<FileId> {
        if self.sequence < SEQUENCE_MAX {
            return Some(FileId {
                sequence: self.sequence + 1,
                ..self
            });
        }
        (self.millis < MILLIS_MAX).then(|| FileId {
            millis: self.millis + 1,
            sequence: 0,
        })
    }

    /// Whether the id's time is the last millisecond that a name can hold. No real
    /// clock returns this time, and almost no greater ids are left.
    pub fn is_at_time_limit(self) -> bool {
        self.millis >= MILLIS_MAX
    }

    /// The time in the id.
    pub fn created(self) -> Micros {
        Micros(self.millis * 1000)
    }

    /// Parses the text of an id. Returns `None` if the text differs from the form
    /// that `rv-archive` writes.
    pub fn parse(text: &str) -> Option<FileId> {
        let (stamp, sequence) = text.rsplit_once('-')?;
        let time = NaiveDateTime::parse_from_str(stamp, TIME_FORMAT).ok()?;
        let id = FileId {
            millis: time.and_utc().timestamp_millis(),
            sequence: sequence.parse().ok()?,
        };
        // An id has only one valid text: with all leading zeros, and without `+`.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let time = DateTime::from_timestamp_millis(self.millis).unwrap_or_default();
        write!(
            formatter,
            "{}-{:06}",
            time.format(TIME_FORMAT),
            self.sequence
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_is_a_time_that_people_can_read() {
        let id = FileId::after(None, Micros(1_644_370_787_021_771)).unwrap();
        assert_eq!(id.to_string(), "20220209T013947.021Z-000000");
        assert_eq!(FileId::parse("20220209T013947.021Z-000000"), Some(id));
        for foreign in [
            "",
            "x",
            "20220209T013947.021Z",
            "20220209T013947.021Z-0",
            "20220209T013947.021Z-+00001",
            "20221309T013947.021Z-000000",
        ] {
            assert_eq!(FileId::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_full_sequence_borrows_the_next_millisecond() {
        let full = FileId {
            millis: 5,
            sequence: SEQUENCE_MAX,
        };
        let next = FileId::after(Some(full), Micros(0)).unwrap();
        assert!(next > full);
        assert_eq!(next.to_string().len(), 27);
    }

    #[test]
    fn behind_the_last_id_there_is_none() {
        let last = FileId::parse("99991231T235959.999Z-999999").unwrap();
        assert!(last.is_at_time_limit());
        assert_eq!(last.next(), None);
        assert_eq!(FileId::after(Some(last), Micros(0)), None);
        let before = FileId::parse("99991231T235959.998Z-999999").unwrap();
        assert!(!before.is_at_time_limit());
        assert_eq!(
            before.next().unwrap().to_string(),
            "99991231T235959.999Z-000000"
        );
        assert_eq!(FileId::parse("+100000101T000000.000Z-000000"), None);
    }

    proptest! {
        #[test]
        fn ids_and_their_texts_grow_whatever_the_clock_does(
            times in proptest::collection::vec(prop_oneof![0i64..20_000, any::<i64>()], 1..50),
        ) {
            let mut last: Option<FileId> = None;
            for time in times {
                let next = FileId::after(last, Micros(time)).unwrap();
                if let Some(last) = last {
                    prop_assert!(next > last);
                    prop_assert!(next.to_string() > last.to_string());
                }
                prop_assert_eq!(FileId::parse(&next.to_string()), Some(next));
                last = Some(next);
            }
        }
    }
}
