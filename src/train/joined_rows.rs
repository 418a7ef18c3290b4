//! Recorded requests and labels -> rows: what a model saw, joined by `messageId`
//! with what turned out to be true.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use csv::ReaderBuilder;

use crate::stage::Stage;
use crate::stage::report::shown;
use crate::train::label::Labels;
use crate::train::ndjson_rows::take_features;
use crate::train::source::{Source, Wanted};
use crate::train::table::{Builder, Fault};
use crate::wire::message::Record;
use crate::wire::object::{Object, decode_string};
use crate::wire::recording::RecordedFile;

/// The column of the ids, in a file of labels.
const ID: &str = "messageId";

/// A label as its file has it.
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

    /// Its number among the labels of a table.
    fn enter(&self, labels: &mut Labels) -> Result<u32, Fault> {
        match self {
            Label::Field(text) => labels.field(text),
            Label::Json(raw) => labels.json(raw),
        }
    }
}

/// The labels of messages.
#[derive(Debug, Default)]
pub struct LabelsById {
    /// By id, the place of its label in `texts`, and whether a record had the id.
    by_id: HashMap<String, (u32, bool)>,
    /// Each label once.
    texts: Vec<Label>,
    places: HashMap<Label, u32>,
}

impl LabelsById {
    /// Reads a file with a `messageId` and a `target` a line: CSV under a line of
    /// names, or NDJSON; compressed where its name ends in `.gz`.
    pub fn read(stage: &mut Stage, path: &str, target: &str) -> Result<LabelsById> {
        let plain = path.strip_suffix(".gz").unwrap_or(path);
        let mut labels = LabelsById::default();
        if plain.ends_with(".csv") {
            let file = RecordedFile::File(Path::new(path).to_owned()).open()?;
            labels.read_csv(path, target, file)?;
        } else {
            labels.read_ndjson(&mut Source::open(stage, path, false)?, target)?;
        }
        if labels.by_id.is_empty() {
            bail!("{path}: there is no label in it");
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
                    "{path}: there is no column {}; the columns are {}",
                    shown(name),
                    columns.join(", ")
                )
            })
        };
        let (id, label) = (find(ID)?, find(target)?);
        for record in reader.records() {
            let record = record.with_context(|| format!("{path}: cannot read"))?;
            let line = record.position().map_or(0, csv::Position::line);
            let field = |column: usize| record.get(column).unwrap_or_default();
            let added = match (field(id), field(label)) {
                ("", _) => Err(format!("column {} is empty", shown(ID))),
                // Not known yet, or not known at all.
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
            let Some(record) = line.record() else {
                continue;
            };
            let text = std::str::from_utf8(record).map_err(|_| "not UTF-8".to_owned());
            let added = text.and_then(Object::parse).and_then(|object| {
                let id = object.get(ID).and_then(decode_string);
                let id =
                    id.ok_or_else(|| format!("field {} is missing or no string", shown(ID)))?;
                match object.get(target) {
                    None => Err(format!("field {} is missing", shown(target))),
                    // Not known yet, or not known at all.
                    Some("null") => Ok(()),
                    Some(raw) => self.add(&id, Label::Json(raw.to_owned())),
                }
            });
            added.map_err(|fault| {
                anyhow!(
                    "{}:{}: {fault} (a file of labels is NDJSON, or CSV where its name ends in .csv)",
                    source.name(),
                    line.number
                )
            })?;
        }
        Ok(())
    }

    fn add(&mut self, id: &str, label: Label) -> Result<(), Fault> {
        let next = self.texts.len() as u32;
        let place = *self.places.entry(label.clone()).or_insert(next);
        if place == next {
            self.texts.push(label);
        }
        match self.by_id.insert(id.to_owned(), (place, false)) {
            Some((earlier, _)) if earlier != place => Err(format!(
                "message {} is labelled twice, as {} and as {}",
                shown(id),
                shown(self.texts[earlier as usize].text()),
                shown(self.texts[place as usize].text())
            )),
            _ => Ok(()),
        }
    }

    /// The label of a message, where it has one; and whether a record with this id
    /// was there before.
    fn take(&mut self, id: &str) -> Option<(Label, bool)> {
        let (place, seen) = self.by_id.get_mut(id)?;
        let repeated = std::mem::replace(seen, true);
        Some((self.texts[*place as usize].clone(), repeated))
    }

    fn unused(&self) -> usize {
        self.by_id.values().filter(|(_, seen)| !seen).count()
    }
}

/// Reads all records that have labels into `builder`. Returns what became of the
/// others, in words.
pub fn read(
    source: &mut Source,
    wanted: &Wanted,
    labels: &mut LabelsById,
    builder: &mut Builder,
) -> Result<String> {
    if let Some(features) = &wanted.features {
        builder.set_features(features.clone());
    }
    let (mut records, mut rows, mut unlabelled, mut repeated) = (0u64, 0u64, 0u64, 0u64);
    let mut row = Vec::new();
    while source.advance()? {
        let line = source.line();
        if line.oversized.is_some() {
            builder.left_out += 1;
            source.leave_out_line("the line is longer than --max-line-bytes")?;
            continue;
        }
        let Some(record) = line.record() else {
            continue;
        };
        records += 1;
        let outcome = Record::parse(record).and_then(|record| {
            let id = record.message_id()?;
            let input = record.model_input()?;
            let Some((label, seen)) = labels.take(&id) else {
                unlabelled += 1;
                return Ok(());
            };
            if seen {
                repeated += 1;
                return Ok(());
            }
            let object = Object::parse(input).map_err(|fault| format!("modelInput is {fault}"))?;
            if builder.features.is_empty() {
                builder.set_features(names(&object));
            }
            take_features(&object, &mut row, builder)?;
            let label = label.enter(&mut builder.labels)?;
            builder.push(records, &row, label);
            rows += 1;
            Ok(())
        });
        if let Err(fault) = outcome {
            source.leave_out_line(&format!("record {records}: {fault}"))?;
            builder.left_out += 1;
        }
        if let Some(fault) = builder.fault() {
            bail!("{}: {fault}", source.name());
        }
    }
    if rows == 0 && builder.left_out == 0 {
        bail!(
            "{}: none of its {records} records has a label; labels are joined by {}",
            source.name(),
            shown(ID)
        );
    }
    Ok(format!(
        "{rows} of {records} records have labels, {unlabelled} have none, {repeated} came again; \
         {} labels have no record",
        labels.unused()
    ))
}

/// The features where none are named: all members of the first input.
fn names(object: &Object) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for member in &object.members {
        let name = member.name().into_owned();
        // A name that stands there twice is a fault of the row.
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
