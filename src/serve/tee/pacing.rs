//! Uses the states of all branches to decide whether to read more input (pure).
//!
//! If no branch is live, a reader that keeps reading sets the speed of the input: spilling its
//! lines would only cost time. A reader that lags delays the others until its delay budget is
//! used up. From then on its lines are spilled.

use std::time::{Duration, Instant};

/// A reader counts as stopped if it has read nothing for this long.
pub const STALL: Duration = Duration::from_millis(100);

/// The largest delay budget: how long a branch may delay the others without a break.
const DELAY_BUDGET_MAX: Duration = Duration::from_millis(250);

/// In this many seconds, the delay budget grows by one second.
const DELAY_BUDGET_REFILL: u32 = 32;

/// The length of a window. While a branch empties its spill, it counts the bytes that are read and
/// written in each window.
const WINDOW: Duration = Duration::from_millis(250);

/// If a reader is too slow to empty its spill, it may not stop the input again for this long.
const PAUSE: Duration = Duration::from_secs(10);

/// How many bytes of input may be read in a window before the reader has read anything.
const SLACK_BYTES: u64 = 256 << 10;

/// The state of a branch that decides whether to read more input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacingState {
    /// Every line is written, and the branch waits for more.
    Idle,
    /// Lines wait, and the reader keeps reading.
    Writing,
    /// The queue is full, and the reader keeps reading.
    QueueFull,
    /// The reader is emptying the spill, and the input must wait until it has read more.
    CatchingUp,
    /// The spill or the file has no room for more lines.
    Blocked,
    /// The branch has no influence on reading: its reader is missing, stopped or too slow, or the
    /// branch drops lines, or a write to it never waits.
    Ignored,
}

/// Returns whether to read more input.
pub fn wants_input(pacing_states: impl IntoIterator<Item = PacingState>) -> bool {
    let (mut any_idle, mut any_writing) = (false, false);
    for pacing_state in pacing_states {
        match pacing_state {
            PacingState::Blocked | PacingState::QueueFull | PacingState::CatchingUp => {
                return false;
            }
            PacingState::Idle => any_idle = true,
            PacingState::Writing => any_writing = true,
            PacingState::Ignored => {}
        }
    }
    any_idle || !any_writing
}

/// The time for which a branch with a full queue may still delay the others.
#[derive(Clone, Copy, Debug)]
pub struct DelayBudget {
    remaining: Duration,
    /// When `remaining` was computed.
    at: Instant,
    /// Whether the budget was used up. A used-up budget stays empty until the branch has
    /// caught up.
    is_used_up: bool,
}

impl DelayBudget {
    /// Creates a full budget.
    pub fn new(now: Instant) -> DelayBudget {
        DelayBudget {
            remaining: DELAY_BUDGET_MAX,
            at: now,
            is_used_up: false,
        }
    }

    /// The time that is left of the budget.
    pub fn remaining(&self, now: Instant) -> Duration {
        if self.is_used_up {
            return Duration::ZERO;
        }
        let gained = now.saturating_duration_since(self.at) / DELAY_BUDGET_REFILL;
        (self.remaining + gained).min(DELAY_BUDGET_MAX)
    }

    /// Subtracts the time `waited`, during which the branch delayed the others.
    pub fn spend(&mut self, waited: Duration, now: Instant) {
        self.remaining = self.remaining(now).saturating_sub(waited);
        self.at = now;
        self.is_used_up |= self.remaining.is_zero();
    }

    /// Lets a used-up budget grow again, because the branch has caught up.
    pub fn restore(&mut self, now: Instant) {
        if self.is_used_up {
            self.is_used_up = false;
            self.at = now;
        }
    }
}

/// Slows the input so that a reader can empty its spill: at most six bytes are read from the
/// input for every eight that the reader takes. A reader that cannot keep up with the others
/// may slow the input for one window. For the next [`PAUSE`] it may not slow the input
/// again.
#[derive(Clone, Copy, Debug)]
pub struct CatchUp {
    began_at: Instant,
    written_bytes: u64,
    read_bytes: u64,
    /// Whether the reader waited for bytes from the spill in this window.
    has_waited_for_spill: bool,
    /// The bytes of input in the last window in which this branch did not stop the input.
    read_bytes_without_stop: u64,
    /// Whether this branch stopped the input in this window.
    has_stopped_input: bool,
    paused_until: Instant,
}

impl CatchUp {
    /// Creates the first window, which starts at `now`.
    pub fn new(now: Instant) -> CatchUp {
        CatchUp {
            began_at: now,
            written_bytes: 0,
            read_bytes: 0,
            has_waited_for_spill: false,
            read_bytes_without_stop: 0,
            has_stopped_input: false,
            paused_until: now,
        }
    }

    /// Records that `bytes` were read from the input.
    pub fn note_read(&mut self, bytes: u64) {
        self.read_bytes += bytes;
    }

    /// Notes that `bytes` were written to the reader.
    pub fn note_written(&mut self, bytes: u64) {
        self.written_bytes += bytes;
    }

