//! Reads the true labels: CSV with a header, or NDJSON.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasherDefault;

use anyhow::{Result, bail};
use csv::{ReaderBuilder, StringRecord, Trim};

use crate::compare::label_texts::{LabelTexts, grown_bytes};
use crate::compare::late_labels::Ids;
use crate::join::remembered_ids::RememberedIds;
use crate::join::request_id::{KeepHash, RECORDING_SEED, hash_id};
use crate::stage::Stage;
use crate::stage::recording::Recording;
use crate::stream::address::Address;
use crate::wire::answer::{canonical, is_same, number};
use crate::wire::lines::Line;
use crate::wire::object::{Object, decode_string};
use crate::wire::reject::Reject;

/// The number of a label that two lines contradict each other about.
const CONFLICT: u32 = u32::MAX;

/// The longest label, in bytes. Longer ones are rejected.
const LABEL_BYTES_MAX: usize = 64 * 1024;

/// The number of remembered ids whose label was taken.
const TAKEN_MAX: usize = 1_000_000;

/// A label of one request, in eight bytes.
#[derive(Clone, Copy, Debug)]
struct LabelEntry {
    /// The number of its text.
    text: u32,
    weight: f32,
}

/// The true labels by the id of their request, in bounded memory.
#[derive(Debug)]
pub struct Labels {
    by_id: HashMap<u64, LabelEntry, BuildHasherDefault<KeepHash>>,
    texts: LabelTexts,
    form: Option<LabelForm>,
    source: LabelSource,
    /// Whether labels come while the records do. Those that find no room are then set
    /// aside.
    is_live: bool,
    /// The ids whose label was taken, so that a repeated one does not count again.
    taken: RememberedIds,
    /// Labels that found no room.
    pub dropped: u64,
    /// Labels that were given more than once with the same value.
    pub repeated: u64,
    /// Ids for which two lines gave different labels. These ids have no label.
    pub conflicting: u64,
    /// Lines whose label is null or empty.
    pub without_label: u64,
}

/// The form of a file of labels.
#[derive(Clone, Copy, Debug)]
enum LabelForm {
    /// CSV, with the indices of its columns. The texts have no type, so that they take
    /// the type of the results.
    Csv {
        id: usize,
        label: usize,
        weight: Option<usize>,
    },
    Ndjson,
}

/// The columns, or fields, of a file of labels.
#[derive(Clone, Debug)]
pub struct LabelSource {
    /// The file.
    pub address: Address,
    /// The column of the label.
    pub column: String,
    /// The column of the weight, if labels have one.
    pub weight: Option<String>,
    /// The most memory for labels, in bytes.
    pub bytes_max: usize,
}

/// The label of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// The label, as JSON text.
    pub text: String,
    /// How many requests the label stands for; 1 without weights.
    pub weight: f64,
}

impl Labels {
    /// Starts without a label.
    pub fn new(source: &LabelSource) -> Labels {
        Labels {
            by_id: HashMap::default(),
            texts: LabelTexts::default(),
            form: None,
            source: source.clone(),
            is_live: false,
            taken: RememberedIds::new(TAKEN_MAX, RECORDING_SEED),
            dropped: 0,
            repeated: 0,
            conflicting: 0,
            without_label: 0,
        }
    }

    /// Starts without a label. The labels come while the records do.
    pub fn live(source: &LabelSource) -> Labels {
        Labels {
            is_live: true,
            ..Labels::new(source)
        }
    }

    /// The ids with a label that was not taken.
    pub fn ids(&self) -> Ids {
        let known = self
            .by_id
            .iter()
            .filter(|(_, label)| label.text != CONFLICT);
        known.map(|(id, _)| *id).collect()
    }

    /// Reads all labels. Lines that are wrong are set aside.
    pub fn read(source: &LabelSource, stage: &mut Stage) -> Result<Labels> {
        let mut labels = Labels::new(source);
        let mut recording = Recording::open(&source.address, stage)?;
        while let Some((line, name)) = recording.next_line(stage)? {
            if let Err(reject) = labels.add_line(&line, name)? {
                stage.report.reject(name, &line, &reject)?;
            }
        }
        Ok(labels)
    }

