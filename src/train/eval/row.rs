//! Reads the rows of CSV and NDJSON one by one.

use std::collections::HashMap;

use anyhow::{Result, bail};
use csv::ByteRecord;

use crate::stage::report::shown;
use crate::stage::usage;
use crate::train::csv_header;
use crate::train::csv_text::CsvRecords;
use crate::train::eval::labels::Label;
use crate::train::source::{Format, Source};
use crate::wire::object::Object;
use crate::wire::reject::Reject;

/// One row.
pub enum Row<'r> {
    /// A record of a CSV file, and the names of its columns.
    Csv(&'r CsvHeader, &'r ByteRecord),
    /// A line of NDJSON.
    Json(&'r Object<'r>),
}

/// The names of the columns of a CSV file.
pub struct CsvHeader {
    names: Vec<String>,
    /// The position of the first column with each name.
    positions: HashMap<String, usize>,
}

impl CsvHeader {
    fn new(names: Vec<String>) -> CsvHeader {
        let mut positions = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            positions.entry(name.clone()).or_insert(index);
        }
        CsvHeader { names, positions }
    }

    /// The text of the field in this column, if the record has the field.
    pub fn field<'f>(&self, record: &'f ByteRecord, column: &str) -> Option<&'f str> {
        text(record, *self.positions.get(column)?)
    }
}

impl<'r> Row<'r> {
    /// The label in a column; `None` if a JSON object has no such member.
    pub fn label(&self, column: &str) -> Option<Label> {
        match self {
            Row::Csv(header, record) => {
                let field = header.field(record, column)?;
                Some(Label::Field(field.to_owned()))
            }
            Row::Json(object) => object.get(column).map(|raw| Label::Json(raw.to_owned())),
        }
    }
}

/// The text of a field, if the record has it.
fn text(record: &ByteRecord, index: usize) -> Option<&str> {
    std::str::from_utf8(record.get(index)?).ok()
}

/// The form of the rows of an input.
pub struct RowForm<'a> {
    /// The format.
    pub format: Format,
    /// The path of the input. The separator of the fields is guessed from its ending.
    pub path: &'a str,
    /// The separator of CSV fields; guessed if `None`.
    pub delimiter: Option<u8>,
    /// The columns that a CSV file must have.
    pub required: &'a [&'a str],
}

/// Calls `visit` for each row. An error of `visit` is the reason why the row cannot be
/// used. Such a row is left out and reported. Returns the number of rows that were left
/// out.
pub fn each_row(
    source: &mut Source,
    form: &RowForm,
    visit: impl FnMut(&Row) -> Result<(), String>,
) -> Result<u64> {
    match form.format {
        Format::Csv => each_record(source, form, visit),
        Format::Ndjson => each_object(source, visit),
    }
}

/// The format of an input by its name, or else by its first byte.
pub fn format_of(source: &mut Source, given: Option<Format>, path: &str) -> Result<Format> {
    match given.or_else(|| Format::of_path(path)) {
        Some(format) => Ok(format),
        None => source.format(),
    }
}

fn each_record(
    source: &mut Source,
    form: &RowForm,
    mut visit: impl FnMut(&Row) -> Result<(), String>,
) -> Result<u64> {
    let name = source.name().to_owned();
    source.check_encoding()?;
    let delimiter = csv_header::delimiter(source, form.delimiter, form.path)?;
    let mut records = CsvRecords::new(source, delimiter);
    if !records.advance()? {
        bail!("{name}: is empty; it needs a line with the names of the columns");
    }
    let mut header = Vec::new();
    for index in 0..records.record.len() {
        match text(&records.record, index) {
            Some(text) => header.push(text.to_owned()),
            None => bail!("{name}: the name of column {} is not UTF-8", index + 1),
        }
    }
    let header = CsvHeader::new(header);
    for column in form.required {
        if !header.positions.contains_key(*column) {
            return Err(usage(format!(
                "{name}: has no column {}; its columns are {}",
                shown(column),
                shown(&header.names.join(", "))
            )));
        }
    }
    while records.advance()? {
        let record = &records.record;
        let outcome = if record.len() != header.names.len() {
            Err(format!(
                "has {} fields, but the header has {}",
                record.len(),
                header.names.len()
            ))
        } else if let Some(bad) = (0..record.len()).find(|index| text(record, *index).is_none()) {
            Err(format!("column {} is not UTF-8", shown(&header.names[bad])))
        } else {
            visit(&Row::Csv(&header, record))
        };
        if let Err(fault) = outcome {
            records.leave_out(&Reject::Row(fault))?;
        }
    }
    Ok(records.left_out())
}

fn each_object(
    source: &mut Source,
    mut visit: impl FnMut(&Row) -> Result<(), String>,
) -> Result<u64> {
    let mut left_out = 0;
    while source.advance()? {
        let line = source.line();
        let record = match line.record() {
            Ok(None) => continue,
            Ok(Some(record)) => std::str::from_utf8(record).map_err(Reject::not_utf8),
            Err(reject) => Err(reject),
        };
        let outcome = record.and_then(|text| {
            let object = Object::parse(text).map_err(Reject::Syntax)?;
            visit(&Row::Json(&object)).map_err(Reject::Row)
        });
        if let Err(reject) = outcome {
            left_out += 1;
            source.leave_out_line(&reject)?;
        }
    }
    Ok(left_out)
}
