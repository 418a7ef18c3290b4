//! Tables for training: rows of numbers, each with a label. A table contains no
//! infinity; a missing value is NaN.

use crate::model::bounds::CLASSES_MAX;
use crate::model::feature::Feature;
use crate::stage::report::shown;
use crate::train::label::Labels;

/// The largest number of rows in a table. A tree numbers its rows in 32 bits.
const ROWS_MAX: usize = 1 << 26;

/// The largest number of values in a table. They take 2 GiB of memory.
const VALUES_MAX: usize = 1 << 28;

/// The columns to read.
#[derive(Clone, Debug)]
pub struct ColumnNames {
    /// The column of labels.
    pub target: String,
    /// The columns of numbers; all except the target if `None`.
    pub features: Option<Vec<String>>,
}

/// Rows of values, each with its class or with the number to predict.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The number of values in a row.
    pub width: usize,
    /// The values of all rows, row after row, in the form of
    /// [`Feature`](crate::model::feature::Feature).
    pub values: Vec<f64>,
    /// The class of each row. Empty if the target is a number.
    pub class_of: Vec<u32>,
    /// The number to predict for each row. Empty if the target has classes.
    pub targets: Vec<f64>,
}

impl Rows {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.class_of.len().max(self.targets.len())
    }

    /// Whether the table has no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values of one row.
    pub fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.width..(index + 1) * self.width]
    }

    /// A copy of some of the rows.
    pub fn subset(&self, indices: &[usize]) -> Rows {
        let mut values = Vec::with_capacity(indices.len() * self.width);
        for index in indices {
            values.extend_from_slice(self.row(*index));
        }
        let class_of = indices.iter().filter_map(|index| self.class_of.get(*index));
        let targets = indices.iter().filter_map(|index| self.targets.get(*index));
        Rows {
            width: self.width,
            values,
            class_of: class_of.copied().collect(),
            targets: targets.copied().collect(),
        }
    }
}

/// A complete table. Every row can be used.
#[derive(Debug)]
pub struct Table {
    /// The features, in the order of a row.
    pub features: Vec<Feature>,
    /// The label of each class, as JSON text. Empty if the target is a number.
    pub classes: Vec<String>,
    /// The rows.
    pub rows: Rows,
    /// The number of each row in the data, counted from 1; rows that were left
    /// out count too.
    pub numbers: Vec<u64>,
    /// The number of rows that were left out.
    pub left_out: u64,
    /// For each feature, the number of rows of the data in which its value was
    /// missing.
    pub missing: Vec<u64>,
    /// The SHA-256 of the data, after decompression.
    pub sha256: Option<String>,
}

/// The reason why a row cannot be used.
pub type RowFault = String;

/// A table while it is being read.
#[derive(Debug)]
pub struct TableBuilder {
    /// The name of the column of labels.
    pub target: String,
    /// The names of the features; empty until they are known.
    pub features: Vec<String>,
    /// The labels seen so far.
    pub labels: Labels,
    /// For each feature, the number of rows in which its value was missing.
    pub missing: Vec<u64>,
    /// The number of rows that were left out.
    pub left_out: u64,
    rows: Rows,
    numbers: Vec<u64>,
}

impl TableBuilder {
    /// A table without rows and without features.
    pub fn new(target: &str) -> TableBuilder {
        TableBuilder {
            target: target.to_owned(),
            features: Vec::new(),
            labels: Labels::default(),
            missing: Vec::new(),
            left_out: 0,
            rows: Rows::default(),
            numbers: Vec::new(),
        }
    }

    /// Sets the features, before the first row is added.
    pub fn set_features(&mut self, features: Vec<String>) {
        self.rows.width = features.len();
        self.missing = vec![0; features.len()];
        self.features = features;
    }

    /// Adds a row. `number` is its number in the data, and `label` the index of its
    /// label. Look up the label only after all other checks of the row, so that every
    /// class has a row.
    pub fn push(&mut self, number: u64, row: &[f64], label: u32) {
        self.rows.values.extend_from_slice(row);
        self.rows.class_of.push(label);
        self.numbers.push(number);
    }

    /// The fault of the table so far, apart from single rows.
    pub fn fault(&self) -> Option<String> {
        if self.labels.are_too_many() {
            return Some(format!(
                "column {} has more than {CLASSES_MAX} different values, so it looks like a \
                 measurement; name a column of classes with --target",
                shown(&self.target)
            ));
        }
        let values = self.rows.values.len();
        (self.rows.len() > ROWS_MAX || values > VALUES_MAX).then(|| {
            format!("there are more than {ROWS_MAX} rows or {VALUES_MAX} values; train on a sample")
        })
    }

    /// The finished table.
    pub fn finish(mut self) -> Table {
        let (classes, class_of) = self.labels.into_classes();
        for class in &mut self.rows.class_of {
            *class = class_of[*class as usize];
        }
        Table {
            features: self.features.into_iter().map(Feature::number).collect(),
            classes,
            rows: self.rows,
            numbers: self.numbers,
            left_out: self.left_out,
            missing: self.missing,
            sha256: None,
        }
    }
}
