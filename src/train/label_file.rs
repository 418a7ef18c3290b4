//! Reads a file of labels: the label of each message, by its `messageId`.

use std::collections::HashMap;

use anyhow::{Result, anyhow, bail};

use crate::stage::Stage;
use crate::stage::report::shown;
use crate::stream::address::Address;
use crate::train::cell::{CellKind, CellSyntax};
use crate::train::columns::{Origin, ROWS_MAX};
use crate::train::csv_header::{self, Header};
use crate::train::csv_text::CsvRecords;
use crate::train::fields::kind_of_json;
use crate::train::source::{Format, Source};
use crate::train::syntax_args::RowSyntax;
use crate::train::table::RowFault;
use crate::wire::answer::canonical;
use crate::wire::object::{Object, decode_string};
use crate::wire::reject::Reject;

/// The column of ids in a file of labels.
pub const ID_COLUMN: &str = "messageId";

/// The largest number of messages in a file of labels: as many as a table has rows.
const LABELS_MAX: usize = ROWS_MAX;

/// A label, as written in its file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Label {
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

    /// Whether two labels are equal. A number, and a text in JSON, can be written in
    /// several ways.
    fn is_same(&self, other: &Label, syntax: &CellSyntax) -> bool {
        const EXACT_MAX: f64 = (1u64 << 53) as f64;
        let number = |text: &str| {
            let (_, value) = syntax.of_field(text);
            (value.abs() < EXACT_MAX).then_some(value)
        };
        match (self, other) {
            _ if self == other => true,
            (Label::Field(one), Label::Field(other)) => {
                number(one).is_some_and(|value| number(other) == Some(value))
            }
            (Label::Json(one), Label::Json(other)) => canonical(one) == canonical(other),
            _ => false,
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
    is_csv: bool,
}

impl LabelsById {
    /// Reads a file of labels with the columns `messageId` and the target: CSV with a
    /// header line if its name ends in `.csv` or `.tsv`, else NDJSON. Both may be
    /// compressed (`.gz`). A line without a label is no fault.
    pub fn read(
        stage: &mut Stage,
        path: &str,
        target: &str,
        syntax: &RowSyntax,
    ) -> Result<LabelsById> {
        let mut labels = LabelsById {
            is_csv: Format::of_path(path) == Some(Format::Csv),
            ..LabelsById::default()
        };
        let mut source = Source::open(stage, &Address::from(path), false)?;
        source.check_encoding()?;
        match labels.is_csv {
            true => labels.read_csv(&mut source, path, target, syntax)?,
            false => labels.read_ndjson(&mut source, target, &syntax.cells)?,
        }
        if labels.by_id.is_empty() {
            bail!("{path}: has no label");
        }
        Ok(labels)
    }

    /// The origin of a table with these labels.
    pub fn origin(&self) -> Origin {
        Origin::Joined {
            csv_labels: self.is_csv,
        }
    }

    fn read_csv(
        &mut self,
        source: &mut Source,
        path: &str,
        target: &str,
        syntax: &RowSyntax,
    ) -> Result<()> {
        let delimiter = csv_header::delimiter(source, syntax.delimiter, path)?;
        let mut records = CsvRecords::new(source, delimiter);
        let header = Header::read(&mut records, path)?;
        let find = |name: &str| {
            let position = header.position(name, None);
            position.map_err(|fault| anyhow!("{path}: {fault}"))
        };
        let (id, label) = (find(ID_COLUMN)?, find(target)?);
        while records.advance()? {
            let text = |column: usize, name: &str| {
                let field = records.record.get(column).unwrap_or_default();
                let text = std::str::from_utf8(field);
                text.map_err(|_| format!("column {} is not UTF-8", shown(name)))
            };
            let row = text(id, ID_COLUMN).and_then(|id| {
                let label = text(label, target)?;
                Ok((id.to_owned(), label.to_owned()))
            });
            let added = row.and_then(|(id, label)| match id.is_empty() {
                true => Err(format!("column {} is empty", shown(ID_COLUMN))),
                // The label is unknown or not yet known.
                false if syntax.cells.of_field(&label).0 == CellKind::Missing => Ok(()),
                false => self.add(&id, Label::Field(label), &syntax.cells),
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
                    Some(raw) => self.add(&id, Label::Json(raw.to_owned()), syntax),
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

    fn add(&mut self, id: &str, label: Label, syntax: &CellSyntax) -> Result<(), RowFault> {
        let next = self.labels.len() as u32;
        let index = *self.indices.entry(label.clone()).or_insert(next);
        if index == next {
            self.labels.push(label);
        }
        let Some((earlier, _)) = self.by_id.insert(id.to_owned(), (index, false)) else {
            return match self.by_id.len() > LABELS_MAX {
                true => Err(format!("there are more than {LABELS_MAX} labels")),
                false => Ok(()),
            };
        };
        let (earlier, later) = (&self.labels[earlier as usize], &self.labels[index as usize]);
        match earlier.is_same(later, syntax) {
            true => Ok(()),
            false => Err(format!(
                "message {} has two labels, {} and {}",
                shown(id),
                shown(earlier.text()),
                shown(later.text())
            )),
        }
    }

    /// The label of a message, if it has one, and whether an earlier record had the
    /// same id.
    pub fn take(&mut self, id: &str) -> Option<(Label, bool)> {
        let (index, seen) = self.by_id.get_mut(id)?;
        let repeated = std::mem::replace(seen, true);
        Some((self.labels[*index as usize].clone(), repeated))
    }

    /// The number of labels without a record.
    pub fn unused(&self) -> usize {
        self.by_id.values().filter(|(_, seen)| !seen).count()
    }
}
