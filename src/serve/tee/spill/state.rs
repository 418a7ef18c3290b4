//! The state that the main loop shares with the thread of a spill, and the choice of the
//! thread's next work (pure).

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use crate::serve::tee::block::{Block, SpillPosition};
use crate::serve::tee::spill::policy::{OnFull, SpillEnd};
use crate::serve::tee::spill::segments::StoredTotals;

/// In one round, the thread stores about this many bytes and reads back at least as many.
pub const ROUND_BYTES: usize = 1 << 20;

/// The message about a disk that is too slow.
pub const DISK_BEHIND: &str = "the disk is too slow, and --spill-queue is reached";

/// The state that the main loop shares with the thread of a spill.
#[derive(Debug, Default)]
pub struct SpillState {
    // For the thread: blocks to store.
    /// Blocks that wait to be stored.
    pub unstored: VecDeque<Block>,
    /// The memory of the blocks that wait to be stored and of the blocks that are being stored.
    pub unstored_bytes: usize,
    /// The number of lines in the blocks that wait to be stored or are being stored.
    pub unstored_records: u64,
    /// How many bytes the main loop has room for.
    pub wanted_bytes: usize,
    /// The position up to which lines were delivered; `None` if it has not changed since the thread
    /// last took work.
    pub delivered_up_to: Option<SpillPosition>,
    /// Set when the branch ends.
    pub end: Option<SpillEnd>,
    // For the main loop: blocks that were read back.
    /// Blocks that were read back from the disk.
    pub read: VecDeque<Block>,
    /// The number of bytes that the thread reads back or has read back.
    pub read_bytes: usize,
    /// Since when the thread has been gathering blocks for one large write.
    pub gathering_since: Option<Instant>,
    /// Whether the thread is working. Its results are not yet in this state.
    pub busy: bool,
    /// Whether lines wait because the spill has no room for them.
    pub full: bool,
    /// Whether all stored lines were read.
    pub all_read: bool,
    /// The totals of the lines on disk.
    pub stored: StoredTotals,
    /// The lines that were lost.
    pub losses: SpillLosses,
    /// The last problem with the disk, for a message.
    pub problem: Option<String>,
}

/// The lines that a spill has lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpillLosses {
    /// Lines that were dropped because there was no room.
    pub dropped: u64,
    /// The bytes of the dropped lines.
    pub dropped_bytes: u64,
    /// Stored lines that could not be read back.
    pub corrupt: u64,
}

/// The next work of the thread.
pub struct SpillWork {
    /// The blocks to store.
    pub blocks: VecDeque<Block>,
    /// How many bytes to read back.
    pub read_bytes: usize,
    /// The position up to which lines were delivered; `None` if it has not changed since the thread
    /// last took work.
    pub delivered_up_to: Option<SpillPosition>,
    /// Set when the branch ends.
    pub end: Option<SpillEnd>,
}

/// The results of the thread's work.
#[derive(Default)]
pub struct WorkOutcome {
    /// The memory of the blocks that were stored or dropped, in bytes.
    pub stored: usize,
    /// The number of lines that were stored or dropped.
    pub stored_records: u64,
    /// Blocks that still wait for room.
    pub left: VecDeque<Block>,
    /// Blocks that were read back from the disk.
    pub read: VecDeque<Block>,
    /// The lines that were lost.
    pub losses: SpillLosses,
    /// A problem with the disk, for a message.
    pub problem: Option<io::Error>,
}

impl SpillState {
    /// The number of lines that were read back and not yet taken by the main loop.
    pub fn read_back_records(&self) -> u64 {
        self.read.iter().map(Block::records).sum()
    }

    /// Queues a block to be stored. Drops the block if `unstored_bytes_max` is reached and
    /// `on_full` is [`OnFull::Drop`].
    pub fn append(&mut self, block: Block, on_full: OnFull, unstored_bytes_max: usize) {
        if on_full == OnFull::Drop && self.unstored_bytes >= unstored_bytes_max {
            self.losses.drop(&block);
            self.problem = Some(DISK_BEHIND.to_owned());
            return;
        }
        self.unstored_bytes += block.memory_bytes();
        self.unstored_records += block.records();
        self.unstored.push_back(block);
    }

    /// Whether the thread must read: the main loop has room, and unread lines are stored.
    pub fn should_read(&self) -> bool {
        self.read_bytes < self.wanted_bytes && !self.all_read
    }

    /// Whether the thread must store. If no unread line is stored and the main loop has room, the
    /// loop takes the next blocks directly instead.
    pub fn should_store(&self) -> bool {
        let goes_directly = self.all_read && self.read_bytes < self.wanted_bytes;
        !self.unstored.is_empty() && !self.full && !goes_directly
    }

    /// Whether the queued blocks may wait for more blocks. They may if they fill less than a
    /// round and the main loop has no room for them.
    pub fn may_gather(&self) -> bool {
        let has_room = self.read_bytes < self.wanted_bytes;
        self.unstored_bytes < ROUND_BYTES && !has_room && !self.is_ending()
    }

    /// Whether the branch has ended.
    pub fn is_ending(&self) -> bool {
        self.end.is_some()
    }

    /// Removes and returns the blocks to store in one round.
    pub fn next_unstored(&mut self) -> VecDeque<Block> {
        let mut next = VecDeque::new();
        let mut bytes = 0;
        while bytes < ROUND_BYTES
            && let Some(block) = self.unstored.pop_front()
        {
            bytes += block.memory_bytes();
            next.push_back(block);
        }
        next
    }
}

impl SpillState {
    /// Returns the next work. The blocks to store still count as unstored until
    /// [`end_work`](SpillState::end_work).
    pub fn begin_work(&mut self) -> SpillWork {
        // Delivered lines may have been deleted, which makes room.
        let delivered_up_to = self.delivered_up_to.take();
        self.full &= delivered_up_to.is_none();
        let should_read = self.should_read();
        let blocks = if self.end.is_some() {
            // This is the last round.
            std::mem::take(&mut self.unstored)
        } else if self.should_store() {
            self.next_unstored()
        } else {
            VecDeque::new()
        };
        // At least as many bytes are read back as are stored, so that a reader can empty the
        // spill.
        let stored: usize = blocks.iter().map(Block::memory_bytes).sum();
        self.busy = true;
        SpillWork {
            read_bytes: match should_read && self.end.is_none() {
                true => stored.max(ROUND_BYTES),
                false => 0,
            },
            blocks,
            delivered_up_to,
            end: self.end,
        }
    }

    /// Records the results of the work.
    pub fn end_work(&mut self, outcome: WorkOutcome) {
        for block in outcome.left.into_iter().rev() {
            self.full = true;
            self.unstored.push_front(block);
        }
        self.unstored_bytes = self.unstored_bytes.saturating_sub(outcome.stored);
        self.unstored_records = self.unstored_records.saturating_sub(outcome.stored_records);
        self.losses.add(outcome.losses);
        let read = outcome.read.iter().map(Block::memory_bytes);
        self.read_bytes += read.sum::<usize>();
        self.read.extend(outcome.read);
        self.busy = false;
        if let Some(error) = outcome.problem {
            self.problem = Some(error.to_string());
        }
    }
}

impl SpillLosses {
    /// Counts the lines of a block as dropped.
    pub fn drop(&mut self, block: &Block) {
        self.dropped += block.records();
        self.dropped_bytes += block.bytes().len() as u64;
    }

    /// Adds the losses of a round.
    pub fn add(&mut self, more: SpillLosses) {
        self.dropped += more.dropped;
        self.dropped_bytes += more.dropped_bytes;
        self.corrupt += more.corrupt;
    }
}
