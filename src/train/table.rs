//! Tables for training: rows of values, each with a label or with a number to predict.

use crate::model::feature::Feature;
use crate::train::options::Impute;

/// Rows of values, each with its class or with the number to predict.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The number of values in a row.
    pub width: usize,
    /// The values of all rows, row after row, in the form of
    /// [`Feature`]: a category is its index, and a
    /// missing value is NaN. There are no infinite values.
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
    /// The number of each row in the data, counted from 1. Rows that were left out
    /// count, too.
    pub numbers: Vec<u64>,
    /// The number of rows that were left out.
    pub left_out: u64,
    /// How missing values are filled in.
    pub impute: Impute,
    /// The SHA-256 of the data, after decompression.
    pub sha256: Option<String>,
}

/// The reason why a row cannot be used.
pub type RowFault = String;
