//! Reads rows with labels. Each row becomes a `modelInput`, and its label becomes the
//! true answer. A row that training can use can be used here, too.

use anyhow::Result;

use crate::model::feature::Feature;
use crate::stage::Stage;
use crate::stage::report::shown;
use crate::stage::usage;
use crate::stream::address::Address;
use crate::train::answers::Truth;
use crate::train::csv_header::{self, Header};
use crate::train::csv_text::CsvRecords;
use crate::train::eval::model_input::InputWriter;
use crate::train::eval::truths::Truths;
use crate::train::label_file::{Label, LabelsById};
use crate::train::ndjson_rows::only_value;
use crate::train::source::{Format, Source};
use crate::train::syntax_args::RowSyntax;
use crate::train::table::RowFault;
use crate::wire::message::Record;
use crate::wire::object::Object;
use crate::wire::reject::Reject;

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
    /// How rows are cut into fields, and how cells are read.
    pub syntax: &'a RowSyntax,
}

/// The rows by their outcome.
#[derive(Clone, Debug, Default)]
pub struct RowCounts {
    /// All rows: with and without a label, and those that could not be used.
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

/// Reads the rows of one input, and calls `visit` with the `modelInput` and the truth of
/// each row that has a label.
struct Reading<'a, V> {
    rows: &'a LabelledRows<'a>,
    writer: InputWriter<'a>,
    counts: RowCounts,
    /// The text of the current `modelInput`.
    text: Vec<u8>,
    visit: V,
}

impl LabelledRows<'_> {
    /// Calls `visit` with the `modelInput` and the truth of each row that has a label. An
    /// error of `visit` is the reason why the row cannot be used.
    pub fn read(
        &self,
        stage: &mut Stage,
        data: &Address,
        visit: impl FnMut(&str, Truth) -> Result<(), String>,
    ) -> Result<RowCounts> {
        let labels = self.labels;
        let labels = labels.map(|path| LabelsById::read(stage, path, self.target, self.syntax));
        let labels = labels.transpose()?;
        let mut source = Source::open(stage, data, self.skip_bad_rows)?;
        let mut reading = Reading {
            rows: self,
            writer: InputWriter::new(self.features, &self.syntax.cells),
            counts: RowCounts::default(),
            text: Vec::new(),
            visit,
        };
        match labels {
            Some(mut labels) => reading.read_lines(&mut source, |reading, text| {
                reading.take_record(text, &mut labels)
            })?,
            None => {
                source.check_encoding()?;
                match source.format(self.format, data.as_str())? {
                    Format::Csv => reading.read_csv(&mut source, data.as_str())?,
                    Format::Ndjson => reading.read_lines(&mut source, Reading::take_object)?,
                }
            }
        }
        let mut counts = reading.counts;
        counts.sha256 = Some(source.sha256());
        Ok(counts)
    }
}

impl<'a, V: FnMut(&str, Truth) -> Result<(), String>> Reading<'a, V> {
    fn read_csv(&mut self, source: &mut Source, path: &str) -> Result<()> {
        let name = source.name().to_owned();
        let delimiter = csv_header::delimiter(source, self.rows.syntax.delimiter, path)?;
        let mut records = CsvRecords::new(source, delimiter);
        let header = Header::read(&mut records, &name)?;
        let target = header.target(self.rows.target, &name, &mut records)?;
        let mut positions = Vec::with_capacity(self.rows.features.len());
        for feature in self.rows.features {
            let position = header.find_one(&feature.name);
            positions.push(position.map_err(|fault| usage(format!("{name}: {fault}")))?);
        }
        let mut read = 0;
        while records.advance()? {
            read += 1;
            let outcome = header
                .check_width(read, &records.record)
                .and_then(|()| self.take_csv(&records.record, target, &positions));
            if let Err(fault) = outcome {
                self.counts.left_out += 1;
                records.leave_out(&Reject::Row(format!("row {read}: {fault}")))?;
            }
        }
        // Lines that are too long are no records.
        let too_long = records.left_out() - self.counts.left_out;
        self.counts.left_out += too_long;
        self.counts.rows = read + too_long;
        Ok(())
    }

