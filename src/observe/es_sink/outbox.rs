//! The records that wait to be sent, and the order in which they are sent (pure).
//!
//! Calls that failed as a whole are repeated before new calls. Single records that the
//! service refused temporarily wait in a separate batch. So a few of them do not delay
//! new records.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::observe::es_sink::batch::{Batch, Item, SealedBatch};
use crate::stage::backoff::Backoff;

/// The limits of one call.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// The largest number of records.
    pub records: usize,
    /// The largest number of bytes, uncompressed. A longer record gets a separate
    /// call.
    pub bytes: usize,
    /// The longest time that a record waits for other records.
    pub age: Duration,
}

/// Which of the new records may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Only a batch that is full or old.
    FullOrOld,
    /// Any batch, however small.
    Any,
}

/// The records that wait to be sent.
#[derive(Debug)]
pub struct Outbox {
    /// The limits. If the service refuses a call as too large, `bytes` is lowered below
    /// the limit of the flags.
    limits: BatchLimits,
    /// New records.
    filling: Batch,
    /// Calls that must be repeated, in this order.
    retries: VecDeque<SealedBatch>,
    /// Records that the service has refused temporarily.
    deferred: Batch,
    deferred_until: Option<Instant>,
    deferred_backoff: Backoff,
    /// The largest call that the service has accepted, in bytes.
    accepted_bytes_max: usize,
}

impl Outbox {
    /// An empty outbox. Temporarily refused records wait from about `retry_min` up to
    /// `retry_max`.
    pub fn new(limits: BatchLimits, retry_min: Duration, retry_max: Duration) -> Outbox {
        Outbox {
            limits,
            filling: Batch::default(),
            retries: VecDeque::new(),
            deferred: Batch::default(),
            deferred_until: None,
            deferred_backoff: Backoff::new(retry_min, retry_max),
            accepted_bytes_max: 0,
        }
    }

    /// The number of waiting records.
    pub fn len(&self) -> usize {
        let retries: usize = self.retries.iter().map(SealedBatch::len).sum();
        self.filling.len() + retries + self.deferred.len()
    }

    /// Adds a new record.
    pub fn push(&mut self, item: Item) {
        self.filling.push(item);
    }

    /// Whether the new records fill a call.
    pub fn is_full(&self) -> bool {
        self.filling.len() >= self.limits.records || self.filling.bytes() >= self.limits.bytes
    }

