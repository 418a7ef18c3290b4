//! lines -> a gzip file of several members. Each member compresses one block separately,
//! so threads can share the work, and the bytes do not depend on the number of threads.
//!
//! The header of the first member contains the file's [`Stamp`].

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use crate::observe::archive::stamp::{GZIP_HEADER, STAMP_AT, STAMP_BYTES, Stamp, stamped_header};
use crate::stage::worker_pool::WorkerPool;

/// The number of bytes in one member, uncompressed. The window of gzip is 32 KiB, so a
/// new window per member costs very little.
const BLOCK_BYTES: usize = 1 << 20;

/// Compresses files, one after the other, in the calling thread or in several others.
#[derive(Debug)]
pub struct Compressor {
    single: Deflater,
    pool: Option<WorkerPool<MemberInput, Result<GzipMember>>>,
    /// Buffers for the next blocks.
    spare: Vec<Vec<u8>>,
}

/// A block that is compressed into a member.
#[derive(Debug)]
struct MemberInput {
    bytes: Vec<u8>,
    is_first: bool,
}

#[derive(Debug)]
struct GzipMember {
    compressed: Vec<u8>,
    lines: u64,
    /// The buffer of the input, for reuse.
    block: Vec<u8>,
}

impl Compressor {
    /// `level` is the level of gzip, 1 to 9. If `threads` is 1, the calling thread
    /// compresses.
    pub fn new(level: u32, threads: usize) -> Result<Compressor> {
        let pool = match threads {
            0 | 1 => None,
            threads => Some(WorkerPool::start("compressing", threads, || {
                let mut deflater = Deflater::new(level);
                move |input: MemberInput| deflater.member(input)
            })?),
        };
        Ok(Compressor {
            single: Deflater::new(level),
            pool,
            spare: Vec::new(),
        })
    }

    /// Compresses all of `input` into the empty file `output`, and returns its stamp.
    /// `next_stamp` gives the file's position among the archive's files. The errors do
    /// not name a file.
    pub fn compress(
        &mut self,
        mut input: impl Read,
        mut output: &File,
        next_stamp: Stamp,
    ) -> Result<Stamp, CompressionError> {
        let mut stamp = Stamp {
            lines: 0,
            bytes: 0,
            ..next_stamp
        };
        let mut is_first = true;
        loop {
            let mut bytes = self.spare.pop().unwrap_or_default();
            bytes.clear();
            let limit = BLOCK_BYTES as u64;
            let count = input.by_ref().take(limit).read_to_end(&mut bytes);
            if count.map_err(CompressionError::Reading)? == 0 && !is_first {
                break;
            }
            stamp.bytes += bytes.len() as u64;
            let block = MemberInput { bytes, is_first };
            is_first = false;
            let Some(pool) = &mut self.pool else {
                let member = self
                    .single
                    .member(block)
                    .map_err(CompressionError::Working)?;
                self.write(member, &mut output, &mut stamp)?;
                continue;
            };
            let done = match pool.is_full() {
                true => pool.wait_for_next().map_err(CompressionError::Working)?,
                false => None,
            };
            pool.submit(block).map_err(CompressionError::Working)?;
            if let Some(member) = done {
                let member = member.map_err(CompressionError::Working)?;
                self.write(member, &mut output, &mut stamp)?;
            }
        }
        while let Some(member) = self.next_member()? {
            self.write(member, &mut output, &mut stamp)?;
        }
        let values = stamp.to_bytes();
        let stamped = output.write_all_at(&values, STAMP_AT as u64);
        stamped.map_err(CompressionError::Writing)?;
        Ok(stamp)
    }

    fn next_member(&mut self) -> Result<Option<GzipMember>, CompressionError> {
        let Some(pool) = &mut self.pool else {
            return Ok(None);
        };
        let member = pool.wait_for_next().map_err(CompressionError::Working)?;
        member.transpose().map_err(CompressionError::Working)
    }

    fn write(
        &mut self,
        member: GzipMember,
        output: &mut &File,
        stamp: &mut Stamp,
    ) -> Result<(), CompressionError> {
        stamp.lines += member.lines;
        self.spare.push(member.block);
        output
            .write_all(&member.compressed)
            .map_err(CompressionError::Writing)
    }

    /// After an error, drops the members that are still being compressed, so that
    /// they are not written into the next file.
    pub fn clear(&mut self) {
        if let Some(pool) = &mut self.pool {
            while let Ok(Some(_)) = pool.wait_for_next() {}
        }
    }
}

/// The reason why a file could not be compressed.
#[derive(Debug)]
pub enum CompressionError {
    /// The input cannot be read.
    Reading(io::Error),
    /// The compression itself failed.
    Working(anyhow::Error),
    /// The output cannot be written.
    Writing(io::Error),
}

/// The compression in one thread.
#[derive(Debug)]
struct Deflater(Compress);

impl Deflater {
    fn new(level: u32) -> Deflater {
        Deflater(Compress::new(Compression::new(level), false))
    }

    /// Makes a whole gzip member.
    fn member(&mut self, input: MemberInput) -> Result<GzipMember> {
        let bytes = &input.bytes;
        let mut compressed = Vec::with_capacity(bytes.len() / 3 + 4096);
        if input.is_first {
            compressed.extend_from_slice(&stamped_header());
            compressed.extend_from_slice(&[0; STAMP_BYTES]);
        } else {
            compressed.extend_from_slice(&GZIP_HEADER);
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
        Ok(GzipMember {
            compressed,
            lines: memchr::memchr_iter(b'\n', bytes).count() as u64,
            block: input.bytes,
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
}
