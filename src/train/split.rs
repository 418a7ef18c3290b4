//! Splits the rows into those for training and those held out to measure the model.

use anyhow::{Result, bail};
use sha2::{Digest, Sha256};

use crate::train::table::Table;

/// The smallest number of rows of each class that must be left for training.
const CLASS_ROWS_MIN: usize = 2;

/// The indices of the rows for training and of those held out, both ascending.
pub struct Split {
    /// The rows that the model learns from.
    pub training: Vec<usize>,
    /// The rows on which the model is measured.
    pub held_out: Vec<usize>,
}

impl Split {
    /// Holds out an equal share of each class. The rows of a class are ranked by a
    /// hash of `seed` and their number in the data; the first rows are held out.
    pub fn new(table: &Table, seed: u64, holdout: f64) -> Result<Split> {
        let mut by_class = vec![Vec::new(); table.classes.len()];
        for (row, class) in table.rows.class_of.iter().enumerate() {
            let mut hash = Sha256::new();
            hash.update(seed.to_be_bytes());
            hash.update(table.numbers[row].to_be_bytes());
            by_class[*class as usize].push((<[u8; 32]>::from(hash.finalize()), row));
        }
        let (mut training, mut held_out) = (Vec::new(), Vec::new());
        for (rows, class) in by_class.iter_mut().zip(&table.classes) {
            rows.sort_unstable();
            let held = (holdout * rows.len() as f64) as usize;
            let left = rows.len() - held.min(rows.len());
            if left < CLASS_ROWS_MIN {
                bail!(
                    "class {class} has {} of its {} rows left for training, but {CLASS_ROWS_MIN} are \
                     needed; add rows of it, hold out less with --holdout, or leave the class out",
                    left,
                    rows.len()
                );
            }
            held_out.extend(rows[..held].iter().map(|(_, row)| *row));
            training.extend(rows[held..].iter().map(|(_, row)| *row));
        }
        training.sort_unstable();
        held_out.sort_unstable();
        Ok(Split { training, held_out })
    }
}
