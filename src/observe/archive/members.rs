//! lines -> a gzip file of several members: blocks are compressed apart from each
//! other, so that threads can share the work and the bytes are the same however
//! many there are.
//!
//! The head of the first member holds a [`Stamp`], in an extra field that other
//! programs pass over: what is in the file, and its place among its neighbours.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use crate::stage::worker_pool::WorkerPool;

/// How much goes into a member. The window of gzip is 32 KiB, so beginning anew
/// this seldom costs next to nothing.
pub const BLOCK_BYTES: usize = 1 << 20;

/// What a file says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Which file of its folder it is, counted from 0 without a gap.
    pub number: u64,
    /// How many lines the files before it had.
    pub lines_before: u64,
    /// How many lines are in it.
    pub lines: u64,
    /// How many bytes are in it, uncompressed.
    pub bytes: u64,
}

impl Stamp {
    /// The stamp of the file that follows, as far as it is known; `None` where the
    /// numbers of this one leave no room for another.
    pub fn after(self) -> Option<Stamp> {
        Some(Stamp {
            number: self.number.checked_add(1)?,
            lines_before: self.lines_before.checked_add(self.lines)?,
            ..Stamp::default()
        })
    }

    /// Why no archive can have written it, if that is so. Every file has a line at
    /// least, and every line a byte.
    pub fn contradiction(self) -> Option<&'static str> {
        let Stamp {
            number,
            lines_before,
            lines,
            bytes,
        } = self;
        if number.max(lines_before).max(lines).max(bytes) > COUNT_MAX {
            Some("says more than there can be")
        } else if (number == 0) != (lines_before == 0) || lines_before < number {
            Some("says of the files before it what cannot be")
        } else if bytes < lines {
            Some("says that it has more lines than bytes")
        } else {
            None
        }
    }

    fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        let values = [self.number, self.lines_before, self.lines, self.bytes];
        for (place, value) in bytes.chunks_exact_mut(8).zip(values) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Reads the stamp of a file; `None` where it has none.
    pub fn read(file: &File) -> io::Result<Option<Stamp>> {
        let mut head = [0; STAMP_AT + STAMP_BYTES];
        match file.read_exact_at(&mut head, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            outcome => outcome?,
        }
        if head[..STAMP_AT] != stamped_head() {
            return Ok(None);
        }
        let mut values = head[STAMP_AT..].chunks_exact(8).map(|value| {
            let value: [u8; 8] = value.try_into().unwrap_or_default();
            u64::from_le_bytes(value)
        });
        let mut next = || values.next().unwrap_or_default();
        Ok(Some(Stamp {
            number: next(),
            lines_before: next(),
            lines: next(),
            bytes: next(),
        }))
    }
}

const STAMP_BYTES: usize = 32;

/// More files, lines or bytes are in no archive: a thousand years of a million
/// lines a second.
const COUNT_MAX: u64 = 1 << 55;

/// Deflate, no time, from Unix: so that the same lines give the same bytes.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];

/// The bit that says that an extra field follows the head.
const FLAG_EXTRA: u8 = 4;

/// Where the values of a stamp stand: behind the head, the length of the extra
/// field, the name of its only part, and the length of that.
const STAMP_AT: usize = HEAD.len() + 6;

fn stamped_head() -> [u8; STAMP_AT] {
    let mut head = [0; STAMP_AT];
    head[..HEAD.len()].copy_from_slice(&HEAD);
    head[3] = FLAG_EXTRA;
    head[10..12].copy_from_slice(&(STAMP_BYTES as u16 + 4).to_le_bytes());
    head[12..14].copy_from_slice(b"rv");
    head[14..16].copy_from_slice(&(STAMP_BYTES as u16).to_le_bytes());
    head
}

/// Compresses files, one after the other, with one thread or several beside it.
#[derive(Debug)]
pub struct Compressor {
    alone: Deflater,
    pool: Option<WorkerPool<Block, Result<Member>>>,
    /// Blocks that were used before.
    spare: Vec<Vec<u8>>,
}

/// What is to become a member.
#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    first: bool,
}