    /// Whether a new record whose operation has this many bytes fits into the next call.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.filling.is_empty()
            || (!self.is_full() && self.filling.bytes() + bytes <= self.limits.bytes)
    }

    /// Removes and returns the next batch to send; `None` if no batch may be sent
    /// yet.
    pub fn take_next(&mut self, readiness: Readiness, now: Instant) -> Option<SealedBatch> {
        if let Some(batch) = self.retries.pop_front() {
            return Some(batch);
        }
        let (records, bytes) = (self.limits.records, self.limits.bytes);
        if !self.deferred.is_empty() && self.deferred_until.is_none_or(|until| until <= now) {
            return Some(self.deferred.take(records, bytes));
        }
        let is_ready = match readiness {
            Readiness::Any => !self.filling.is_empty(),
            Readiness::FullOrOld => self.is_full() || self.old_at().is_some_and(|at| at <= now),
        };
        (is_ready && !self.holds_many_deferred()).then(|| self.filling.take(records, bytes))
    }

    /// The time at which [`take_next`](Outbox::take_next) will return a batch. `None`
    /// if only a new record or the end of a call can change this.
    pub fn due(&self, readiness: Readiness, now: Instant) -> Option<Instant> {
        let retries = (!self.retries.is_empty()).then_some(now);
        let deferred = (!self.deferred.is_empty()).then_some(self.deferred_until.unwrap_or(now));
        let is_ready = self.is_full() || (readiness == Readiness::Any && !self.filling.is_empty());
        let filling = match is_ready {
            _ if self.holds_many_deferred() => None,
            true => Some(now),
            false => self.old_at(),
        };
        [retries, deferred, filling].into_iter().flatten().min()
    }

    /// The time at which the oldest new record must be sent.
    fn old_at(&self) -> Option<Instant> {
        self.filling.since()?.checked_add(self.limits.age)
    }

    /// Whether the deferred records fill a call. In that case, new records would
    /// probably be deferred, too.
    fn holds_many_deferred(&self) -> bool {
        self.deferred.len() >= self.limits.records || self.deferred.bytes() >= self.limits.bytes
    }

    /// Takes back a call that could not be made. The call will be the next one.
    pub fn put_back(&mut self, batch: SealedBatch) {
        self.retries.push_front(batch);
    }

    /// Takes back a call that failed as a whole. The call is repeated after the other
    /// failed calls.
    pub fn retry(&mut self, batch: SealedBatch) {
        self.retries.push_back(batch);
    }

    /// Takes back a call that must be repeated as two calls.
    pub fn retry_in_halves(&mut self, batch: SealedBatch) {
        let [first, second] = batch.halves();
        self.retries.push_front(second);
        self.retries.push_front(first);
    }

    /// Notes that the service has accepted a call of this many bytes.
    pub fn note_accepted(&mut self, bytes: usize) {
        self.accepted_bytes_max = self.accepted_bytes_max.max(bytes);
    }

    /// Lowers the limit of bytes after a call of `too_large` bytes was refused.
    /// Returns the new limit.
    pub fn lower_bytes_limit(&mut self, too_large: usize) -> usize {
        // The limit stays at or above an accepted size, because a single record may be
        // too large for any call.
        let bytes = (too_large / 2).max(self.accepted_bytes_max);
        self.limits.bytes = self.limits.bytes.min(bytes);
        self.limits.bytes
    }

    /// Adds a record that must be sent again: at once, or after the wait that
    /// [`delay_deferred`](Outbox::delay_deferred) sets.
    pub fn defer(&mut self, item: Item) {
        self.deferred.push(item);
    }

    /// The number of deferred records.
    pub fn deferred_len(&self) -> usize {
        self.deferred.len()
    }

    /// Sets the wait of the deferred records. Each failure after a retry makes it
    /// longer. Calls that were in progress at the same time count as one failure.
    pub fn delay_deferred(&mut self, is_after_retry: bool, now: Instant) {
        if is_after_retry || self.deferred_until.is_none_or(|until| until <= now) {
            self.deferred_until = Some(now + self.deferred_backoff.next_wait());
        }
    }

    /// Resets the wait of the deferred records to the shortest time.
    pub fn reset_deferred_wait(&mut self) {
        self.deferred_backoff.reset();
    }

    /// Removes and returns all records, in any order.
    pub fn take_all(&mut self) -> Vec<SealedBatch> {
        let mut all: Vec<SealedBatch> = self.retries.drain(..).collect();
        for batch in [&mut self.deferred, &mut self.filling] {
            all.push(batch.take(usize::MAX, usize::MAX));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// An outbox whose calls hold at most two records and at most ten bytes.
    fn outbox() -> Outbox {
        let limits = BatchLimits {
            records: 2,
            bytes: 10,
            age: MINUTE,
        };
        Outbox::new(limits, MINUTE, MINUTE)
    }

    fn item(number: u64) -> Item<'static> {
        Item {
            body: b"body",
            raw: b"raw",
            number,
            offset: 0,
            deferral: None,
        }
    }

    fn numbers(batch: Option<SealedBatch>) -> Vec<u64> {
        let batch = batch.into_iter();
        let numbers = batch.flat_map(|batch| batch.items().map(|it| it.number).collect::<Vec<_>>());
        numbers.collect()
    }

    #[test]
    fn a_batch_is_sent_when_it_is_full_or_old_or_any_will_do() {
        let now = Instant::now();
        let mut outbox = outbox();
        assert_eq!(outbox.due(Readiness::Any, now), None);
        outbox.push(item(1));
        let due = outbox.due(Readiness::FullOrOld, now).unwrap();
        assert!(due > now && due <= Instant::now() + MINUTE);
        assert!(outbox.take_next(Readiness::FullOrOld, now).is_none());
        assert_eq!(outbox.due(Readiness::Any, now), Some(now));
        assert_eq!(numbers(outbox.take_next(Readiness::FullOrOld, due)), [1]);
        outbox.push(item(2));
        assert!(outbox.has_room(6) && !outbox.has_room(7));
        outbox.push(item(3));
        assert!(outbox.is_full() && !outbox.has_room(0));
        assert_eq!(outbox.due(Readiness::FullOrOld, now), Some(now));
        assert_eq!(numbers(outbox.take_next(Readiness::FullOrOld, now)), [2, 3]);
        assert_eq!(outbox.len(), 0);
    }

    #[test]
    fn failed_calls_come_first_and_then_deferred_records_whose_time_has_come() {
        let now = Instant::now();
        let mut outbox = outbox();
        for number in 1..=6 {
            outbox.push(item(number));
        }
        let [first, second] = [(); 2].map(|()| outbox.take_next(Readiness::Any, now).unwrap());
        outbox.retry(second);
        outbox.put_back(first);
        outbox.defer(item(7));
        outbox.delay_deferred(false, now);
        assert_eq!(outbox.len(), 7);
        assert_eq!(numbers(outbox.take_next(Readiness::Any, now)), [1, 2]);
        assert_eq!(numbers(outbox.take_next(Readiness::Any, now)), [3, 4]);
        assert_eq!(numbers(outbox.take_next(Readiness::Any, now)), [5, 6]);
        assert!(outbox.take_next(Readiness::Any, now).is_none());
        let due = outbox.due(Readiness::Any, now).unwrap();
        assert!(now + MINUTE / 2 <= due && due <= now + MINUTE);
        assert_eq!(numbers(outbox.take_next(Readiness::Any, due)), [7]);
    }

    #[test]
    fn many_deferred_records_hold_up_new_ones() {
        let now = Instant::now();
        let mut outbox = outbox();
        for number in 1..=2 {
            outbox.push(item(number));
            outbox.defer(item(10 + number));
        }
        outbox.delay_deferred(false, now);
        assert!(outbox.take_next(Readiness::Any, now).is_none());
        let due = outbox.due(Readiness::Any, now).unwrap();
        assert!(due > now);
        assert_eq!(numbers(outbox.take_next(Readiness::Any, due)), [11, 12]);
        assert_eq!(numbers(outbox.take_next(Readiness::Any, due)), [1, 2]);
    }

    #[test]
    fn the_limit_of_bytes_falls_but_not_below_what_was_accepted() {
        let mut outbox = outbox();
        outbox.note_accepted(4);
        assert_eq!(outbox.lower_bytes_limit(100), 10);
        assert_eq!(outbox.lower_bytes_limit(10), 5);
        assert_eq!(outbox.lower_bytes_limit(5), 4);
    }
}
