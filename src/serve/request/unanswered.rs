//! The unanswered requests of a closed loop, and their time-outs.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::serve::request::recent_ids::RecentIds;
use crate::stage::stats::{Latencies, Snapshot};
use crate::wire::lines::KeptLine;
use crate::wire::micros::Micros;

/// When a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SentAt {
    time: Instant,
    /// The value of [`Unanswered::suspended`] at that time.
    suspended: Duration,
}

/// An unanswered request.
#[derive(Debug)]
struct UnansweredRequest {
    sent_at: SentAt,
    /// The input of the request, which is set aside if no response arrives.
    line: KeptLine,
}

/// The unanswered requests, by id, and the counts of all requests.
#[derive(Debug)]
pub struct Unanswered {
    unanswered: HashMap<String, UnansweredRequest>,
    /// The memory of the inputs of unanswered requests, in bytes.
    bytes: usize,
    /// The last ids, including those of answered requests.
    recent_ids: RecentIds,
    /// Requests in the order of sending. Answered ones are removed later.
    order: VecDeque<(SentAt, String)>,
    timeout: Duration,
    /// The total time for which no response could be read because the reader of the
    /// answers was slow.
    suspended: Duration,
    answered_count: u64,
    expired_count: u64,
    unmatched_count: u64,
    latency: Latencies,
}

impl Unanswered {
    /// Starts without a request. Each request may wait `timeout` for its response. At
    /// least the last `remembered_ids` ids are remembered.
    pub fn new(timeout: Duration, remembered_ids: usize) -> Unanswered {
        Unanswered {
            unanswered: HashMap::new(),
            bytes: 0,
            recent_ids: RecentIds::new(remembered_ids),
            order: VecDeque::new(),
            timeout,
            suspended: Duration::ZERO,
            answered_count: 0,
            expired_count: 0,
            unmatched_count: 0,
            latency: Latencies::default(),
        }
    }

    /// The number of requests that are unanswered and not expired.
    pub fn len(&self) -> usize {
        self.unanswered.len()
    }

    /// The memory of the inputs of unanswered requests, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the id is in flight or remembered.
    pub fn is_known(&self, id: &str) -> bool {
        self.unanswered.contains_key(id) || self.recent_ids.contains(id)
    }

    /// The number of expired requests.
    pub fn expired_count(&self) -> u64 {
        self.expired_count
    }

    /// Adds a request that was made from `line`. Its id must not be in flight.
    pub fn insert(&mut self, id: String, line: KeptLine) {
        let sent_at = SentAt {
            time: Instant::now(),
            suspended: self.suspended,
        };
        self.recent_ids.insert(&id);
        self.bytes += line.kept_bytes();
        self.order.push_back((sent_at, id.clone()));
        self.unanswered
            .insert(id, UnansweredRequest { sent_at, line });
    }

    /// Handles the response to the request `id`. Returns false if this request is not
    /// in flight: the response is late, or answers a request of another program.
    pub fn answer(&mut self, id: &str) -> bool {
        let answered = self.unanswered.remove(id);
        match &answered {
            Some(answered) => {
                self.answered_count += 1;
                self.bytes -= answered.line.kept_bytes();
                let latency = Micros::from_duration(answered.sent_at.time.elapsed());
                self.latency.record(latency);
            }
            None => self.unmatched_count += 1,
        }
        self.remove_answered_from_order();
        answered.is_some()
    }

    fn is_unanswered(&self, sent_at: &SentAt, id: &str) -> bool {
        let found = self.unanswered.get(id);
        found.is_some_and(|found| found.sent_at == *sent_at)
    }

    fn remove_answered_from_order(&mut self) {
        while let Some((sent_at, id)) = self.order.front() {
            if self.is_unanswered(sent_at, id) {
                break;
            }
            self.order.pop_front();
        }
        // If the first request of `order` stays unanswered for long, answered requests
        // accumulate behind it.
        if self.order.len() > 2 * self.unanswered.len() + 1024 {
            let mut order = std::mem::take(&mut self.order);
            order.retain(|(sent_at, id)| self.is_unanswered(sent_at, id));
            self.order = order;
        }
    }

    /// Extends all time-outs by `duration`: the time during which the program read no
    /// responses, because the reader of the answers was slow.
    pub fn extend_timeouts(&mut self, duration: Duration) {
        self.suspended += duration;
    }

    /// The time at which the next request expires.
    pub fn next_expiry(&self) -> Option<Instant> {
        let (sent_at, _) = self.order.front()?;
        Some(sent_at.time + self.timeout + (self.suspended - sent_at.suspended))
    }

    /// Removes the requests that have expired at `now`, and returns their inputs in
    /// the order of sending. The caller must first read all responses that were ready
    /// at `now`.
    pub fn expire(&mut self, now: Instant) -> Vec<KeptLine> {
        let mut expired = Vec::new();
        while self.next_expiry().is_some_and(|expiry| expiry <= now) {
            expired.extend(self.expire_first());
        }
        expired
    }

    /// Removes all requests, and returns their inputs in the order of sending.
    pub fn expire_all(&mut self) -> Vec<KeptLine> {
        let mut expired = Vec::new();
        while !self.order.is_empty() {
            expired.extend(self.expire_first());
        }
        expired
    }

    /// Removes the first request of the order. Returns the input of the request if
    /// the request is unanswered.
    fn expire_first(&mut self) -> Option<KeptLine> {
        let (sent_at, id) = self.order.pop_front()?;
        if !self.is_unanswered(&sent_at, &id) {
            return None;
        }
        let expired = self.unanswered.remove(&id)?;
        self.bytes -= expired.line.kept_bytes();
        self.expired_count += 1;
        Some(expired.line)
    }

    /// Adds the counts of this type to `snapshot`.
    pub fn add_counts(&self, snapshot: Snapshot) -> Snapshot {
        snapshot
            .count("answered", self.answered_count)
            .count("unanswered", self.expired_count)
            .count("unmatched", self.unmatched_count)
            .gauge("open", self.len() as u64)
            .latencies("answer", &self.latency)
    }
}
