//! Decides whether the input is a bulk or a live stream (pure). A bulk is an input that always
//! has more lines ready; it gets large pipes and large reads. A live stream keeps the system's
//! default pipe size, because Linux limits how much memory the pipes of a user may have.

use crate::wire::lines::BLOCK_BYTES;

/// How many bytes of a bulk are read at once.
const READ_BYTES: usize = 256 << 10;

/// After this many large reads in a row, the input counts as a bulk. A large read fills at
/// least half a block.
const LARGE_READS: u32 = 256;

/// Counts large reads of the input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bulk {
    /// The number of large reads in a row, including the last read.
    large_reads: u32,
}

impl Bulk {
    /// Records a read of `bytes`. Returns whether this read turned the input into a bulk.
    pub fn becomes_bulk(&mut self, bytes: usize) -> bool {
        if self.is_bulk() {
            return false;
        }
        self.large_reads = match bytes >= BLOCK_BYTES / 2 {
            true => self.large_reads + 1,
            false => 0,
        };
        self.is_bulk()
    }

    /// Whether the input is a bulk. A bulk remains a bulk until its end.
    pub fn is_bulk(self) -> bool {
        self.large_reads >= LARGE_READS
    }

    /// How many bytes to read at once.
    pub fn read_bytes(self) -> usize {
        match self.is_bulk() {
            true => READ_BYTES,
            false => BLOCK_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_large_reads_in_a_row_make_a_bulk() {
        let mut bulk = Bulk::default();
        for _ in 0..3 {
            for _ in 1..LARGE_READS {
                assert!(!bulk.becomes_bulk(BLOCK_BYTES));
            }
            // A live stream pauses now and then, which makes one read small.
            assert!(!bulk.becomes_bulk(100));
        }
        assert_eq!(bulk.read_bytes(), BLOCK_BYTES);
        let began = (0..LARGE_READS).map(|_| bulk.becomes_bulk(BLOCK_BYTES));
        assert_eq!(began.filter(|began| *began).count(), 1);
        assert!(!bulk.becomes_bulk(100));
        assert_eq!(bulk.read_bytes(), READ_BYTES);
    }
}
