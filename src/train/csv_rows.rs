//! Reads CSV into a table: a header line, then one row per record.

use std::io::{self, Read};

use anyhow::{Result, anyhow, bail};
use csv::{ByteRecord, Reader, ReaderBuilder, Trim};

use crate::model::bounds::first_duplicate;
use crate::stage::report::shown;
use crate::stage::usage;
use crate::train::source::Source;
use crate::train::table::{ColumnNames, RowFault, TableBuilder};
use crate::wire::lines::Line;
use crate::wire::reject::Reject;

/// Reads all rows into `builder`.
pub fn read(source: &mut Source, names: &ColumnNames, builder: &mut TableBuilder) -> Result<()> {
    let name = source.name().to_owned();
    let (first_line, _) = source.start();
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        // The reader accepts rows of any length, so that a wrong one can be reported
        // here and skipped.
        .flexible(true)
        .trim(Trim::All)
        .from_reader(CsvText::new(source));
    let mut record = ByteRecord::new();
    if !next_record(&mut reader, &mut record)? {
        bail!(
            "{name}: is empty; write a line with the names of the columns, and the rows below it"
        );
    }
    let header = header(&record).map_err(|fault| anyhow!("{name}:{first_line}: {fault}"))?;
    let columns =
        Columns::find(&header, names).map_err(|fault| usage(format!("{name}: {fault}")))?;
    let features = columns.features.iter();
    builder.set_features(features.map(|index| header[*index].clone()).collect());
    let mut row = Vec::new();
    let mut row_number = 0;
    while next_record(&mut reader, &mut record)? {
        row_number += 1;
        if let Err(fault) = columns.take_row(&header, &record, row_number, &mut row, builder) {
            let end = reader.position().byte();
            let text = reader.get_mut();
            let start = record.position().map_or(0, csv::Position::byte);
            text.leave_out(
                start,
                end,
                Reject::Row(format!("row {row_number}: {fault}")),
            )?;
        }
        if let Some(fault) = builder.fault() {
            bail!("{name}: {fault}");
        }
    }
    builder.left_out += reader.get_ref().left_out;
    Ok(())
}

/// Reads the next record that is not blank. Returns false at the end.
fn next_record(reader: &mut Reader<CsvText>, record: &mut ByteRecord) -> Result<bool> {
    loop {
        let position = reader.position().byte();
        reader.get_mut().forget(position);
        let is_there = reader.read_byte_record(record).map_err(|error| {
            let failed = reader.get_mut().failed.take();
            failed.unwrap_or_else(|| error.into())
        })?;
        // A table has at least two columns, so a single empty field is a blank line.
        let is_blank = record.len() == 1 && record[0].is_empty();
        if !is_there || !is_blank {
            return Ok(is_there);
        }
    }
}

/// The names of the columns.
fn header(record: &ByteRecord) -> Result<Vec<String>, RowFault> {
    let mut names = Vec::with_capacity(record.len());
    for (index, field) in record.iter().enumerate() {
        let name = std::str::from_utf8(field)
            .map_err(|_| format!("the name of column {} is not UTF-8", index + 1))?;
        names.push(name.to_owned());
    }
    if names.iter().all(|name| number(name).is_ok()) {
        return Err(format!(
            "the first line has numbers instead of the names of the {} columns; write a line of names \
             above it",
            names.len()
        ));
    }
    if let Some(name) = first_duplicate(names.iter().map(String::as_str)) {
        return Err(format!(
            "column {} occurs twice; give each column its own name",
            shown(name)
        ));
    }
    Ok(names)
}

/// The positions of the columns to read.
struct Columns {
    target: usize,
    features: Vec<usize>,
}

