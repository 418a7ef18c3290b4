//! Lines on disk, in the order in which they came: files that are appended to,
//! read once from the front, and deleted.
//!
//! A stored line is 16 hex digits of its checksum (XXH3), then the line. So the
//! newline stays what ends a record, and a torn tail or a flipped bit spoils the
//! lines it stands in and no other.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use xxhash_rust::xxh3::xxh3_64;

use crate::wire::lines::Lines;

/// The length of a checksum as it is stored.
const CHECKSUM_BYTES: usize = 16;

/// The first segment's number: there is room for others before it.
const FIRST_NUMBER: u64 = 1 << 32;

/// What can be a segment's number: one less and one more are numbers, too.
const NUMBERS: Range<u64> = 1..1 << 62;

/// A place between two stored lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The number of the segment.
    segment: u64,
    /// Bytes from its start.
    offset: u64,
}

/// How much may be stored.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// All segments together, in bytes on disk.
    pub bytes_max: u64,
    /// The longest line, in bytes.
    pub line_bytes_max: usize,
}

impl Limits {
    /// A segment is deleted when all of it has been read, so several of them must
    /// fit.
    fn segment_bytes(self) -> u64 {
        (self.bytes_max / 8).clamp(1, 64 << 20)
    }
}

/// What is stored now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Bytes on disk.
    pub bytes: u64,
    /// Lines that were not read yet.
    pub records: u64,
    /// When the oldest of them was stored, or before; of what an earlier process has
    /// left, when it was found.
    pub since: Option<Instant>,
}

/// Some lines that were read back.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Whole lines with their newlines.
    pub bytes: Vec<u8>,
    /// How many there are.
    pub records: u64,
    /// Lines in between whose checksum was wrong, which are left out.
    pub corrupt: u64,
    /// Where it ends.
    pub end: Place,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    file: File,
    /// Up to here it holds whole lines.
    length: u64,
    /// Lines in it that were not read yet.
    unread: u64,
    begun: Instant,
}

/// The stored lines of one branch.
#[derive(Debug)]
pub struct Segments {
    /// Where they lie; without it they have no names and go with the process.
    folder: Option<PathBuf>,
    limits: Limits,
    segments: VecDeque<Segment>,
    next_number: u64,
    /// Whether the last segment may be appended to. One that an earlier process has
    /// left may end inside a line.
    appending: bool,
    reading: Option<Reading>,
    /// Where the lines that were read last end.
    read_up_to: Place,
    /// In which the place up to which the lines were passed on stands.
    place_file: Option<File>,
    /// In which lines get their checksums.
    buffer: Vec<u8>,
}

/// The segment that is being read.
#[derive(Debug)]
struct Reading {
    number: u64,
    lines: Lines,
    /// Where `lines` began.
    base: u64,
    /// Filled up to here.
    filled: u64,
}

impl Segments {
    /// Nothing is stored yet, and nothing will outlive the process.
    pub fn temporary(limits: Limits) -> Segments {
        Segments {
            folder: None,
            limits,
            segments: VecDeque::new(),
            next_number: FIRST_NUMBER,
            appending: false,
            reading: None,
            read_up_to: Place::default(),
            place_file: None,
            buffer: Vec::new(),
        }
    }