    /// Adds the label of a line. The inner error is a line that is wrong. The first line
    /// tells the form of the file.
    pub fn add_line(&mut self, line: &Line, name: &str) -> Result<Result<(), Reject>> {
        let bytes = match line.record() {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Ok(())),
            Err(reject) => return Ok(Err(reject)),
        };
        let text = String::from_utf8_lossy(bytes);
        let Some(form) = self.form else {
            if text.trim_start().starts_with('{') {
                self.form = Some(LabelForm::Ndjson);
                return self.add_record(bytes, name);
            }
            self.form = header(&text, &self.source);
            if self.form.is_none() {
                let weight = self.source.weight.iter().map(|it| format!(", {it:?}"));
                bail!(
                    "{name}: has no columns \"messageId\", {:?}{} in its first line; name the \
                     column of the labels with --label-column, or give NDJSON",
                    self.source.column,
                    weight.collect::<String>()
                );
            }
            return Ok(Ok(()));
        };
        match form {
            LabelForm::Csv { id, label, weight } => self.add_row(&text, (id, label, weight), name),
            LabelForm::Ndjson => self.add_record(bytes, name),
        }
    }

    fn add_row(
        &mut self,
        text: &str,
        (id, label, weight): (usize, usize, Option<usize>),
        name: &str,
    ) -> Result<Result<(), Reject>> {
        let Some(row) = columns_of(text) else {
            return Ok(Err(Reject::Row("is not a row of CSV".to_owned())));
        };
        let weight = match weight {
            Some(weight) => parse_weight(row.get(weight)),
            None => Some(1.0),
        };
        match (row.get(id), row.get(label), weight) {
            (Some(id), Some(""), _) if !id.is_empty() => {
                self.without_label += 1;
                Ok(Ok(()))
            }
            (Some(id), Some(label), Some(weight)) if !id.is_empty() => {
                self.add(id, label, weight, name)
            }
            (_, _, None) => Ok(Err(Reject::Row(
                "the weight is not a number above 0".to_owned(),
            ))),
            _ => Ok(Err(Reject::Row(
                "the id or the label is missing".to_owned(),
            ))),
        }
    }

    fn add_record(&mut self, bytes: &[u8], name: &str) -> Result<Result<(), Reject>> {
        let read = || -> Result<_, Reject> {
            let text = std::str::from_utf8(bytes).map_err(Reject::not_utf8)?;
            let object = Object::parse(text).map_err(Reject::Syntax)?;
            let field = |fault: String| Reject::Field(fault);
            let id = object.get("messageId").and_then(decode_string);
            let id = id.ok_or_else(|| field("field \"messageId\" is not a string".to_owned()))?;
            let column = &self.source.column;
            let label = object.get(column);
            let label = label.ok_or_else(|| field(format!("field {column:?} is missing")))?;
            let weight = match &self.source.weight {
                Some(column) => parse_weight(object.get(column))
                    .ok_or_else(|| field(format!("field {column:?} is not a number above 0")))?,
                None => 1.0,
            };
            Ok((id, label, weight))
        };
        match read() {
            Ok((_, "null", _)) => {
                self.without_label += 1;
                Ok(Ok(()))
            }
            Ok((id, label, weight)) => self.add(&id, &canonical(label), weight, name),
            Err(reject) => Ok(Err(reject)),
        }
    }

    fn add(
        &mut self,
        id: &str,
        label: &str,
        weight: f32,
        name: &str,
    ) -> Result<Result<(), Reject>> {
        if label.len() > LABEL_BYTES_MAX {
            let fault = format!("the label has more than {LABEL_BYTES_MAX} bytes");
            return Ok(Err(Reject::Row(fault)));
        }
        let grown = grown_bytes(&self.by_id) + self.texts.grown_bytes(label.len());
        if grown > self.source.bytes_max {
            if self.is_live {
                self.dropped += 1;
                let fault = "the labels that wait take more than --labels-max-bytes".to_owned();
                return Ok(Err(Reject::Row(fault)));
            }
            bail!(
                "{name}: the labels need more than {} bytes of memory; raise --labels-max-bytes, or \
                 give only the labels of the requests that are compared",
                self.source.bytes_max
            );
        }
        let hash = hash_id(id, RECORDING_SEED);
        if self.taken.contains_hash(hash) {
            self.repeated += 1;
            return Ok(Ok(()));
        }
        let text = self.texts.number(label);
        match self.by_id.entry(hash) {
            Entry::Vacant(place) => {
                place.insert(LabelEntry { text, weight });
                Ok(Ok(()))
            }
            Entry::Occupied(mut place) => {
                let earlier = place.get().text;
                let is_equal = earlier == text
                    || self
                        .texts
                        .get(earlier)
                        .is_some_and(|earlier| is_same(earlier, label));
                if is_equal {
                    self.repeated += 1;
                    return Ok(Ok(()));
                }
                place.get_mut().text = CONFLICT;
                self.conflicting += u64::from(earlier != CONFLICT);
                let fault = "the id has two different labels; neither is used".to_owned();
                Ok(Err(Reject::Row(fault)))
            }
        }
    }

    /// The number of ids with a label that was not taken.
    pub fn len(&self) -> usize {
        self.by_id.len() - self.conflicting as usize
    }

    /// The memory that the labels take, in bytes.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        crate::compare::label_texts::map_bytes(&self.by_id) + self.texts.bytes()
    }

    /// Takes the label of a request. A label of a CSV file takes the type of `answer`, a
    /// model's answer to the request.
    pub fn take(&mut self, id: &str, answer: &str) -> Option<Label> {
        let hash = hash_id(id, RECORDING_SEED);
        let entry = *self.by_id.get(&hash)?;
        // A label in conflict has no text, and stays.
        let text = self.texts.get(entry.text)?;
        let typed = self.typed(text, answer);
        self.by_id.remove(&hash);
        if self.is_live {
            self.taken.insert_hash(hash);
        }
        Some(Label {
            text: typed,
            weight: f64::from(entry.weight),
        })
    }

    /// Drops the label of a request for which it is of no use.
    pub fn forget(&mut self, id: &str) {
        let hash = hash_id(id, RECORDING_SEED);
        if self.by_id.get(&hash).is_some_and(|it| it.text != CONFLICT) {
            self.by_id.remove(&hash);
        }
    }

    fn typed(&self, text: &str, answer: &str) -> String {
        if !matches!(self.form, Some(LabelForm::Csv { .. })) {
            return text.to_owned();
        }
        let is_value = || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        match answer.starts_with('"') || !is_value() {
            true => serde_json::Value::from(text).to_string(),
            false => canonical(text).into_owned(),
        }
    }
}

