//! Rows of numbers, each with a label: what a model is trained on. A table holds
//! no missing value, no NaN and no infinity.

use std::collections::HashSet;

use crate::stage::report::shown;
use crate::train::label::{CLASSES_MAX, Labels};

/// The most rows a table may have: up to here the comparison of splits is exact.
pub const ROWS_MAX: usize = 1 << 26;

/// The most values a table may have: 2 GiB of memory.
pub const VALUES_MAX: usize = 1 << 28;

/// The most features a model may have.
pub const FEATURES_MAX: usize = 10_000;

/// Rows with the class of each.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// How many values a row has.
    pub width: usize,
    /// Row after row.
    pub values: Vec<f64>,
    /// One a row.
    pub class_of: Vec<u32>,
}

impl Rows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.class_of.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.class_of.is_empty()
    }

    /// One row's values.
    pub fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.width..(index + 1) * self.width]
    }

    /// A copy of some of the rows.
    pub fn subset(&self, indices: &[usize]) -> Rows {
        let mut values = Vec::with_capacity(indices.len() * self.width);
        for index in indices {
            values.extend_from_slice(self.row(*index));
        }
        Rows {
            width: self.width,
            values,
            class_of: indices.iter().map(|index| self.class_of[*index]).collect(),
        }
    }
}

/// A table whose every row can be used.
#[derive(Debug)]
pub struct Table {
    /// The names of the columns that the model sees.
    pub features: Vec<String>,
    /// The labels as JSON texts, in the order of the classes.
    pub classes: Vec<String>,
    /// The rows.
    pub rows: Rows,
    /// The number of each row in the data, counted from 1.
    pub numbers: Vec<u64>,
    /// How many rows of the data are not in the table.
    pub left_out: u64,
    /// For each feature, in how many rows of the data its value was missing.
    pub missing: Vec<u64>,
}

/// Why one row cannot be used.
pub type Fault = String;

/// A table while it is being read.
#[derive(Debug)]
pub struct Builder {
    /// The name of the column of labels.
    pub target: String,
    /// The names of the columns of numbers, once they are known.
    pub features: Vec<String>,
    /// The labels seen so far.
    pub labels: Labels,
    /// For each feature, in how many rows its value was missing.
    pub missing: Vec<u64>,
    /// How many rows were left out.
    pub left_out: u64,
    rows: Rows,
    numbers: Vec<u64>,
}

impl Builder {
    /// A table without rows. `features` may be filled in later.
    pub fn new(target: &str) -> Builder {
        Builder {
            target: target.to_owned(),
            features: Vec::new(),
            labels: Labels::default(),
            missing: Vec::new(),
            left_out: 0,
            rows: Rows::default(),
            numbers: Vec::new(),
        }
    }

    /// Settles which columns are features.
    pub fn set_features(&mut self, features: Vec<String>) {
        self.rows.width = features.len();
        self.missing = vec![0; features.len()];
        self.features = features;
    }

    /// Adds a row. `number` is its number in the data. Its label is to be entered
    /// among the labels last, when nothing else is wrong with the row: a label
    /// without a row would be a class without one.
    pub fn push(&mut self, number: u64, row: &[f64], label: u32) {
        self.rows.values.extend_from_slice(row);
        self.rows.class_of.push(label);
        self.numbers.push(number);
    }

    /// What is wrong with the table as a whole so far, if anything.
    pub fn fault(&self) -> Option<String> {
        if self.labels.are_too_many() {
            return Some(format!(
                "column {} has more than {CLASSES_MAX} different values, so it looks like a \
                 measurement; this trains classifiers: name a column of classes with --target",
                shown(&self.target)
            ));
        }
        let values = self.rows.values.len();
        (self.rows.len() > ROWS_MAX || values > VALUES_MAX).then(|| {
            format!(
                "there are more than {} rows or {} values; train on a sample",
                ROWS_MAX, VALUES_MAX
            )
        })
    }

    /// The table, with the labels as classes.
    pub fn finish(mut self) -> Table {
        let (classes, class_of) = self.labels.into_classes();
        for class in &mut self.rows.class_of {
            *class = class_of[*class as usize];
        }
        Table {
            features: self.features,
            classes,
            rows: self.rows,
            numbers: self.numbers,
            left_out: self.left_out,
            missing: self.missing,
        }
    }
}

/// The value of a feature from its text, in a CSV field.
pub fn number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => Err(format!("{} is not a finite number", shown(text))),
        Err(_) => Err(format!("{} is not a number", shown(text))),
    }
}

/// The first name that stands twice in `names`.
pub fn duplicate<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = HashSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}
