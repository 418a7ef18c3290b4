//! `rv-score eval`: measures a model on rows whose labels are known.
//!
//! `labelled_rows` reads rows in all forms that training reads, and makes a
//! `modelInput` from each, so that the model reads a row in the same way as a request.
//! `report` computes and prints what was measured.

pub mod args;
pub mod labelled_rows;
mod model_input;
mod report;
pub mod truths;

use anyhow::{Result, bail};

use crate::model::Model;
use crate::stage::Stage;
use crate::stream::address::Address;
use crate::stream::output::Output;
use crate::train::answers::Answers;
use crate::train::eval::args::EvalArgs;
use crate::train::eval::labelled_rows::LabelledRows;
use crate::train::eval::report::Report;
use crate::train::eval::truths::Truths;

/// Measures the model and prints the report on standard output.
pub fn run(args: EvalArgs, stage: &mut Stage) -> Result<()> {
    let options = args.check()?;
    let model = Model::load(&options.model)?;
    let description = model.description();
    let target = options.target.as_deref().unwrap_or(&description.target);
    let truths = Truths::new(&description.labels());
    let mut answers = Answers::new(description.classes.len());
    let (mut row, mut probabilities) = (Vec::new(), Vec::new());
    let rows = LabelledRows {
        features: model.features(),
        target,
        truths: &truths,
        format: options.format,
        labels: options.labels.as_deref(),
        skip_bad_rows: true,
        syntax: &options.syntax,
    };
    let counts = rows.read(stage, &options.data, |model_input, truth| {
        model.read_input(model_input, &mut row)?;
        let prediction = model.predict(&row, &mut probabilities);
        let pushed = answers.push(truth, prediction, &probabilities);
        pushed.map_err(|error| error.to_string())
    })?;
    if answers.len() == 0 {
        bail!(
            "{}: none of its {} rows has a label and can be evaluated",
            options.data.as_str(),
            counts.rows
        );
    }
    let report = Report::new(&model, &answers, &counts);
    let text = match options.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => report.text(&description.labels()),
    };
    let mut output = Output::open(&Address::Standard)?;
    stage.write_all(&mut output, &mut text.into_bytes())?;
    stage.close(&mut output)
}

#[cfg(test)]
mod tests;