    /// Opens what an earlier process has left in `folder`, which is made where it
    /// is missing.
    pub fn open(folder: &Path, limits: Limits) -> io::Result<Segments> {
        fs::create_dir_all(folder)?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(number_of));
        }
        numbers.sort_unstable();
        let place_path = folder.join("place");
        let place = fs::read_to_string(&place_path)
            .ok()
            .and_then(|text| parse_place(&text))
            // One that cannot be says nothing: better twice than never.
            .filter(|place| numbers.last().is_none_or(|last| place.segment <= last + 1))
            .unwrap_or_default();
        let mut segments = Segments::temporary(limits);
        for number in numbers {
            let path = folder.join(file_name(number));
            if number < place.segment {
                fs::remove_file(&path)?;
                continue;
            }
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let metadata = file.metadata()?;
            let from = if number == place.segment {
                place.offset
            } else {
                0
            };
            segments.segments.push_back(Segment {
                number,
                unread: count_lines(&file, from)?,
                length: metadata.len(),
                begun: Instant::now(),
                file,
            });
            segments.next_number = number + 1;
        }
        segments.next_number = segments.next_number.max(place.segment + 1);
        segments.folder = Some(folder.to_owned());
        let place_file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(place_path)?;
        segments.place_file = Some(place_file);
        segments.read_up_to = place;
        if place.offset > 0
            && let Some(first) = segments.segments.front()
            && first.number == place.segment
        {
            segments.read_from(place);
        }
        Ok(segments)
    }

    /// What is stored.
    pub fn stored(&self) -> Stored {
        Stored {
            bytes: self.bytes(),
            records: self.segments.iter().map(|segment| segment.unread).sum(),
            since: self.oldest_unread().map(|segment| segment.begun),
        }
    }

    fn oldest_unread(&self) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.unread > 0)
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// Whether all that is stored has been read.
    pub fn is_read(&self) -> bool {
        self.oldest_unread().is_none()
    }

    /// Appends whole lines, all of them or none: `Ok(false)` where that would be
    /// more than may be stored.
    pub fn append(&mut self, lines: &[u8], records: u64) -> io::Result<bool> {
        let stored_bytes = lines.len() as u64 + records * CHECKSUM_BYTES as u64;
        let stored_already = self.bytes();
        // What is larger than all that may be stored would never go on.
        if stored_already > 0 && stored_already + stored_bytes > self.limits.bytes_max {
            return Ok(false);
        }
        self.buffer.clear();
        self.buffer.reserve(stored_bytes as usize);
        let mut from = 0;
        for newline in memchr::memchr_iter(b'\n', lines) {
            self.buffer
                .extend_from_slice(&checksum(&lines[from..newline]));
            self.buffer.extend_from_slice(&lines[from..=newline]);
            from = newline + 1;
        }
        let segment_bytes = self.limits.segment_bytes();
        let is_full = |segment: &Segment| segment.length >= segment_bytes;
        if !self.appending || self.segments.back().is_none_or(is_full) {
            self.begin_segment()?;
        }
        let segment = self.segments.back_mut().expect("one was just begun");
        if let Err(error) = segment.file.write_all_at(&self.buffer, segment.length) {
            // What was written of it must not stay in front of what comes next.
            if segment.file.set_len(segment.length).is_err() {
                self.appending = false;
            }
            return Err(error);
        }
        segment.length += self.buffer.len() as u64;
        segment.unread += records;
        // One long line must not cost its memory for ever.
        self.buffer.shrink_to(1 << 20);
        Ok(true)
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let number = self.next_number;
        let file = match &self.folder {
            Some(folder) => OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(folder.join(file_name(number)))?,
            // No name leads to it, so it goes with the process however that ends.
            None => tempfile::tempfile()?,
        };
        self.segments.push_back(Segment {
            number,
            file,
            length: 0,
            unread: 0,
            begun: Instant::now(),
        });
        self.next_number += 1;
        self.appending = true;
        Ok(())
    }

    fn read_from(&mut self, place: Place) {
        let limit = self.limits.line_bytes_max.saturating_add(CHECKSUM_BYTES);
        self.reading = Some(Reading {
            number: place.segment,
            lines: Lines::new(limit),
            base: place.offset,
            filled: place.offset,
        });
    }

    /// Stores whole lines in front of those that were not read, for the next process
    /// to read first. They may exceed what may be stored.
    pub fn put_back(&mut self, lines: &[u8], records: u64) -> io::Result<()> {
        let read_up_to = self.read_up_to;
        let number = match self.segments.front() {
            Some(segment) => segment.number.saturating_sub(1),
            None => self.next_number,
        };
        let mut first = Segments::temporary(Limits {
            bytes_max: u64::MAX,
            ..self.limits
        });
        first.folder = self.folder.clone();
        first.next_number = number;
        first.append(lines, records)?;
        // The place that is written down is one, so what is left of a segment that
        // was read in part is copied behind them.
        let is_read = |it: &Segment| {
            it.number < read_up_to.segment
                || (it.number == read_up_to.segment && read_up_to.offset > 0)
        };
        let read_last = self.segments.iter().rfind(|it| is_read(it));
        if let (Some(old), Some(new)) = (read_last, first.segments.back_mut())
            && old.number == read_up_to.segment
        {
            let mut rest = vec![0; old.length.saturating_sub(read_up_to.offset) as usize];
            old.file.read_exact_at(&mut rest, read_up_to.offset)?;
            new.file.write_all_at(&rest, new.length)?;
            new.length += rest.len() as u64;
            new.unread += old.unread;
        }
        // Only what is safe is deleted: a full disk loses nothing that was on it.
        self.reading = None;
        self.read_up_to = Place {
            segment: number,
            offset: 0,
        };
        self.forget(self.read_up_to)?;
        while self.segments.front().is_some_and(is_read) {
            self.remove_first()?;
        }
        self.next_number = self.next_number.max(first.next_number);
        while let Some(segment) = first.segments.pop_back() {
            self.segments.push_front(segment);
        }
        self.appending = false;
        Ok(())
    }

    /// Gives up what is left of the segment that cannot be read. Says how many lines
    /// that costs.
    pub fn skip_unreadable(&mut self) -> u64 {
        let number = self.reading.as_ref().map_or(0, |reading| reading.number);
        let unreadable = self.segments.iter_mut().find(|it| it.number >= number);
        let Some(segment) = unreadable else {
            return 0;
        };
        let next = Place {
            segment: segment.number + 1,
            offset: 0,
        };
        let lost = std::mem::take(&mut segment.unread);
        self.appending &= self.next_number > next.segment;
        self.read_from(next);
        self.read_up_to = next;
        lost
    }

    /// Reads the next lines, about `bytes` of them, that lie one behind the other;
    /// `None` where there are none.
    pub fn read(&mut self, bytes: usize) -> io::Result<Option<Chunk>> {
        let mut chunk = Chunk {
            bytes: Vec::with_capacity(bytes),
            ..Chunk::default()
        };
        loop {
            let reading_number = self.reading.as_ref().map(|reading| reading.number);
            let found = match reading_number {
                Some(number) => self.segments.iter().position(|it| it.number >= number),
                None => (!self.segments.is_empty()).then_some(0),
            };
            let Some(index) = found else {
                break;
            };
            let is_last = index + 1 == self.segments.len();
            let number = self.segments[index].number;
            if reading_number != Some(number) {
                self.read_from(Place {
                    segment: number,
                    offset: 0,
                });
            }
            let Some(reading) = &mut self.reading else {
                break;
            };
            let segment = &mut self.segments[index];
            if reading.read(segment, bytes, &mut chunk)? {
                break;
            }
            if is_last && self.appending {
                // More may come. What is missing has lost its newline.
                chunk.corrupt += std::mem::take(&mut segment.unread);
                break;
            }
            // A last line without its end is one that was being written.
            chunk.corrupt += u64::from(reading.lines.last_line().is_some());
            segment.unread = 0;
            let next = Place {
                segment: number + 1,
                offset: 0,
            };
            self.read_from(next);
            if chunk.records > 0 {
                break;
            }
            chunk.end = next;
            if is_last {
                break;
            }
        }
        let is_empty = chunk.records == 0 && chunk.corrupt == 0;
        if chunk.end != Place::default() {
            self.read_up_to = chunk.end;
        }
        Ok((!is_empty).then_some(chunk))
    }

    /// Where the lines that were read last end.
    pub fn read_up_to(&self) -> Place {
        self.read_up_to
    }

    /// All lines up to `place` have been passed on. What lies before it is deleted,
    /// and not read again by the next process.
    pub fn forget(&mut self, place: Place) -> io::Result<()> {
        while let Some(first) = self.segments.front() {
            // Also the one that is being written: on a full disk its room is needed.
            let is_done = first.number < place.segment
                || (first.number == place.segment && place.offset >= first.length);
            if !is_done {
                break;
            }
            self.remove_first()?;
        }
        if let Some(file) = &self.place_file {
            // One length always, so that an old place leaves nothing behind.
            let text = format!("{:020} {:020}\n", place.segment, place.offset);
            file.write_all_at(text.as_bytes(), 0)?;
        }
        Ok(())
    }

    /// Deletes a segment to which more would have come, since all of it was passed
    /// on and nothing is being stored.
    pub fn forget_all(&mut self) -> io::Result<()> {
        let place = Place {
            segment: self.next_number,
            offset: 0,
        };
        self.appending = false;
        self.reading = None;
        self.forget(place)
    }

    fn remove_first(&mut self) -> io::Result<()> {
        let Some(first) = self.segments.pop_front() else {
            return Ok(());
        };
        if self.segments.is_empty() {
            self.appending = false;
        }
        match &self.folder {
            Some(folder) => fs::remove_file(folder.join(file_name(first.number))),
            None => Ok(()),
        }
    }

    /// Deletes everything, the folder too.
    pub fn remove(self) -> io::Result<()> {
        match &self.folder {
            Some(folder) => fs::remove_dir_all(folder),
            None => Ok(()),
        }
    }
}

