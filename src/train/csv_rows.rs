//! CSV -> rows: a line of names, then fields in the same order.

use std::io::{self, Read};

use anyhow::{Result, anyhow, bail};
use csv::{ByteRecord, Reader, ReaderBuilder, Trim};

use crate::stage::report::shown;
use crate::stage::usage;
use crate::train::source::{Source, Wanted};
use crate::train::table::{Builder, Fault, duplicate, number};
use crate::wire::lines::Line;

/// Reads all rows into `builder`.
pub fn read(source: &mut Source, wanted: &Wanted, builder: &mut Builder) -> Result<()> {
    let name = source.name().to_owned();
    let (first_line, _) = source.start();
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        // A row of another length is reported by its number here, and can be
        // left out.
        .flexible(true)
        .trim(Trim::All)
        .from_reader(Text::new(source));
    let mut record = ByteRecord::new();
    if !next_record(&mut reader, &mut record)? {
        bail!(
            "{name}: is empty; a line with the names of the columns is wanted, and rows under it"
        );
    }
    let header = header(&record).map_err(|fault| anyhow!("{name}:{first_line}: {fault}"))?;
    let columns =
        Columns::find(&header, wanted).map_err(|fault| usage(format!("{name}: {fault}")))?;
    let names = columns.features.iter().map(|index| header[*index].clone());
    builder.set_features(names.collect());
    let mut row = Vec::new();
    let mut row_number = 0;
    while next_record(&mut reader, &mut record)? {
        row_number += 1;
        if let Err(fault) = columns.take_row(&header, &record, row_number, &mut row, builder) {
            let end = reader.position().byte();
            let text = reader.get_mut();
            let start = record.position().map_or(0, csv::Position::byte);
            text.leave_out(start, end, &format!("row {row_number}: {fault}"))?;
        }
        if let Some(fault) = builder.fault() {
            bail!("{name}: {fault}");
        }
    }
    builder.left_out += reader.get_ref().left_out;
    Ok(())
}

/// Reads the next record that is not blank. False at the end.
fn next_record(reader: &mut Reader<Text>, record: &mut ByteRecord) -> Result<bool> {
    loop {
        let position = reader.position().byte();
        reader.get_mut().forget(position);
        let is_there = reader.read_byte_record(record).map_err(|error| {
            let failed = reader.get_mut().failed.take();
            failed.unwrap_or_else(|| error.into())
        })?;
        // A table has two columns at least, so one empty field is white space.
        let is_blank = record.len() == 1 && record[0].is_empty();
        if !is_there || !is_blank {
            return Ok(is_there);
        }
    }
}

/// The names of the columns.
fn header(record: &ByteRecord) -> Result<Vec<String>, Fault> {
    let mut names = Vec::with_capacity(record.len());
    for (index, field) in record.iter().enumerate() {
        let name = std::str::from_utf8(field)
            .map_err(|_| format!("the name of column {} is not UTF-8", index + 1))?;
        names.push(name.to_owned());
    }
    if names.iter().all(|name| number(name).is_ok()) {
        return Err(format!(
            "the first line holds numbers, not the names of the {} columns; put a line of names above it",
            names.len()
        ));
    }
    if let Some(name) = duplicate(names.iter().map(String::as_str)) {
        return Err(format!(
            "column {} stands there twice; give each column its own name",
            shown(name)
        ));
    }
    Ok(names)
}

/// Where the wanted columns stand.
struct Columns {
    target: usize,
    features: Vec<usize>,
}

impl Columns {
    fn find(header: &[String], wanted: &Wanted) -> Result<Columns, Fault> {
        let find = |name: &String, role: &str| {
            let found = header.iter().position(|column| column == name);
            found.ok_or_else(|| {
                let more = if header.len() > 20 { ", ..." } else { "" };
                let columns = header[..header.len().min(20)].join(", ") + more;
                format!(
                    "there is no column {} for {role}; the columns are {columns}",
                    shown(name)
                )
            })
        };
        let target = find(&wanted.target, "--target")?;
        let features: Vec<usize> = match &wanted.features {
            Some(names) => names
                .iter()
                .map(|name| find(name, "--features"))
                .collect::<Result<_, _>>()?,
            None => (0..header.len()).filter(|index| *index != target).collect(),
        };
        if let Some(index) = features
            .iter()
            .find(|index: &&usize| header[**index].is_empty())
        {
            return Err(format!(
                "column {} has no name; name it, or choose columns with --features",
                index + 1
            ));
        }
        if features.is_empty() {
            return Err("there is no column but the target".to_owned());
        }
        Ok(Columns { target, features })
    }

