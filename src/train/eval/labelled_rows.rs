//! Reads rows with labels. Each row becomes a `modelInput`, and its label becomes the
//! true answer.

use std::collections::{HashMap, HashSet};

use anyhow::{Result, bail};

use crate::model::feature::Feature;
use crate::model::features::FeatureReader;
use crate::stage::Stage;
use crate::stage::report::shown;
use crate::stream::address::Address;
use crate::train::answers::Truth;
use crate::train::args::TrainOptions;
use crate::train::eval::csv_cell::{with_point, write_input};
use crate::train::eval::labels::{Label, Truths};
use crate::train::eval::row::{CsvHeader, Row, RowForm, each_row, format_of};
use crate::train::make::{HeldOutFile, Prepared};
use crate::train::source::{Format, Source};
use crate::train::table::{Rows, Table};
use crate::wire::object::decode_string;

/// The member of ids in records and in files of labels.
const ID: &str = "messageId";

/// Which rows are read, and what is read from each of them.
#[derive(Clone, Copy, Debug)]
pub struct LabelledRows<'a> {
    /// The features of the model.
    pub features: &'a [Feature],
    /// The column of the labels.
    pub target: &'a str,
    /// What the labels mean.
    pub truths: &'a Truths,
    /// The format of the rows; detected if `None`.
    pub format: Option<Format>,
    /// The file of labels, if the rows are recorded requests.
    pub labels: Option<&'a str>,
    /// Whether a row that cannot be used is left out. Otherwise it ends the reading.
    pub skip_bad_rows: bool,
    /// The separator of CSV fields; guessed from the header if `None`.
    pub delimiter: Option<u8>,
    /// Whether numbers in CSV have a decimal comma.
    pub decimal_comma: bool,
}

/// The rows by their outcome.
#[derive(Clone, Debug, Default)]
pub struct RowCounts {
    /// All rows, with and without a label.
    pub rows: u64,
    /// Rows without a label.
    pub unlabelled: u64,
    /// Recorded requests with a label and with the id of an earlier request.
    pub repeated: u64,
    /// Rows that could not be used.
    pub left_out: u64,
    /// The SHA-256 of the bytes of the rows.
    pub sha256: Option<String>,
}

impl LabelledRows<'_> {
    /// Calls `visit` with the `modelInput` and the truth of each row that has a label. An
    /// error of `visit` is the reason why the row cannot be used.
    pub fn read(
        &self,
        stage: &mut Stage,
        data: &Address,
        mut visit: impl FnMut(&str, Truth) -> Result<(), String>,
    ) -> Result<RowCounts> {
        let labels = match self.labels {
            Some(path) => Some(read_labels(stage, path, self.target)?),
            None => None,
        };
        let mut source = Source::open(stage, data, self.skip_bad_rows)?;
        let path = data.as_str().to_owned();
        let format = match self.labels {
            Some(_) => Format::Ndjson,
            None => format_of(&mut source, self.format, &path)?,
        };
        let mut counts = RowCounts::default();
        let mut text = Vec::new();
        let mut seen = HashSet::new();
        let form = RowForm {
            format,
            path: &path,
            delimiter: self.delimiter,
            required: &[self.target],
        };
        let left_out = each_row(&mut source, &form, |row| {
            counts.rows += 1;
            let truth = self.truth(labels.as_ref(), row)?;
            let Some(truth) = truth else {
                counts.unlabelled += 1;
                return Ok(());
            };
            match row {
                Row::Json(record) if labels.is_some() => {
                    // As in training, the first record with an id counts.
                    if record.get(ID).is_some_and(|id| !seen.insert(id.to_owned())) {
                        counts.repeated += 1;
                        return Ok(());
                    }
                    let input = record.get("modelInput");
                    visit(input.ok_or("field \"modelInput\" is missing")?, truth)
                }
                Row::Json(object) => visit(object.text(), truth),
                Row::Csv(header, record) => {
                    text.clear();
                    self.write_input(&mut text, header, record);
                    let input = std::str::from_utf8(&text).map_err(|fault| fault.to_string())?;
                    visit(input, truth)
                }
            }
        })?;
        counts.left_out = left_out;
        counts.sha256 = Some(source.sha256());
        Ok(counts)
    }

    /// What the label of a row means; `None` if it has none.
    fn truth(
        &self,
        labels: Option<&HashMap<String, Label>>,
        row: &Row,
    ) -> Result<Option<Truth>, String> {
        let label = match (labels, row) {
            (Some(labels), Row::Json(record)) => {
                let id = record.get(ID).and_then(decode_string);
                let id = id.ok_or("field \"messageId\" is missing or not a string")?;
                labels.get(&*id).cloned()
            }
            _ => row.label(self.target),
        };
        match label {
            Some(Label::Field(text)) if self.decimal_comma && self.truths.are_numbers() => {
                self.truths.of(&Label::Field(with_point(&text)))
            }
            Some(label) => self.truths.of(&label),
            None => Ok(None),
        }
    }

    fn write_input(&self, out: &mut Vec<u8>, header: &CsvHeader, record: &csv::ByteRecord) {
        let features = self.features.iter();
        let fields = features.map(|feature| (feature, header.field(record, &feature.name)));
        write_input(out, self.decimal_comma, fields);
    }
}

