//! The one place that reads a clock or makes an id.

use std::str::FromStr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::wire::message;
use crate::wire::micros::Micros;

/// Where a program takes the time from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The machine's clocks.
    System {
        /// What monotonic times are measured from.
        started: Instant,
    },
    /// A time that stands still, so that the same input gives the same bytes.
    Fixed(Micros),
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Clock {
        Clock::System {
            started: Instant::now(),
        }
    }

    /// The wall clock, since the Unix epoch.
    pub fn unix(&self) -> Micros {
        match self {
            Clock::System { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                Micros::from_duration(since.unwrap_or_default())
            }
            Clock::Fixed(time) => *time,
        }
    }

    /// The monotonic clock, since the program's start. No step of the wall clock
    /// changes it.
    pub fn monotonic(&self) -> Micros {
        match self {
            Clock::System { started } => Micros::from_duration(started.elapsed()),
            Clock::Fixed(_) => Micros(0),
        }
    }
}

impl FromStr for Clock {
    type Err = String;

    fn from_str(text: &str) -> Result<Clock, String> {
        if text == "system" {
            return Ok(Clock::system());
        }
        text.strip_prefix("fixed:")
            .and_then(message::timestamp)
            .map(Clock::Fixed)
            .ok_or_else(|| "must be `system` or `fixed:SECONDS`".to_owned())
    }
}

/// Where new message ids come from.
#[derive(Clone, Debug)]
pub enum Ids {
    /// Random UUIDs.
    Uuid,
    /// A prefix and a count from 1, for output that is the same every time.
    Sequence {
        /// In front of the count.
        prefix: String,
        /// The last count given.
        last: u64,
    },
}

impl Ids {
    /// A new id.
    pub fn next_id(&mut self) -> String {
        match self {
            Ids::Uuid => uuid::Uuid::new_v4().to_string(),
            Ids::Sequence { prefix, last } => {
                *last += 1;
                format!("{prefix}{last}")
            }
        }
    }
}

impl FromStr for Ids {
    type Err = String;

    fn from_str(text: &str) -> Result<Ids, String> {
        if text == "uuid" {
            return Ok(Ids::Uuid);
        }
        match text.strip_prefix("seq:") {
            // Room for the digits of any count within the limit of an id.
            Some(prefix) if prefix.len() <= 200 => Ok(Ids::Sequence {
                prefix: prefix.to_owned(),
                last: 0,
            }),
            _ => Err("must be `uuid` or `seq:PREFIX` (200 bytes at most)".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_stands_still() {
        let clock: Clock = "fixed:1.5".parse().unwrap();
        assert_eq!(clock.unix(), Micros(1_500_000));
        assert!("fixed:now".parse::<Clock>().is_err());
    }

    #[test]
    fn sequences_count_from_one() {
        let mut ids: Ids = "seq:r-".parse().unwrap();
        assert_eq!((ids.next_id(), ids.next_id()), ("r-1".into(), "r-2".into()));
    }
}
