//! Reads a segment line by line, and checks the checksum of each line.

use std::io;
use std::os::unix::fs::FileExt;

use crate::serve::tee::block::SpillPosition;
use crate::serve::tee::spill::segments::segment::Segment;
use crate::serve::tee::spill::stored_line::{checked, is_padding};
use crate::wire::lines::Lines;

/// Lines that were read from a spill.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Whole lines with their newlines.
    pub bytes: Vec<u8>,
    /// The number of lines in `bytes`.
    pub records: u64,
    /// The number of lines that were left out because their checksums are wrong.
    pub corrupt: u64,
    /// The position after the last line.
    pub end: SpillPosition,
}

/// Reads one segment.
#[derive(Debug)]
pub struct SegmentReader {
    /// The number of the segment.
    pub number: u64,
    /// Splits the bytes of the segment into lines.
    pub lines: Lines,
    /// The offset in the segment at which `lines` started, in bytes.
    pub base: u64,
    /// The offset in the segment up to which bytes were read.
    pub filled: u64,
}

impl SegmentReader {
    /// Adds lines of the segment to `chunk`. Returns `true` if the chunk is complete: it has
    /// about `bytes` bytes, or a corrupt line follows its lines. Returns `false` at the end of
    /// the segment.
    pub fn read(
        &mut self,
        segment: &mut Segment,
        bytes: usize,
        chunk: &mut Chunk,
    ) -> io::Result<bool> {
        loop {
            while chunk.bytes.len() < bytes
                && let Some(line) = self.lines.next_line()
            {
                if is_padding(line.bytes) {
                    continue;
                }
                segment.unread = segment.unread.saturating_sub(1);
                let length = line.oversized.unwrap_or(line.bytes.len() as u64);
                let end = SpillPosition {
                    segment: self.number,
                    offset: self.base + line.offset + length + 1,
                };
                let whole = line.oversized.is_none().then_some(line.bytes);
                match whole.and_then(checked) {
                    Some(text) => {
                        chunk.bytes.extend_from_slice(text);
                        chunk.bytes.push(b'\n');
                        chunk.records += 1;
                    }
                    None => {
                        chunk.corrupt += 1;
                        if chunk.records > 0 {
                            return Ok(true);
                        }
                    }
                }
                chunk.end = end;
            }
            if chunk.bytes.len() >= bytes {
                return Ok(true);
            }
            let left = segment.length.saturating_sub(self.filled);
            let (file, filled) = (&segment.file, self.filled);
            let count = self.lines.fill(|room| {
                let room_bytes = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                file.read_at(&mut room[..room_bytes], filled)
            })?;
            if count == 0 {
                return Ok(false);
            }
            self.filled += count as u64;
        }
    }
}
