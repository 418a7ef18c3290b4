//! Joins recorded requests and labels into a table, by `messageId`.

use std::collections::HashMap;
use std::fmt;

use anyhow::{Result, anyhow, bail};

use crate::stage::Stage;
use crate::stage::report::shown;
use crate::stream::address::Address;
use crate::train::cell::{Cell, CellKind, CellSyntax};
use crate::train::column::Form;
use crate::train::columns::{Columns, Origin};
use crate::train::csv_header::{self, Header};
use crate::train::csv_text::CsvRecords;
use crate::train::fields::{Fields, kind_of_json};
use crate::train::ndjson_rows::json_label;
use crate::train::options::TableOptions;
use crate::train::source::{Format, Source};
use crate::train::table::RowFault;
use crate::wire::message::Record;
use crate::wire::object::{Object, decode_string};
use crate::wire::reject::Reject;

/// The column of ids in a file of labels.
const ID_COLUMN: &str = "messageId";

/// A label, as written in its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Label {
    /// A field of a CSV file.
    Field(String),
    /// A JSON value.
    Json(String),
}

impl Label {
    fn text(&self) -> &str {
        match self {
            Label::Field(text) | Label::Json(text) => text,
        }
    }

    /// The label as a cell of the target. The error is the reason why it cannot be
    /// used.
    fn cell(&self, columns: &mut Columns) -> Result<Cell, RowFault> {
        match self {
            Label::Field(text) => {
                let kind = columns.syntax.of_field(text);
                Ok(columns.add_cell(0, kind, Form::Text, text))
            }
            Label::Json(raw) => json_label(raw, columns),
        }
    }
}

/// The label of each message.
#[derive(Debug, Default)]
pub struct LabelsById {
    /// For each messageId, the index of its label in `labels`, and whether a record
    /// with this id was read.
    by_id: HashMap<String, (u32, bool)>,
    /// All distinct labels.
    labels: Vec<Label>,
    /// For each label, its index in `labels`.
    indices: HashMap<Label, u32>,
}

impl LabelsById {
    /// Reads a file of labels with the columns `messageId` and the target: CSV with a
    /// header line if its name ends in `.csv` or `.tsv`, else NDJSON. Both may be
    /// compressed (`.gz`). Also returns whether the file is CSV.
    pub fn read(
        stage: &mut Stage,
        path: &str,
        options: &TableOptions,
    ) -> Result<(LabelsById, bool)> {
        let syntax = CellSyntax::new(&options.missing, options.decimal_comma);
        let mut labels = LabelsById::default();
        let mut source = Source::open(stage, &Address::from(path), false)?;
        source.check_encoding()?;
        let is_csv = Format::of_path(path) == Some(Format::Csv);
        match is_csv {
            true => labels.read_csv(&mut source, path, options, &syntax)?,
            false => labels.read_ndjson(&mut source, &options.columns.target, &syntax)?,
        }
        if labels.by_id.is_empty() {
            bail!("{path}: has no label");
        }
        Ok((labels, is_csv))
    }

    fn read_csv(
        &mut self,
        source: &mut Source,
        path: &str,
        options: &TableOptions,
        syntax: &CellSyntax,
    ) -> Result<()> {
        let delimiter = csv_header::delimiter(source, options.delimiter, path)?;
        let mut records = CsvRecords::new(source, delimiter);
        let header = Header::read(&mut records, path)?;
        let find = |name: &str| {
            let position = header.position(name, None);
            position.map_err(|fault| anyhow!("{path}: {fault}"))
        };
        let (id, label) = (find(ID_COLUMN)?, find(&options.columns.target)?);
        while records.advance()? {
            let text = |column: usize, name: &str| {
                let field = records.record.get(column).unwrap_or_default();
                let text = std::str::from_utf8(field);
                text.map_err(|_| format!("column {} is not UTF-8", shown(name)))
            };
            let row = text(id, ID_COLUMN).and_then(|id| {
                let label = text(label, &options.columns.target)?;
                Ok((id.to_owned(), label.to_owned()))
            });
            let added = row.and_then(|(id, label)| match id.is_empty() {
                true => Err(format!("column {} is empty", shown(ID_COLUMN))),
                // The label is unknown or not yet known.
                false if syntax.of_field(&label).0 == CellKind::Missing => Ok(()),
                false => self.add(&id, Label::Field(label)),
            });
            added.map_err(|fault| anyhow!("{path}:{}: {fault}", records.line().number))?;
        }
        Ok(())
    }

