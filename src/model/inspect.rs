//! Prints a model file as readable text.

use anyhow::Result;
use clap::Args;

use crate::model::description::Import;
use crate::model::loaded::Model;
use crate::model::prediction::Names;
use crate::model::profile::{MeasuredOn, Profile, Quantiles};
use crate::model::text_table::{aligned, six_significant_digits};
use crate::stage::Stage;
use crate::stream::address::Address;
use crate::stream::output::Output;

/// Show the contents of a model file
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// The model file
    #[arg(value_name = "FILE")]
    model: String,

    /// Show a tree down to this depth
    #[arg(long, value_name = "N", default_value_t = 6)]
    depth: u32,
}

/// Prints the contents of a model file on standard output.
pub fn run(args: InspectArgs, stage: &mut Stage) -> Result<()> {
    let model = Model::load(&args.model)?;
    let mut text = String::new();
    for line in lines(&model, args.depth) {
        text.push_str(&escaped(&line));
        text.push('\n');
    }
    let mut output = Output::open(&Address::Standard)?;
    stage.write_all(&mut output, &mut text.into_bytes())?;
    stage.close(&mut output)
}

/// Escapes the control characters of a line. Names and labels come from a file, and
/// must not control the terminal.
fn escaped(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    for character in line.chars() {
        if character.is_control() {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

fn lines(model: &Model, depth_max: u32) -> Vec<String> {
    let description = model.description();
    let labels = description.labels();
    let mut lines = vec![
        format!(
            "{}@{}, {}, hash {}",
            model.name(),
            model.version(),
            description.algorithm.name(),
            model.hash()
        ),
        match labels.is_empty() {
            true => format!("predicts {}, a number", description.target),
            false => format!("predicts {}: {}", description.target, labels.join(", ")),
        },
    ];
    if let Some(training) = &description.training {
        lines.push(format!(
            "trained on {} rows, {} held out, {} left out",
            training.rows, training.held_out, training.left_out
        ));
        lines.extend(description.metrics_lines());
    }
    if let Some(import) = &description.imported {
        let Import {
            from, objective, ..
        } = import;
        lines.push(format!("imported from {from}, objective {objective}"));
    }
    if let Some(profile) = &description.profile {
        lines.push(String::new());
        lines.push("distribution of the features in training:".to_owned());
        lines.extend(profile_lines(profile));
    }
    lines.push(String::new());
    let names = Names {
        features: model.features(),
        labels: &labels,
    };
    lines.extend(model.predictor().describe(names, depth_max));
    lines
}

/// The distribution of each feature and of the confidence, as a table.
fn profile_lines(profile: &Profile) -> Vec<String> {
    let head = [
        "", "min", "p05", "p25", "p50", "p75", "p95", "max", "missing",
    ];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    for feature in &profile.features {
        let mut cells = vec![feature.name.clone()];
        cells.extend(quantile_cells(&feature.quantiles));
        cells.push(feature.missing.to_string());
        table.push(cells);
    }
    let scores = &profile.scores;
    let mut cells = vec![match scores.on {
        MeasuredOn::HeldOut => "confidence, held-out".to_owned(),
        MeasuredOn::Training => "confidence, training".to_owned(),
    }];
    cells.extend(quantile_cells(&scores.confidence));
    table.push(cells);
    aligned(&table)
}

fn quantile_cells(quantiles: &Quantiles) -> [String; 7] {
    let Quantiles {
        min,
        p05,
        p25,
        p50,
        p75,
        p95,
        max,
    } = *quantiles;
    [min, p05, p25, p50, p75, p95, max].map(six_significant_digits)
}
