//! Splits bytes into lines. No other file knows how a record ends.
//!
//! [`Lines`] is a buffer between a reader and a stage. The lines are slices of the
//! buffer, so a stage copies a line only if it must. However long a line is, the buffer
//! holds at most one line and one block.

use std::io;

use crate::wire::reject::Reject;

/// The number of bytes that one read asks for. A Linux pipe holds 64 KiB by default, so a
/// larger block gains nothing.
pub const BLOCK_BYTES: usize = 64 * 1024;

/// The number of bytes of an oversized line that are kept for the file of rejects.
pub const OVERSIZED_HEAD_BYTES: usize = 1024;

/// The default limit of a line, in bytes without its newline.
pub const LINE_BYTES_MAX_DEFAULT: usize = 16 * 1024 * 1024;

/// The byte order mark that some editors write before UTF-8 text.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// One line of an input, without its newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The unchanged bytes of the line. For an oversized line, only the first
    /// [`OVERSIZED_HEAD_BYTES`].
    pub bytes: &'a [u8],
    /// The number of the line, from 1.
    pub number: u64,
    /// The offset of the line's first byte from the start of the input.
    pub offset: u64,
    /// The full length in bytes, if the line is longer than the limit.
    pub oversized: Option<u64>,
}

impl<'a> Line<'a> {
    /// The unchanged bytes of the line. An oversized line is rejected.
    pub fn whole(&self) -> Result<&'a [u8], Reject> {
        match self.oversized {
            None => Ok(self.bytes),
            Some(_) => Err(Reject::Oversized),
        }
    }

    /// The record in the line, for a parser: without the carriage return of a CRLF
    /// ending, and without a byte order mark at the start of the input. `None` if the
    /// line is blank, such as the line that `--resume` writes. An oversized line is
    /// rejected.
    pub fn record(&self) -> Result<Option<&'a [u8]>, Reject> {
        Ok(trimmed(self.number, self.whole()?))
    }

    /// The kept bytes of the line, for a parser; empty if the line is blank.
    pub fn head(&self) -> &'a [u8] {
        trimmed(self.number, self.bytes).unwrap_or_default()
    }
}

/// A line without a carriage return at its end, and without a byte order mark if it is
/// the first of its input; `None` if only white space is left.
fn trimmed(number: u64, mut bytes: &[u8]) -> Option<&[u8]> {
    if number == 1 {
        bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
    }
    bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    (!bytes.trim_ascii().is_empty()).then_some(bytes)
}

/// The input of a stage that passes lines on without parsing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run<'a> {
    /// Consecutive whole lines, each with its newline.
    Lines {
        /// The unchanged bytes of the lines.
        bytes: &'a [u8],
        /// The number of lines.
        count: u64,
    },
    /// A line that is not followed by a newline in the buffer: a line over the limit,
    /// or the last line of the input.
    Single(Line<'a>),
}

/// A copy of a line that outlives the buffer, because another part of the program may
/// reject it later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLine {
    bytes: Vec<u8>,
    number: u64,
    offset: u64,
    oversized: Option<u64>,
}

impl From<&Line<'_>> for KeptLine {
    fn from(line: &Line) -> KeptLine {
        KeptLine {
            bytes: line.bytes.to_vec(),
            number: line.number,
            offset: line.offset,
            oversized: line.oversized,
        }
    }
}

impl KeptLine {
    /// The number of kept bytes.
    pub fn kept_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The line.
    pub fn line(&self) -> Line<'_> {
        Line {
            bytes: &self.bytes,
            number: self.number,
            offset: self.offset,
            oversized: self.oversized,
        }
    }
}

/// An oversized line that is being skipped.
#[derive(Debug, Default)]
struct Oversized {
    head: Vec<u8>,
    length: u64,
}

impl Oversized {
    /// Adds the next bytes of the line. If the limit is below [`OVERSIZED_HEAD_BYTES`],
    /// the head may come in several parts.
    fn add(&mut self, bytes: &[u8]) {
        let room = OVERSIZED_HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.length += bytes.len() as u64;
    }
}