#[derive(Debug)]
struct Member {
    compressed: Vec<u8>,
    lines: u64,
    /// What it was made of.
    block: Vec<u8>,
}

impl Compressor {
    /// `level` is that of gzip, 1 to 9.
    pub fn new(level: u32, threads: usize) -> Result<Compressor> {
        let pool = match threads {
            0 | 1 => None,
            threads => Some(WorkerPool::start("compressing", threads, || {
                let mut deflater = Deflater::new(level);
                move |block: Block| deflater.member(block)
            })?),
        };
        Ok(Compressor {
            alone: Deflater::new(level),
            pool,
            spare: Vec::new(),
        })
    }

    /// Writes all of `input` into `output`, which is empty, and returns what its
    /// stamp says. `place` is where the file stands among the others. Errors name
    /// neither file.
    pub fn compress(
        &mut self,
        mut input: impl Read,
        mut output: &File,
        place: Stamp,
    ) -> Result<Stamp, Failed> {
        let mut stamp = Stamp {
            lines: 0,
            bytes: 0,
            ..place
        };
        let mut first = true;
        loop {
            let mut bytes = self.spare.pop().unwrap_or_default();
            bytes.clear();
            let limit = BLOCK_BYTES as u64;
            let count = input.by_ref().take(limit).read_to_end(&mut bytes);
            if count.map_err(Failed::Reading)? == 0 && !first {
                break;
            }
            stamp.bytes += bytes.len() as u64;
            let block = Block { bytes, first };
            first = false;
            let Some(pool) = &mut self.pool else {
                let member = self.alone.member(block).map_err(Failed::Working)?;
                self.write(member, &mut output, &mut stamp)?;
                continue;
            };
            let done = match pool.is_full() {
                true => pool.wait_for_next().map_err(Failed::Working)?,
                false => None,
            };
            pool.submit(block).map_err(Failed::Working)?;
            if let Some(member) = done {
                let member = member.map_err(Failed::Working)?;
                self.write(member, &mut output, &mut stamp)?;
            }
        }
        while let Some(member) = self.next_member()? {
            self.write(member, &mut output, &mut stamp)?;
        }
        let values = stamp.to_bytes();
        let stamped = output.write_all_at(&values, STAMP_AT as u64);
        stamped.map_err(Failed::Writing)?;
        Ok(stamp)
    }

    fn next_member(&mut self) -> Result<Option<Member>, Failed> {
        let Some(pool) = &mut self.pool else {
            return Ok(None);
        };
        let member = pool.wait_for_next().map_err(Failed::Working)?;
        member.transpose().map_err(Failed::Working)
    }

    fn write(
        &mut self,
        member: Member,
        output: &mut &File,
        stamp: &mut Stamp,
    ) -> Result<(), Failed> {
        stamp.lines += member.lines;
        self.spare.push(member.block);
        output
            .write_all(&member.compressed)
            .map_err(Failed::Writing)
    }

    /// After an error: lets go of what is still at work, so that the next file
    /// gets its own members only.
    pub fn clear(&mut self) {
        if let Some(pool) = &mut self.pool {
            while let Ok(Some(_)) = pool.wait_for_next() {}
        }
    }
}

/// Which side of a compression has failed.
#[derive(Debug)]
pub enum Failed {
    /// The input.
    Reading(io::Error),
    /// What is between them.
    Working(anyhow::Error),
    /// The output.
    Writing(io::Error),
}

/// One thread's compression.
#[derive(Debug)]
struct Deflater(Compress);

impl Deflater {
    fn new(level: u32) -> Deflater {
        Deflater(Compress::new(Compression::new(level), false))
    }