fn parse_weight(text: Option<&str>) -> Option<f32> {
    let weight = text.and_then(number)? as f32;
    (weight > 0.0 && weight.is_finite()).then_some(weight)
}

/// The indices of the columns.
fn header(line: &str, source: &LabelSource) -> Option<LabelForm> {
    let row = columns_of(line.trim_start_matches('\u{feff}'))?;
    let place = |name: &str| row.iter().position(|column| column == name);
    let weight = match &source.weight {
        Some(weight) => Some(place(weight)?),
        None => None,
    };
    Some(LabelForm::Csv {
        id: place("messageId")?,
        label: place(&source.column)?,
        weight,
    })
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

    fn source(weight: Option<&str>, bytes_max: usize) -> LabelSource {
        LabelSource {
            address: Address::Standard,
            column: "label".to_owned(),
            weight: weight.map(str::to_owned),
            bytes_max,
        }
    }

    /// Adds lines, and returns whether each is good.
    fn add(labels: &mut Labels, lines: &[&str]) -> Vec<bool> {
        let mut all = crate::wire::lines::Lines::new(1 << 20);
        let text = lines.join("\n") + "\n";
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let read = |room: &mut [u8]| std::io::Read::read(&mut rest, room);
            all.fill(read).unwrap();
        }
        let mut good = Vec::new();
        while let Some(line) = all.next_line() {
            good.push(labels.add_line(&line, "labels").unwrap().is_ok());
        }
        good
    }

    #[test]
    fn a_label_of_csv_takes_the_type_of_the_results() {
        let mut labels = Labels::new(&source(None, 1 << 20));
        let lines = [
            "messageId,label",
            "a,1.0",
            "b,1.0",
            "\"c,x\",\"yes, no\"",
            "d",
        ];
        assert_eq!(add(&mut labels, &lines), [true, true, true, true, false]);
        let mut text = |id: &str, answer: &str| labels.take(id, answer).map(|it| it.text);
        assert_eq!(text("a", "2").unwrap(), "1");
        assert_eq!(text("a", "2"), None);
        assert_eq!(text("b", "\"2\"").unwrap(), "\"1.0\"");
        assert_eq!(text("c,x", "2").unwrap(), "\"yes, no\"");
        assert_eq!(text("e", "2"), None);
        let mut labels = Labels::new(&source(None, 1 << 20));
        let line = Line {
            number: 1,
            offset: 0,
            bytes: b"label,id",
            oversized: None,
        };
        assert!(labels.add_line(&line, "labels").is_err());
    }

    #[test]
    fn equal_values_are_one_label_and_a_conflict_leaves_none() {
        for lines in [
            &["messageId,label", "a,1", "a,1.0", "b,2", "b,3", "b,2", "c,"][..],
            &[
                r#"{"messageId":"a","label":1}"#,
                r#"{"messageId":"\u0061","label":1.0}"#,
                r#"{"messageId":"b","label":2}"#,
                r#"{"messageId":"b","label":3}"#,
                r#"{"messageId":"b","label":2}"#,
                r#"{"messageId":"c","label":null}"#,
            ],
        ] {
            let mut labels = Labels::new(&source(None, 1 << 20));
            let good = add(&mut labels, lines);
            let wrong: Vec<bool> = good[good.len() - 6..].to_vec();
            assert_eq!(wrong, [true, true, true, false, false, true], "{lines:?}");
            assert_eq!((labels.repeated, labels.len()), (1, 1));
            assert_eq!((labels.conflicting, labels.without_label), (1, 1));
            assert!(labels.take("b", "1").is_none() && labels.take("c", "1").is_none());
            assert_eq!(labels.take("a", "1").unwrap().text, "1");
        }
    }

    #[test]
    fn weights_are_read_and_checked() {
        let mut labels = Labels::new(&source(Some("w"), 1 << 20));
        let lines = ["w,messageId,label", "2.5,a,1", "0,b,1", "x,c,1", "1,d,1"];
        assert_eq!(add(&mut labels, &lines), [true, true, false, false, true]);
        assert_eq!(labels.take("a", "1").unwrap().weight, 2.5);
        let mut labels = Labels::new(&source(Some("w"), 1 << 20));
        let lines = [
            r#"{"messageId":"a","label":1,"w":4}"#,
            r#"{"messageId":"b","label":1}"#,
        ];
        assert_eq!(add(&mut labels, &lines), [true, false]);
        assert_eq!(labels.take("a", "1").unwrap().weight, 4.0);
    }

    #[test]
    fn the_memory_of_labels_is_bounded() {
        let mut labels = Labels::new(&source(None, 1 << 20));
        let long = format!("z,{}", "x".repeat(LABEL_BYTES_MAX + 1));
        assert_eq!(add(&mut labels, &["messageId,label", &long]), [true, false]);
        let mut most = 0;
        let outcome = (0..1_000_000).try_for_each(|number| {
            most = most.max(labels.bytes());
            let added = labels.add(&format!("r-{number}"), &number.to_string(), 1.0, "labels");
            added.map(|_| ())
        });
        let fault = outcome.unwrap_err().to_string();
        assert!(fault.contains("raise --labels-max-bytes"), "{fault}");
        labels.is_live = true;
        assert!(labels.add("more", "x", 1.0, "labels").unwrap().is_err());
        assert_eq!(labels.dropped, 1);
        assert!(most <= 1 << 20 && most > 1 << 18, "{most}");
        assert!(labels.len() > 5_000, "{}", labels.len());
    }

    #[test]
    fn a_label_takes_the_documented_memory() {
        let mut labels = Labels::new(&source(None, 1 << 30));
        for number in 0..1_000_000 {
            let label = (number % 3).to_string();
            let _ = labels
                .add(&format!("r-{number}"), &label, 1.0, "labels")
                .unwrap();
        }
        assert!(labels.bytes() < 40_000_000, "{}", labels.bytes());
    }
}
