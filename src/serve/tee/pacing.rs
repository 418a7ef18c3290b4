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

/// For how long what goes in and out of a spill is counted together.
const WINDOW: Duration = Duration::from_millis(250);

/// How long a reader that is too slow to catch up holds nobody up.
const PAUSE: Duration = Duration::from_secs(10);

/// How much may be read before a reader has taken anything, in bytes.
const SLACK_BYTES: u64 = 256 << 10;

/// What a branch does with what it has, as far as reading depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has written all there was.
    Hungry,
    /// Its reader takes, and something still waits for it.
    Busy,
    /// As much waits as may, but its reader takes.
    Behind,
    /// Its reader empties its spill, and more was read than it has taken.
    CatchingUp,
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
            Standing::Full | Standing::Behind | Standing::CatchingUp => return false,
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

/// What lets a spill become empty however fast the input is: for each eight bytes that
/// its reader takes, six are read. A reader that takes much less than the others hold
/// nobody up, but for a moment now and then.
#[derive(Clone, Copy, Debug)]
pub struct CatchUp {
    began_at: Instant,
    taken_bytes: u64,
    read_bytes: u64,
    /// Whether the reader has waited for the spill.
    has_waited: bool,
    /// How much is read in a window where nobody is held up.
    usual_bytes: u64,
    /// Whether somebody was held up in this window.
    has_held: bool,
    paused_until: Instant,
}

impl CatchUp {
    /// Nothing has been read yet.
    pub fn new(now: Instant) -> CatchUp {
        CatchUp {
            began_at: now,
            taken_bytes: 0,
            read_bytes: 0,
            has_waited: false,
            usual_bytes: 0,
            has_held: false,
            paused_until: now,
        }
    }

    /// So much was read of the input.
    pub fn read(&mut self, bytes: u64) {
        self.read_bytes += bytes;
    }

    /// The reader has taken so much.
    pub fn took(&mut self, bytes: u64) {
        self.taken_bytes += bytes;
    }

    /// The reader waits for the spill.
    pub fn waits(&mut self) {
        self.has_waited = true;
    }

    /// When it is to be asked again.
    pub fn window_end(&self) -> Instant {
        self.began_at + WINDOW
    }

    /// Whether reading waits for this reader, which takes what its spill holds.
    pub fn holds(&mut self, now: Instant) -> bool {
        self.roll(now);
        let is_held =
            now >= self.paused_until && self.read_bytes / 6 >= (self.taken_bytes + SLACK_BYTES) / 8;
        self.has_held |= is_held;
        is_held
    }

    /// Begins the next window when it is time.
    pub fn roll(&mut self, now: Instant) {
        if now < self.window_end() {
            return;
        }
        if !self.has_held {
            self.usual_bytes = self.read_bytes;
        } else if !self.has_waited && self.taken_bytes / 7 < self.usual_bytes / 8 {
            self.paused_until = now + PAUSE;
        }
        *self = CatchUp {
            usual_bytes: self.usual_bytes,
            paused_until: self.paused_until,
            ..CatchUp::new(now)
        };
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
            (&[Hungry, CatchingUp], false),
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

    /// The bytes that are read and taken in a minute, of an input of `input` bytes a
    /// millisecond and a reader that can take `reader`.
    fn minute(input: u64, reader: u64, waits: bool) -> (u64, u64) {
        let start = Instant::now();
        let mut catch_up = CatchUp::new(start);
        let (mut read, mut taken) = (0, 0);
        for millisecond in 0..60_000 {
            let now = start + Duration::from_millis(millisecond);
            // The reader comes after a second.
            if millisecond < 1_000 {
                catch_up.roll(now);
            } else {
                catch_up.took(reader);
                taken += reader;
                if waits {
                    catch_up.waits();
                }
            }
            if millisecond < 1_000 || !catch_up.holds(now) {
                catch_up.read(input);
                read += input;
            }
        }
        (read, taken)
    }

    #[test]
    fn a_reader_as_fast_as_the_others_catches_up() {
        for (reader, waits) in [(400_000, false), (370_000, false), (100_000, true)] {
            let (read, taken) = minute(400_000, reader, waits);
            // What came in the first second, and the slack, are made good.
            assert!(taken > read, "{taken} of {read}");
            assert!(read > taken / 10 * 7, "{read} for {taken}");
        }
        // An input that is no faster than that is not held up.
        assert_eq!(minute(40_000, 400_000, false).0, 60_000 * 40_000);
    }

    #[test]
    fn a_slow_reader_holds_nobody_up_for_long() {
        for reader in [1_000, 40_000, 200_000] {
            let (read, _) = minute(400_000, reader, false);
            assert!(read > 60_000 * 400_000 / 100 * 95, "{read} at {reader}");
        }
    }
}
