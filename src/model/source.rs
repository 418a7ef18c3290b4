//! A file or pipe of training data as a table: its format, and what is done
//! with a row that cannot be used.

use anyhow::{Result, bail};
use clap::ValueEnum;
use rustix::event::PollFlags;

use crate::model::joined_rows::{self, LabelsById};
use crate::model::table::{Builder, Table};
use crate::model::{csv_rows, ndjson_rows};
use crate::stage::wait::wait;
use crate::stage::{EndedEarly, Stage};
use crate::wire::endpoint::{Input, Progress};
use crate::wire::lines::{Line, Lines};
use crate::wire::shape::Shape;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Comma-separated values under a line of column names.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

impl Format {
    /// The format that the name of a file promises.
    fn of_path(path: &str) -> Option<Format> {
        let path = path.strip_suffix(".gz").unwrap_or(path);
        match path.rsplit_once('.')?.1 {
            "csv" => Some(Format::Csv),
            "ndjson" | "jsonl" | "json" => Some(Format::Ndjson),
            _ => None,
        }
    }
}

/// Which table is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The column of labels.
    pub target: String,
    /// The columns of numbers; all but the target where absent.
    pub features: Option<Vec<String>>,
    /// How the data is written; told from the data where absent.
    pub format: Option<Format>,
    /// Whether a row that cannot be used is left out rather than an error.
    pub skip_bad_rows: bool,
    /// The file of the labels, where the rows are recorded requests.
    pub labels: Option<String>,
}

/// Reads the whole of `path` into a table.
pub fn read_table(stage: &mut Stage, path: &str, wanted: &Wanted) -> Result<Table> {
    if let Some(labels) = &wanted.labels {
        return read_joined(stage, path, labels, wanted);
    }
    let mut source = Source::open(stage, path, wanted.skip_bad_rows)?;
    let format = match wanted.format.or_else(|| Format::of_path(path)) {
        Some(format) => format,
        None => source.format()?,
    };
    let mut builder = Builder::new(&wanted.target);
    match format {
        Format::Csv => csv_rows::read(&mut source, wanted, &mut builder)?,
        Format::Ndjson => ndjson_rows::read(&mut source, wanted, &mut builder)?,
    }
    finish(&source.name, builder)
}

/// Reads recorded requests and the labels of some of them into a table.
fn read_joined(stage: &mut Stage, path: &str, labels: &str, wanted: &Wanted) -> Result<Table> {
    let mut labels = LabelsById::read(stage, labels, &wanted.target)?;
    let mut source = Source::open(stage, path, wanted.skip_bad_rows)?;
    let mut builder = Builder::new(&wanted.target);
    let story = joined_rows::read(&mut source, wanted, &mut labels, &mut builder)?;
    let name = source.name;
    stage.report.info(&format!("{name}: {story}"));
    finish(&name, builder)
}

/// The table, unless it is empty.
fn finish(name: &str, builder: Builder) -> Result<Table> {
    let table = builder.finish();
    if table.rows.is_empty() {
        match table.left_out {
            0 => bail!("{name}: there is no row of data in it"),
            left_out => bail!("{name}: all of its {left_out} rows were left out"),
        }
    }
    Ok(table)
}

/// An input that is read to its end by lines, while signals are heard.
pub struct Source<'s> {
    stage: &'s mut Stage,
    name: String,
    input: Input,
    lines: Lines,
    ended: bool,
    skip_bad_rows: bool,
    current: Current,
    /// Whether the current line is to be given once more.
    again: bool,
}

/// The line that was read last, copied out of the buffer so that the buffer can
/// be asked for the next one while it is in use.
#[derive(Debug, Default)]
struct Current {
    bytes: Vec<u8>,
    number: u64,
    offset: u64,
    oversized: Option<u64>,
}

impl Current {
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
    /// Opens `path`, or standard input for `-`.
    pub fn open(stage: &'s mut Stage, path: &str, skip_bad_rows: bool) -> Result<Source<'s>> {
        let input = Input::open(path, false)?;
        Ok(Source {
            name: input.name().to_owned(),
            lines: Lines::new(stage.line_bytes_max),
            stage,
            input,
            ended: false,
            skip_bad_rows,
            current: Current::default(),
            again: false,
        })
    }

    /// What messages call the input.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The limit of a line in bytes.
    pub fn line_bytes_max(&self) -> usize {
        self.stage.line_bytes_max
    }

    /// Goes on to the next line. False at the end.
    pub fn advance(&mut self) -> Result<bool> {
        if std::mem::take(&mut self.again) {
            return Ok(true);
        }
        let line = loop {
            // The borrow of a line that is returned from a loop would last too
            // long, so the question comes first.
            if self.lines.has_whole_line() {
                break self.lines.next_line();
            }
            if self.ended {
                break self.lines.last_line();
            }
            // Without a whole line this gives none, but drops what is over the
            // limit.
            let none = self.lines.next_line();
            debug_assert!(none.is_none());
            self.read_more()?;
        };
        let Some(line) = line else {
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
        if let Some(fd) = self.input.readiness()
            && !wait(&[(fd, PollFlags::IN)], &mut self.stage.signals, None)?[0]
        {
            return Ok(());
        }
        self.ended = self.input.read(&mut self.lines)? == Progress::End;
        Ok(())
    }

    /// The current line.
    pub fn line(&self) -> Line<'_> {
        self.current.line()
    }

    /// Leaves the current line out, or ends in an error.
    pub fn leave_out_line(&mut self, fault: &str) -> Result<()> {
        let line = self.current.line();
        leave_out(self.stage, &self.name, self.skip_bad_rows, &line, fault)
    }

    /// Leaves out a row that is more or less than one line.
    pub fn leave_out(&mut self, line: &Line, fault: &str) -> Result<()> {
        leave_out(self.stage, &self.name, self.skip_bad_rows, line, fault)
    }

    /// The format, by the first byte that says something.
    fn format(&mut self) -> Result<Format> {
        while self.advance()? {
            if let Some(first) = self.current.line().record() {
                self.again = true;
                return Ok(match first.trim_ascii_start().first() {
                    Some(b'{') => Format::Ndjson,
                    // An array of JSON is no table of either form, and is told so.
                    Some(b'[') if Shape::of(first).is_some() => Format::Ndjson,
                    _ => Format::Csv,
                });
            }
        }
        Ok(Format::Csv)
    }

    /// The number of the next line and where it begins, before any line was
    /// taken.
    pub fn start(&self) -> (u64, u64) {
        match self.again {
            true => (self.current.number, self.current.offset),
            false => (1, 0),
        }
    }
}

fn leave_out(
    stage: &mut Stage,
    name: &str,
    skip_bad_rows: bool,
    line: &Line,
    fault: &str,
) -> Result<()> {
    if skip_bad_rows {
        return stage.report.reject(name, line, fault);
    }
    let remedy = match line.record().and_then(Shape::of) {
        Some(shape) => format!("; {}", shape.remedy()),
        None => " (--skip-bad-rows leaves such rows out)".to_owned(),
    };
    bail!("{name}:{}: {fault}{remedy}", line.number)
}
