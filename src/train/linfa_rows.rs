//! Converts rows to the form that linfa needs.

use anyhow::Result;
use ndarray::{Array1, ArrayView2};

use crate::train::table::Rows;

/// The values as a matrix, one line per row.
pub fn matrix(rows: &Rows) -> Result<ArrayView2<'_, f64>> {
    Ok(ArrayView2::from_shape(
        (rows.len(), rows.width),
        &rows.values,
    )?)
}

/// The class of each row.
pub fn classes(rows: &Rows) -> Array1<usize> {
    rows.class_of.iter().map(|class| *class as usize).collect()
}
