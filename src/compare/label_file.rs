//! Reads the true labels: CSV with a header, or NDJSON.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasherDefault;

use anyhow::{Result, bail};
use csv::{ReaderBuilder, StringRecord, Trim};

use crate::join::request_id::{KeepHash, RECORDING_SEED, hash_id};
use crate::stage::Stage;
use crate::stage::recording::Recording;
use crate::stream::address::Address;
use crate::wire::answer::canonical;
use crate::wire::object::{Object, decode_string};
use crate::wire::reject::Reject;

/// The number of a label that two lines contradict each other about.
const CONFLICT: u32 = u32::MAX;

/// The true labels by the id of their request. An id takes about 20 bytes.
#[derive(Debug, Default)]
pub struct Labels {
    by_id: HashMap<u64, u32, BuildHasherDefault<KeepHash>>,
    texts: Vec<String>,
    numbers: HashMap<String, u32>,
    /// Whether the texts have no type, so that they take the type of the results.
    is_csv: bool,
    /// Labels that were given more than once with the same value.
    pub repeated: u64,
    /// Ids for which two lines gave different labels. These ids have no label.
    pub conflicting: u64,
}

/// The columns, or fields, of a file of labels.
#[derive(Clone, Debug)]
pub struct LabelSource {
    /// The file.
    pub address: Address,
    /// The column of the label.
    pub column: String,
    /// The largest number of labels.
    pub labels_max: usize,
}

impl Labels {
    /// Reads all labels. Lines that are wrong are set aside.
    pub fn read(source: &LabelSource, stage: &mut Stage) -> Result<Labels> {
        let mut labels = Labels::default();
        let mut recording = Recording::open(&source.address, stage)?;
        let mut columns: Option<(usize, usize)> = None;
        let mut is_first = true;
        loop {
            let Some((line, name)) = recording.next_line(stage)? else {
                break;
            };
            let bytes = match line.record() {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(reject) => {
                    stage.report.reject(name, &line, &reject)?;
                    continue;
                }
            };
            let text = String::from_utf8_lossy(bytes);
            if std::mem::take(&mut is_first) && !text.trim_start().starts_with('{') {
                columns = match header(&text, &source.column) {
                    Some(columns) => Some(columns),
                    None => bail!(
                        "{name}: has no columns \"messageId\" and {:?} in its first line; name the \
                         column of the labels with --label-column, or give NDJSON",
                        source.column
                    ),
                };
                labels.is_csv = true;
                continue;
            }
            let added = match columns {
                Some(columns) => labels.add_row(&text, columns),
                None => labels.add_record(bytes, &source.column),
            };
            if let Err(reject) = added {
                stage.report.reject(name, &line, &reject)?;
            }
            if labels.by_id.len() > source.labels_max {
                bail!(
                    "{name}: has more than {} labels; raise --labels-max, which bounds the memory",
                    source.labels_max
                );
            }
        }
        Ok(labels)
    }

    fn add_row(&mut self, text: &str, (id, label): (usize, usize)) -> Result<(), Reject> {
        let row = columns_of(text).ok_or_else(|| Reject::Row("is not a row of CSV".to_owned()))?;
        match (row.get(id), row.get(label)) {
            (Some(id), Some(label)) if !id.is_empty() && !label.is_empty() => self.add(id, label),
            _ => Err(Reject::Row("the id or the label is missing".to_owned())),
        }
    }

    fn add_record(&mut self, bytes: &[u8], column: &str) -> Result<(), Reject> {
        let text = std::str::from_utf8(bytes).map_err(Reject::not_utf8)?;
        let object = Object::parse(text).map_err(Reject::Syntax)?;
        let id = object.get("messageId").and_then(decode_string);
        let id =
            id.ok_or_else(|| Reject::Field("field \"messageId\" is not a string".to_owned()))?;
        let label = object
            .get(column)
            .ok_or_else(|| Reject::Field(format!("field {column:?} is missing")))?;
        self.add(&id, &canonical(label))
    }

