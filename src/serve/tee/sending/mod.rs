//! The queue of one branch: the lines to send, and the lines that may have to be sent again
//! (pure).
//!
//! A pipe holds the bytes that its reader has not read. When the reader dies, rv-tee reads
//! these bytes back; their number shows how many bytes the reader had read. So the blocks sent
//! last are kept as long as the pipe may still hold them. The next reader starts with the line
//! in which the last reader stopped.
//!
//! A second reader may open the pipe before rv-tee notices that the first one is dead. The
//! second reader may then have read some bytes already. So sending continues with the next
//! byte, even in the middle of a line.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Instant;

use crate::serve::tee::block::{Block, SpillPosition, count_lines};

/// The largest number of blocks in one write.
const SLICES_MAX: usize = 64;

/// A list of blocks in order, with the totals of their bytes, memory and lines.
#[derive(Debug, Default)]
struct Blocks {
    blocks: VecDeque<Block>,
    bytes: usize,
    memory_bytes: usize,
    records: u64,
}

impl Blocks {
    fn added(&mut self, block: &Block) {
        self.bytes += block.len();
        self.memory_bytes += block.memory_bytes();
        self.records += block.records();
    }

    fn removed(&mut self, block: &Block) {
        self.bytes -= block.len();
        self.memory_bytes -= block.memory_bytes();
        self.records -= block.records();
    }

    fn push_front(&mut self, block: Block) {
        if block.len() > 0 {
            self.added(&block);
            self.blocks.push_front(block);
        }
    }

    fn push_back(&mut self, block: Block) {
        if block.len() > 0 {
            self.added(&block);
            self.blocks.push_back(block);
        }
    }

    fn pop_front(&mut self) -> Option<Block> {
        let block = self.blocks.pop_front()?;
        self.removed(&block);
        Some(block)
    }

    fn pop_back(&mut self) -> Option<Block> {
        let block = self.blocks.pop_back()?;
        self.removed(&block);
        Some(block)
    }
}

/// The changes to the counts when a reader has closed the pipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewound {
    /// Lines that were counted as sent and have to be sent again.
    pub unsent: u64,
    /// Lines that now count as sent.
    pub sent: u64,
    /// Lines of an earlier process that were found in the pipe.
    pub recovered: u64,
    /// Whether the reader stopped in the middle of a line, which is sent again.
    pub torn: bool,
}

/// The changes to the counts when the oldest lines were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DroppedLines {
    /// Lines that were dropped.
    pub records: u64,
    /// The bytes of the dropped lines.
    pub bytes: u64,
    /// Lines that now count as sent.
    pub sent: u64,
}

/// The lines of one branch in order: first those that the pipe may still hold, then those that
/// wait.
#[derive(Debug, Default)]
pub struct Sending {
    /// Blocks that were sent, but that the reader may not have read yet.
    sent: Blocks,
    waiting: Blocks,
    /// How many bytes of the first waiting block were sent.
    first_sent_bytes: usize,
}

impl Sending {
    /// Adds a block to the end of the queue.
    pub fn push(&mut self, block: Block) {
        self.waiting.push_back(block);
    }

    /// Whether every line was sent.
    pub fn is_empty(&self) -> bool {
        self.waiting.blocks.is_empty()
    }

