//! Trains a model on a table.
//!
//! [`run`] reads a table (`read_table`), splits it, trains a predictor with one of the
//! `algorithms`, measures it and writes the model file. A table is read from CSV, from
//! NDJSON, or from recorded requests that are joined with labels.

mod algorithms;
pub mod args;
mod assemble;
mod cart;
mod categories;
mod cell;
mod column;
mod column_report;
mod columns;
mod csv_header;
mod csv_rows;
mod csv_text;
mod fields;
mod joined_rows;
mod label;
mod linfa_logistic;
mod linfa_rows;
mod linfa_tree;
mod measure;
mod ndjson_rows;
mod options;
mod read_table;
mod role;
mod row_fault;
mod save;
mod source;
mod split;
mod table;
mod trainer;

use anyhow::{Result, anyhow, bail};
use serde_json::value::RawValue;

use crate::model::Model;
use crate::model::bounds::FEATURES_MAX;
use crate::model::description::{Description, TrainingRun};
use crate::model::file;
use crate::model::prediction::Predictor;
use crate::stage::report::shown;
use crate::stage::{Stage, usage};
use crate::train::algorithms::trainer_of;
use crate::train::args::{TrainArgs, TrainOptions};
use crate::train::measure::measure;
use crate::train::read_table::read_table;
use crate::train::split::Split;
use crate::train::table::Table;
use crate::train::trainer::TrainingData;

/// Trains a model with the options in `args`.
pub fn run(args: TrainArgs, stage: &mut Stage) -> Result<()> {
    let options = args.check()?;
    let table = read_table(stage, &options.table)?;
    check_size(&table, &options)?;
    stage.report.flush()?;
    // The training cannot check for signals, least of all inside linfa.
    let made = stage.signals.interruptible(|| make(&options, &table))?;
    let (text, model) = made?;
    save::write(stage, &options.output, text)?;
    report_training(stage, &model);
    Ok(())
}

fn check_size(table: &Table, options: &TrainOptions) -> Result<()> {
    if table.classes.is_empty() {
        return Err(usage(format!(
            "column {} has numbers, and {} predicts classes; --task classify takes each number for a \
             class",
            shown(&options.table.columns.target),
            options.algorithm.name()
        )));
    }
    if table.classes.len() < 2 {
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

/// Trains on a table. Returns the text of the model file, and the model.
fn make(options: &TrainOptions, table: &Table) -> Result<(String, Model)> {
    let split = Split::new(table, options.seed, options.holdout)?;
    let data = TrainingData {
        features: &table.features,
        class_count: table.classes.len(),
        training: table.rows.subset(&split.training),
        held_out: table.rows.subset(&split.held_out),
    };
    let trainer = trainer_of(options.algorithm);
    let predictor = (trainer.fit)(&data, &options.hyperparameters)?;
    let parameters = predictor.to_json()?;
    let description = describe(options, table, &data, &*predictor)?;
    let text = file::wrap(&file::join(
        &serde_json::to_string(&description)?,
        &parameters,
    )?);
    // The written text must give the same model, so it is read back and compared.
    let model = Model::from_text(&text).map_err(|fault| anyhow!("the model {fault}"))?;
    if model.predictor().to_json()? != parameters {
        bail!("the model changes when it is written; this is a defect");
    }
    Ok((text, model))
}

/// The description for the model file.
fn describe(
    options: &TrainOptions,
    table: &Table,
    data: &TrainingData,
    predictor: &dyn Predictor,
) -> Result<Description> {
    let (metrics, profile) = measure(table, data, predictor)?;
    let labels = table.classes.iter();
    let labels = labels.map(|label| RawValue::from_string(label.clone()));
    Ok(Description {
        name: options.name.clone(),
        version: options.version,
        algorithm: options.algorithm,
        target: options.table.columns.target.clone(),
        features: table.features.clone(),
        classes: labels.collect::<Result<_, _>>()?,
        training: Some(TrainingRun {
            rows: data.training.len() as u64,
            held_out: data.held_out.len() as u64,
            left_out: table.left_out,
            seed: options.seed,
            holdout: options.holdout,
            parameters: options.hyperparameters.clone(),
        }),
        imported: None,
        metrics,
        profile: Some(profile),
    })
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