impl Reading {
    /// Reads on until the segment ends. Says whether `chunk` was complete before: it
    /// has about `bytes`, or what comes next is spoiled.
    fn read(&mut self, segment: &mut Segment, bytes: usize, chunk: &mut Chunk) -> io::Result<bool> {
        loop {
            while chunk.bytes.len() < bytes
                && let Some(line) = self.lines.next_line()
            {
                segment.unread = segment.unread.saturating_sub(1);
                let length = line.oversized.unwrap_or(line.bytes.len() as u64);
                let end = Place {
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

/// The line of a stored one, where its checksum is right.
fn checked(stored: &[u8]) -> Option<&[u8]> {
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

/// A number in hex, a digit a byte: all eight at once, since each line needs two.
fn hex_digits(number: u32) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut digits = u64::from(number);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let is_letter = ((digits + 6 * ONES) >> 4) & ONES;
    digits + u64::from(b'0') * ONES + is_letter * u64::from(b'a' - b'0' - 10)
}

/// How many lines there are from a place on. A torn one is one, too.
fn count_lines(file: &File, from: u64) -> io::Result<u64> {
    let mut block = vec![0; 1 << 18];
    let (mut at, mut lines, mut torn) = (from, 0, 0);
    loop {
        match file.read_at(&mut block, at)? {
            0 => return Ok(lines + torn),
            count => {
                lines += memchr::memchr_iter(b'\n', &block[..count]).count() as u64;
                torn = u64::from(block[count - 1] != b'\n');
                at += count as u64;
            }
        }
    }
}

fn file_name(number: u64) -> String {
    format!("{number:020}.spill")
}

fn number_of(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".spill")?;
    let number = (digits.len() == 20).then(|| digits.parse().ok())?;
    number.filter(|number| NUMBERS.contains(number))
}

fn parse_place(text: &str) -> Option<Place> {
    let (segment, offset) = text.trim_end().split_once(' ')?;
    let place = Place {
        segment: segment.parse().ok()?,
        offset: offset.parse().ok()?,
    };
    NUMBERS.contains(&place.segment).then_some(place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        bytes_max: 4096,
        line_bytes_max: 100,
    };

    fn append(segments: &mut Segments, lines: &[&str]) -> bool {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        segments
            .append(text.as_bytes(), lines.len() as u64)
            .unwrap()
    }

    fn read(segments: &mut Segments) -> (String, u64) {
        let (mut text, mut corrupt) = (String::new(), 0);
        while let Some(chunk) = segments.read(30).unwrap() {
            text += std::str::from_utf8(&chunk.bytes).unwrap();
            corrupt += chunk.corrupt;
        }
        (text, corrupt)
    }

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

    #[test]
    fn lines_come_back_in_order_whatever_happens_in_between() {
        let mut segments = Segments::temporary(LIMITS);
        assert!(append(&mut segments, &["one", "", "three"]));
        let first = segments.read(1).unwrap().unwrap();
        assert_eq!(first.bytes, b"one\n");
        assert!(append(&mut segments, &["four"]));
        assert_eq!(segments.stored().records, 3);
        segments.forget(first.end).unwrap();
        assert_eq!(read(&mut segments), ("\nthree\nfour\n".to_owned(), 0));
        assert!(segments.is_read());
        segments.forget_all().unwrap();
        assert_eq!(segments.stored(), Stored::default());
        assert!(append(&mut segments, &["five"]));
        assert_eq!(read(&mut segments), ("five\n".to_owned(), 0));
    }

    #[test]
    fn what_is_over_the_cap_is_refused_and_there_is_room_again_later() {
        let mut segments = Segments::temporary(LIMITS);
        let line = "x".repeat(100);
        let mut stored = 0;
        while append(&mut segments, &[&line]) {
            stored += 1;
        }
        assert_eq!(stored, 4096 / (100 + 1 + CHECKSUM_BYTES as u64));
        assert!(segments.stored().bytes <= LIMITS.bytes_max);
        let mut read = 0;
        while let Some(chunk) = segments.read(1).unwrap() {
            segments.forget(chunk.end).unwrap();
            read += chunk.records;
        }
        assert_eq!(read, stored);
        assert!(append(&mut segments, &[&line]));
    }

    #[test]
    fn what_was_passed_on_makes_room_even_in_the_last_segment() {
        let mut segments = Segments::temporary(Limits {
            bytes_max: 1 << 30,
            ..LIMITS
        });
        assert!(append(&mut segments, &["one", "two"]));
        let chunk = segments.read(100).unwrap().unwrap();
        segments.forget(chunk.end).unwrap();
        assert_eq!(segments.stored().bytes, 0);
        assert!(append(&mut segments, &["three"]));
        assert_eq!(read(&mut segments), ("three\n".to_owned(), 0));
    }

    #[test]
    fn the_next_process_goes_on_where_the_last_one_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
        for number in 0..20 {
            assert!(append(&mut segments, &[&format!("{number:050}")]));
        }
        let passed_on = segments.read(500).unwrap().unwrap();
        segments.forget(passed_on.end).unwrap();
        // It may have read more than it has passed on.
        segments.read(500).unwrap().unwrap();
        drop(segments);
        let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
        assert_eq!(segments.stored().records, 20 - passed_on.records);
        assert!(append(&mut segments, &["last"]));
        let (text, corrupt) = read(&mut segments);
        let expected: String = (passed_on.records..20)
            .map(|number| format!("{number:050}\n"))
            .collect();
        assert_eq!((text, corrupt), (expected + "last\n", 0));
        segments.forget_all().unwrap();
        drop(segments);
        let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
        assert_eq!(read(&mut segments), (String::new(), 0));
        assert!(append(&mut segments, &["new"]));
        assert_eq!(read(&mut segments), ("new\n".to_owned(), 0));
    }

    #[test]
    fn a_torn_tail_costs_the_line_that_was_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file_name(FIRST_NUMBER));
        for length in 0..60 {
            let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
            assert!(append(&mut segments, &["one", "two", "three"]));
            drop(segments);
            let whole = fs::read(&path).unwrap();
            let length = length.min(whole.len());
            fs::write(&path, &whole[..length]).unwrap();
            let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
            assert!(append(&mut segments, &["next"]));
            let kept = memchr::memchr_iter(b'\n', &whole[..length]).count();
            let kept: String = ["one\n", "two\n", "three\n"][..kept].concat();
            let torn = u64::from(length > 0 && whole[length - 1] != b'\n');
            assert_eq!(read(&mut segments), (kept + "next\n", torn), "{length}");
            segments.remove().unwrap();
        }
    }

    #[test]
    fn what_was_read_and_not_sent_is_read_first_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        for read_before in 0..3 {
            let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
            assert!(append(&mut segments, &["one", "two"]));
            let mut back = String::new();
            for _ in 0..read_before {
                let chunk = segments.read(1).unwrap().unwrap();
                back += std::str::from_utf8(&chunk.bytes).unwrap();
            }
            assert!(append(&mut segments, &["three"]));
            back += "never in it\n";
            let records = count(&back);
            segments.put_back(back.as_bytes(), records).unwrap();
            drop(segments);
            let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
            assert_eq!(segments.stored().records, 4);
            let rest: String = ["one\n", "two\n", "three\n"][read_before..].concat();
            assert_eq!(read(&mut segments), (back + &rest, 0));
            segments.forget_all().unwrap();
        }
    }

