//! The requests that have no answer yet, and for how long; and which there were.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::serve::request::known_ids::KnownIds;
use crate::stage::stats::{Latencies, Snapshot};
use crate::wire::lines::KeptLine;
use crate::wire::micros::Micros;

/// When a request left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Departure {
    at: Instant,
    /// For how long the responses had been held up by then.
    held: Duration,
}

/// A request without an answer.
#[derive(Debug)]
struct Open {
    departure: Departure,
    /// The input that it was made of, to be set aside where no answer comes.
    line: KeptLine,
}

/// The requests that have no answer yet.
#[derive(Debug)]
pub struct Flight {
    departed: HashMap<String, Open>,
    /// What their inputs take, in bytes.
    bytes: usize,
    /// The ids of all requests, as far back as there is room.
    known: KnownIds,
    /// In the order of departure, the answered ones too.
    order: VecDeque<(Departure, String)>,
    timeout: Duration,
    /// For how long nobody could read the responses, all in all.
    held: Duration,
    answered: u64,
    unanswered: u64,
    unmatched: u64,
    latency: Latencies,
}

impl Flight {
    /// No request has left. Each may wait for `timeout`, and at least the last
    /// `ids_max` of their ids are known.
    pub fn new(timeout: Duration, ids_max: usize) -> Flight {
        Flight {
            departed: HashMap::new(),
            bytes: 0,
            known: KnownIds::new(ids_max),
            order: VecDeque::new(),
            timeout,
            held: Duration::ZERO,
            answered: 0,
            unanswered: 0,
            unmatched: 0,
            latency: Latencies::default(),
        }
    }

    /// How many requests are unanswered and may still be answered.
    pub fn open(&self) -> usize {
        self.departed.len()
    }

    /// What their inputs take, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a request of this id has left, as far as that is known.
    pub fn is_known(&self, id: &str) -> bool {
        self.departed.contains_key(id) || self.known.contains(id)
    }

    /// How many were given up.
    pub fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// A request leaves, whose id is not open, and which was made of `line`.
    pub fn depart(&mut self, id: String, line: KeptLine) {
        let departure = Departure {
            at: Instant::now(),
            held: self.held,
        };
        self.known.insert(&id);
        self.bytes += line.kept_bytes();
        self.order.push_back((departure, id.clone()));
        self.departed.insert(id, Open { departure, line });
    }

    /// A response has come. Says whether it answers an open request; the others
    /// are somebody else's, or too late.
    pub fn arrive(&mut self, id: &str) -> bool {
        let open = self.departed.remove(id);
        match &open {
            Some(open) => {
                self.answered += 1;
                self.bytes -= open.line.kept_bytes();
                let latency = Micros::from_duration(open.departure.at.elapsed());
                self.latency.record(latency);
            }
            None => self.unmatched += 1,
        }
        self.forget_answered();
        open.is_some()
    }

    fn is_open(&self, departure: &Departure, id: &str) -> bool {
        let open = self.departed.get(id);
        open.is_some_and(|open| open.departure == *departure)
    }

    /// Keeps the queue as short as the flight.
    fn forget_answered(&mut self) {
        while let Some((departure, id)) = self.order.front() {
            if self.is_open(departure, id) {
                break;
            }
            self.order.pop_front();
        }
        // One slow answer at the front must not let the answered ones pile up.
        if self.order.len() > 2 * self.departed.len() + 1024 {
            let mut order = std::mem::take(&mut self.order);
            order.retain(|(departure, id)| self.is_open(departure, id));
            self.order = order;
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

    /// Gives up what is due at `now`, and returns the inputs in the order of their
    /// departure. Only to be called when all responses that were there at `now` have
    /// been read.
    pub fn give_up(&mut self, now: Instant) -> Vec<KeptLine> {
        let mut given_up = Vec::new();
        while self.due().is_some_and(|due| due <= now) {
            given_up.extend(self.give_up_first());
        }
        given_up
    }

    /// Gives up all that are open, and returns their inputs in the order of their
    /// departure.
    pub fn give_up_all(&mut self) -> Vec<KeptLine> {
        let mut given_up = Vec::new();
        while !self.order.is_empty() {
            given_up.extend(self.give_up_first());
        }
        given_up
    }

    /// Takes the first one out of the queue; its input, where it was still open.
    fn give_up_first(&mut self) -> Option<KeptLine> {
        let (departure, id) = self.order.pop_front()?;
        if !self.is_open(&departure, &id) {
            return None;
        }
        let open = self.departed.remove(&id)?;
        self.bytes -= open.line.kept_bytes();
        self.unanswered += 1;
        Some(open.line)
    }

    /// Adds its counts to those of the requests made.
    pub fn snapshot(&self, wrapped: Snapshot) -> Snapshot {
        wrapped
            .count("answered", self.answered)
            .count("unanswered", self.unanswered)
            .count("unmatched", self.unmatched)
            .gauge("open", self.open() as u64)
            .latencies("answer", &self.latency)
    }
}
