//! Reads CSV from the lines of a source, record by record, and keeps the text of the
//! current record.

use std::io::{self, Read};

use anyhow::{Result, bail};
use csv::{ByteRecord, Reader, ReaderBuilder, Trim};

use crate::train::source::Source;
use crate::wire::lines::Line;
use crate::wire::reject::Reject;

/// The records of a CSV input, the header included.
pub struct CsvRecords<'a, 's> {
    reader: Reader<CsvText<'a, 's>>,
    /// The current record.
    pub record: ByteRecord,
}

impl<'a, 's> CsvRecords<'a, 's> {
    /// A reader of the records of `source` that begins at its current line.
    pub fn new(source: &'a mut Source<'s>, delimiter: u8) -> CsvRecords<'a, 's> {
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .delimiter(delimiter)
            // The reader accepts rows of any length, so that a wrong one can be
            // reported here and skipped.
            .flexible(true)
            .trim(Trim::All)
            .from_reader(CsvText::new(source));
        CsvRecords {
            reader,
            record: ByteRecord::new(),
        }
    }

    /// Moves to the next record that is not blank. Returns false at the end.
    pub fn advance(&mut self) -> Result<bool> {
        loop {
            let position = self.reader.position().byte();
            self.reader.get_mut().forget(position);
            let outcome = self.reader.read_byte_record(&mut self.record);
            let is_there = outcome.map_err(|error| {
                let failed = self.reader.get_mut().failed.take();
                failed.unwrap_or_else(|| error.into())
            })?;
            // Spreadsheets write rows that contain only separators below a table.
            let is_blank = self.record.iter().all(<[u8]>::is_empty);
            if !is_there || !is_blank {
                if is_there {
                    let start = self.record.position().map_or(0, csv::Position::byte);
                    self.reader.get_mut().forget(start);
                }
                return Ok(is_there);
            }
        }
    }

    /// The text of the current record, and its place.
    pub fn line(&self) -> Line<'_> {
        self.reader.get_ref().line(self.reader.position().byte())
    }

    /// Leaves out the current record and reports it. Without --skip-bad-rows this is an
    /// error.
    pub fn leave_out(&mut self, reject: &Reject) -> Result<()> {
        let end = self.reader.position().byte();
        let text = self.reader.get_mut();
        text.left_out += 1;
        let line = text.line(end);
        // The line is copied: it borrows the text, and the source that must be changed
        // is a part of the text.
        let kept = crate::wire::lines::KeptLine::from(&line);
        text.source.leave_out(&kept.line(), reject)
    }

    /// The number of records that were left out, including lines that were too long.
    pub fn left_out(&self) -> u64 {
        self.reader.get_ref().left_out
    }
}

/// The lines of a source as one text for the CSV reader. It keeps the text of the
/// current record, because the report of a bad record contains this text.
struct CsvText<'a, 's> {
    source: &'a mut Source<'s>,
    kept: Vec<u8>,
    /// The offset of `kept` in the text.
    start: u64,
    /// The number of the line at which `kept` begins.
    line: u64,
    /// The number of bytes of `kept` that the CSV reader has read.
    given: usize,
    /// The number of input bytes that are not in the text: blank lines at its start,
    /// and lines that were left out.
    skipped: u64,
    /// The number of rows that were left out.
    left_out: u64,
    /// The error of the last read. It is stored here because the CSV reader does not
    /// return it.
    failed: Option<anyhow::Error>,
}

impl<'a, 's> CsvText<'a, 's> {
    fn new(source: &'a mut Source<'s>) -> CsvText<'a, 's> {
        let (line, skipped) = source.start();
        CsvText {
            source,
            kept: Vec::new(),
            start: 0,
            line,
            given: 0,
            skipped,
            left_out: 0,
            failed: None,
        }
    }

    /// Drops the kept text before `position`.
    fn forget(&mut self, position: u64) {
        let count = (position.saturating_sub(self.start) as usize).min(self.given);
        self.line += memchr::memchr_iter(b'\n', &self.kept[..count]).count() as u64;
        self.start += count as u64;
        self.given -= count;
        self.kept.drain(..count);
    }

    /// The record that begins the kept text and ends at `end`.
    fn line(&self, end: u64) -> Line<'_> {
        let bytes = &self.kept[..(end.saturating_sub(self.start) as usize).min(self.kept.len())];
        // The blank lines before a record do not belong to it.
        // A tab may be an empty field.
        let is_space = |byte: &&u8| byte.is_ascii_whitespace() && **byte != b'\t';
        let blank = bytes.iter().take_while(is_space).count();
        let text = &bytes[blank..];
        let end = text.len() - text.iter().rev().take_while(is_space).count();
        Line {
            bytes: &text[..end],
            number: self.line + memchr::memchr_iter(b'\n', &bytes[..blank]).count() as u64,
            offset: self.start + blank as u64 + self.skipped,
            oversized: None,
        }
    }

    /// Appends the next line. Returns false at the end of the input.
    fn take_line(&mut self) -> Result<bool> {
        if self.kept.len() > self.source.line_bytes_max() + READ_AHEAD_BYTES {
            bail!(
                "{}:{}: the row that begins here is longer than --max-line-bytes; look for a quote that is \
                 not closed",
                self.source.name(),
                self.line
            );
        }
        if !self.source.advance()? {
            return Ok(false);
        }
        let line = self.source.line();
        match line.oversized {
            // An empty line takes the place of the line that was left out, so that the
            // line numbers stay right.
            Some(length) => {
                self.skipped += length;
                self.left_out += 1;
                self.source.leave_out_line(&Reject::Oversized)?;
            }
            None => self.kept.extend_from_slice(line.bytes),
        }
        self.kept.push(b'\n');
        Ok(true)
    }
}

/// The largest number of bytes that the CSV reader may have read after the current
/// record.
const READ_AHEAD_BYTES: usize = 1 << 20;

impl Read for CsvText<'_, '_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        // The CSV reader recognises a byte order mark only if one read returns all of
        // it, so a read returns at least a line.
        if self.given == self.kept.len() {
            match self.take_line() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => {
                    self.failed = Some(error);
                    return Err(io::Error::other("see the source"));
                }
            }
        }
        let count = room.len().min(self.kept.len() - self.given);
        room[..count].copy_from_slice(&self.kept[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}
