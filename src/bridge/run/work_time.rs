//! The time during which the program is able to write its outputs.

use std::time::{Duration, Instant};

/// A clock that stands still while the broker takes no outputs. A program whose outputs
/// nobody reads cannot answer, so its messages do not grow older.
#[derive(Debug)]
pub struct WorkTime {
    stalled: Duration,
    stalled_since: Option<Instant>,
    started: Instant,
}

impl WorkTime {
    /// A clock that runs from `now` on.
    pub fn new(now: Instant) -> WorkTime {
        WorkTime {
            stalled: Duration::ZERO,
            stalled_since: None,
            started: now,
        }
    }

    /// Stops the clock, or lets it go on.
    pub fn set_stalled(&mut self, is_stalled: bool, now: Instant) {
        match (is_stalled, self.stalled_since) {
            (true, None) => self.stalled_since = Some(now),
            (false, Some(since)) => {
                self.stalled += now.saturating_duration_since(since);
                self.stalled_since = None;
            }
            _ => {}
        }
    }

    /// The time of this clock.
    pub fn at(&self, now: Instant) -> Instant {
        let now = self.stalled_since.map_or(now, |since| since.min(now));
        now.checked_sub(self.stalled).unwrap_or(self.started)
    }

    /// When the clock will show `at`; `None` while it is stopped.
    pub fn real(&self, at: Instant) -> Option<Instant> {
        self.stalled_since.is_none().then(|| at + self.stalled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_stands_still_while_nothing_is_taken() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut clock = WorkTime::new(start);
        assert_eq!(clock.at(at(5)), at(5));
        clock.set_stalled(true, at(5));
        clock.set_stalled(true, at(6));
        assert_eq!(clock.at(at(9)), at(5));
        assert_eq!(clock.real(at(7)), None);
        clock.set_stalled(false, at(10));
        assert_eq!(clock.at(at(12)), at(7));
        assert_eq!(clock.real(at(7)), Some(at(12)));
    }
}
