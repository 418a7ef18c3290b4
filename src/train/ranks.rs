//! The columns of a table in the form in which trees are grown: each value is replaced
//! by its rank among the distinct values of its column.

use crate::model::feature::Feature;
use crate::train::table::Rows;

/// One column.
#[derive(Debug)]
pub struct RankedColumn {
    /// For each row, the rank of its value, from 0. The rank of a category is its index.
    pub ranks: Vec<u32>,
    /// The values by rank. Empty for a column of categories.
    pub values: Vec<f64>,
    /// The number of ranks.
    pub rank_count: usize,
    /// The number of categories, if the column has categories.
    pub categories: Option<u32>,
}

impl RankedColumn {
    /// The threshold between two ranks.
    pub fn threshold(&self, low: u32, high: u32) -> f64 {
        threshold_between(self.values[low as usize], self.values[high as usize])
    }
}

/// The columns of `rows`, in the order of the features.
pub fn ranked_columns(rows: &Rows, features: &[Feature]) -> Vec<RankedColumn> {
    let columns = features.iter().enumerate();
    let column = |(index, feature): (usize, &Feature)| match feature.categories() {
        Some(categories) => category_column(rows, index, categories.len() as u32),
        None => number_column(rows, index),
    };
    columns.map(column).collect()
}

/// A column of categories. The rank that equals the number of categories stands for all
/// unknown ones.
fn category_column(rows: &Rows, index: usize, categories: u32) -> RankedColumn {
    let codes = (0..rows.len()).map(|row| rows.row(row)[index] as u32);
    RankedColumn {
        ranks: codes.map(|code| code.min(categories)).collect(),
        values: Vec::new(),
        rank_count: categories as usize + 1,
        categories: Some(categories),
    }
}

fn number_column(rows: &Rows, index: usize) -> RankedColumn {
    let mut order: Vec<(f64, u32)> = (0..rows.len())
        .map(|row| (rows.row(row)[index], row as u32))
        .collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut ranks = vec![0; rows.len()];
    let mut values: Vec<f64> = Vec::new();
    for (value, row) in order {
        // 0 and -0 are one value.
        if values.last() != Some(&value) {
            values.push(value);
        }
        ranks[row as usize] = (values.len() - 1) as u32;
    }
    RankedColumn {
        ranks,
        rank_count: values.len(),
        values,
        categories: None,
    }
}

/// A threshold with `low <= threshold < high`.
fn threshold_between(low: f64, high: f64) -> f64 {
    let middle = f64::midpoint(low, high);
    // Two adjacent floats have no float between them, and their midpoint may be rounded
    // up to `high`.
    if low <= middle && middle < high {
        middle
    } else {
        low
    }
}
