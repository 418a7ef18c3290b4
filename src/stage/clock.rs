//! The only file that reads a clock or makes an id.

use std::fmt;
use std::str::FromStr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::event::Timespec;

use crate::wire::micros::Micros;

/// The time from now until `time`, as a time-out for `poll`.
pub fn time_left(time: Instant) -> Timespec {
    let left = time.saturating_duration_since(Instant::now());
    Timespec {
        tv_sec: left.as_secs().min(1 << 30) as i64,
        tv_nsec: left.subsec_nanos().into(),
    }
}

/// The source of a program's times.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The machine's clocks.
    System {
        /// The instant from which monotonic times are measured.
        started: Instant,
    },
    /// A constant time, so that the same input gives the same output bytes.
    Fixed(Micros),
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Clock {
        Clock::System {
            started: Instant::now(),
        }
    }

    /// The wall-clock time since the Unix epoch.
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub fn unix(&self) -> Micros {
        match self {
            Clock::System { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                Micros::from_duration(since.unwrap_or_default())
            }
            Clock::Fixed(time) => *time,
        }
    }

    /// The monotonic time since the program's start. Changes of the wall clock do not
    /// affect it.
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
        let Some(seconds) = text.strip_prefix("fixed:") else {
            return Err("must be `system` or `fixed:SECONDS`".to_owned());
        };
        Micros::parse_timestamp(seconds)
            .map(Clock::Fixed)
            .map_err(|fault| format!("{seconds} {fault}"))
    }
}

/// The source of new message ids.
#[derive(Clone, Debug)]
pub enum Ids {
    /// Random UUIDs.
    Uuid(Random),
    /// A prefix and a count from 1, so that the output is the same in every run.
    Sequence {
        /// The text before the count.
        prefix: String,
        /// The count of the last id.
        last: u64,
    },
}

impl Ids {
    /// A new id.
    pub fn next_id(&mut self) -> String {
        match self {
            Ids::Uuid(random) => random.next_uuid().to_string(),
            Ids::Sequence { prefix, last } => {
                *last += 1;
                format!("{prefix}{last}")
            }
        }
    }
}

/// Random bytes from the system, fetched for many ids in one call. One call per id
/// would cost more than all other work on the id.
#[derive(Default)]
pub struct Random {
    bytes: Vec<u8>,
}

impl Clone for Random {
    /// The copy starts empty and fetches its own bytes, so that two copies never make
    /// the same ids.
    fn clone(&self) -> Random {
        Random::default()
    }
}

/// The largest request that a signal cannot interrupt (getrandom(2)).
const RANDOM_BYTES: usize = 256;

impl Random {
    fn next_uuid(&mut self) -> uuid::Uuid {
        if self.bytes.is_empty() {
            self.bytes.resize(RANDOM_BYTES, 0);
            let flags = rustix::rand::GetRandomFlags::empty();
            let filled = rustix::rand::getrandom(&mut self.bytes[..], flags);
            self.bytes.truncate(filled.unwrap_or(0));
        }
        match self.bytes.split_last_chunk::<16>() {
            Some((rest, bytes)) => {
                let id = uuid::Builder::from_random_bytes(*bytes).into_uuid();
                self.bytes.truncate(rest.len());
                id
            }
            None => {
                self.bytes.clear();
                uuid::Uuid::new_v4()
            }
        }
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("Random")
    }
}

impl FromStr for Ids {
    type Err = String;

    fn from_str(text: &str) -> Result<Ids, String> {
        if text == "uuid" {
            return Ok(Ids::Uuid(Random::default()));
        }
        match text.strip_prefix("seq:") {
            // Leaves room for the digits of any count within the length limit of an id.
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
    fn no_two_random_ids_are_the_same() {
        let mut ids: Ids = "uuid".parse().unwrap();
        let mut made: std::collections::HashSet<String> = (0..999).map(|_| ids.next_id()).collect();
        made.insert(ids.clone().next_id());
        made.insert(ids.next_id());
        assert_eq!(made.len(), 1001);
        for id in made {
            let id = uuid::Uuid::parse_str(&id).unwrap();
            assert_eq!(id.get_version_num(), 4);
        }
    }

    #[test]
    fn sequences_count_from_one() {
        let mut ids: Ids = "seq:r-".parse().unwrap();
        assert_eq!((ids.next_id(), ids.next_id()), ("r-1".into(), "r-2".into()));
    }
}
