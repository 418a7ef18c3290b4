//! Splits the rows into those for training and those held out to measure the model.

use anyhow::{Result, bail};
use sha2::{Digest, Sha256};

use crate::train::fit_args::Holdout;
use crate::train::table::Table;

/// The smallest number of rows, and of rows of each class, that must be left for training.
const ROWS_MIN: usize = 2;

/// The indices of the rows for training and of those held out, both ascending.
#[derive(Debug)]
pub struct Split {
    /// The rows that the model learns from.
    pub training: Vec<usize>,
    /// The rows on which the model is measured. Empty if they are in another file.
    pub held_out: Vec<usize>,
}

impl Split {
    /// Splits the rows of a table.
    pub fn new(table: &Table, seed: u64, holdout: &Holdout) -> Result<Split> {
        let count = table.rows.len();
        let split = match holdout {
            Holdout::Share(share) => by_seed(table, seed, *share),
            Holdout::Last(share) => {
                let held = (share * count as f64) as usize;
                Split {
                    training: (0..count - held).collect(),
                    held_out: (count - held..count).collect(),
                }
            }
            Holdout::File(_) => Split {
                training: (0..count).collect(),
                held_out: Vec::new(),
            },
        };
        split.check(table)?;
        Ok(split)
    }

    /// Checks that enough rows are left for training.
    fn check(&self, table: &Table) -> Result<()> {
        if self.training.len() < ROWS_MIN {
            bail!(
                "{} of the {} rows are left for training, but {ROWS_MIN} are needed; add rows, or \
                 hold out less with --holdout",
                self.training.len(),
                table.rows.len()
            );
        }
        let mut counts = vec![(0, 0); table.classes.len()];
        for class in &table.rows.class_of {
            counts[*class as usize].0 += 1;
        }
        for row in &self.training {
            if let Some(class) = table.rows.class_of.get(*row) {
                counts[*class as usize].1 += 1;
            }
        }
        for ((all, left), class) in counts.iter().zip(&table.classes) {
            if *left < ROWS_MIN {
                bail!(
                    "class {class} has {left} of its {all} rows left for training, but {ROWS_MIN} are \
                     needed; add rows of it, hold out less with --holdout, or leave the class out",
                );
            }
        }
        Ok(())
    }
}

/// Holds out the same share of each class. If the target is a number, this is a share
/// of all rows. The rows are ranked by a hash of `seed` and of their number in the
/// data, and the first ones are held out.
fn by_seed(table: &Table, seed: u64, share: f64) -> Split {
    let mut by_class = vec![Vec::new(); table.classes.len().max(1)];
    for row in 0..table.rows.len() {
        let mut hash = Sha256::new();
        hash.update(seed.to_be_bytes());
        hash.update(table.numbers[row].to_be_bytes());
        let class = table.rows.class_of.get(row).copied().unwrap_or(0);
        by_class[class as usize].push((<[u8; 32]>::from(hash.finalize()), row));
    }
    let (mut training, mut held_out) = (Vec::new(), Vec::new());
    for rows in &mut by_class {
        rows.sort_unstable();
        let held = (share * rows.len() as f64) as usize;
        held_out.extend(rows[..held].iter().map(|(_, row)| *row));
        training.extend(rows[held..].iter().map(|(_, row)| *row));
    }
    training.sort_unstable();
    held_out.sort_unstable();
    Split { training, held_out }
}