    /// Takes a CSV record. `positions` has the position of each feature's column.
    fn take_csv(
        &mut self,
        record: &csv::ByteRecord,
        target: usize,
        positions: &[Option<usize>],
    ) -> Result<(), RowFault> {
        let field = |position: usize, name: &str| {
            let field = record.get(position).unwrap_or_default();
            let text = std::str::from_utf8(field);
            text.map_err(|_| format!("column {} is not UTF-8", shown(name)))
        };
        let label = field(target, self.rows.target)?;
        let mut fields = Vec::with_capacity(positions.len());
        for (position, feature) in positions.iter().zip(self.rows.features) {
            let text = position.map(|position| field(position, &feature.name));
            fields.push(text.transpose()?);
        }
        let Some(truth) = self.truth(&Label::Field(label.to_owned()))? else {
            return Ok(());
        };
        self.text.clear();
        self.writer.write_fields(&mut self.text, fields.into_iter());
        self.visit_text(truth)
    }

    /// Calls `take` with the text of each line.
    fn read_lines(
        &mut self,
        source: &mut Source,
        mut take: impl FnMut(&mut Self, &str) -> Result<(), RowFault>,
    ) -> Result<()> {
        while source.advance()? {
            let line = source.line();
            let record = match line.record() {
                Ok(None) => continue,
                Ok(Some(record)) => std::str::from_utf8(record).map_err(Reject::not_utf8),
                Err(reject) => Err(reject),
            };
            self.counts.rows += 1;
            let number = self.counts.rows;
            let outcome = record.and_then(|text| {
                let taken = take(self, text);
                taken.map_err(|fault| Reject::Row(format!("row {number}: {fault}")))
            });
            if let Err(reject) = outcome {
                self.counts.left_out += 1;
                source.leave_out_line(&reject)?;
            }
        }
        Ok(())
    }

    /// Takes an object whose members are the features and the target.
    fn take_object(&mut self, text: &str) -> Result<(), RowFault> {
        let object = Object::parse(text)?;
        let label = match only_value(&object, self.rows.target)? {
            Some(raw) => self.truth(&Label::Json(raw.to_owned()))?,
            None => {
                self.counts.unlabelled += 1;
                None
            }
        };
        match label {
            Some(truth) => self.visit_json(object.text(), truth),
            None => Ok(()),
        }
    }

    /// Takes a recorded request. As in training, the first record with an id counts.
    fn take_record(&mut self, text: &str, labels: &mut LabelsById) -> Result<(), RowFault> {
        let record = Record::of_text(text)?;
        let id = record.message_id()?;
        let input = record.model_input()?;
        match labels.take(&id) {
            None => self.counts.unlabelled += 1,
            Some((_, true)) => self.counts.repeated += 1,
            Some((label, false)) => {
                if let Some(truth) = self.truth(&label)? {
                    return self.visit_json(input, truth);
                }
            }
        }
        Ok(())
    }

    /// What a label means. A label that is missing is counted.
    fn truth(&mut self, label: &Label) -> Result<Option<Truth>, RowFault> {
        let truth = self.rows.truths.of(label, &self.rows.syntax.cells)?;
        self.counts.unlabelled += u64::from(truth.is_none());
        Ok(truth)
    }

    fn visit_json(&mut self, input: &str, truth: Truth) -> Result<(), RowFault> {
        if !self.rows.syntax.cells.has_markers() {
            return (self.visit)(input, truth);
        }
        self.text.clear();
        let written = self.writer.write_members(&mut self.text, input);
        written.map_err(|fault| format!("modelInput is {fault}"))?;
        self.visit_text(truth)
    }

    /// Visits the row whose `modelInput` is in `text`.
    fn visit_text(&mut self, truth: Truth) -> Result<(), RowFault> {
        let input = std::str::from_utf8(&self.text).map_err(|fault| fault.to_string())?;
        (self.visit)(input, truth)
    }
}
