//! The files of a spill, called segments: lines are appended to the last segment and read once,
//! from the first segment on. A segment whose lines were all delivered is deleted.

mod names;
mod reading;
mod segment;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::serve::tee::block::SpillPosition;
use crate::serve::tee::spill::direct;
use crate::serve::tee::spill::segments::names::{
    POSITION_NAME, file_name, segment_numbers, stored_position,
};
use crate::serve::tee::spill::segments::reading::{Chunk, SegmentReader};
use crate::serve::tee::spill::segments::segment::Segment;
use crate::serve::tee::spill::stored_line::{CHECKSUM_BYTES, add_checksums, count_lines, pad};
use crate::wire::lines::Lines;

/// The memory that the buffer keeps between two writes, in bytes.
const BUFFER_KEPT_BYTES: usize = 4 << 20;

/// The number of the first segment. Smaller numbers are left for segments that are put in front of
/// this one.
const FIRST_NUMBER: u64 = 1 << 32;

/// The limits of a spill.
#[derive(Clone, Copy, Debug)]
pub struct SpillLimits {
    /// The largest size of all segments together on disk, in bytes.
    pub bytes_max: u64,
    /// The length of the longest line, in bytes.
    pub line_bytes_max: usize,
}

impl SpillLimits {
    /// The size at which the next segment is started, in bytes. The limit of the spill is several
    /// times this size, because disk space is freed only one whole segment at a time.
    fn segment_bytes(self) -> u64 {
        (self.bytes_max / 8).clamp(1, 64 << 20)
    }
}

/// The totals of the stored lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredTotals {
    /// Bytes on disk.
    pub bytes: u64,
    /// Lines that were not read yet.
    pub records: u64,
    /// When the segment of the oldest unread line was started. For a segment of an earlier
    /// process, this is the time at which it was found.
    pub since: Option<Instant>,
}

/// The stored lines of one branch.
#[derive(Debug)]
pub struct Segments {
    /// The folder of the segments. Without a folder, the segments have no names and are deleted
    /// when the process exits.
    folder: Option<PathBuf>,
    limits: SpillLimits,
    segments: VecDeque<Segment>,
    next_number: u64,
    /// Whether lines may be appended to the last segment. A segment of an earlier process may end
    /// in the middle of a line.
    appending: bool,
    reading: Option<SegmentReader>,
    /// The position after the last line that was read.
    read_up_to: SpillPosition,
    /// The file that stores the position up to which lines were delivered.
    position_file: Option<File>,
    /// Holds lines with their checksums, until they are written.
    buffer: Vec<u8>,
}

impl Segments {
    /// Creates an empty spill that is deleted when the process exits.
    pub fn temporary(limits: SpillLimits) -> Segments {
        Segments {
            folder: None,
            limits,
            segments: VecDeque::new(),
            next_number: FIRST_NUMBER,
            appending: false,
            reading: None,
            read_up_to: SpillPosition::default(),
            position_file: None,
            buffer: Vec::new(),
        }
    }