/// Reads a file of labels: CSV if its name says so, else NDJSON.
fn read_labels(stage: &mut Stage, path: &str, target: &str) -> Result<HashMap<String, Label>> {
    let format = Format::of_path(path).unwrap_or(Format::Ndjson);
    let mut source = Source::open(stage, &Address::from(path), false)?;
    let mut labels: HashMap<String, Label> = HashMap::new();
    let form = RowForm {
        format,
        path,
        delimiter: None,
        required: &[ID, target],
    };
    each_row(&mut source, &form, |row| {
        let id = match row.label(ID) {
            Some(Label::Field(id)) if !id.is_empty() => id,
            Some(Label::Json(raw)) => match decode_string(&raw) {
                Some(id) => id.into_owned(),
                None => return Err("field \"messageId\" is not a string".to_owned()),
            },
            _ => return Err("\"messageId\" is missing".to_owned()),
        };
        let Some(label) = row.label(target) else {
            return Err(format!("field {} is missing", shown(target)));
        };
        match labels.insert(id.clone(), label.clone()) {
            Some(earlier) if earlier != label => {
                Err(format!("message {} has two different labels", shown(&id)))
            }
            _ => Ok(()),
        }
    })?;
    if labels.is_empty() {
        bail!("{path}: has no label");
    }
    Ok(labels)
}

/// Reads the rows of the file of `--holdout-file`, as the trained model will read them.
pub fn read_held_out(
    stage: &mut Stage,
    address: &Address,
    options: &TrainOptions,
    prepared: &Prepared,
    table: &Table,
) -> Result<HeldOutFile> {
    let labels: Vec<&str> = table.classes.iter().map(String::as_str).collect();
    let truths = Truths::new(&labels);
    let reader = FeatureReader::new(prepared.features.clone(), false);
    let mut rows = Rows {
        width: prepared.features.len(),
        ..Rows::default()
    };
    let mut row = Vec::new();
    let labelled = LabelledRows {
        features: &prepared.features,
        target: &options.table.columns.target,
        truths: &truths,
        format: None,
        labels: None,
        skip_bad_rows: options.table.skip_bad_rows,
        delimiter: options.table.delimiter,
        decimal_comma: options.table.decimal_comma,
    };
    let counts = labelled.read(stage, address, |model_input, truth| {
        reader.read(model_input, &mut row)?;
        rows.values.extend_from_slice(&row);
        match truth {
            Truth::Class(class) => rows.class_of.push(class as u32),
            Truth::Number(number) => rows.targets.push(number),
        }
        Ok(())
    })?;
    if rows.is_empty() {
        bail!(
            "{}: has no row with a label that can be used, for --holdout-file",
            address.as_str()
        );
    }
    Ok(HeldOutFile {
        rows,
        sha256: counts.sha256,
    })
}
