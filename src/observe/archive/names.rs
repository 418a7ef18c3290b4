//! The names in an archive's folder. An id sorts by time, even when the clock
//! steps back.

use std::fmt;

use chrono::{DateTime, NaiveDateTime};

use crate::wire::micros::Micros;

/// How an id writes its time: fixed width, UTC, whole milliseconds.
const STAMP: &str = "%Y%m%dT%H%M%S%.3fZ";

/// The last millisecond whose year has four digits.
const MILLIS_MAX: i64 = 253_402_300_799_999;

/// Files that may begin in one millisecond, or while the clock stands behind.
const SEQUENCE_MAX: u32 = 999_999;

/// When a file was begun, and a count of those that could claim no later time:
/// `20220209T013947.021Z-000000`. Ids and their texts sort alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    millis: i64,
    sequence: u32,
}

impl Id {
    /// The id of a file that is begun at `now`, greater than `greatest`. `None`
    /// where that is the last there can be.
    pub fn after(greatest: Option<Id>, now: Micros) -> Option<Id> {
        let fresh = Id {
            millis: now.0.div_euclid(1000).clamp(0, MILLIS_MAX),
            sequence: 0,
        };
        match greatest {
            Some(last) if last >= fresh => last.next(),
            _ => Some(fresh),
        }
    }

    /// The least id that is greater.
    pub fn next(self) -> Option<Id> {
        if self.sequence < SEQUENCE_MAX {
            return Some(Id {
                sequence: self.sequence + 1,
                ..self
            });
        }
        (self.millis < MILLIS_MAX).then(|| Id {
            millis: self.millis + 1,
            sequence: 0,
        })
    }

    /// Whether it claims the last millisecond that a name can tell. No clock gives
    /// that; to go on from it would leave few names or none.
    pub fn is_at_the_end(self) -> bool {
        self.millis >= MILLIS_MAX
    }

    /// The time that it claims.
    pub fn begun(self) -> Micros {
        Micros(self.millis * 1000)
    }

    /// Reads the text of an id; `None` for what is none of ours.
    pub fn parse(text: &str) -> Option<Id> {
        let (stamp, sequence) = text.rsplit_once('-')?;
        let time = NaiveDateTime::parse_from_str(stamp, STAMP).ok()?;
        let id = Id {
            millis: time.and_utc().timestamp_millis(),
            sequence: sequence.parse().ok()?,
        };
        // One id has one text: no `+1`, no missing zeros.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let time = DateTime::from_timestamp_millis(self.millis).unwrap_or_default();
        write!(formatter, "{}-{:06}", time.format(STAMP), self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_is_a_time_that_people_can_read() {
        let id = Id::after(None, Micros(1_644_370_787_021_771)).unwrap();
        assert_eq!(id.to_string(), "20220209T013947.021Z-000000");
        assert_eq!(Id::parse("20220209T013947.021Z-000000"), Some(id));
        for foreign in [
            "",
            "x",
            "20220209T013947.021Z",
            "20220209T013947.021Z-0",
            "20220209T013947.021Z-+00001",
            "20221309T013947.021Z-000000",
        ] {
            assert_eq!(Id::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_full_sequence_borrows_the_next_millisecond() {
        let full = Id {
            millis: 5,
            sequence: SEQUENCE_MAX,
        };
        let next = Id::after(Some(full), Micros(0)).unwrap();
        assert!(next > full);
        assert_eq!(next.to_string().len(), 27);
    }

    #[test]
    fn behind_the_last_id_there_is_none() {
        let last = Id::parse("99991231T235959.999Z-999999").unwrap();
        assert!(last.is_at_the_end());
        assert_eq!(last.next(), None);
        assert_eq!(Id::after(Some(last), Micros(0)), None);
        let before = Id::parse("99991231T235959.998Z-999999").unwrap();
        assert!(!before.is_at_the_end());
        assert_eq!(
            before.next().unwrap().to_string(),
            "99991231T235959.999Z-000000"
        );
        assert_eq!(Id::parse("+100000101T000000.000Z-000000"), None);
    }

    proptest! {
        #[test]
        fn ids_and_their_texts_grow_whatever_the_clock_does(
            times in proptest::collection::vec(prop_oneof![0i64..20_000, any::<i64>()], 1..50),
        ) {
            let mut last: Option<Id> = None;
            for time in times {
                let next = Id::after(last, Micros(time)).unwrap();
                if let Some(last) = last {
                    prop_assert!(next > last);
                    prop_assert!(next.to_string() > last.to_string());
                }
                prop_assert_eq!(Id::parse(&next.to_string()), Some(next));
                last = Some(next);
            }
        }
    }
}
