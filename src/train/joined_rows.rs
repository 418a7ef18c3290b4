//! Joins recorded requests and labels into a table, by `messageId`.

use std::fmt;

use anyhow::{Result, bail};

use crate::stage::report::shown;
use crate::train::cell::Cell;
use crate::train::column::Form;
use crate::train::columns::Columns;
use crate::train::fields::Fields;
use crate::train::label_file::{ID_COLUMN, Label, LabelsById};
use crate::train::ndjson_rows::json_label;
use crate::train::options::TableOptions;
use crate::train::source::Source;
use crate::train::table::RowFault;
use crate::wire::message::Record;
use crate::wire::object::Object;
use crate::wire::reject::Reject;

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
    labels: &mut LabelsById,
) -> Result<(Columns, String)> {
    let mut columns = Columns::new(labels.origin(), options);
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
    let target = target_cell(&label, columns)?;
    fields.read(&object, input, row, columns);
    row[0] = target;
    counts.rows += 1;
    Ok(true)
}

/// A label as a cell of the target. The error is the reason why it cannot be used.
fn target_cell(label: &Label, columns: &mut Columns) -> Result<Cell, RowFault> {
    match label {
        Label::Field(text) => {
            let kind = columns.syntax.of_field(text);
            Ok(columns.add_cell(0, kind, Form::Text, text))
        }
        Label::Json(raw) => json_label(raw, columns),
    }
}
