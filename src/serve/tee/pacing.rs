//! Whether to read on, by what each branch does with what it has (pure).
//!
//! Where nobody waits for an answer, a reader that takes what it is given paces the
//! input: spilling for it would only cost time. One that lags makes the others
//! starve, and they put up with that for a moment only: then it is spilled for.

use std::time::{Duration, Instant};

/// A reader that has taken nothing for so long has stopped.
pub const STALL: Duration = Duration::from_millis(100);

/// For how long a branch may make others starve at once.
const PATIENCE_MAX: Duration = Duration::from_millis(250);

/// Which part of the time it may do so for ever: one in so many.
const PATIENCE_PART: u32 = 32;

/// What a branch does with what it has, as far as reading depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has written all there was.
    Hungry,
    /// Its reader takes, and something still waits for it.
    Busy,
    /// As much waits as may, but its reader takes.
    Behind,
    /// Nothing can be kept for it any more.
    Full,
    /// It has no say: it lags, spills, drops, has no reader, or takes everything.
    Aside,
}

/// Whether to read on.
pub fn wants_input(standings: impl IntoIterator<Item = Standing>) -> bool {
    let (mut hungry, mut busy) = (false, false);
    for standing in standings {
        match standing {
            Standing::Full | Standing::Behind => return false,
            Standing::Hungry => hungry = true,
            Standing::Busy => busy = true,
            Standing::Aside => {}
        }
    }
    hungry || !busy
}

/// For how much longer others put up with a branch that is behind.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    left: Duration,
    /// When `left` was right.
    at: Instant,
    /// It is lost until the branch has caught up.
    is_lost: bool,
}

impl Patience {
    /// All of it.
    pub fn new(now: Instant) -> Patience {
        Patience {
            left: PATIENCE_MAX,
            at: now,
            is_lost: false,
        }
    }

    /// How much is left.
    pub fn left(&self, now: Instant) -> Duration {
        if self.is_lost {
            return Duration::ZERO;
        }
        let gained = now.saturating_duration_since(self.at) / PATIENCE_PART;
        (self.left + gained).min(PATIENCE_MAX)
    }

    /// Others have starved for the last `waited`.
    pub fn spend(&mut self, waited: Duration, now: Instant) {
        self.left = self.left(now).saturating_sub(waited);
        self.at = now;
        self.is_lost |= self.left.is_zero();
    }

    /// The branch has caught up.
    pub fn restore(&mut self, now: Instant) {
        if self.is_lost {
            self.is_lost = false;
            self.at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_goes_on_for_whoever_is_hungry_unless_somebody_holds_it_up() {
        use Standing::*;
        for (standings, expected) in [
            (&[][..], true),
            (&[Aside], true),
            (&[Hungry, Busy], true),
            (&[Busy, Aside], false),
            (&[Busy, Busy, Hungry, Behind], false),
            (&[Hungry, Full], false),
            (&[Aside, Full], false),
        ] {
            let wants = wants_input(standings.iter().copied());
            assert_eq!(wants, expected, "{standings:?}");
        }
    }

    #[test]
    fn a_reader_that_is_a_little_slower_paces_and_one_that_lags_is_left_behind() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        // For 2 % of the time others starve.
        let mut patience = Patience::new(start);
        for seconds in 1..1_000 {
            let now = start + second * seconds;
            patience.spend(second / 50, now);
            assert!(patience.left(now) > Duration::ZERO);
        }
        // For half of it: a quarter of a second, once.
        let mut patience = Patience::new(start);
        let (mut now, mut starved) = (start, Duration::ZERO);
        while patience.left(now) > Duration::ZERO {
            now += Duration::from_millis(2);
            starved += Duration::from_millis(1);
            patience.spend(Duration::from_millis(1), now);
        }
        assert!(starved < Duration::from_millis(300), "{starved:?}");
        // It is given no more until it has caught up, and then not all at once.
        now += second;
        assert_eq!(patience.left(now), Duration::ZERO);
        patience.restore(now);
        assert!(patience.left(now + second) < Duration::from_millis(40));
        assert_eq!(patience.left(now + second * 60), PATIENCE_MAX);
    }
}
