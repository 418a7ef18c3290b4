//! Blocks of whole lines: the lines of one read are queued together on each branch.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// The approximate memory that a block uses in addition to its lines, in bytes.
const BLOCK_OVERHEAD_BYTES: usize = 96;

/// A position in a spill, between two stored lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpillPosition {
    /// The number of the segment.
    pub segment: u64,
    /// Bytes from the start of the segment.
    pub offset: u64,
}

/// A run of whole lines. All branches share the bytes of a block.
#[derive(Clone, Debug)]
pub struct Block {
    bytes: Arc<Vec<u8>>,
    /// The part of `bytes` that belongs to this block.
    range: Range<usize>,
    records: u64,
    /// When the lines were read.
    read_at: Instant,
    /// The position after the last line in the spill, if the lines were read from a spill.
    spill_end: Option<SpillPosition>,
}

impl Block {
    /// Creates a block from `records` whole lines, which were read at `read_at`.
    pub fn new(bytes: Vec<u8>, records: u64, read_at: Instant) -> Block {
        Block {
            range: 0..bytes.len(),
            bytes: Arc::new(bytes),
            records,
            read_at,
            spill_end: None,
        }
    }

    /// Returns the block, marked as read from a spill. In the spill, its last line ends at
    /// `spill_end`.
    pub fn with_spill_end(self, spill_end: SpillPosition) -> Block {
        Block {
            spill_end: Some(spill_end),
            ..self
        }
    }

    /// The lines, each with its newline.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }

    /// The number of lines.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The length of the lines, in bytes.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// When the lines were read.
    pub fn read_at(&self) -> Instant {
        self.read_at
    }

    /// The position after the last line in the spill, if the lines were read from a spill.
    pub fn spill_end(&self) -> Option<SpillPosition> {
        self.spill_end
    }

    /// The memory that the block uses, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + BLOCK_OVERHEAD_BYTES
    }

    /// Splits the block after `length` bytes. A line must end there.
    pub fn split(self, length: usize) -> (Block, Block) {
        let middle = self.range.start + length;
        let records = count_lines(&self.bytes[self.range.start..middle]);
        let first = Block {
            bytes: Arc::clone(&self.bytes),
            range: self.range.start..middle,
            records,
            read_at: self.read_at,
            spill_end: None,
        };
        let second = Block {
            range: middle..self.range.end,
            records: self.records.saturating_sub(records),
            ..self
        };
        (first, second)
    }
}

/// The number of lines in `bytes`, which holds whole lines only.
pub fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
