//! Remembers that a server cannot be reached, so that no requests are sent there in
//! vain. The time is an argument.

use std::time::{Duration, Instant};

use crate::stage::backoff::Backoff;

/// The wait after the first failure to connect.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// The longest wait after a failure to connect.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Whether a server can be reached.
#[derive(Debug)]
pub struct Outage {
    backoff: Backoff,
    state: Option<Down>,
    /// Whether the server has ever replied.
    pub has_worked: bool,
}

#[derive(Debug)]
struct Down {
    since: Instant,
    until: Instant,
    /// Whether a call is in flight that finds out if the server is back.
    is_trying: bool,
    reason: String,
}

impl Outage {
    /// The state before the first call: the server is not known to be down.
    pub fn new() -> Outage {
        Outage {
            backoff: Backoff::new(WAIT_MIN, WAIT_MAX),
            state: None,
            has_worked: false,
        }
    }

    /// Asks whether a call may begin. While the server is down, only one call at a time
    /// may begin, and only after a wait. The error is the reason why the last call has
    /// failed.
    pub fn begin_call(&mut self, now: Instant) -> Result<(), &str> {
        let Some(down) = &mut self.state else {
            return Ok(());
        };
        if down.is_trying || now < down.until {
            return Err(&down.reason);
        }
        down.is_trying = true;
        Ok(())
    }

    /// Notes that the server has accepted a connection. Returns whether it was down.
    pub fn succeeded(&mut self) -> bool {
        self.has_worked = true;
        self.backoff.reset();
        self.state.take().is_some()
    }

    /// Notes that a call could not connect. Calls that fail together count as one
    /// failure. Returns the wait before the next call, if this is a new failure.
    pub fn failed(&mut self, now: Instant, reason: String) -> Option<Duration> {
        if let Some(down) = &self.state
            && !down.is_trying
        {
            return None;
        }
        let wait = self.backoff.next_wait();
        let since = self.state.as_ref().map_or(now, |down| down.since);
        self.state = Some(Down {
            since,
            until: now + wait,
            is_trying: false,
            reason,
        });
        Some(wait)
    }

    /// Notes that a call has ended without saying whether the server can be reached.
    pub fn ended(&mut self) {
        if let Some(down) = &mut self.state {
            down.is_trying = false;
        }
    }

    /// While the server is down, returns the time since which it is down, and the time
    /// of the next call.
    pub fn down(&self) -> Option<(Instant, Instant)> {
        let down = self.state.as_ref()?;
        Some((down.since, down.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_down_gets_one_call_after_each_wait() {
        let mut outage = Outage::new();
        let start = Instant::now();
        assert_eq!(outage.begin_call(start), Ok(()));
        assert_eq!(outage.begin_call(start), Ok(()));
        let wait = outage.failed(start, "refused".to_owned()).unwrap();
        assert!(WAIT_MIN / 2 <= wait && wait <= WAIT_MIN);
        // The second call was in flight when the first one failed, so both count as one
        // failure.
        assert_eq!(outage.failed(start, "refused".to_owned()), None);
        assert_eq!(outage.begin_call(start), Err("refused"));
        let mut now = start + WAIT_MIN;
        for step in 1..20u32 {
            assert_eq!(outage.begin_call(now), Ok(()), "{step}");
            assert_eq!(outage.begin_call(now), Err("refused"));
            let whole = (WAIT_MIN * 2u32.pow(step.min(10))).min(WAIT_MAX);
            let wait = outage.failed(now, "refused".to_owned()).unwrap();
            assert!(whole / 2 <= wait && wait <= whole, "{step}: {wait:?}");
            assert_eq!(outage.down(), Some((start, now + wait)));
            now += wait;
        }
        assert_eq!(outage.begin_call(now), Ok(()));
        outage.ended();
        assert_eq!(outage.begin_call(now), Ok(()));
        assert!(outage.succeeded());
        assert!(!outage.succeeded());
        assert_eq!(outage.down(), None);
        assert!(outage.failed(now, "refused".to_owned()).unwrap() <= WAIT_MIN);
    }
}
