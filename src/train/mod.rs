//! Trains a model on a table.
//!
//! [`run`] reads a table (`read_table`), and `make` turns the table into a model: it splits
//! the rows (`split`), fills missing values (`fill`), trains a predictor with one of the
//! `algorithms`, measures it (`measure`) and describes it. A table is read from CSV, from
//! NDJSON, or from recorded requests that are joined with labels. [`eval`] measures a
//! finished model on other rows.

mod algorithms;
mod answers;
pub mod args;
mod assemble;
mod cart;
mod categories;
mod cell;
mod column;
mod column_report;
mod columns;
mod criterion;
mod csv_header;
mod csv_rows;
mod csv_text;
pub mod eval;
mod fields;
mod fill;
mod fit_args;
mod forest;
mod grow;
mod held_out_file;
mod joined_rows;
mod label;
mod label_file;
mod lbfgs;
mod linear;
mod linfa_rows;
mod linfa_tree;
mod logistic;
mod make;
mod measure;
mod ndjson_rows;
mod options;
mod random;
mod ranks;
mod read_table;
mod role;
mod row_fault;
mod source;
mod split;
mod standardise;
mod syntax_args;
mod table;
mod trainer;

use anyhow::{Result, bail};

use crate::model::Model;
use crate::model::bounds::FEATURES_MAX;
use crate::model::save;
use crate::stage::report::shown;
use crate::stage::{Stage, usage};
use crate::train::args::{TrainArgs, TrainOptions};
use crate::train::fit_args::Holdout;
use crate::train::held_out_file::read_held_out;
use crate::train::make::{HeldOutFile, Prepared};
use crate::train::read_table::read_table;
use crate::train::table::Table;

/// Trains a model with the options in `args`.
pub fn run(args: TrainArgs, stage: &mut Stage) -> Result<()> {
    let options = args.check()?;
    let table = read_table(stage, &options.table)?;
    check_size(&table, &options)?;
    let prepared = Prepared::new(&options, &table)?;
    let held_out = match &options.fit.holdout {
        Holdout::File(address) => read_held_out(stage, address, &options, &prepared, &table)?,
        _ => HeldOutFile::default(),
    };
    stage.report.flush()?;
    // The code of the training does not check for signals, so a signal ends the program
    // at once.
    let made = stage
        .signals
        .interruptible(|| prepared.train(&options, &table, held_out))?;
    let (text, model) = made?;
    save::write(stage, &options.output, text)?;
    report_training(stage, &model);
    Ok(())
}

fn check_size(table: &Table, options: &TrainOptions) -> Result<()> {
    if table.classes.len() == 1 {
        bail!(
            "column {} has only one value, {}; a classifier needs at least two classes",
            shown(&options.table.columns.target),
            table.classes[0]
        );
    }
    if table.features.len() > FEATURES_MAX {
        return Err(usage(format!(
            "there are {} features, more than {FEATURES_MAX}; choose some with --features",
            table.features.len()
        )));
    }
    Ok(())
}

/// Prints the result of the training, unless `-q` is given.
fn report_training(stage: &Stage, model: &Model) {
    if let Some(training) = &model.description().training {
        stage.report.info(&format!(
            "{}@{} {}: {} rows for training, {} held out, {} left out",
            model.name(),
            model.version(),
            model.hash(),
            training.rows,
            training.held_out,
            training.left_out,
        ));
    }
    for line in model.description().metrics_lines() {
        stage.report.info(&line);
    }
}

#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;
