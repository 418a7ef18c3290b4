//! The time to wait before something that failed is tried again.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// The largest value of a limit. Adding this value to a time does not overflow.
const WAIT_MAX: Duration = Duration::from_secs(86_400);

/// A series of waits, each twice as long as the last one, up to a limit. Each wait is
/// shortened at random by up to a half, so that sinks that failed together do not retry
/// together.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    /// The number of successive failures.
    failures: u32,
    /// A hash function with a random key, used as a source of random numbers.
    random: RandomState,
    waits: u64,
}

impl Backoff {
    /// The first wait is about `min`. No wait is longer than `max`.
    pub fn new(min: Duration, max: Duration) -> Backoff {
        let max = max.min(WAIT_MAX);
        Backoff {
            min: min.min(max),
            max,
            failures: 0,
            random: RandomState::new(),
            waits: 0,
        }
    }

    /// The next wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let whole = self.min.saturating_mul(factor).min(self.max);
        self.failures = self.failures.saturating_add(1);
        self.waits += 1;
        let part = self.random.hash_one(self.waits) % 1000;
        let half = whole / 2;
        half + half * part as u32 / 1000
    }

    /// Starts at the shortest wait again, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_differ() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(30_000));
        let mut waits = Vec::new();
        for expected in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600] {
            let wait = backoff.next_wait();
            assert!(ms(expected) / 2 <= wait && wait <= ms(expected), "{wait:?}");
            waits.push(wait.as_secs_f64() / ms(expected).as_secs_f64());
        }
        for _ in 0..100 {
            let wait = backoff.next_wait();
            assert!(ms(15_000) <= wait && wait <= ms(30_000), "{wait:?}");
        }
        waits.dedup();
        assert!(waits.len() > 1, "no jitter");
        backoff.reset();
        assert!(backoff.next_wait() <= ms(100));
    }

    #[test]
    fn no_duration_of_the_command_line_overflows() {
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX);
        for _ in 0..50 {
            assert!(backoff.next_wait() <= WAIT_MAX);
        }
    }
}