    fn count(text: &str) -> u64 {
        text.lines().count() as u64
    }

    #[test]
    fn a_spill_whose_lines_are_all_spoiled_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
        assert!(append(&mut segments, &["one", "two"]));
        // In the segment that is being written, too.
        let path = folder.path().join(file_name(FIRST_NUMBER));
        let spoiled = fs::read_to_string(&path).unwrap().replace('\n', "x");
        fs::write(&path, spoiled).unwrap();
        assert_eq!(read(&mut segments), (String::new(), 2));
        assert!(segments.is_read());
    }

    proptest! {
        #[test]
        fn a_flipped_bit_costs_the_lines_it_stands_in(
            lines in proptest::collection::vec("[a-z]{0,20}", 3..20),
            flip in 0usize..10_000,
            bit in 0u8..8,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
            let borrowed: Vec<&str> = lines.iter().map(String::as_str).collect();
            prop_assert!(append(&mut segments, &borrowed));
            drop(segments);
            let path = folder.path().join(file_name(FIRST_NUMBER));
            let mut bytes = fs::read(&path).unwrap();
            let flip = flip % bytes.len();
            let hit = memchr::memchr_iter(b'\n', &bytes[..flip]).count();
            let is_newline = bytes[flip] == b'\n';
            bytes[flip] ^= 1 << bit;
            fs::write(&path, &bytes).unwrap();
            let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
            let (text, corrupt) = read(&mut segments);
            let spoiled = if is_newline { hit..hit + 2 } else { hit..hit + 1 };
            let expected: String = lines
                .iter()
                .enumerate()
                .filter(|(index, _)| !spoiled.contains(index))
                .map(|(_, line)| format!("{line}\n"))
                .collect();
            prop_assert_eq!(text, expected);
            prop_assert!((1..=2).contains(&corrupt));
        }
    }
}
