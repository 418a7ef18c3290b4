//! The format of a stored line: 16 hex digits of its checksum (XXH3), then the line.
//!
//! The checksum contains no newline, so a newline still ends a record. A torn file end or a
//! flipped bit therefore damages only the lines that it is in. A direct write must start at a
//! disk block, so padding lines fill the space before it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::xxh3_64;

use crate::serve::tee::spill::direct;

/// The length of a stored checksum, in bytes.
pub const CHECKSUM_BYTES: usize = 16;

/// The byte that padding lines consist of. No checksum starts with it.
const PADDING: u8 = b'=';

/// Appends `lines` to `stored`, each with its checksum.
pub fn add_checksums(stored: &mut Vec<u8>, lines: &[u8]) {
    let mut from = 0;
    for newline in memchr::memchr_iter(b'\n', lines) {
        stored.extend_from_slice(&checksum(&lines[from..newline]));
        stored.extend_from_slice(&lines[from..=newline]);
        from = newline + 1;
    }
}

/// Appends a padding line to `stored`, such that `length` plus the padding is a multiple of
/// the disk block size. Appends nothing if `length` already is a multiple.
pub fn pad(stored: &mut Vec<u8>, length: u64) {
    let over = (length % direct::ALIGNMENT as u64) as usize;
    if over > 0 {
        stored.resize(stored.len() + direct::ALIGNMENT - over - 1, PADDING);
        stored.push(b'\n');
    }
}

/// Whether a stored line is padding. If any byte of a padding line was changed, the result is
/// `false`.
pub fn is_padding(stored: &[u8]) -> bool {
    stored.len() < direct::ALIGNMENT && stored.iter().all(|byte| *byte == PADDING)
}

/// Returns the line without its checksum, or `None` if the checksum is wrong.
pub fn checked(stored: &[u8]) -> Option<&[u8]> {
    let (sum, line) = stored.split_at_checked(CHECKSUM_BYTES)?;
    (sum == checksum(line)).then_some(line)
}

fn checksum(line: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let sum = xxh3_64(line);
    let mut digits = [0; CHECKSUM_BYTES];
    let (high, low) = digits.split_at_mut(CHECKSUM_BYTES / 2);
    high.copy_from_slice(&hex_digits((sum >> 32) as u32).to_be_bytes());
    low.copy_from_slice(&hex_digits(sum as u32).to_be_bytes());
    digits
}

/// The eight hex digits of a number, one per byte. All digits are computed at once, because
/// this runs twice for every line.
fn hex_digits(number: u32) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut digits = u64::from(number);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let is_letter = ((digits + 6 * ONES) >> 4) & ONES;
    digits + u64::from(b'0') * ONES + is_letter * u64::from(b'a' - b'0' - 10)
}

/// Counts the lines in `file` after the offset `from`, without padding. A torn last line
/// counts, too.
pub fn count_lines(file: &File, from: u64) -> io::Result<u64> {
    let mut block = vec![0; 1 << 18];
    let (mut at, mut lines) = (from, 0);
    // The first byte of the line that continues in the next block.
    let mut first_byte = None;
    loop {
        let count = file.read_at(&mut block, at)?;
        if count == 0 {
            let is_torn = first_byte.is_some_and(|first| first != PADDING);
            return Ok(lines + u64::from(is_torn));
        }
        let mut line_start = 0;
        for newline in memchr::memchr_iter(b'\n', &block[..count]) {
            let first = first_byte.take().unwrap_or(block[line_start]);
            lines += u64::from(first != PADDING && first != b'\n');
            line_start = newline + 1;
        }
        if line_start < count {
            first_byte.get_or_insert(block[line_start]);
        }
        at += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_stored_as_sixteen_hex_digits() {
        for line in [&b""[..], b"one", b"<0000012>", &[0xff; 300]] {
            let expected = format!("{:016x}", xxh3_64(line));
            assert_eq!(checksum(line), expected.as_bytes());
        }
        for number in [0, 0x0123_4567, 0x89ab_cdef, u32::MAX] {
            let digits = hex_digits(number).to_be_bytes();
            assert_eq!(digits, format!("{number:08x}").as_bytes());
        }
    }
}