/// A buffer that is filled with bytes and returns lines.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// The bytes before this index have been returned.
    start: usize,
    /// The first newline from `start` on.
    newline: Option<usize>,
    /// The bytes from `start` to this index contain no newline except `newline`.
    searched: usize,
    /// The buffer is filled up to this index.
    end: usize,
    line_bytes_max: usize,
    /// The number of the last returned line.
    number: u64,
    /// The offset of `start` in the input.
    offset: u64,
    /// Whether the input has ended.
    ended: bool,
    skipping: Option<Oversized>,
    /// Holds the head of an oversized line while its [`Line`] is in use.
    head: Vec<u8>,
}

impl Lines {
    /// An empty buffer for lines of up to `line_bytes_max` bytes.
    pub fn new(line_bytes_max: usize) -> Lines {
        Lines {
            buffer: Vec::new(),
            start: 0,
            newline: None,
            searched: 0,
            end: 0,
            line_bytes_max,
            number: 0,
            offset: 0,
            ended: false,
            skipping: None,
            head: Vec::new(),
        }
    }

    /// Calls `read` once with room for a block. `read` returns how many bytes it has
    /// written there.
    pub fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        self.fill_up_to(BLOCK_BYTES, read)
    }

    /// Like [`fill`](Lines::fill), but with room for one byte: for a stage that stops
    /// at the end of the current line and leaves the rest to its successor.
    pub fn fill_one_byte(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.fill_up_to(1, read)
    }

    /// Like [`fill`](Lines::fill), but with room for `limit` bytes: for a stage that
    /// shares its time among several inputs.
    pub fn fill_up_to(
        &mut self,
        limit: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.skip_oversized_line();
        self.make_room(limit);
        let count = read(&mut self.buffer[self.end..self.end + limit])?;
        self.end += count;
        self.find_newline();
        Ok(count)
    }

    /// The last `count` bytes that were filled in, before the next line is taken.
    pub fn newest(&self, count: usize) -> &[u8] {
        &self.buffer[self.end.saturating_sub(count)..self.end]
    }

    /// Finds the next newline. Each byte is searched only once.
    fn find_newline(&mut self) {
        if self.newline.is_none() {
            let found = memchr::memchr(b'\n', &self.buffer[self.searched..self.end]);
            self.newline = found.map(|found| self.searched + found);
            self.searched = self.newline.map_or(self.end, |newline| newline + 1);
        }
    }

    fn make_room(&mut self, wanted: usize) {
        if self.start == self.end {
            (self.start, self.searched, self.end) = (0, 0, 0);
            // Frees the memory of a long line.
            if self.buffer.len() > 16 * BLOCK_BYTES {
                self.buffer = Vec::new();
            }
        }
        if self.end + wanted <= self.buffer.len() {
            return;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.newline = self.newline.map(|newline| newline - self.start);
        self.searched -= self.start;
        self.end -= self.start;
        self.start = 0;
        if self.end + wanted > self.buffer.len() {
            let grown = (self.end + wanted).max(2 * BLOCK_BYTES).max(
                // Doubling keeps the cost of copying linear in the length of a line.
                (2 * self.buffer.len()).min(self.line_bytes_max.saturating_add(2 * BLOCK_BYTES)),
            );
            self.buffer.resize(grown, 0);
        }
    }

    /// Marks the end of the input: the bytes behind the last newline are a line, too.
    pub fn end_input(&mut self) {
        self.ended = true;
    }

    /// Whether the input has ended.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next whole line that has been read; `None` until more is read. Once the
    /// input has ended, a last line without a newline is returned, too.
    pub fn next_line(&mut self) -> Option<Line<'_>> {
        match self.newline.take() {
            Some(newline) => {
                let (from, length) = (self.start, newline - self.start);
                self.start = newline + 1;
                self.find_newline();
                Some(self.take_line(from, length, 1))
            }
            None if self.ended => self.unfinished_line(),
            None => None,
        }
    }

    /// All whole lines that have been read, in as few slices as possible; `None` until
    /// more is read.
    pub fn next_run(&mut self) -> Option<Run<'_>> {
        let first = self.newline.filter(|newline| self.fits(*newline));
        let Some(first) = first else {
            return self.next_line().map(Run::Single);
        };
        let all_fit = self.end - self.start <= self.line_bytes_max;
        let newline = if all_fit {
            let rest = &self.buffer[self.searched..self.end];
            memchr::memrchr(b'\n', rest).map_or(first, |last| self.searched + last)
        } else {
            first
        };
        let from = self.start;
        self.start = newline + 1;
        self.newline = None;
        self.searched = if all_fit { self.end } else { self.start };
        self.find_newline();
        let bytes = &self.buffer[from..=newline];
        let count = memchr::memchr_iter(b'\n', bytes).count() as u64;
        self.number += count;
        self.offset += bytes.len() as u64;
        Some(Run::Lines { bytes, count })
    }

    /// Whether the current line, which ends at `newline`, is within the limit.
    fn fits(&self, newline: usize) -> bool {
        self.skipping.is_none() && newline - self.start <= self.line_bytes_max
    }

    /// The line that has been begun and not returned. This is for a caller that stops
    /// in the middle of a line.
    pub fn unfinished_line(&mut self) -> Option<Line<'_>> {
        if !self.is_inside_line() {
            return None;
        }
        let (from, length) = (self.start, self.end - self.start);
        self.start = self.end;
        self.newline = None;
        self.searched = self.end;
        Some(self.take_line(from, length, 0))
    }

    /// Whether a line has been begun but not returned. Once
    /// [`next_line`](Lines::next_line) has returned `None`, the end of that line has
    /// not been read.
    pub fn is_inside_line(&self) -> bool {
        self.skipping.is_some() || self.start < self.end
    }

    /// Whether [`next_line`](Lines::next_line) will return a line.
    pub fn has_line(&self) -> bool {
        self.newline.is_some() || (self.ended && self.is_inside_line())
    }

    /// Whether the last byte read is a newline. Only this byte is checked, so this is
    /// for a caller that reads single bytes.
    pub fn ends_a_line(&self) -> bool {
        self.start < self.end && self.buffer[self.end - 1] == b'\n'
    }

    /// Drops the bytes of an unfinished line, but keeps the whole lines before it.
    /// Returns the number of dropped bytes, which do not count in the offsets of later
    /// lines.
    pub fn drop_unfinished_line(&mut self) -> u64 {
        let held = &self.buffer[self.start..self.end];
        let whole = memchr::memrchr(b'\n', held).map_or(0, |newline| newline + 1);
        let mut dropped = (held.len() - whole) as u64;
        self.end = self.start + whole;
        self.searched = self.searched.min(self.end);
        if whole == 0 {
            dropped += self.skipping.take().map_or(0, |skipped| skipped.length);
        }
        dropped
    }

    /// If the current line is oversized and its end has not been read, drops its bytes
    /// and adds them to its length.
    fn skip_oversized_line(&mut self) {
        let held = &self.buffer[self.start..self.end];
        let is_oversized = self.skipping.is_some() || held.len() > self.line_bytes_max;
        if self.newline.is_none() && is_oversized {
            let skipping = self.skipping.get_or_insert_with(Oversized::default);
            skipping.add(held);
            self.start = self.end;
        }
    }

    fn take_line(&mut self, from: usize, length: usize, newline_bytes: u64) -> Line<'_> {
        self.number += 1;
        let offset = self.offset;
        let (bytes, oversized) = match self.skipping.take() {
            Some(mut skipped) => {
                skipped.add(&self.buffer[from..from + length]);
                self.offset += skipped.length + newline_bytes;
                self.head = skipped.head;
                (self.head.as_slice(), Some(skipped.length))
            }
            None => {
                self.offset += length as u64 + newline_bytes;
                let line = &self.buffer[from..from + length];
                if length > self.line_bytes_max {
                    let head = &line[..length.min(OVERSIZED_HEAD_BYTES)];
                    (head, Some(length as u64))
                } else {
                    (line, None)
                }
            }
        };
        Line {
            bytes,
            number: self.number,
            offset,
            oversized,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The fields of a [`Line`]: bytes, number, offset, oversized.
    type Owned = (Vec<u8>, u64, u64, Option<u64>);

    fn owned(line: Line) -> Owned {
        (
            line.bytes.to_vec(),
            line.number,
            line.offset,
            line.oversized,
        )
    }

    /// Reads `input` in pieces of the given sizes, in a cycle. After a piece of odd
    /// size the function takes at most one line; after a piece of even size it takes all
    /// lines.
    fn read_in_pieces(input: &[u8], pieces: &[usize], line_bytes_max: usize) -> Vec<Owned> {
        let mut lines = Lines::new(line_bytes_max);
        let mut found = Vec::new();
        let mut rest = input;
        let mut sizes = pieces.iter().cycle();
        while !rest.is_empty() {
            let size = (*sizes.next().unwrap()).clamp(1, rest.len());
            lines
                .fill(|room| {
                    let size = size.min(room.len());
                    room[..size].copy_from_slice(&rest[..size]);
                    rest = &rest[size..];
                    Ok(size)
                })
                .unwrap();
            loop {
                let has_line = lines.has_line();
                let line = lines.next_line().map(owned);
                assert_eq!(line.is_some(), has_line);
                found.extend(line);
                if !has_line || size % 2 == 1 {
                    break;
                }
            }
        }
        found.extend(std::iter::from_fn(|| lines.next_line().map(owned)));
        lines.end_input();
        assert_eq!(lines.has_line(), lines.is_inside_line());
        found.extend(lines.next_line().map(owned));
        assert!(!lines.is_inside_line() && lines.unfinished_line().is_none());
        found
    }

    fn expected(input: &[u8], line_bytes_max: usize) -> Vec<Owned> {
        let mut offset = 0;
        let mut lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
        if lines.last().is_some_and(|last| last.is_empty()) {
            lines.pop();
        }
        lines
            .iter()
            .zip(1..)
            .map(|(line, number)| {
                let at = offset;
                offset += line.len() as u64 + 1;
                if line.len() > line_bytes_max {
                    let head = &line[..line.len().min(OVERSIZED_HEAD_BYTES)];
                    (head.to_vec(), number, at, Some(line.len() as u64))
                } else {
                    (line.to_vec(), number, at, None)
                }
            })
            .collect()
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_input_is_cut_into_pieces(
            input in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), Just(b'\r')], 0..1500),
            pieces in proptest::collection::vec(1usize..700, 1..5),
            line_bytes_max in 1usize..900,
        ) {
            prop_assert_eq!(
                read_in_pieces(&input, &pieces, line_bytes_max),
                expected(&input, line_bytes_max)
            );
            prop_assert_eq!(
                read_in_runs(&input, &pieces, line_bytes_max),
                expected(&input, line_bytes_max)
            );
        }
    }

    /// Reads the same lines in slices of several lines.
    fn read_in_runs(input: &[u8], pieces: &[usize], line_bytes_max: usize) -> Vec<Owned> {
        let mut lines = Lines::new(line_bytes_max);
        let mut found: Vec<Owned> = Vec::new();
        let mut rest = input;
        let mut sizes = pieces.iter().cycle();
        let (mut number, mut offset) = (1, 0);
        while !rest.is_empty() {
            let size = (*sizes.next().unwrap()).clamp(1, rest.len());
            lines
                .fill(|room| {
                    room[..size].copy_from_slice(&rest[..size]);
                    rest = &rest[size..];
                    Ok(size)
                })
                .unwrap();
            while let Some(run) = lines.next_run() {
                match run {
                    Run::Lines { bytes, count } => {
                        assert_eq!(bytes.last(), Some(&b'\n'));
                        let whole: Vec<&[u8]> = bytes.split_inclusive(|it| *it == b'\n').collect();
                        assert_eq!(whole.len() as u64, count);
                        for line in whole {
                            found.push((line[..line.len() - 1].to_vec(), number, offset, None));
                            number += 1;
                            offset += line.len() as u64;
                        }
                    }
                    Run::Single(line) => {
                        assert_eq!((line.number, line.offset), (number, offset));
                        number += 1;
                        offset += line.oversized.unwrap() + 1;
                        found.push(owned(line));
                    }
                }
            }
        }
        lines.end_input();
        match lines.next_run() {
            Some(Run::Single(line)) => found.push(owned(line)),
            other => assert_eq!(other, None),
        }
        found
    }

    #[test]
    fn reading_more_does_not_change_the_lines_that_wait() {
        let line = |number: usize| [vec![b'a'; 17 * number % 5000], vec![b'\n']].concat();
        let input: Vec<u8> = (0..500).flat_map(line).collect();
        let even = read_in_pieces(&input, &[BLOCK_BYTES - 1], 1 << 20);
        assert_eq!(even, expected(&input, 1 << 20));
        assert_eq!(read_in_pieces(&input, &[BLOCK_BYTES], 1 << 20), even);
    }

    #[test]
    fn the_head_of_an_oversized_line_is_complete_even_if_it_was_read_in_pieces() {
        let input = [&[b'a'; 1500][..], b"\nb\n"].concat();
        assert_eq!(read_in_pieces(&input, &[7], 4), expected(&input, 4));
    }

    #[test]
    fn an_endless_line_is_skipped_in_constant_memory() {
        let mut lines = Lines::new(1 << 20);
        for _ in 0..1000 {
            lines.fill(|room| Ok(room.len())).unwrap();
            assert!(!lines.has_line());
            assert!(lines.buffer.len() <= (1 << 20) + 4 * BLOCK_BYTES);
        }
        lines
            .fill(|room| {
                room[..6].copy_from_slice(b"x\nnext");
                Ok(6)
            })
            .unwrap();
        let skipped = lines.next_line().unwrap();
        assert_eq!(skipped.oversized, Some(1000 * BLOCK_BYTES as u64 + 1));
        assert_eq!(skipped.bytes.len(), OVERSIZED_HEAD_BYTES);
        assert_eq!(lines.unfinished_line().unwrap().bytes, b"next");
    }

    #[test]
    fn a_parser_sees_neither_bom_nor_carriage_return_nor_blank_lines() {
        let line = |bytes, number| Line {
            bytes,
            number,
            offset: 0,
            oversized: None,
        };
        let record = |bytes, number| line(bytes, number).record();
        assert_eq!(record(b"\xef\xbb\xbf{}\r", 1), Ok(Some(&b"{}"[..])));
        let later = b"\xef\xbb\xbf{}";
        assert_eq!(record(later, 2), Ok(Some(&later[..])));
        assert_eq!(record(b" \t\r", 3), Ok(None));
        assert_eq!(record(b"", 4), Ok(None));
        let oversized = Line {
            oversized: Some(3),
            ..line(b"\xef\xbb\xbf{", 1)
        };
        assert_eq!(oversized.record(), Err(Reject::Oversized));
        assert_eq!(oversized.whole(), Err(Reject::Oversized));
        assert_eq!(oversized.head(), b"{");
    }

    #[test]
    fn one_byte_at_a_time_stops_exactly_behind_the_newline() {
        let mut rest: &[u8] = b"begun\nnext";
        let mut lines = Lines::new(100);
        let mut read = |room: &mut [u8]| {
            room[0] = rest[0];
            rest = &rest[1..];
            Ok(1)
        };
        lines.fill_one_byte(&mut read).unwrap();
        while lines.next_line().is_none() {
            lines.fill_one_byte(&mut read).unwrap();
        }
        assert_eq!(rest, b"next");
    }

    /// Fills the buffer with `text` and nothing else.
    fn fill(lines: &mut Lines, text: &[u8]) {
        let copy = |room: &mut [u8]| {
            room[..text.len()].copy_from_slice(text);
            Ok(text.len())
        };
        lines.fill(copy).unwrap();
    }

    #[test]
    fn a_line_that_is_kept_is_the_same_line() {
        let line = Line {
            bytes: b"abc",
            number: 7,
            offset: 20,
            oversized: Some(9),
        };
        let kept = KeptLine::from(&line);
        assert_eq!(kept.line(), line);
        assert_eq!(kept.kept_bytes(), 3);
    }

    #[test]
    fn an_oversized_line_is_rejected_and_its_head_is_shown() {
        let line = |oversized| Line {
            bytes: b"{} \r",
            number: 2,
            offset: 0,
            oversized,
        };
        assert_eq!(line(None).whole(), Ok(&b"{} \r"[..]));
        assert_eq!(line(None).head(), b"{} ");
        assert_eq!(line(Some(9)).whole(), Err(Reject::Oversized));
        assert_eq!(line(Some(9)).record(), Err(Reject::Oversized));
        assert_eq!(line(Some(9)).head(), b"{} ");
    }

    #[test]
    fn a_buffer_doubles_for_a_long_line_and_gives_the_memory_back() {
        let mut lines = Lines::new(64 << 20);
        let mut lengths = Vec::new();
        for _ in 0..100 {
            lines.fill(|room| Ok(room.len())).unwrap();
            assert!(lines.next_line().is_none());
            lengths.push(lines.buffer.len());
        }
        assert!(lengths[0] <= 2 * BLOCK_BYTES && lengths[99] <= 200 * BLOCK_BYTES);
        lengths.dedup();
        assert!(lengths.len() <= 8, "{lengths:?}");
        fill(&mut lines, b"\n");
        let line = lines.next_line().unwrap();
        assert_eq!(line.bytes.len(), 100 * BLOCK_BYTES);
        fill(&mut lines, b"short\n");
        assert!(lines.buffer.len() <= 2 * BLOCK_BYTES);
        assert_eq!(lines.next_line().unwrap().bytes, b"short");
        // A buffer of usual size is used again.
        let before = lines.buffer.as_ptr();
        fill(&mut lines, b"next\n");
        assert_eq!(lines.buffer.as_ptr(), before);
    }

    #[test]
    fn a_reader_gets_exactly_the_room_that_was_asked_for() {
        let mut lines = Lines::new(100);
        let room_of = |room: &mut [u8]| Ok(room.len());
        assert_eq!(lines.fill_up_to(3, room_of).unwrap(), 3);
        assert_eq!(lines.fill_one_byte(room_of).unwrap(), 1);
        assert_eq!(lines.fill(room_of).unwrap(), BLOCK_BYTES);
        assert_eq!(lines.end, 4 + BLOCK_BYTES);
    }

    #[test]
    fn what_was_read_of_a_line_without_an_end_is_dropped_behind_the_whole_ones() {
        let mut lines = Lines::new(4);
        assert_eq!(lines.drop_unfinished_line(), 0);
        fill(&mut lines, b"one\ntwo");
        assert!(!lines.ends_a_line());
        assert_eq!(lines.drop_unfinished_line(), 3);
        assert!(lines.ends_a_line() && lines.has_line());
        assert_eq!(
            lines.next_line().map(owned),
            Some((b"one".to_vec(), 1, 0, None))
        );
        assert!(!lines.is_inside_line() && !lines.ends_a_line());
        // An oversized line that is already being skipped is dropped, too.
        fill(&mut lines, b"too long");
        assert!(lines.next_line().is_none());
        fill(&mut lines, b", still");
        assert_eq!(lines.drop_unfinished_line(), 15);
        assert!(!lines.is_inside_line());
        fill(&mut lines, b"two\n");
        assert_eq!(
            lines.next_line().map(owned),
            Some((b"two".to_vec(), 2, 4, None))
        );
        // After the end of the line was read, the line is not unfinished.
        fill(&mut lines, b"too long");
        assert!(lines.next_line().is_none());
        fill(&mut lines, b"\nrest");
        assert_eq!(lines.drop_unfinished_line(), 4);
        let skipped = (b"too long".to_vec(), 3, 8, Some(8));
        assert_eq!(lines.next_line().map(owned), Some(skipped));
        assert!(lines.unfinished_line().is_none());
    }
}
