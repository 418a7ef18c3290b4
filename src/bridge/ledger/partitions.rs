//! What a broker may be told: the finished prefix of a partition, and the finished
//! batches.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::bridge::ledger::entry::Position;

/// The uncommitted messages of each partition.
#[derive(Debug, Default)]
pub struct Partitions {
    by_number: BTreeMap<(u32, i32), Partition>,
}

/// The delivered messages from the first unfinished one on.
#[derive(Debug, Default)]
struct Partition {
    /// Offsets in ascending order, and whether each is finished. Offsets may have gaps,
    /// because a topic may be compacted.
    uncommitted: VecDeque<(u64, bool)>,
    /// The highest offset that was delivered.
    last: Option<u64>,
}

impl Partitions {
    /// Whether the partition begins anew at this position: it was delivered a later one
    /// before. Then nothing is known about the messages from here on.
    pub fn restarts_at(&self, position: &Position) -> bool {
        let partition = self.by_number.get(&number(position));
        partition.is_some_and(|it| it.last.is_some_and(|last| position.sequence <= last))
    }

    /// Adds a delivered message.
    pub fn open(&mut self, position: &Position) {
        let partition = self.by_number.entry(number(position)).or_default();
        partition.last = partition.last.max(Some(position.sequence));
        let at = partition.index(position.sequence).unwrap_or_else(|at| {
            partition.uncommitted.insert(at, (position.sequence, false));
            at
        });
        partition.uncommitted[at].1 = false;
    }

    /// A message that was given before its partition was revoked has been delivered
    /// again.
    pub fn reopen(&mut self, position: &Position) {
        self.open(position);
    }

    /// A message is finished. Returns the position to commit, if it has moved.
    pub fn finish(&mut self, position: &Position) -> Option<u64> {
        let partition = self.by_number.get_mut(&number(position))?;
        let at = partition.index(position.sequence).ok()?;
        partition.uncommitted[at].1 = true;
        let mut next = None;
        while let Some((offset, true)) = partition.uncommitted.front() {
            next = Some(offset + 1);
            partition.uncommitted.pop_front();
        }
        next
    }

    /// Forgets a partition.
    pub fn remove(&mut self, topic: u32, partition: i32) {
        self.by_number.remove(&(topic, partition));
    }

    /// The number of messages from the first unfinished one, in the partition with the
    /// most.
    pub fn widest(&self) -> usize {
        let all = self.by_number.values();
        all.map(|it| it.uncommitted.len()).max().unwrap_or(0)
    }
}

impl Partition {
    fn index(&self, offset: u64) -> Result<usize, usize> {
        self.uncommitted.binary_search_by_key(&offset, |it| it.0)
    }
}

fn number(position: &Position) -> (u32, i32) {
    (position.topic, position.partition)
}

/// The batches of which only a part is finished. Pulsar acknowledges a batch as a whole.
#[derive(Debug, Default)]
pub struct Batches {
    finished: HashMap<Position, HashSet<u32>>,
}

impl Batches {
    /// A message of a batch of `size` is finished. Returns whether the whole batch is.
    pub fn finish(&mut self, position: Position, size: u32) -> bool {
        if size <= 1 {
            return true;
        }
        let batch = Position {
            index: 0,
            ..position
        };
        let finished = self.finished.entry(batch).or_default();
        finished.insert(position.index);
        let is_whole = finished.len() >= size as usize;
        if is_whole {
            self.finished.remove(&batch);
        }
        is_whole
    }
}
