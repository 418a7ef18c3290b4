//! The stamp of a complete file: its content, and its position among the other files.
//!
//! The stamp is an extra field in the header of the first gzip member, which other
//! programs ignore.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The numbers that a complete file contains about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The number of the file in its folder, counted from 0 without a gap.
    pub number: u64,
    /// The number of lines in all earlier files.
    pub lines_before: u64,
    /// The number of lines in this file.
    pub lines: u64,
    /// The number of bytes in this file, uncompressed.
    pub bytes: u64,
}

impl Stamp {
    /// The stamp of the next file, with its lines and bytes still at 0. Returns `None`
    /// if the numbers would overflow.
    pub fn next(self) -> Option<Stamp> {
        Some(Stamp {
            number: self.number.checked_add(1)?,
            lines_before: self.lines_before.checked_add(self.lines)?,
            ..Stamp::default()
        })
    }

    /// The reason why `rv-archive` cannot have written this stamp; `None` if it can.
    /// Every file has at least one line, and every line has at least one byte.
    pub fn contradiction(self) -> Option<&'static str> {
        let Stamp {
            number,
            lines_before,
            lines,
            bytes,
        } = self;
        if number.max(lines_before).max(lines).max(bytes) > COUNT_MAX {
            Some("its stamp has impossibly large numbers")
        } else if (number == 0) != (lines_before == 0) || lines_before < number {
            Some("its stamp contradicts itself about the files before it")
        } else if bytes < lines {
            Some("its stamp has more lines than bytes")
        } else {
            None
        }
    }

    /// The four numbers as bytes. In a file they begin at [`STAMP_AT`].
    pub fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        let values = [self.number, self.lines_before, self.lines, self.bytes];
        for (place, value) in bytes.chunks_exact_mut(8).zip(values) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Reads the stamp of a file; `None` if the file has none.
    pub fn read(file: &File) -> io::Result<Option<Stamp>> {
        let mut header = [0; STAMP_AT + STAMP_BYTES];
        match file.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            outcome => outcome?,
        }
        if header[..STAMP_AT] != stamped_header() {
            return Ok(None);
        }
        let mut values = header[STAMP_AT..].chunks_exact(8).map(|value| {
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

/// The length of the four numbers.
pub const STAMP_BYTES: usize = 32;

/// The largest number of files, lines or bytes. A million lines a second would reach it
/// after a thousand years.
const COUNT_MAX: u64 = 1 << 55;

/// The header of a gzip member: deflate, Unix, and no time, so that the same lines give
/// the same bytes.
pub const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];

/// The flag in a gzip header that says that an extra field follows.
const FLAG_EXTRA: u8 = 4;

/// The offset of the four numbers. Before them are the gzip header, the length of the
/// extra field, the name of its only subfield, and the length of that subfield.
pub const STAMP_AT: usize = GZIP_HEADER.len() + 6;

/// The first bytes of a stamped file, up to the four numbers.
pub fn stamped_header() -> [u8; STAMP_AT] {
    let mut header = [0; STAMP_AT];
    header[..GZIP_HEADER.len()].copy_from_slice(&GZIP_HEADER);
    header[3] = FLAG_EXTRA;
    header[10..12].copy_from_slice(&(STAMP_BYTES as u16 + 4).to_le_bytes());
    header[12..14].copy_from_slice(b"rv");
    header[14..16].copy_from_slice(&(STAMP_BYTES as u16).to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;

    use super::*;

    #[test]
    fn numbers_that_no_archive_writes_are_reported() {
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
            assert!(possible.next().is_some());
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
        assert_eq!(stamp(u64::MAX, 1, 1, 1).next(), None);
        assert_eq!(stamp(1, u64::MAX, 1, 1).next(), None);
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
