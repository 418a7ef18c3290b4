//! Reads the rows of the file that --holdout-file names.

use anyhow::{Result, bail};

use crate::model::features::FeatureReader;
use crate::stage::Stage;
use crate::stream::address::Address;
use crate::train::answers::Truth;
use crate::train::args::TrainOptions;
use crate::train::eval::labelled_rows::LabelledRows;
use crate::train::eval::truths::Truths;
use crate::train::make::{HeldOutFile, Prepared};
use crate::train::table::{Rows, Table};

/// Reads the rows as the trained model will read them. Rows without a label are not
/// counted.
pub fn read_held_out(
    stage: &mut Stage,
    address: &Address,
    options: &TrainOptions,
    prepared: &Prepared,
    table: &Table,
) -> Result<HeldOutFile> {
    let labels: Vec<&str> = table.classes.iter().map(String::as_str).collect();
    let truths = Truths::new(&labels);
    let reader = FeatureReader::new(prepared.features.clone(), false);
    let mut rows = Rows {
        width: prepared.features.len(),
        ..Rows::default()
    };
    let mut row = Vec::new();
    let labelled = LabelledRows {
        features: &prepared.features,
        target: &options.table.columns.target,
        truths: &truths,
        format: None,
        labels: None,
        skip_bad_rows: options.table.skip_bad_rows,
        syntax: &options.table.syntax,
    };
    let counts = labelled.read(stage, address, |model_input, truth| {
        reader.read(model_input, &mut row)?;
        rows.values.extend_from_slice(&row);
        match truth {
            Truth::Class(class) => rows.class_of.push(class as u32),
            Truth::Number(number) => rows.targets.push(number),
        }
        Ok(())
    })?;
    let name = address.as_str();
    if rows.is_empty() {
        bail!("{name}: has no row with a label that can be used, for --holdout-file");
    }
    if counts.unlabelled > 0 {
        stage.report.info(&format!(
            "{name}: {} rows without a label are not counted",
            counts.unlabelled
        ));
    }
    Ok(HeldOutFile {
        rows,
        sha256: counts.sha256,
    })
}
