//! Which of several addresses a call goes to. Those that fail are left alone for
//! a while; nothing here reads a clock.

use std::time::{Duration, Instant};

use crate::observe::es_sink::backoff::Backoff;

/// The addresses of one service.
#[derive(Debug)]
pub struct Servers {
    all: Vec<Server>,
    /// Whose turn it is.
    next: usize,
}

#[derive(Debug)]
struct Server {
    /// After a failure: not to be called before.
    shunned_until: Option<Instant>,
    backoff: Backoff,
}

impl Servers {
    /// As many addresses, all thought to be well. After a failure one is left
    /// alone for about `min`, after the next for twice as long, up to `max`.
    pub fn new(count: usize, min: Duration, max: Duration) -> Servers {
        let server = |_| Server {
            shunned_until: None,
            backoff: Backoff::new(min, max),
        };
        Servers {
            all: (0..count).map(server).collect(),
            next: 0,
        }
    }

    /// The address of the next call: in turn among those that may be called now.
    pub fn pick(&mut self, now: Instant) -> Option<usize> {
        let count = self.all.len();
        let picked = (0..count)
            .map(|step| (self.next + step) % count)
            .find(|index| self.all[*index].is_open(now))?;
        self.next = (picked + 1) % count;
        Some(picked)
    }

    /// When one may be called; `None` is now.
    pub fn open_at(&self, now: Instant) -> Option<Instant> {
        if self.all.iter().any(|server| server.is_open(now)) {
            return None;
        }
        let times = self.all.iter().filter_map(|server| server.shunned_until);
        times.min()
    }

    /// It has answered.
    pub fn succeeded(&mut self, index: usize) {
        self.all[index].shunned_until = None;
        self.all[index].backoff.reset();
    }

    /// It has not. Calls that were under way together and fail together count as
    /// one failure.
    pub fn failed(&mut self, index: usize, now: Instant) {
        let server = &mut self.all[index];
        if server.is_open(now) {
            server.shunned_until = Some(now + server.backoff.next_wait());
        }
    }
}

impl Server {
    fn is_open(&self, now: Instant) -> bool {
        self.shunned_until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_left_alone_and_the_others_are_called_in_turn() {
        let min = Duration::from_secs(1);
        let mut servers = Servers::new(3, min, Duration::from_secs(60));
        let start = Instant::now();
        let turns = |servers: &mut Servers, now| {
            let picks: Vec<_> = (0..3).map(|_| servers.pick(now)).collect();
            picks.into_iter().flatten().collect::<Vec<_>>()
        };
        assert_eq!(turns(&mut servers, start), [0, 1, 2]);
        servers.failed(1, start);
        assert_eq!(turns(&mut servers, start), [0, 2, 0]);
        assert_eq!(servers.open_at(start), None);
        servers.failed(0, start);
        servers.failed(2, start);
        // The same outage, told by another call.
        servers.failed(2, start);
        assert_eq!(servers.pick(start), None);
        let at = servers.open_at(start).unwrap();
        assert!(start + min / 2 <= at && at <= start + min, "{at:?}");
        let later = start + min;
        assert_eq!(turns(&mut servers, later).len(), 3);
        servers.failed(2, later);
        servers.failed(2, later + min / 2);
        let all_waits = servers.all[2].shunned_until.unwrap() - later;
        assert!(min <= all_waits && all_waits <= 2 * min, "{all_waits:?}");
        servers.succeeded(2);
        assert_eq!(turns(&mut servers, later).len(), 3);
    }
}
