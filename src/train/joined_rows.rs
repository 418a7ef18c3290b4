//! Joins recorded requests and labels into a table, by `messageId`.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use csv::ReaderBuilder;

use crate::stage::Stage;
use crate::stage::report::shown;
use crate::stream::address::Address;
use crate::stream::archives::RecordedFile;
use crate::train::label::Labels;
use crate::train::ndjson_rows::take_features;
use crate::train::source::Source;
use crate::train::table::{ColumnNames, RowFault, TableBuilder};
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

    /// The index of the label in `labels`.
    fn index_in(&self, labels: &mut Labels) -> Result<u32, RowFault> {
        match self {
            Label::Field(text) => labels.field(text),
            Label::Json(raw) => labels.json(raw),
        }
    }
}

/// The label of each message.
#[derive(Debug, Default)]
pub struct LabelsById {
    /// By messageId: the index of its label in `labels`, and whether a record had this
    /// id.
    by_id: HashMap<String, (u32, bool)>,
    /// All distinct labels.
    labels: Vec<Label>,
    /// The index in `labels`, by label.
    indices: HashMap<Label, u32>,
}

impl LabelsById {
    /// Reads a file of labels with the columns `messageId` and `target`: CSV with a
    /// header line if its name ends in `.csv`, else NDJSON. Both may be compressed
    /// (`.gz`).
    pub fn read(stage: &mut Stage, path: &str, target: &str) -> Result<LabelsById> {
        let plain = path.strip_suffix(".gz").unwrap_or(path);
        let mut labels = LabelsById::default();
        if plain.ends_with(".csv") {
            let file = RecordedFile::File(Path::new(path).to_owned()).open();
            let file = file.with_context(|| format!("{path}: cannot open"))?;
            labels.read_csv(path, target, file)?;
        } else {
            labels.read_ndjson(
                &mut Source::open(stage, &Address::from(path), false)?,
                target,
            )?;
        }
        if labels.by_id.is_empty() {
            bail!("{path}: has no label");
        }
        Ok(labels)
    }

    fn read_csv(&mut self, path: &str, target: &str, file: impl std::io::Read) -> Result<()> {
        let mut reader = ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
        let header = reader
            .headers()
            .with_context(|| format!("{path}: cannot read"))?;
        let header = header.clone();
        let find = |name: &str| {
            let found = header
                .iter()
                .position(|column| column.trim_start_matches('\u{feff}') == name);
            found.ok_or_else(|| {
                let columns: Vec<&str> = header.iter().take(20).collect();
                anyhow!(
                    "{path}: has no column {}; its columns are {}",
                    shown(name),
                    columns.join(", ")
                )
            })
        };
        let (id, label) = (find(ID_COLUMN)?, find(target)?);
        for record in reader.records() {
            let record = record.with_context(|| format!("{path}: cannot read"))?;
            let line = record.position().map_or(0, csv::Position::line);
            let field = |column: usize| record.get(column).unwrap_or_default();
            let added = match (field(id), field(label)) {
                ("", _) => Err(format!("column {} is empty", shown(ID_COLUMN))),
                // The label is unknown or not yet known.
                (_, "") => Ok(()),
                (id, label) => self.add(id, Label::Field(label.to_owned())),
            };
            added.map_err(|fault| anyhow!("{path}:{line}: {fault}"))?;
        }
        Ok(())
    }

    fn read_ndjson(&mut self, source: &mut Source, target: &str) -> Result<()> {
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
                    Some("null") => Ok(()),
                    Some(raw) => self.add(&id, Label::Json(raw.to_owned())),
                }
            });
            added.map_err(|fault| {
                anyhow!(
                    "{}:{}: {fault} (a file of labels is NDJSON, unless its name ends in .csv)",
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

    /// The label of a message, if it has one, and whether an earlier record had this
    /// id.
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
    /// Records whose id an earlier record had.
    repeated: u64,
}

/// Reads all records that have a label into `builder`. Returns a summary for the
/// user.
pub fn read(
    source: &mut Source,
    columns: &ColumnNames,
    labels: &mut LabelsById,
    builder: &mut TableBuilder,
) -> Result<String> {
    if let Some(features) = &columns.features {
        builder.set_features(features.clone());
    }
    let mut counts = JoinCounts::default();
    let mut row = Vec::new();
    while source.advance()? {
        let line = source.line();
        let record = match line.record() {
            Ok(None) => continue,
            Ok(Some(record)) => record,
            Err(reject) => {
                builder.left_out += 1;
                source.leave_out_line(&reject)?;
                continue;
            }
        };
        counts.records += 1;
        let outcome = Record::parse(record)
            .map_err(String::from)
            .and_then(|record| take_record(&record, labels, &mut row, builder, &mut counts));
        if let Err(fault) = outcome {
            let reject = Reject::Row(format!("record {}: {fault}", counts.records));
            source.leave_out_line(&reject)?;
            builder.left_out += 1;
        }
        if let Some(fault) = builder.fault() {
            bail!("{}: {fault}", source.name());
        }
    }
    let JoinCounts {
        records,
        rows,
        unlabelled,
        repeated,
    } = counts;
    if rows == 0 && builder.left_out == 0 {
        bail!(
            "{}: none of its {records} records has a label; labels are joined by {}",
            source.name(),
            shown(ID_COLUMN)
        );
    }
    Ok(format!(
        "{rows} of {records} records have labels, {unlabelled} have none, {repeated} are repeated; \
         {} labels have no record",
        labels.unused()
    ))
}

/// Adds a record to the table if it has a label and is the first with its id. The error
/// is the reason why the record cannot be used.
fn take_record(
    record: &Record,
    labels: &mut LabelsById,
    row: &mut Vec<f64>,
    builder: &mut TableBuilder,
    counts: &mut JoinCounts,
) -> Result<(), RowFault> {
    let id = record.message_id()?;
    let input = record.model_input()?;
    let Some((label, is_repeated)) = labels.take(&id) else {
        counts.unlabelled += 1;
        return Ok(());
    };
    if is_repeated {
        counts.repeated += 1;
        return Ok(());
    }
    let object = Object::parse(input).map_err(|fault| format!("modelInput is {fault}"))?;
    if builder.features.is_empty() {
        builder.set_features(member_names(&object));
    }
    take_features(&object, row, builder)?;
    let label = label.index_in(&mut builder.labels)?;
    builder.push(counts.records, row, label);
    counts.rows += 1;
    Ok(())
}

/// The features if --features is not given: all members of the first input.
fn member_names(object: &Object) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for member in &object.members {
        let name = member.name().into_owned();
        // A name that occurs twice is reported when the row is read.
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