impl Columns {
    fn find(header: &[String], names: &ColumnNames) -> Result<Columns, RowFault> {
        let position = |name: &String, role: &str| {
            let found = header.iter().position(|column| column == name);
            found.ok_or_else(|| {
                let more = if header.len() > 20 { ", ..." } else { "" };
                let columns = header[..header.len().min(20)].join(", ") + more;
                format!(
                    "has no column {} for {role}; its columns are {columns}",
                    shown(name)
                )
            })
        };
        let target = position(&names.target, "--target")?;
        let features: Vec<usize> = match &names.features {
            Some(names) => names
                .iter()
                .map(|name| position(name, "--features"))
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
            return Err("has no column but the target".to_owned());
        }
        Ok(Columns { target, features })
    }

    /// Adds one record to the table. The error is the reason why it cannot be used.
    fn take_row(
        &self,
        header: &[String],
        record: &ByteRecord,
        row_number: u64,
        row: &mut Vec<f64>,
        builder: &mut TableBuilder,
    ) -> Result<(), RowFault> {
        if record.len() != header.len() {
            return Err(format!(
                "has {} fields, but the header has {}; look for a stray comma or quote",
                record.len(),
                header.len()
            ));
        }
        for (field, name) in record.iter().zip(header) {
            if std::str::from_utf8(field).is_err() {
                return Err(format!("column {} is not UTF-8", shown(name)));
            }
        }
        self.take_features(header, record, row, builder)?;
        let target = shown(&header[self.target]);
        let label = text(record, self.target);
        if label.is_empty() {
            return Err(format!("column {target}, the target, is empty"));
        }
        let label = builder.labels.field(label);
        let label = label.map_err(|fault| format!("column {target}: {fault}"))?;
        builder.push(row_number, row, label);
        Ok(())
    }

    /// Reads the features of a record into `row`, and counts those that are
    /// missing.
    fn take_features(
        &self,
        header: &[String],
        record: &ByteRecord,
        row: &mut Vec<f64>,
        builder: &mut TableBuilder,
    ) -> Result<(), RowFault> {
        row.clear();
        let mut fault = None;
        for (feature, column) in self.features.iter().enumerate() {
            let (name, field) = (&header[*column], text(record, *column));
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
        fault.map_or(Ok(()), Err)
    }
}

/// A field of a record that is known to be UTF-8.
fn text(record: &ByteRecord, column: usize) -> &str {
    std::str::from_utf8(&record[column]).unwrap_or_default()
}

/// The value of a feature.
fn number(field: &str) -> Result<f64, String> {
    match field.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => Err(format!("{} is not a finite number", shown(field))),
        Err(_) => Err(format!("{} is not a number", shown(field))),
    }
}