    /// Takes one record into the table, or says why not.
    fn take_row(
        &self,
        header: &[String],
        record: &ByteRecord,
        row_number: u64,
        row: &mut Vec<f64>,
        builder: &mut Builder,
    ) -> Result<(), Fault> {
        if record.len() != header.len() {
            return Err(format!(
                "has {} fields where the header has {}; look for a stray comma or quote",
                record.len(),
                header.len()
            ));
        }
        for (field, name) in record.iter().zip(header) {
            if std::str::from_utf8(field).is_err() {
                return Err(format!("column {} is not UTF-8", shown(name)));
            }
        }
        let text = |index: usize| std::str::from_utf8(&record[index]).unwrap_or_default();
        row.clear();
        let mut fault = None;
        for (feature, column) in self.features.iter().enumerate() {
            let (name, field) = (&header[*column], text(*column));
            if field.is_empty() {
                builder.missing[feature] += 1;
                fault.get_or_insert_with(|| format!("column {} is empty", shown(name)));
                continue;
            }
            match number(field) {
                Ok(value) => row.push(value),
                Err(reason) => {
                    fault.get_or_insert_with(|| {
                        format!(
                            "column {}: {reason}; name the columns to learn from with --features",
                            shown(name)
                        )
                    });
                }
            }
        }
        if let Some(fault) = fault {
            return Err(fault);
        }
        let target = &header[self.target];
        if text(self.target).is_empty() {
            return Err(format!("column {}, the target, is empty", shown(target)));
        }
        let label = builder.labels.field(text(self.target));
        let label = label.map_err(|fault| format!("column {}: {fault}", shown(target)))?;
        builder.push(row_number, row, label);
        Ok(())
    }
}

/// The lines of a source as one text for the CSV reader. It keeps what belongs
/// to the record being read, so that a bad one can be set aside as it stands.
struct Text<'a, 's> {
    source: &'a mut Source<'s>,
    kept: Vec<u8>,
    /// Where `kept` begins in the text, and on which line.
    start: u64,
    line: u64,
    /// Given out up to here in `kept`.
    given: usize,
    /// How many bytes of the input are not in the text: blank lines at its start
    /// and lines that were left out.
    skipped: u64,
    left_out: u64,
    /// What went wrong in a read. The CSV reader would hide what it was.
    failed: Option<anyhow::Error>,
}

impl<'a, 's> Text<'a, 's> {
    fn new(source: &'a mut Source<'s>) -> Text<'a, 's> {
        let (line, skipped) = source.start();
        Text {
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

    /// Drops what lies before `position`.
    fn forget(&mut self, position: u64) {
        let count = (position.saturating_sub(self.start) as usize).min(self.given);
        self.line += memchr::memchr_iter(b'\n', &self.kept[..count]).count() as u64;
        self.start += count as u64;
        self.given -= count;
        self.kept.drain(..count);
    }

    /// Sets the record from `start` to `end` aside.
    fn leave_out(&mut self, start: u64, end: u64, fault: &str) -> Result<()> {
        self.forget(start);
        let bytes = &self.kept[..(end.saturating_sub(self.start) as usize).min(self.kept.len())];
        // The blank lines before a record are not part of it.
        let blank = bytes.len() - bytes.trim_ascii_start().len();
        let line = Line {
            bytes: bytes.trim_ascii(),
            number: self.line + memchr::memchr_iter(b'\n', &bytes[..blank]).count() as u64,
            offset: self.start + blank as u64 + self.skipped,
            oversized: None,
        };
        self.left_out += 1;
        self.source.leave_out(&line, fault)
    }

    /// Takes one more line in. False at the end.
    fn take_line(&mut self) -> Result<bool> {
        if self.kept.len() > self.source.line_bytes_max() + READ_AHEAD_BYTES {
            bail!(
                "{}:{}: a row that begins here is longer than --max-line-bytes; look for a quote that is not closed",
                self.source.name(),
                self.line
            );
        }
        if !self.source.advance()? {
            return Ok(false);
        }
        let line = self.source.line();
        match line.oversized {
            // An empty line in its place keeps the count of lines.
            Some(length) => {
                self.skipped += length;
                self.left_out += 1;
                self.source
                    .leave_out_line("the line is longer than --max-line-bytes")?;
            }
            None => self.kept.extend_from_slice(line.bytes),
        }
        self.kept.push(b'\n');
        Ok(true)
    }
}

/// What the CSV reader may hold beyond the present record, with room to spare.
const READ_AHEAD_BYTES: usize = 1 << 20;

impl Read for Text<'_, '_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        // A byte order mark is only known as such where it comes whole, so a
        // read gives at least a line.
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
