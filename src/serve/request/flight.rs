//! The requests that have no answer yet, and for how long.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::stage::stats::{Latencies, Snapshot};
use crate::wire::micros::Micros;

/// When a request left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Departure {
    at: Instant,
    /// For how long the responses had been held up by then.
    held: Duration,
}

/// The requests that have no answer yet.
#[derive(Debug)]
pub struct Flight {
    departed: HashMap<String, Departure>,
    /// In the order of departure, the answered ones too.
    order: VecDeque<(Departure, String)>,
    timeout: Duration,
    /// For how long nobody could read the responses, all in all.
    held: Duration,
    answered: u64,
    unanswered: u64,
    unmatched: u64,
    /// Ids that were sent again while they were open: they get one answer.
    repeated: u64,
    latency: Latencies,
}

impl Flight {
    /// No request has left. Each may wait for `timeout`.
    pub fn new(timeout: Duration) -> Flight {
        Flight {
            departed: HashMap::new(),
            order: VecDeque::new(),
            timeout,
            held: Duration::ZERO,
            answered: 0,
            unanswered: 0,
            unmatched: 0,
            repeated: 0,
            latency: Latencies::default(),
        }
    }

    /// How many requests are unanswered and may still be answered.
    pub fn open(&self) -> usize {
        self.departed.len()
    }

    /// How many were given up.
    pub fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// A request leaves.
    pub fn depart(&mut self, id: String) {
        let departure = Departure {
            at: Instant::now(),
            held: self.held,
        };
        self.order.push_back((departure, id.clone()));
        if self.departed.insert(id, departure).is_some() {
            self.repeated += 1;
        }
    }

    /// A response has come. Says whether it answers an open request; the others
    /// are somebody else's, or too late.
    pub fn arrive(&mut self, id: &str) -> bool {
        let departure = self.departed.remove(id);
        match departure {
            Some(departure) => {
                self.answered += 1;
                let latency = Micros::from_duration(departure.at.elapsed());
                self.latency.record(latency);
            }
            None => self.unmatched += 1,
        }
        self.forget_answered();
        departure.is_some()
    }

    /// Keeps the queue as short as the flight.
    fn forget_answered(&mut self) {
        while let Some((departure, id)) = self.order.front() {
            if self.departed.get(id) == Some(departure) {
                break;
            }
            self.order.pop_front();
        }
        // One slow answer at the front must not let the answered ones pile up.
        if self.order.len() > 2 * self.departed.len() + 1024 {
            let departed = &self.departed;
            self.order
                .retain(|(departure, id)| departed.get(id) == Some(departure));
        }
    }

    /// For so long the reader of the answers has kept the responses from being
    /// read. That is not the pipeline's time.
    pub fn hold(&mut self, held: Duration) {
        self.held += held;
    }

    /// When the next request is to be given up.
    pub fn due(&self) -> Option<Instant> {
        let (departure, _) = self.order.front()?;
        Some(departure.at + self.timeout + (self.held - departure.held))
    }

    /// Gives up what is due at `now`. Only to be called when all responses that
    /// were there at `now` have been read.
    pub fn give_up(&mut self, now: Instant) {
        while self.due().is_some_and(|due| due <= now) {
            if let Some((departure, id)) = self.order.pop_front()
                && self.departed.get(&id) == Some(&departure)
            {
                self.departed.remove(&id);
                self.unanswered += 1;
            }
        }
    }

    /// Adds its counts to those of the requests made.
    pub fn snapshot(&self, wrapped: Snapshot) -> Snapshot {
        wrapped
            .count("answered", self.answered)
            .count("unanswered", self.unanswered)
            .count("unmatched", self.unmatched)
            .count("repeated", self.repeated)
            .gauge("open", self.open() as u64)
            .latencies("answer", &self.latency)
    }
}
