//! Turns the model file of another library into a model file of rv.
//!
//! `lightgbm` and `xgboost` read the files. Both give a [`ForeignModel`]: trees, inputs
//! and classes. This file adds the names and writes the model file. The imported model
//! needs no library.

pub mod args;
mod input_names;
mod lightgbm;
mod preorder;
mod xgboost;
mod xgboost_json;

use anyhow::{Result, anyhow, bail};
use serde_json::value::RawValue;

use crate::import::args::{ImportArgs, ImportOptions, Library};
use crate::model::Model;
use crate::model::description::{Description, Import, MeasuredMetrics};
use crate::model::ensemble::text::EnsembleText;
use crate::model::families::Algorithm;
use crate::model::feature::Feature;
use crate::model::file;
use crate::model::save;
use crate::stage::Stage;
use crate::wire::sha256::sha256_hex;

/// A model of another library.
#[derive(Debug)]
struct ForeignModel {
    /// The name that the library gives to the objective.
    objective: String,
    /// The trees.
    trees: EnsembleText,
    /// The inputs, in the order of a row.
    features: Vec<Feature>,
    /// The number of classes; 0 for a model of numbers.
    class_count: usize,
}

/// Imports a model with the options in `args`.
pub fn run(args: ImportArgs, stage: &mut Stage) -> Result<()> {
    let options = args.check()?;
    let path = &options.file;
    let text = file::read_text(path)?;
    let foreign = match options.library {
        Library::Lightgbm => lightgbm::read(&text, &options.inputs),
        Library::Xgboost => xgboost::read(&text, &options.inputs),
    };
    let foreign = foreign.map_err(|fault| anyhow!("{path}: {fault}"))?;
    let tree_count = foreign.trees.trees.len();
    let import = Import {
        from: options.library.name().to_owned(),
        objective: foreign.objective.clone(),
        sha256: sha256_hex(&text),
    };
    let (text, model) =
        write(&options, foreign, import).map_err(|fault| anyhow!("{path}: {fault}"))?;
    save::write(stage, &options.output, text)?;
    report(stage, &model, tree_count);
    Ok(())
}

/// The text of the model file, and the model that was read back from it.
fn write(
    options: &ImportOptions,
    foreign: ForeignModel,
    import: Import,
) -> Result<(String, Model)> {
    let description = Description {
        name: options.name.clone(),
        version: options.version,
        algorithm: Algorithm::GradientBoosting,
        target: options.target.clone(),
        features: foreign.features,
        classes: classes(&options.classes, foreign.class_count)?,
        threshold: None,
        training: None,
        imported: Some(import),
        metrics: MeasuredMetrics::default(),
        profile: None,
    };
    let parameters = serde_json::to_string(&foreign.trees)?;
    drop(foreign.trees);
    let text = file::wrap(&file::join(
        &serde_json::to_string(&description)?,
        &parameters,
    )?);
    file::check_size(&text).map_err(|fault| anyhow!("{fault}, so it cannot be imported"))?;
    let model = Model::from_text(&text).map_err(|fault| anyhow!("the imported model {fault}"))?;
    Ok((text, model))
}

/// The labels of the classes. These are the labels that the user has given, or else 0,
/// 1, 2 and so on.
fn classes(given: &[String], count: usize) -> Result<Vec<Box<RawValue>>> {
    if given.is_empty() {
        let labels = (0..count).map(|class| RawValue::from_string(class.to_string()));
        return Ok(labels.collect::<Result<_, _>>()?);
    }
    if given.len() != count {
        match count {
            0 => bail!("the model predicts a number, so leave out --classes"),
            _ => bail!(
                "--classes has {} labels, but the model has {count} classes",
                given.len()
            ),
        }
    }
    // As in training, the labels are numbers only if all of them are numbers.
    let is_number = |label: &String| {
        label.parse().is_ok_and(f64::is_finite) && RawValue::from_string(label.clone()).is_ok()
    };
    let are_numbers = given.iter().all(is_number);
    let labels = given.iter().map(|label| {
        RawValue::from_string(match are_numbers {
            true => label.clone(),
            false => serde_json::to_string(label)?,
        })
    });
    Ok(labels.collect::<Result<_, _>>()?)
}

/// Prints what was imported, unless `-q` is given.
fn report(stage: &Stage, model: &Model, tree_count: usize) {
    let description = model.description();
    let categories = { description.features.iter() }
        .filter(|feature| feature.categories().is_some())
        .count();
    let predicts = match description.classes.len() {
        0 => "a number".to_owned(),
        count => format!("{count} classes"),
    };
    stage.report.info(&format!(
        "{}@{} {}: {tree_count} trees, {} features ({categories} with categories), predicts {predicts}",
        model.name(),
        model.version(),
        model.hash(),
        description.features.len(),
    ));
}

#[cfg(test)]
mod tests;
