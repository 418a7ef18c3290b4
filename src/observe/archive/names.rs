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
    /// The id of a file that is begun at `now`, greater than `greatest`.
    pub fn after(greatest: Option<Id>, now: Micros) -> Id {
        let fresh = Id {
            millis: now.0.div_euclid(1000).clamp(0, MILLIS_MAX),
            sequence: 0,
        };
        match greatest {
            Some(last) if last >= fresh && last.sequence < SEQUENCE_MAX => Id {
                sequence: last.sequence + 1,
                ..last
            },
            Some(last) if last >= fresh => Id {
                millis: last.millis + 1,
                sequence: 0,
            },
            _ => fresh,
        }
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
        let id = Id::after(None, Micros(1_644_370_787_021_771));
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
        assert!(Id::after(Some(full), Micros(0)) > full);
        assert_eq!(Id::after(Some(full), Micros(0)).to_string().len(), 27);
    }

    proptest! {
        #[test]
        fn ids_and_their_texts_grow_whatever_the_clock_does(
            times in proptest::collection::vec(prop_oneof![0i64..20_000, any::<i64>()], 1..50),
        ) {
            let mut last: Option<Id> = None;
            for time in times {
                let next = Id::after(last, Micros(time));
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
