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

/// What a file is, by its name. The text is its id, or what stands in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// `log-<id>.gz`: complete, never changed again.
    Complete(&'a str),
    /// `part-<id>.ndjson`: lines as they came, and at its end perhaps half a one.
    Part(&'a str),
    /// `part-<id>.gz.tmp`: a compression that is at work or was cut short.
    Unfinished(&'a str),
}

impl<'a> Kind<'a> {
    /// What `name` says; `None` for files that are not the archive's.
    pub fn of(name: &'a str) -> Option<Kind<'a>> {
        if let Some(rest) = name.strip_prefix("log-") {
            return rest.strip_suffix(".gz").map(Kind::Complete);
        }
        let rest = name.strip_prefix("part-")?;
        rest.strip_suffix(".ndjson").map(Kind::Part).or_else(|| {
            let id = rest.strip_suffix(".gz.tmp")?;
            Some(Kind::Unfinished(id))
        })
    }

    /// The name of such a file.
    pub fn file_name(self) -> String {
        match self {
            Kind::Complete(id) => format!("log-{id}.gz"),
            Kind::Part(id) => format!("part-{id}.ndjson"),
            Kind::Unfinished(id) => format!("part-{id}.gz.tmp"),
        }
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

    #[test]
    fn names_say_what_they_are() {
        for kind in [Kind::Complete("a"), Kind::Part("a"), Kind::Unfinished("a")] {
            assert_eq!(Kind::of(&kind.file_name()), Some(kind));
        }
        for foreign in ["log-a.gz.tmp", "part-a.gz", "log-a", "notes.txt", ".lock"] {
            assert_eq!(Kind::of(foreign), None, "{foreign}");
        }
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