    /// Notes that the reader is waiting for bytes from the spill.
    pub fn note_reader_waits(&mut self) {
        self.has_waited_for_spill = true;
    }

    /// The end of the window. The decision may change then.
    pub fn window_end(&self) -> Instant {
        self.began_at + WINDOW
    }

    /// Whether the input must wait for this reader, which is emptying its spill.
    pub fn stops_input(&mut self, now: Instant) -> bool {
        self.end_due_window(now);
        let must_wait = now >= self.paused_until
            && self.read_bytes / 6 >= (self.written_bytes + SLACK_BYTES) / 8;
        self.has_stopped_input |= must_wait;
        must_wait
    }

    /// Starts the next window if this one has ended.
    pub fn end_due_window(&mut self, now: Instant) {
        if now < self.window_end() {
            return;
        }
        if !self.has_stopped_input {
            self.read_bytes_without_stop = self.read_bytes;
        } else if !self.has_waited_for_spill
            && self.written_bytes / 7 < self.read_bytes_without_stop / 8
        {
            self.paused_until = now + PAUSE;
        }
        *self = CatchUp {
            read_bytes_without_stop: self.read_bytes_without_stop,
            paused_until: self.paused_until,
            ..CatchUp::new(now)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_read_for_an_idle_branch_unless_another_branch_stops_it() {
        use PacingState::*;
        for (pacing_states, expected) in [
            (&[][..], true),
            (&[Ignored], true),
            (&[Idle, Writing], true),
            (&[Writing, Ignored], false),
            (&[Writing, Writing, Idle, QueueFull], false),
            (&[Idle, Blocked], false),
            (&[Ignored, Blocked], false),
            (&[Idle, CatchingUp], false),
        ] {
            let wants = wants_input(pacing_states.iter().copied());
            assert_eq!(wants, expected, "{pacing_states:?}");
        }
    }

    #[test]
    fn a_slightly_slower_reader_keeps_its_budget_and_a_lagging_reader_uses_it_up() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        // The branch delays the others for 2 % of the time: the budget lasts.
        let mut delay_budget = DelayBudget::new(start);
        for seconds in 1..1_000 {
            let now = start + second * seconds;
            delay_budget.spend(second / 50, now);
            assert!(delay_budget.remaining(now) > Duration::ZERO);
        }
        // A branch that delays the others for half of the time uses up its budget after about
        // 250 ms of delay.
        let mut delay_budget = DelayBudget::new(start);
        let (mut now, mut delayed) = (start, Duration::ZERO);
        while delay_budget.remaining(now) > Duration::ZERO {
            now += Duration::from_millis(2);
            delayed += Duration::from_millis(1);
            delay_budget.spend(Duration::from_millis(1), now);
        }
        assert!(delayed < Duration::from_millis(300), "{delayed:?}");
        // The budget stays empty until the branch has caught up, and then grows slowly.
        now += second;
        assert_eq!(delay_budget.remaining(now), Duration::ZERO);
        delay_budget.restore(now);
        assert!(delay_budget.remaining(now + second) < Duration::from_millis(40));
        assert_eq!(delay_budget.remaining(now + second * 60), DELAY_BUDGET_MAX);
    }

    /// Simulates one minute and returns the bytes read from the input and the bytes taken by the
    /// reader. The input brings `input` bytes a millisecond; the reader can take `reader` bytes a
    /// millisecond.
    fn minute(input: u64, reader: u64, waits: bool) -> (u64, u64) {
        let start = Instant::now();
        let mut catch_up = CatchUp::new(start);
        let (mut read, mut taken) = (0, 0);
        for millisecond in 0..60_000 {
            let now = start + Duration::from_millis(millisecond);
            // The reader starts after one second.
            if millisecond < 1_000 {
                catch_up.end_due_window(now);
            } else {
                catch_up.note_written(reader);
                taken += reader;
                if waits {
                    catch_up.note_reader_waits();
                }
            }
            if millisecond < 1_000 || !catch_up.stops_input(now) {
                catch_up.note_read(input);
                read += input;
            }
        }
        (read, taken)
    }

    #[test]
    fn a_reader_as_fast_as_the_others_empties_its_spill() {
        for (reader, waits) in [(400_000, false), (370_000, false), (100_000, true)] {
            let (read, taken) = minute(400_000, reader, waits);
            // The reader took more bytes than the input brought. So it has made up for the first
            // second, in which it took nothing.
            assert!(taken > read, "{taken} of {read}");
            assert!(read > taken / 10 * 7, "{read} for {taken}");
        }
        // An input that is slower than the reader is never stopped.
        assert_eq!(minute(40_000, 400_000, false).0, 60_000 * 40_000);
    }

    #[test]
    fn a_slow_reader_slows_the_input_only_briefly() {
        for reader in [1_000, 40_000, 200_000] {
            let (read, _) = minute(400_000, reader, false);
            assert!(read > 60_000 * 400_000 / 100 * 95, "{read} at {reader}");
        }
    }
}
