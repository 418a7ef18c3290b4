//! Reads CSV into a table: a header line, then one row per record.

use anyhow::{Result, bail};
use csv::ByteRecord;

use crate::stage::report::shown;
use crate::train::cell::{Cell, CellKind};
use crate::train::column::Form;
use crate::train::columns::{Columns, Origin};
use crate::train::csv_header::{self, Header};
use crate::train::csv_text::CsvRecords;
use crate::train::options::TableOptions;
use crate::train::source::Source;
use crate::train::table::RowFault;
use crate::wire::reject::Reject;

/// Reads all rows.
pub fn read(source: &mut Source, options: &TableOptions) -> Result<Columns> {
    let name = source.name().to_owned();
    let delimiter =
        csv_header::delimiter(source, options.syntax.delimiter, options.input.as_str())?;
    let mut columns = Columns::new(Origin::Csv, options);
    let mut records = CsvRecords::new(source, delimiter);
    let header = Header::read(&mut records, &name)?;
    let reader = RowReader::new(header, &mut records, options, &name, &mut columns)?;
    let mut row = Vec::new();
    let mut number = 0;
    while records.advance()? {
        number += 1;
        match reader.take_row(number, &records.record, &mut row, &mut columns) {
            Ok(()) => columns.push(number, &records.line(), &row),
            Err(fault) => records.leave_out(&Reject::Row(format!("row {number}: {fault}")))?,
        }
        if let Some(fault) = columns.fault() {
            bail!("{name}: {fault}");
        }
    }
    columns.left_out += records.left_out();
    Ok(columns)
}

/// Turns records into rows.
struct RowReader {
    header: Header,
    /// The position of each column of the table in a record. The target is the first.
    positions: Vec<usize>,
}

impl RowReader {
    /// Finds the columns in the header, and adds them to the table.
    fn new(
        header: Header,
        records: &mut CsvRecords,
        options: &TableOptions,
        name: &str,
        columns: &mut Columns,
    ) -> Result<RowReader> {
        let found = header.find(&options.columns, name, records)?;
        let mut positions = vec![found.target];
        for (position, column) in found.features {
            columns.add_column(&column);
            positions.push(position);
        }
        columns.unused = found.unused;
        Ok(RowReader { header, positions })
    }

    /// Reads a record into `row`. The error is the reason why the record cannot be used.
    fn take_row(
        &self,
        number: u64,
        record: &ByteRecord,
        row: &mut Vec<Cell>,
        columns: &mut Columns,
    ) -> Result<(), RowFault> {
        self.header.check_width(number, record)?;
        self.check_target(record, columns)?;
        row.clear();
        for (column, position) in self.positions.iter().enumerate() {
            let field = record.get(*position).unwrap_or_default();
            row.push(match std::str::from_utf8(field) {
                Ok(text) => {
                    let kind = columns.syntax.of_field(text);
                    columns.add_cell(column, kind, Form::Text, text)
                }
                Err(_) => {
                    let kind = (CellKind::NotUnicode, f64::NAN);
                    columns.add_cell(column, kind, Form::Text, "")
                }
            });
        }
        Ok(())
    }

    /// Checks what can be said of a target before all cells of its column are known.
    fn check_target(&self, record: &ByteRecord, columns: &Columns) -> Result<(), RowFault> {
        let target = || shown(&columns.columns[0].name);
        let field = record.get(self.positions[0]).unwrap_or_default();
        match std::str::from_utf8(field) {
            Err(_) => Err(format!("column {} is not UTF-8", target())),
            Ok("") => Err(format!("column {}, the target, is empty", target())),
            Ok(text) if columns.syntax.of_field(text).0 == CellKind::Missing => Err(format!(
                "column {}, the target, is missing: it is {}",
                target(),
                shown(text)
            )),
            Ok(_) => Ok(()),
        }
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
        // A label may contain any text that a quoted field can hold.
        let data = plain.replace("yes", "\"y,\n\"\"es\"");
        let model = train_on("quoted.csv", data.as_bytes(), flags).model();
        assert_eq!(model.description().labels()[1], r#""y,\n\"es""#);
    }

    #[test]
    fn lines_are_counted_from_the_first_though_it_is_blank() {
        let data = b"\n \r\na,y\n\n1,no\nx,no\n2,yes\n";
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
            (
                "1,2,",
                "bad.csv:3: row 2",
                "column \"y\", the target, is empty",
            ),
            (
                "1,x,no",
                "bad.csv:3: row 2",
                "column \"b\": \"x\" is not a number, but 7 of the 8 values are; --categorical b takes \
                 the column for texts, --missing x takes this text for a missing value, and --drop b \
                 leaves the column out",
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
                "1,2,no,,x",
                "bad.csv:3: row 2",
                "has 5 fields, but the header has 3",
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
            (
                format!("a,b,y\n{}1,\"2,no\n", ROWS),
                "look for a stray comma or quote",
            ),
            (
                format!("a,b\u{0},y\n{ROWS}1,x,no\n"),
                "row 7: column \"b\\0\": \"x\" is not a number",
            ),
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
            train_on("bad.csv", b"a,y\nx,\n", &format!("{TREE} --skip-bad-rows")).message();
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