    fn read_ndjson(
        &mut self,
        source: &mut Source,
        target: &str,
        syntax: &CellSyntax,
    ) -> Result<()> {
        while source.advance()? {
            let line = source.line();
            let record = match line.record() {
                Ok(None) => continue,
                Ok(Some(record)) => std::str::from_utf8(record).map_err(Reject::not_utf8),
                Err(reject) => Err(reject),
            };
            let object = record.map_err(String::from).and_then(Object::parse);
            let added = object.and_then(|object| {
                let id = object.get(ID_COLUMN).and_then(decode_string);
                let id = id.ok_or_else(|| {
                    format!("field {} is missing or not a string", shown(ID_COLUMN))
                })?;
                match object.get(target) {
                    None => Err(format!("field {} is missing", shown(target))),
                    // The label is unknown or not yet known.
                    Some(raw) if kind_of_json(raw, syntax).0 == CellKind::Missing => Ok(()),
                    Some(raw) => self.add(&id, Label::Json(raw.to_owned())),
                }
            });
            added.map_err(|fault| {
                anyhow!(
                    "{}:{}: {fault} (a file of labels is NDJSON, unless its name ends in .csv or .tsv)",
                    source.name(),
                    line.number
                )
            })?;
        }
        Ok(())
    }

    fn add(&mut self, id: &str, label: Label) -> Result<(), RowFault> {
        let next = self.labels.len() as u32;
        let index = *self.indices.entry(label.clone()).or_insert(next);
        if index == next {
            self.labels.push(label);
        }
        match self.by_id.insert(id.to_owned(), (index, false)) {
            Some((earlier, _)) if earlier != index => Err(format!(
                "message {} has two labels, {} and {}",
                shown(id),
                shown(self.labels[earlier as usize].text()),
                shown(self.labels[index as usize].text())
            )),
            _ => Ok(()),
        }
    }

    /// The label of a message, if it has one, and whether an earlier record had the
    /// same id.
    fn take(&mut self, id: &str) -> Option<(Label, bool)> {
        let (index, seen) = self.by_id.get_mut(id)?;
        let repeated = std::mem::replace(seen, true);
        Some((self.labels[*index as usize].clone(), repeated))
    }

    /// The number of labels without a record.
    fn unused(&self) -> usize {
        self.by_id.values().filter(|(_, seen)| !seen).count()
    }
}

/// The recorded requests by their outcome.
#[derive(Debug, Default)]
struct JoinCounts {
    records: u64,
    /// Records that became rows of the table.
    rows: u64,
    /// Records without a label.
    unlabelled: u64,
    /// Records with the id of an earlier record.
    repeated: u64,
}

impl fmt::Display for JoinCounts {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let JoinCounts {
            records,
            rows,
            unlabelled,
            repeated,
        } = self;
        write!(
            formatter,
            "{rows} of {records} records have labels, {unlabelled} have none, {repeated} are repeated"
        )
    }
}

/// Reads all records that have a label. Also returns a summary for the user.
pub fn read(
    source: &mut Source,
    options: &TableOptions,
    (labels, csv_labels): (&mut LabelsById, bool),
) -> Result<(Columns, String)> {
    let mut columns = Columns::new(Origin::Joined { csv_labels }, options);
    let mut fields = Fields::new(&options.columns, &mut columns);
    let mut counts = JoinCounts::default();
    let mut row = Vec::new();
    while source.advance()? {
        let line = source.line();
        let record = match line.record() {
            Ok(None) => continue,
            Ok(Some(record)) => record,
            Err(reject) => {
                columns.left_out += 1;
                source.leave_out_line(&reject)?;
                continue;
            }
        };
        counts.records += 1;
        let outcome = Record::parse(record)
            .map_err(String::from)
            .and_then(|record| {
                take_record(
                    &record,
                    labels,
                    &mut fields,
                    &mut row,
                    &mut columns,
                    &mut counts,
                )
            });
        match outcome {
            Ok(true) => columns.push(counts.records, &line, &row),
            Ok(false) => {}
            Err(fault) => {
                let reject = Reject::Row(format!("record {}: {fault}", counts.records));
                source.leave_out_line(&reject)?;
                columns.left_out += 1;
            }
        }
        if let Some(fault) = columns.fault() {
            bail!("{}: {fault}", source.name());
        }
    }
    if counts.rows == 0 && columns.left_out == 0 {
        bail!(
            "{}: none of its {} records has a label; labels are joined by {}",
            source.name(),
            counts.records,
            shown(ID_COLUMN)
        );
    }
    fields.check(source.name())?;
    let summary = format!("{counts}; {} labels have no record", labels.unused());
    Ok((columns, summary))
}

/// Reads a record into `row` if it has a label and is the first with its id. The error
/// is the reason why the record cannot be used.
fn take_record(
    record: &Record,
    labels: &mut LabelsById,
    fields: &mut Fields,
    row: &mut Vec<Cell>,
    columns: &mut Columns,
    counts: &mut JoinCounts,
) -> Result<bool, RowFault> {
    let id = record.message_id()?;
    let input = record.model_input()?;
    let Some((label, is_repeated)) = labels.take(&id) else {
        counts.unlabelled += 1;
        return Ok(false);
    };
    if is_repeated {
        counts.repeated += 1;
        return Ok(false);
    }
    let object = Object::parse(input).map_err(|fault| format!("modelInput is {fault}"))?;
    let target = label.cell(columns)?;
    fields.read(&object, input, row, columns)?;
    row[0] = target;
    counts.rows += 1;
    Ok(true)
}