    /// The memory that the waiting blocks use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.waiting.memory_bytes
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.waiting.bytes - self.first_sent_bytes
    }

    /// How many lines wait. The lines of a block count until the whole block is sent.
    pub fn records(&self) -> u64 {
        self.waiting.records
    }

    /// When the oldest waiting block was read.
    pub fn oldest(&self) -> Option<Instant> {
        self.waiting.blocks.front().map(Block::read_at)
    }

    /// The bytes to write next, up to a limited number of blocks.
    pub fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(self.waiting.blocks.len().min(SLICES_MAX));
        let mut from = self.first_sent_bytes;
        for block in self.waiting.blocks.iter().take(SLICES_MAX) {
            slices.push(IoSlice::new(&block.bytes()[from..]));
            from = 0;
        }
        slices
    }

    /// The bytes of the first waiting block that were not sent yet.
    pub fn first_slice(&self) -> &[u8] {
        let first = self.waiting.blocks.front();
        first.map_or(&[], |block| &block.bytes()[self.first_sent_bytes..])
    }

    /// Whether a line was sent only in part.
    pub fn is_inside_line(&self) -> bool {
        let first = self.waiting.blocks.front();
        self.first_sent_bytes > 0
            && first.is_some_and(|block| block.bytes()[self.first_sent_bytes - 1] != b'\n')
    }

    /// Records that `count` bytes were written to a pipe that can hold `pipe_bytes`. Returns the
    /// number of lines in the blocks that are now completely written, and the position in the
    /// spill at which the last of these blocks ends, if it was spilled.
    pub fn advance(&mut self, count: usize, pipe_bytes: usize) -> (u64, Option<SpillPosition>) {
        let (mut records, mut position) = (0, None);
        self.first_sent_bytes += count;
        while let Some(block) = self.waiting.blocks.front()
            && block.len() <= self.first_sent_bytes
            && let Some(block) = self.waiting.pop_front()
        {
            self.first_sent_bytes -= block.len();
            records += block.records();
            position = block.spill_end().or(position);
            self.sent.push_back(block);
        }
        while let Some(block) = self.sent.blocks.front()
            && self.sent.bytes + self.first_sent_bytes - block.len() >= pipe_bytes
        {
            self.sent.pop_front();
        }
        (records, position)
    }

    /// Call this when a reader has closed the pipe. Queues `unread` again: the bytes that were
    /// left in the pipe and taken out of it. The line in which the reader stopped is sent again
    /// from its start.
    ///
    /// If `next_reader` is set, another reader opened the pipe before `unread` was taken out, and
    /// may have read the bytes before `unread`. So sending continues with exactly the first byte
    /// of `unread`.
    ///
    /// If `unread` is longer than the bytes sent by this process, it starts with bytes of an
    /// earlier process. The whole lines among them are sent first.
    pub fn rewind(&mut self, unread: &[u8], next_reader: bool, now: Instant) -> Rewound {
        let mut rewound = Rewound::default();
        let known = self.sent.bytes + self.first_sent_bytes;
        let (earlier_writer_bytes, own_bytes) = unread.split_at(unread.len().saturating_sub(known));
        let mut unread = own_bytes.len();
        while unread > self.first_sent_bytes
            && let Some(block) = self.sent.pop_back()
        {
            unread -= self.first_sent_bytes;
            self.first_sent_bytes = block.len();
            rewound.unsent += block.records();
            self.waiting.push_front(block);
        }
        self.sent = Blocks::default();
        self.first_sent_bytes -= unread;
        rewound.torn = self.is_inside_line();
        if !next_reader {
            rewound.sent = self.return_to_line_start();
        }
        if let Some(block) = whole_lines_of_earlier_writer(earlier_writer_bytes, next_reader, now) {
            rewound.recovered = block.records();
            self.waiting.push_front(block);
        }
        rewound
    }

    /// Goes back to the start of the line that was sent in part. Returns how many lines of its
    /// block were sent before it.
    fn return_to_line_start(&mut self) -> u64 {
        let taken = std::mem::take(&mut self.first_sent_bytes);
        if taken == 0 {
            return 0;
        }
        let Some(block) = self.waiting.pop_front() else {
            return 0;
        };
        let newline = memchr::memrchr(b'\n', &block.bytes()[..taken]);
        let (sent, rest) = block.split(newline.map_or(0, |newline| newline + 1));
        self.waiting.push_front(rest);
        sent.records()
    }

    /// Sends a newline first, because the reader may have received part of a line. The first
    /// block must not have been sent in part.
    pub fn end_torn_line(&mut self, now: Instant) {
        debug_assert_eq!(self.first_sent_bytes, 0);
        self.waiting.push_front(Block::new(b"\n".to_vec(), 0, now));
    }

    /// Whether a single block waits.
    pub fn is_one_block(&self) -> bool {
        self.waiting.blocks.len() == 1
    }

    /// Drops the oldest lines until `is_enough` returns true for the remaining queue. A line that
    /// was sent in part is kept.
    pub fn drop_oldest(&mut self, is_enough: impl Fn(&Sending) -> bool) -> DroppedLines {
        let mut dropped = DroppedLines::default();
        if is_enough(self) {
            return dropped;
        }
        let first_sent_bytes = self.split_off_started_line();
        while !is_enough(self)
            && let Some(block) = self.waiting.pop_front()
        {
            dropped.records += block.records();
            dropped.bytes += block.len() as u64;
        }
        if let Some(first_sent_bytes) = first_sent_bytes {
            self.waiting.push_front(first_sent_bytes);
            // If the kept lines were sent completely, they no longer wait.
            (dropped.sent, _) = self.advance(0, usize::MAX);
        }
        dropped
    }

    /// Removes and returns all waiting blocks. A line that was sent in part is included as a
    /// whole. Also returns how many lines of the first block were already sent.
    pub fn take_all(&mut self) -> (u64, Vec<Block>) {
        let rewound = self.rewind(&[], false, Instant::now());
        (
            rewound.sent,
            std::mem::take(&mut self.waiting).blocks.into(),
        )
    }

    /// Splits the first waiting block after the line that was sent in part. Returns the part up
    /// to there; the rest stays in the queue.
    fn split_off_started_line(&mut self) -> Option<Block> {
        if self.first_sent_bytes == 0 {
            return None;
        }
        let block = self.waiting.pop_front()?;
        let length = match block.bytes()[self.first_sent_bytes - 1] {
            b'\n' => self.first_sent_bytes,
            _ => memchr::memchr(b'\n', &block.bytes()[self.first_sent_bytes..])
                .map_or(block.len(), |newline| self.first_sent_bytes + newline + 1),
        };
        let (first_sent_bytes, rest) = block.split(length);
        self.waiting.push_front(rest);
        Some(first_sent_bytes)
    }
}

/// The whole lines among the bytes that an earlier process left in the pipe. The last line may
/// be incomplete and is left out. If `next_reader` is not set, the first line is left out,
/// too: the reader that closed the pipe may have read its start.
fn whole_lines_of_earlier_writer(bytes: &[u8], next_reader: bool, now: Instant) -> Option<Block> {
    let first = memchr::memchr(b'\n', bytes)?;
    let last = memchr::memrchr(b'\n', bytes)?;
    let from = if next_reader { 0 } else { first + 1 };
    let lines = &bytes[from..=last.max(first)];
    (!lines.is_empty()).then(|| Block::new(lines.to_vec(), count_lines(lines), now))
}

#[cfg(test)]
mod tests;