    fn add(&mut self, id: &str, label: &str) -> Result<(), Reject> {
        let number = match self.numbers.get(label) {
            Some(number) => *number,
            None => {
                let number = self.texts.len() as u32;
                self.texts.push(label.to_owned());
                self.numbers.insert(label.to_owned(), number);
                number
            }
        };
        match self.by_id.entry(hash_id(id, RECORDING_SEED)) {
            Entry::Vacant(place) => {
                place.insert(number);
                Ok(())
            }
            Entry::Occupied(place) if *place.get() == number => {
                self.repeated += 1;
                Ok(())
            }
            Entry::Occupied(mut place) => {
                self.conflicting += u64::from(place.insert(CONFLICT) != CONFLICT);
                let fault = "the id has two different labels; neither is used".to_owned();
                Err(Reject::Row(fault))
            }
        }
    }

    /// The number of ids with a label.
    pub fn len(&self) -> usize {
        self.by_id.len() - self.conflicting as usize
    }

    /// The label of a request as canonical JSON. A label of a CSV file takes the type of
    /// `answer`, a model's answer to the request.
    pub fn label(&self, id: &str, answer: &str) -> Option<Cow<'_, str>> {
        let number = self.by_id.get(&hash_id(id, RECORDING_SEED))?;
        let text = self.texts.get(*number as usize)?;
        if !self.is_csv {
            return Some(Cow::Borrowed(text));
        }
        let is_value = || serde_json::from_str::<serde_json::Value>(text).is_ok();
        if answer.starts_with('"') || !is_value() {
            return Some(Cow::Owned(
                serde_json::Value::from(text.as_str()).to_string(),
            ));
        }
        Some(canonical(text))
    }
}

/// The indices of the columns of the id and of the label.
fn header(line: &str, label: &str) -> Option<(usize, usize)> {
    let row = columns_of(line.trim_start_matches('\u{feff}'))?;
    let place = |name: &str| row.iter().position(|column| column == name);
    Some((place("messageId")?, place(label)?))
}

/// The columns of one line of CSV.
fn columns_of(line: &str) -> Option<StringRecord> {
    if !line.contains('"') {
        return Some(line.split(',').map(str::trim).collect());
    }
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .trim(Trim::All)
        .from_reader(line.as_bytes());
    let mut row = StringRecord::new();
    matches!(reader.read_record(&mut row), Ok(true)).then_some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_csv_takes_the_type_of_the_results() {
        let mut labels = Labels {
            is_csv: true,
            ..Labels::default()
        };
        labels.add_row("a,1.0", (0, 1)).unwrap();
        labels.add_row("\"b,x\",\"yes, no\"", (0, 1)).unwrap();
        assert_eq!(labels.label("a", "2").unwrap(), "1");
        assert_eq!(labels.label("a", "\"2\"").unwrap(), "\"1.0\"");
        assert_eq!(labels.label("b,x", "2").unwrap(), "\"yes, no\"");
        assert!(labels.label("c", "2").is_none());
        assert!(labels.add_row("d", (0, 1)).is_err());
        assert_eq!(header("label,messageId", "label"), Some((1, 0)));
        assert_eq!(header("label,id", "label"), None);
    }

    #[test]
    fn the_same_label_counts_once_and_a_conflict_leaves_none() {
        let mut labels = Labels::default();
        labels
            .add_record(br#"{"messageId":"a","label":1}"#, "label")
            .unwrap();
        labels
            .add_record(br#"{"messageId":"\u0061","label":1.0}"#, "label")
            .unwrap();
        assert_eq!((labels.repeated, labels.len()), (1, 1));
        assert!(
            labels
                .add_record(br#"{"messageId":"a","label":2}"#, "label")
                .is_err()
        );
        assert!(
            labels
                .add_record(br#"{"messageId":"a","label":1}"#, "label")
                .is_err()
        );
        assert!(labels.label("a", "1").is_none());
        assert_eq!((labels.conflicting, labels.len()), (1, 0));
    }
}