    /// Opens the segments that an earlier process left in `folder`. Creates the folder if it is
    /// missing.
    pub fn open(folder: &Path, limits: SpillLimits) -> io::Result<Segments> {
        fs::create_dir_all(folder)?;
        let numbers = segment_numbers(folder)?;
        let position = stored_position(folder, &numbers);
        let mut segments = Segments::temporary(limits);
        for number in numbers {
            let path = folder.join(file_name(number));
            if number < position.segment {
                fs::remove_file(&path)?;
                continue;
            }
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let metadata = file.metadata()?;
            let from = if number == position.segment {
                position.offset
            } else {
                0
            };
            segments.segments.push_back(Segment {
                number,
                unread: count_lines(&file, from)?,
                length: metadata.len(),
                started_at: Instant::now(),
                file,
                direct: None,
            });
            segments.next_number = number + 1;
        }
        segments.next_number = segments.next_number.max(position.segment + 1);
        segments.folder = Some(folder.to_owned());
        let position_file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join(POSITION_NAME))?;
        segments.position_file = Some(position_file);
        segments.read_up_to = position;
        if position.offset > 0
            && let Some(first) = segments.segments.front()
            && first.number == position.segment
        {
            segments.read_from(position);
        }
        Ok(segments)
    }

    /// Returns the totals of the stored lines.
    pub fn stored(&self) -> StoredTotals {
        StoredTotals {
            bytes: self.bytes(),
            records: self.segments.iter().map(|segment| segment.unread).sum(),
            since: self.oldest_unread().map(|segment| segment.started_at),
        }
    }

    fn oldest_unread(&self) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.unread > 0)
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// Whether all stored lines were read.
    pub fn all_read(&self) -> bool {
        self.oldest_unread().is_none()
    }

    /// Appends `records` whole lines, all of them or none. Returns `Ok(false)` if the spill would
    /// exceed its limit.
    pub fn append(&mut self, lines: &[u8], records: u64) -> io::Result<bool> {
        let stored_bytes = lines.len() as u64 + records * CHECKSUM_BYTES as u64;
        let stored_already = self.bytes();
        // Lines that by themselves exceed the limit are stored if the spill is empty. Otherwise
        // they would wait forever.
        if stored_already > 0 && stored_already + stored_bytes > self.limits.bytes_max {
            return Ok(false);
        }
        let mut stored = std::mem::take(&mut self.buffer);
        stored.clear();
        stored.reserve(stored_bytes as usize);
        add_checksums(&mut stored, lines);
        let segment = self.segment_to_append()?;
        if let Err(error) = segment.file.write_all_at(&stored, segment.length) {
            self.truncate_last_segment();
            return Err(error);
        }
        segment.length += stored.len() as u64;
        segment.unread += records;
        self.keep_buffer(stored);
        Ok(true)
    }

    /// Appends many lines in one direct write, all of them or none. The kernel then neither
    /// copies the lines nor allocates page cache for them. Each block comes with its number of
    /// lines. Returns `false` if a direct write is not possible; the caller then uses
    /// [`append`](Segments::append).
    pub fn append_directly(&mut self, blocks: &[(&[u8], u64)]) -> bool {
        let records: u64 = blocks.iter().map(|(_, records)| records).sum();
        let line_bytes: usize = blocks.iter().map(|(lines, _)| lines.len()).sum();
        let stored_bytes = line_bytes + records as usize * CHECKSUM_BYTES;
        let with_padding = stored_bytes as u64 + 2 * direct::ALIGNMENT as u64;
        if self.bytes() + with_padding > self.limits.bytes_max {
            return false;
        }
        let mut stored = std::mem::take(&mut self.buffer);
        let start = direct::clear_aligned(&mut stored, stored_bytes + direct::ALIGNMENT);
        // The padding comes before the lines, so that a segment ends with a line.
        pad(&mut stored, stored_bytes as u64);
        for (lines, _) in blocks {
            add_checksums(&mut stored, lines);
        }
        let Ok(segment) = self.segment_to_append() else {
            return false;
        };
        if segment.append_directly(&stored[start..]).is_err() {
            // The next segment tries direct writes again.
            segment.direct = None;
            self.truncate_last_segment();
            return false;
        }
        segment.unread += records;
        self.keep_buffer(stored);
        true
    }

    /// Keeps the buffer for the next write, but frees most of its memory if a long line made it
    /// large.
    fn keep_buffer(&mut self, mut buffer: Vec<u8>) {
        buffer.shrink_to(BUFFER_KEPT_BYTES);
        self.buffer = buffer;
    }

    /// The segment to which the next lines are appended.
    fn segment_to_append(&mut self) -> io::Result<&mut Segment> {
        let segment_bytes = self.limits.segment_bytes();
        let is_full = |segment: &Segment| segment.length >= segment_bytes;
        if !self.appending || self.segments.back().is_none_or(is_full) {
            self.begin_segment()?;
        }
        Ok(self
            .segments
            .back_mut()
            .expect("a segment was just started"))
    }

    /// Removes the bytes of a failed write. Otherwise the next lines would follow these bytes.
    fn truncate_last_segment(&mut self) {
        if let Some(segment) = self.segments.back()
            && segment.file.set_len(segment.length).is_err()
        {
            self.appending = false;
        }
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
            // A file without a name is deleted however the process ends.
            None => tempfile::tempfile()?,
        };
        let direct = direct::reopen(&file).ok();
        self.segments.push_back(Segment {
            number,
            file,
            length: 0,
            unread: 0,
            started_at: Instant::now(),
            direct,
        });
        self.next_number += 1;
        self.appending = true;
        Ok(())
    }

    fn read_from(&mut self, position: SpillPosition) {
        let limit = self.limits.line_bytes_max.saturating_add(CHECKSUM_BYTES);
        let limit = limit.max(direct::ALIGNMENT);
        self.reading = Some(SegmentReader {
            number: position.segment,
            lines: Lines::new(limit),
            base: position.offset,
            filled: position.offset,
        });
    }

    /// Stores `records` whole lines in front of the unread lines, so that the next process reads
    /// them first. The spill may exceed its limit.
    pub fn put_back(&mut self, lines: &[u8], records: u64) -> io::Result<()> {
        let read_up_to = self.read_up_to;
        let number = match self.segments.front() {
            Some(segment) => segment.number.saturating_sub(1),
            None => self.next_number,
        };
        let mut first = Segments::temporary(SpillLimits {
            bytes_max: u64::MAX,
            ..self.limits
        });
        first.folder = self.folder.clone();
        first.next_number = number;
        first.append(lines, records)?;
        // The position file stores a single position. So the unread rest of a segment that was
        // read in part is copied to the end of the new segment.
        let all_read = |it: &Segment| {
            it.number < read_up_to.segment
                || (it.number == read_up_to.segment && read_up_to.offset > 0)
        };
        let read_last = self.segments.iter().rfind(|it| all_read(it));
        if let (Some(old), Some(new)) = (read_last, first.segments.back_mut())
            && old.number == read_up_to.segment
        {
            let mut rest = vec![0; old.length.saturating_sub(read_up_to.offset) as usize];
            old.file.read_exact_at(&mut rest, read_up_to.offset)?;
            new.file.write_all_at(&rest, new.length)?;
            new.length += rest.len() as u64;
            new.unread += old.unread;
        }
        // Old segments are deleted only after the copy is stored, so a full disk loses no stored
        // line.
        self.reading = None;
        self.read_up_to = SpillPosition {
            segment: number,
            offset: 0,
        };
        self.delete_up_to(self.read_up_to)?;
        while self.segments.front().is_some_and(all_read) {
            self.remove_first()?;
        }
        self.next_number = self.next_number.max(first.next_number);
        while let Some(segment) = first.segments.pop_back() {
            self.segments.push_front(segment);
        }
        self.appending = false;
        Ok(())
    }

    /// Skips the rest of a segment that cannot be read. Returns the number of lines that are
    /// lost.
    pub fn skip_unreadable(&mut self) -> u64 {
        let number = self.reading.as_ref().map_or(0, |reading| reading.number);
        let unreadable = self.segments.iter_mut().find(|it| it.number >= number);
        let Some(segment) = unreadable else {
            return 0;
        };
        let next = SpillPosition {
            segment: segment.number + 1,
            offset: 0,
        };
        let lost = std::mem::take(&mut segment.unread);
        self.appending &= self.next_number > next.segment;
        self.read_from(next);
        self.read_up_to = next;
        lost
    }

    /// Reads the next lines, which together take about `bytes` bytes. Returns `None` if there are
    /// no more lines.
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
                self.read_from(SpillPosition {
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
                // More lines may still be appended. If the newline of a line is damaged, the line
                // is read as part of the next line. So stored lines that were not found count as
                // corrupt.
                chunk.corrupt += std::mem::take(&mut segment.unread);
                break;
            }
            // A last line without a newline was still being written when the earlier process
            // ended.
            chunk.corrupt += u64::from(reading.lines.unfinished_line().is_some());
            segment.unread = 0;
            let next = SpillPosition {
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
        if chunk.end != SpillPosition::default() {
            self.read_up_to = chunk.end;
        }
        Ok((!is_empty).then_some(chunk))
    }

    /// The position after the last line that was read.
    pub fn read_up_to(&self) -> SpillPosition {
        self.read_up_to
    }

    /// Deletes segments that end at or before `position`, up to which all lines were delivered.
    /// Stores the position, so that the next process starts there.
    pub fn delete_up_to(&mut self, position: SpillPosition) -> io::Result<()> {
        while let Some(first) = self.segments.front() {
            // The last segment is deleted, too: if the disk is full, its space is needed.
            let is_done = first.number < position.segment
                || (first.number == position.segment && position.offset >= first.length);
            if !is_done {
                break;
            }
            self.remove_first()?;
        }
        if let Some(file) = &self.position_file {
            // The text always has the same length, so it overwrites the old position completely.
            let text = format!("{:020} {:020}\n", position.segment, position.offset);
            file.write_all_at(text.as_bytes(), 0)?;
        }
        Ok(())
    }

    /// Deletes all segments. All lines must have been delivered, and no line may be waiting to be
    /// stored.
    pub fn delete_all(&mut self) -> io::Result<()> {
        let position = SpillPosition {
            segment: self.next_number,
            offset: 0,
        };
        self.appending = false;
        self.reading = None;
        self.delete_up_to(position)
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

    /// Deletes all segments and the folder.
    pub fn remove(self) -> io::Result<()> {
        match &self.folder {
            Some(folder) => fs::remove_dir_all(folder),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
