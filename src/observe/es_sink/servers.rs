//! Selects the address of each call (pure). An address that fails is not called for a
//! while.

use std::time::{Duration, Instant};

use crate::stage::backoff::Backoff;

/// The addresses of one service.
#[derive(Debug)]
pub struct Servers {
    all: Vec<Server>,
    /// The index of the next address.
    next: usize,
}

#[derive(Debug)]
struct Server {
    /// Set after a failure: the time from which the address may be called again.
    excluded_until: Option<Instant>,
    backoff: Backoff,
}

impl Servers {
    /// `count` addresses, all available at first. After a failure an address is not
    /// called for about `min`, after the next failure for twice as long, up to `max`.
    pub fn new(count: usize, min: Duration, max: Duration) -> Servers {
        let server = |_| Server {
            excluded_until: None,
            backoff: Backoff::new(min, max),
        };
        Servers {
            all: (0..count).map(server).collect(),
            next: 0,
        }
    }

    /// The index of the address for the next call. The available addresses take
    /// turns. `None` if no address is available now.
    pub fn take_turn(&mut self, now: Instant) -> Option<usize> {
        let count = self.all.len();
        let index = (0..count)
            .map(|step| (self.next + step) % count)
            .find(|index| self.all[*index].is_available(now))?;
        self.next = (index + 1) % count;
        Some(index)
    }

    /// The time at which an address will be available; `None` if one is available
    /// now.
    pub fn available_at(&self, now: Instant) -> Option<Instant> {
        if self.all.iter().any(|server| server.is_available(now)) {
            return None;
        }
        let times = self.all.iter().filter_map(|server| server.excluded_until);
        times.min()
    }

    /// Notes that an address has answered.
    pub fn succeeded(&mut self, index: usize) {
        self.all[index].excluded_until = None;
        self.all[index].backoff.reset();
    }

    /// Notes that an address has failed. If several calls were in progress and fail
    /// together, they count as one failure.
    pub fn failed(&mut self, index: usize, now: Instant) {
        let server = &mut self.all[index];
        if server.is_available(now) {
            server.excluded_until = Some(now + server.backoff.next_wait());
        }
    }
}

impl Server {
    fn is_available(&self, now: Instant) -> bool {
        self.excluded_until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_fails_is_not_called_for_a_while_and_the_others_take_turns() {
        let min = Duration::from_secs(1);
        let mut servers = Servers::new(3, min, Duration::from_secs(60));
        let start = Instant::now();
        let turns = |servers: &mut Servers, now| {
            let picks: Vec<_> = (0..3).map(|_| servers.take_turn(now)).collect();
            picks.into_iter().flatten().collect::<Vec<_>>()
        };
        assert_eq!(turns(&mut servers, start), [0, 1, 2]);
        servers.failed(1, start);
        assert_eq!(turns(&mut servers, start), [0, 2, 0]);
        assert_eq!(servers.available_at(start), None);
        servers.failed(0, start);
        servers.failed(2, start);
        // Another call reports the same outage.
        servers.failed(2, start);
        assert_eq!(servers.take_turn(start), None);
        let at = servers.available_at(start).unwrap();
        assert!(start + min / 2 <= at && at <= start + min, "{at:?}");
        let later = start + min;
        assert_eq!(turns(&mut servers, later).len(), 3);
        servers.failed(2, later);
        servers.failed(2, later + min / 2);
        let all_waits = servers.all[2].excluded_until.unwrap() - later;
        assert!(min <= all_waits && all_waits <= 2 * min, "{all_waits:?}");
        servers.succeeded(2);
        assert_eq!(turns(&mut servers, later).len(), 3);
    }
}
