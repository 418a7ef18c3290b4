//! Reads the lines of training data, detects their format, and leaves out rows that
//! cannot be used.

use anyhow::{Result, bail};
use clap::ValueEnum;
use rustix::event::PollFlags;
use sha2::{Digest, Sha256};

use crate::stage::wait::wait;
use crate::stage::{EndedEarly, Stage};
use crate::stream::address::Address;
use crate::stream::cursor::Cursor;
use crate::stream::input::{Input, Progress};
use crate::wire::lines::Line;
use crate::wire::reject::Reject;
use crate::wire::sha256::hex;
use crate::wire::shape::Shape;

/// The format of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Comma-separated values after a header line.
    Csv,
    /// One JSON object per line.
    Ndjson,
}

impl Format {
    /// The format that the ending of a file name tells; `None` if the ending is not
    /// known.
    pub fn of_path(path: &str) -> Option<Format> {
        let path = path.strip_suffix(".gz").unwrap_or(path);
        match path.rsplit_once('.')?.1 {
            "csv" | "tsv" | "tab" => Some(Format::Csv),
            "ndjson" | "jsonl" | "json" => Some(Format::Ndjson),
            _ => None,
        }
    }
}

/// An input that is read line by line. A signal to stop ends it with an error.
pub struct Source<'s> {
    stage: &'s mut Stage,
    name: String,
    cursor: Cursor,
    skip_bad_rows: bool,
    current: CurrentLine,
    /// Whether [`advance`](Source::advance) must return the current line again.
    repeat: bool,
    /// The hash of all bytes that were read, after decompression.
    hash: Sha256,
}

/// A copy of the current line, which outlives the cursor's buffer.
#[derive(Debug, Default)]
struct CurrentLine {
    bytes: Vec<u8>,
    number: u64,
    offset: u64,
    oversized: Option<u64>,
}

impl CurrentLine {
    fn line(&self) -> Line<'_> {
        Line {
            bytes: &self.bytes,
            number: self.number,
            offset: self.offset,
            oversized: self.oversized,
        }
    }
}