    /// A whole member of gzip.
    fn member(&mut self, block: Block) -> Result<Member> {
        let bytes = &block.bytes;
        let mut compressed = Vec::with_capacity(bytes.len() / 3 + 4096);
        if block.first {
            compressed.extend_from_slice(&stamped_head());
            compressed.extend_from_slice(&[0; STAMP_BYTES]);
        } else {
            compressed.extend_from_slice(&HEAD);
        }
        self.0.reset();
        loop {
            let rest = &bytes[self.0.total_in() as usize..];
            let status = self
                .0
                .compress_vec(rest, &mut compressed, FlushCompress::Finish);
            match status.context("cannot compress")? {
                Status::StreamEnd => break,
                Status::Ok | Status::BufError => {
                    compressed.reserve(compressed.capacity() / 2);
                }
            }
        }
        let mut crc = Crc::new();
        crc.update(bytes);
        compressed.extend_from_slice(&crc.sum().to_le_bytes());
        compressed.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        Ok(Member {
            compressed,
            lines: memchr::memchr_iter(b'\n', bytes).count() as u64,
            block: block.bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::MultiGzDecoder;

    fn compressed(input: &[u8], threads: usize) -> (Vec<u8>, Stamp) {
        let file = tempfile::tempfile().unwrap();
        let place = Stamp {
            number: 7,
            lines_before: 70,
            ..Stamp::default()
        };
        let mut compressor = Compressor::new(6, threads).unwrap();
        let stamp = compressor.compress(input, &file, place).unwrap();
        assert_eq!(Stamp::read(&file).unwrap(), Some(stamp));
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        (bytes, stamp)
    }

    #[test]
    fn threads_do_not_change_a_byte() {
        let line = |number: u64| format!("{{\"n\":{number},\"h\":{}}}\n", number.pow(3) % 99_991);
        for lines in [0, 1, 1000, 300_000] {
            let input: String = (0..lines).map(line).collect();
            let (bytes, stamp) = compressed(input.as_bytes(), 1);
            assert_eq!(
                stamp,
                Stamp {
                    number: 7,
                    lines_before: 70,
                    lines,
                    bytes: input.len() as u64
                }
            );
            assert!(compressed(input.as_bytes(), 3) == (bytes.clone(), stamp));
            let mut again = Vec::new();
            MultiGzDecoder::new(&bytes[..])
                .read_to_end(&mut again)
                .unwrap();
            assert!(again == input.as_bytes());
        }
    }

    #[test]
    fn what_cannot_be_made_smaller_is_kept_too() {
        let mut state = 1u64;
        let noise: Vec<u8> = (0..3 * BLOCK_BYTES / 2)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        let (bytes, _) = compressed(&noise, 2);
        let mut again = Vec::new();
        MultiGzDecoder::new(&bytes[..])
            .read_to_end(&mut again)
            .unwrap();
        assert!(again == noise);
    }

    #[test]
    fn numbers_that_no_archive_writes_are_told() {
        let stamp = |number, lines_before, lines, bytes| Stamp {
            number,
            lines_before,
            lines,
            bytes,
        };
        for possible in [
            stamp(0, 0, 1, 1),
            stamp(0, 0, 0, 0),
            stamp(3, 3, 10, 1000),
            stamp(1, 1_000_000, 1, 1),
        ] {
            assert_eq!(possible.contradiction(), None, "{possible:?}");
            assert!(possible.after().is_some());
        }
        for forged in [
            stamp(u64::MAX, u64::MAX, 1, 1),
            stamp(1, u64::MAX, 1, 1),
            stamp(0, 0, u64::MAX, u64::MAX),
            stamp(0, 5, 1, 1),
            stamp(5, 0, 1, 1),
            stamp(5, 4, 1, 1),
            stamp(0, 0, 3, 2),
        ] {
            assert!(forged.contradiction().is_some(), "{forged:?}");
        }
        assert_eq!(stamp(u64::MAX, 1, 1, 1).after(), None);
        assert_eq!(stamp(1, u64::MAX, 1, 1).after(), None);
    }

    #[test]
    fn files_of_others_have_no_stamp() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(Stamp::read(&file).unwrap(), None);
        let mut gzip = flate2::write::GzEncoder::new(&file, Compression::fast());
        gzip.write_all(&[b'x'; 1000]).unwrap();
        gzip.finish().unwrap();
        assert_eq!(Stamp::read(&file).unwrap(), None);
    }
}
