//! The bound of what one input may hold.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How much more an input may take. The client asks before it consumes, and the loop
/// says how much the ledger holds.
#[derive(Debug)]
pub struct Gate {
    records_max: usize,
    bytes_max: usize,
    /// Held by the ledger.
    records: AtomicUsize,
    bytes: AtomicUsize,
    /// Delivered, and not yet in the ledger.
    records_on_the_way: AtomicUsize,
    bytes_on_the_way: AtomicUsize,
    /// Whether the span of a partition is full, or the bridge ends.
    is_closed: AtomicBool,
    opened: Notify,
}

impl Gate {
    /// A gate for these bounds.
    pub fn new(records_max: usize, bytes_max: usize) -> Gate {
        Gate {
            records_max,
            bytes_max,
            records: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            records_on_the_way: AtomicUsize::new(0),
            bytes_on_the_way: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            opened: Notify::new(),
        }
    }

    /// The number of messages and bytes that may be consumed now; `None` if there is no
    /// room.
    pub fn room(&self) -> Option<(usize, usize)> {
        if self.is_closed.load(Ordering::Acquire) {
            return None;
        }
        let held = |one: &AtomicUsize, other: &AtomicUsize| {
            one.load(Ordering::Acquire) + other.load(Ordering::Acquire)
        };
        let records = held(&self.records, &self.records_on_the_way);
        let bytes = held(&self.bytes, &self.bytes_on_the_way);
        let records = self.records_max.checked_sub(records)?;
        let bytes = self.bytes_max.checked_sub(bytes)?;
        (records > 0 && bytes > 0).then_some((records, bytes))
    }

    /// Whether a client that has stopped should begin again: it can take many messages
    /// at once.
    pub fn is_mostly_empty(&self) -> bool {
        let room = self.room();
        room.is_some_and(|(records, _)| records >= self.records_max.div_ceil(16))
    }

    /// A message was consumed.
    pub fn consumed(&self, bytes: usize) {
        self.records_on_the_way.fetch_add(1, Ordering::AcqRel);
        self.bytes_on_the_way.fetch_add(bytes, Ordering::AcqRel);
    }

    /// The loop has taken a message.
    pub fn arrived(&self, bytes: usize) {
        self.records_on_the_way.fetch_sub(1, Ordering::AcqRel);
        self.bytes_on_the_way.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Sets what the ledger holds, and whether to consume nothing in any case.
    pub fn set_held(&self, records: usize, bytes: usize, is_closed: bool) {
        self.records.store(records, Ordering::Release);
        self.bytes.store(bytes, Ordering::Release);
        self.is_closed.store(is_closed, Ordering::Release);
        if self.is_mostly_empty() {
            self.opened.notify_one();
        }
    }

    /// Waits until there may be room again.
    pub async fn opened(&self) {
        self.opened.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_the_way_takes_room() {
        let gate = Gate::new(2, 100);
        assert_eq!(gate.room(), Some((2, 100)));
        gate.consumed(10);
        gate.set_held(1, 20, false);
        assert_eq!(gate.room(), None);
        gate.arrived(10);
        assert_eq!(gate.room(), Some((1, 80)));
        gate.set_held(0, 0, true);
        assert_eq!(gate.room(), None);
    }
}