impl<'s> Source<'s> {
    /// Opens the stream at `address`.
    pub fn open(
        stage: &'s mut Stage,
        address: &Address,
        skip_bad_rows: bool,
    ) -> Result<Source<'s>> {
        let input = Input::open(address, false)?;
        Ok(Source {
            name: input.name().to_owned(),
            cursor: Cursor::new(input, stage.line_bytes_max),
            stage,
            skip_bad_rows,
            current: CurrentLine::default(),
            repeat: false,
            hash: Sha256::new(),
        })
    }

    /// The name of the input in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The longest line, in bytes.
    pub fn line_bytes_max(&self) -> usize {
        self.stage.line_bytes_max
    }

    /// Moves to the next line. Returns false at the end of the input.
    pub fn advance(&mut self) -> Result<bool> {
        if std::mem::take(&mut self.repeat) {
            return Ok(true);
        }
        while !self.cursor.has_line() {
            if self.cursor.is_done() {
                return Ok(false);
            }
            self.read_more()?;
        }
        let Some(line) = self.cursor.next_line() else {
            return Ok(false);
        };
        self.current.bytes.clear();
        self.current.bytes.extend_from_slice(line.bytes);
        self.current.number = line.number;
        self.current.offset = line.offset;
        self.current.oversized = line.oversized;
        Ok(true)
    }

    fn read_more(&mut self) -> Result<()> {
        self.stage.report.flush()?;
        if let Some(stop) = self.stage.signals.stop() {
            return Err(EndedEarly::Signal(stop).into());
        }
        if let Some(fd) = self.cursor.readiness()
            && !wait(&[(fd, PollFlags::IN)], &mut self.stage.signals, None)?[0]
        {
            return Ok(());
        }
        if let Progress::Bytes(count) = self.cursor.read()? {
            self.hash.update(self.cursor.newest(count));
        }
        self.stage.report_faults(self.cursor.take_faults())
    }

    /// The SHA-256 of all bytes that were read, after decompression.
    pub fn sha256(&self) -> String {
        hex(&self.hash.clone().finalize())
    }

    /// The current line.
    pub fn line(&self) -> Line<'_> {
        self.current.line()
    }

    /// Leaves out the current line and reports it. Without --skip-bad-rows this is an
    /// error.
    pub fn leave_out_line(&mut self, reject: &Reject) -> Result<()> {
        let line = self.current.line();
        leave_out(self.stage, &self.name, self.skip_bad_rows, &line, reject)
    }

    /// Like [`leave_out_line`](Source::leave_out_line), for a row that is not exactly
    /// one line.
    pub fn leave_out(&mut self, line: &Line, reject: &Reject) -> Result<()> {
        leave_out(self.stage, &self.name, self.skip_bad_rows, line, reject)
    }

    /// The first line that is not blank, if there is one. [`advance`](Source::advance)
    /// returns it again. Call this before the first line was used.
    pub fn first_line(&mut self) -> Result<Option<Line<'_>>> {
        while self.advance()? {
            if !self.current.line().head().is_empty() {
                self.repeat = true;
                return Ok(Some(self.current.line()));
            }
        }
        Ok(None)
    }

    /// The format of the rows: the given one, or that of the name of the file, or else
    /// the one that the first byte that is not white space tells.
    pub fn format(&mut self, given: Option<Format>, path: &str) -> Result<Format> {
        if let Some(format) = given.or_else(|| Format::of_path(path)) {
            return Ok(format);
        }
        let Some(line) = self.first_line()? else {
            return Ok(Format::Csv);
        };
        let first = line.head();
        Ok(match first.trim_ascii_start().first() {
            Some(b'{') => Format::Ndjson,
            // A JSON array is not a table in either format. The NDJSON reader
            // reports it with a remedy.
            Some(b'[') if Shape::of(first).is_some() => Format::Ndjson,
            _ => Format::Csv,
        })
    }

    /// Refuses an input that is not text in UTF-8 or a similar encoding. The error
    /// contains a remedy.
    pub fn check_encoding(&mut self) -> Result<()> {
        let form = match self.first_line()? {
            Some(line) => Foreign::of(line.bytes),
            None => None,
        };
        match form {
            None => Ok(()),
            Some(form) => bail!("{}: {}", self.name, form.fault()),
        }
    }

    /// Prints a message, unless `-q` is given.
    pub fn info(&self, message: &str) {
        self.stage.report.info(message);
    }

    /// Prints a warning.
    pub fn warn(&self, message: &str) {
        self.stage.report.warn(message);
    }

    /// The number and the offset of the line that [`advance`](Source::advance)
    /// returns first.
    pub fn start(&self) -> (u64, u64) {
        match self.repeat {
            true => (self.current.number, self.current.offset),
            false => (1, 0),
        }
    }
}

/// A form of input that is not text in UTF-8. The first bytes show which form it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Foreign {
    Utf16,
    Zip,
    Parquet,
}

impl Foreign {
    fn of(bytes: &[u8]) -> Option<Foreign> {
        let zeros = memchr::memchr_iter(0, bytes).count();
        if bytes.starts_with(b"PK\x03\x04") {
            Some(Foreign::Zip)
        } else if bytes.starts_with(b"PAR1") {
            Some(Foreign::Parquet)
        } else if bytes.starts_with(b"\xff\xfe")
            || bytes.starts_with(b"\xfe\xff")
            // In UTF-16, every second byte of Latin letters is zero.
            || zeros > 0 && zeros * 3 > bytes.len()
        {
            Some(Foreign::Utf16)
        } else {
            None
        }
    }

    /// The fault, and the remedy.
    fn fault(self) -> &'static str {
        match self {
            Foreign::Utf16 => {
                "is UTF-16, and not UTF-8; convert it with `iconv -f UTF-16 -t UTF-8`"
            }
            Foreign::Zip => {
                "is a ZIP archive, perhaps a workbook of a spreadsheet; unpack it, or export the \
                 sheet as CSV"
            }
            Foreign::Parquet => "is a Parquet file; export it as CSV",
        }
    }
}

fn leave_out(
    stage: &mut Stage,
    name: &str,
    skip_bad_rows: bool,
    line: &Line,
    reject: &Reject,
) -> Result<()> {
    if skip_bad_rows {
        return stage.report.reject(name, line, reject);
    }
    let remedy = match Shape::of(line.head()) {
        Some(shape) => format!("; {}", shape.remedy()),
        None => " (--skip-bad-rows skips such rows)".to_owned(),
    };
    bail!("{name}:{}: {reject}{remedy}", line.number)
}