/// The lines of a source as one text for the CSV reader. It keeps the text of the current
/// record, to report the text of a bad record.
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
    /// The error of the last read. The CSV reader does not return it.
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

    /// Drops the text before `position`.
    fn forget(&mut self, position: u64) {
        let count = (position.saturating_sub(self.start) as usize).min(self.given);
        self.line += memchr::memchr_iter(b'\n', &self.kept[..count]).count() as u64;
        self.start += count as u64;
        self.given -= count;
        self.kept.drain(..count);
    }

    /// Leaves out the record from `start` to `end`.
    fn leave_out(&mut self, start: u64, end: u64, reject: Reject) -> Result<()> {
        self.forget(start);
        let bytes = &self.kept[..(end.saturating_sub(self.start) as usize).min(self.kept.len())];
        // The blank lines before a record do not belong to it.
        let blank = bytes.len() - bytes.trim_ascii_start().len();
        let line = Line {
            bytes: bytes.trim_ascii(),
            number: self.line + memchr::memchr_iter(b'\n', &bytes[..blank]).count() as u64,
            offset: self.start + blank as u64 + self.skipped,
            oversized: None,
        };
        self.left_out += 1;
        self.source.leave_out(&line, &reject)
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
            // An empty line replaces the line, so that the line numbers stay right.
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

#[cfg(test)]
mod tests {
    use crate::train::tests::{ROWS, TREE, train, train_on, without_hashes};

    #[test]
    fn csv_comes_in_many_forms() {
        let plain = "a,b,y\n1,2,no\n2,2,no\n8,3,yes\n9,4,yes\n1,1,no\n7,7,yes\n";
        let flags = "--target y --algorithm decision-tree --holdout 0";
        let expected = train_on("plain.csv", plain.as_bytes(), flags);
        let expected = without_hashes(&expected.text.unwrap());
        for (form, data) in [
            ("CRLF", plain.replace('\n', "\r\n")),
            ("BOM", format!("\u{feff}{plain}")),
            ("no last newline", plain.trim_end().to_owned()),
            ("blank lines", plain.replace('\n', "\n\n\r\n")),
            ("spaces", plain.replace(',', " , ")),
            (
                "quotes",
                plain
                    .replace("no", "\"no\"")
                    .replace("1,", "\"1\",")
                    .replace("a,", "\"a\","),
            ),
        ] {
            let outcome = train_on("form.csv", data.as_bytes(), flags);
            assert_eq!(outcome.message(), "", "{form}");
            let text = without_hashes(&outcome.text.unwrap());
            assert_eq!(text, expected, "{form}");
        }
        // A label may contain any text of a quoted field.
        let data = plain.replace("yes", "\"y,\n\"\"es\"");
        let model = train_on("quoted.csv", data.as_bytes(), flags).model();
        assert_eq!(model.description().labels()[1], r#""y,\n\"es""#);
    }

    #[test]
    fn lines_are_counted_from_the_first_though_it_is_blank() {
        let data = b"\n \r\na,y\n\n1,no\nx,no\n";
        let message = train_on("rows", data, "--target y --algorithm decision-tree").message();
        assert!(message.contains("rows:6: row 2: column \"a\""), "{message}");
        let message =
            train_on("rows", b"\n\n1,2\n", "--target y --algorithm decision-tree").message();
        assert!(
            message.contains("rows:3: the first line has numbers"),
            "{message}"
        );
    }

    #[test]
    fn a_row_that_cannot_be_used_is_named_with_its_column() {
        for (bad, place, reason) in [
            ("1,,no", "bad.csv:3: row 2", "column \"b\" is empty"),
            (
                "1,2,",
                "bad.csv:3: row 2",
                "column \"y\", the target, is empty",
            ),
            (
                "1,x,no",
                "bad.csv:3: row 2",
                "column \"b\": \"x\" is not a number; name the columns to learn from with --features",
            ),
            (
                "1,NaN,no",
                "bad.csv:3: row 2",
                "column \"b\": \"NaN\" is not a finite number",
            ),
            (
                "-inf,2,no",
                "bad.csv:3: row 2",
                "column \"a\": \"-inf\" is not a finite number",
            ),
            (
                "1e999,2,no",
                "bad.csv:3: row 2",
                "column \"a\": \"1e999\" is not a finite number",
            ),
            (
                "1,2",
                "bad.csv:3: row 2",
                "has 2 fields, but the header has 3",
            ),
            (
                "1,2,no,",
                "bad.csv:3: row 2",
                "has 4 fields, but the header has 3",
            ),
            (
                "1,2,\u{fffd}",
                "bad.csv:3: row 2",
                "column \"y\" is not UTF-8",
            ),
            ("\n\n1,\"2\n\",no,9", "bad.csv:5: row 2", "has 4 fields"),
        ] {
            let data = format!("a,b,y\n9,9,no\n{bad}\n{ROWS}").into_bytes();
            // The replacement character stands for a byte that is not UTF-8.
            let data: Vec<u8> = match data
                .windows(3)
                .position(|three| three == "\u{fffd}".as_bytes())
            {
                Some(at) => [&data[..at], b"\xff", &data[at + 3..]].concat(),
                None => data,
            };
            let outcome = train_on("bad.csv", &data, TREE);
            let message = outcome.message();
            assert!(message.contains(&format!("{place}: {reason}")), "{message}");
            assert!(message.contains("--skip-bad-rows"), "{message}");
            assert!(outcome.text.is_none());

            let outcome = train_on("bad.csv", &data, &format!("{TREE} --skip-bad-rows"));
            assert_eq!(outcome.message(), "");
            assert_eq!(outcome.rows(), (7, 1));
            let reject = outcome.rejects;
            assert_eq!(reject.lines().count(), 1);
            let raw = match std::str::from_utf8(&data) {
                Ok(_) => format!("\"raw\":{}", serde_json::to_string(bad.trim()).unwrap()),
                Err(_) => "\"rawBase64\":\"MSwy".to_owned(),
            };
            assert!(reject.contains(&raw), "{reject}");
            let offset = 13 + bad.len() - bad.trim_start().len();
            assert!(
                reject.contains(&format!("\"offset\":{offset},")),
                "{reject}"
            );
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_with_a_remedy() {
        let measurements: String = (0..2000).map(|row| format!("1,2,{row}.5\n")).collect();
        for (data, reason) in [
            (String::new(), "is empty; write a line with the names"),
            ("\n \n".to_owned(), "is empty; write a line with the names"),
            ("a,b,y\n".to_owned(), "has no row of data"),
            (
                ROWS.replace("no", "0").replace("yes", "1"),
                "write a line of names above it",
            ),
            (format!("a,a,y\n{ROWS}"), "column \"a\" occurs twice"),
            (
                "a,b,y\n1,1,no\n2,2,no\n".to_owned(),
                "has only one value, \"no\"",
            ),
            (
                "a,b,y\n1,1,no\n2,2,no\n3,3,yes\n".to_owned(),
                "class \"yes\" has 1 of its 1 rows left",
            ),
            (format!("a,b,y\n{measurements}"), "looks like a measurement"),
            (
                format!("a,b,y\n{}1,\"2,no\n", ROWS),
                "look for a stray comma or quote",
            ),
            ("a,b\u{0},y\n".to_owned() + ROWS, ""),
        ] {
            let message = train_on("bad.csv", data.as_bytes(), TREE).message();
            assert!(message.contains(reason), "{message}");
        }
        let message = train_on("bad.csv", b"a\xff,y\n1,2\n", TREE).message();
        assert!(
            message.contains("bad.csv:1: the name of column 1 is not UTF-8"),
            "{message}"
        );
        let message =
            train_on("bad.csv", b"a,y\nx,1\n", &format!("{TREE} --skip-bad-rows")).message();
        assert!(
            message.contains("none of its 1 rows can be used"),
            "{message}"
        );
        let message = train("/nonexistent.csv", TREE).message();
        assert!(
            message.contains("/nonexistent.csv: cannot open"),
            "{message}"
        );
        let message = train("/", TREE).message();
        assert!(message.contains("is a directory"), "{message}");
    }

    #[test]
    fn a_line_over_the_limit_is_left_out_and_a_quote_left_open_does_not_fill_the_memory() {
        let long = format!("a,b,y\n{ROWS}1,{},no\n{ROWS}", "1".repeat(5000));
        let flags = format!("{TREE} --max-line-bytes 1000B");
        let message = train_on("long.csv", long.as_bytes(), &flags).message();
        assert!(
            message.contains("long.csv:8: the line is longer than --max-line-bytes"),
            "{message}"
        );
        let outcome = train_on(
            "long.csv",
            long.as_bytes(),
            &format!("{flags} --skip-bad-rows"),
        );
        assert_eq!(outcome.rows(), (12, 1));

        let open = format!("a,b,y\n{ROWS}1,\"2,no\n{}", ROWS.repeat(60_000));
        let message = train_on("open.csv", open.as_bytes(), &flags).message();
        assert!(
            message.contains("open.csv:8: the row that begins here is longer"),
            "{message}"
        );
    }
}
