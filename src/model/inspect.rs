//! Prints a model file as readable text.

use anyhow::Result;
use clap::Args;

use crate::model::description::{Description, HeldOutBy, Import, TrainingRun};
use crate::model::feature::Feature;
use crate::model::loaded::Model;
use crate::model::prediction::Names;
use crate::model::profile::{MeasuredOn, Profile, Quantiles, TargetProfile, Values};
use crate::model::text_table::{aligned, cut, six_significant_digits};
use crate::stage::Stage;
use crate::stream::address::Address;
use crate::stream::output::Output;

/// The width of a terminal, in characters.
const TERMINAL_CHARS: usize = 80;

/// The longest name that is shown, in characters.
const NAME_CHARS: usize = 20;

/// The number of categories that are shown for a feature.
const SHOWN_VALUES: usize = 12;

/// Show the contents of a model file
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// The model file
    #[arg(value_name = "FILE")]
    model: String,

    /// Show a tree down to this depth
    #[arg(long, value_name = "N", default_value_t = 6)]
    depth: u32,

    /// Print the description of the model as one JSON object: everything in its file
    /// except the parameters, with its hash
    #[arg(long, conflicts_with = "depth")]
    json: bool,
}

/// Prints the contents of a model file on standard output.
pub fn run(args: InspectArgs, stage: &mut Stage) -> Result<()> {
    let model = Model::load(&args.model)?;
    let mut text = String::new();
    match args.json {
        true => text = json(&model)?,
        false => {
            for line in lines(&model, args.depth) {
                text.push_str(&escaped(&line));
                text.push('\n');
            }
        }
    }
    let mut output = Output::open(&Address::Standard)?;
    stage.write_all(&mut output, &mut text.into_bytes())?;
    stage.close(&mut output)
}

/// The description of a model as JSON, indented.
fn json(model: &Model) -> Result<String> {
    #[derive(serde::Serialize)]
    struct WithHash<'m> {
        hash: &'m str,
        #[serde(flatten)]
        description: &'m Description,
    }
    let text = serde_json::to_string_pretty(&WithHash {
        hash: model.hash(),
        description: model.description(),
    })?;
    Ok(text + "\n")
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

/// The contents of a model as lines. Names in them are not escaped.
pub fn lines(model: &Model, depth_max: u32) -> Vec<String> {
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
    if let Some(threshold) = &description.threshold {
        lines.push(format!(
            "predicts {} if its probability is at least {}",
            threshold.label.get(),
            threshold.probability
        ));
    }
    if let Some(training) = &description.training {
        lines.extend(training_lines(training));
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
        lines.extend(profile_lines(profile, model.features(), &labels));
    }
    lines.push(String::new());
    let names = Names {
        features: model.features(),
        labels: &labels,
    };
    lines.extend(model.predictor().describe(names, depth_max));
    lines
}

/// The data and the settings of the training.
fn training_lines(training: &TrainingRun) -> Vec<String> {
    let mut settings = vec![format!("seed {}", training.seed)];
    let parameters = &training.parameters;
    let counts = [
        ("trees", parameters.trees.map(u64::from)),
        ("max depth", parameters.max_depth.map(u64::from)),
        ("min leaf", parameters.min_leaf.map(u64::from)),
        ("max iterations", parameters.max_iterations),
    ];
    for (name, count) in counts {
        settings.extend(count.map(|count| format!("{name} {count}")));
    }
    settings.extend(parameters.l2.map(|l2| format!("L2 {l2}")));
    if training.class_weight.is_some() {
        settings.push("classes balanced".to_owned());
    }
    let held_out_by = match training.held_out_by {
        HeldOutBy::Seed => "held out",
        HeldOutBy::Last => "held out at the end",
        HeldOutBy::File => "held out in another file",
    };
    let mut lines = vec![
        format!(
            "trained on {} rows, {} {held_out_by}, {} left out",
            training.rows, training.held_out, training.left_out
        ),
        settings.join(", "),
    ];
    if let Some(sha256) = &training.data_sha256 {
        lines.push(format!("data SHA-256 {sha256}"));
    }
    lines.extend(training.tool.iter().map(|tool| format!("by {tool}")));
    lines
}

/// The distribution of each feature, of the target and of the scores.
fn profile_lines(profile: &Profile, features: &[Feature], labels: &[&str]) -> Vec<String> {
    let head = ["", "min", "p05", "p50", "p95", "max", "missing"];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    for feature in &profile.features {
        if let Values::Numbers { quantiles } = &feature.values {
            let missing = match feature.missing {
                0 => "0".to_owned(),
                missing => format!("{missing} ({})", percent(feature.missing_share)),
            };
            table.push(quantile_line(&feature.name, quantiles, &missing));
        }
    }
    let scores = &profile.scores;
    let on = match scores.on {
        MeasuredOn::HeldOut => "held-out",
        MeasuredOn::Training => "training",
    };
    if let Some(TargetProfile::Quantiles(quantiles)) = &profile.target {
        table.push(quantile_line("the target", quantiles, ""));
    }
    for (name, quantiles) in [
        ("confidence", &scores.confidence),
        ("prediction", &scores.numbers),
    ] {
        if let Some(quantiles) = quantiles {
            table.push(quantile_line(&format!("{name}, {on}"), quantiles, ""));
        }
    }
    let mut lines = vec!["distribution of the features in training:".to_owned()];
    lines.extend(aligned(&table));
    for (profile, feature) in profile.features.iter().zip(features) {
        if let (Values::Categories { counts, other }, Some(names)) =
            (&profile.values, feature.categories())
        {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let named = names.iter().copied().zip(counts.iter().copied());
            let others = [("(other)", *other), ("(missing)", profile.missing)];
            let others = others.into_iter().filter(|(_, count)| *count > 0);
            lines.extend(share_lines(&feature.name, named.chain(others).collect()));
        }
    }
    if let Some(TargetProfile::ClassCounts(counts)) = &profile.target {
        let named = labels.iter().copied().zip(counts.iter().copied());
        lines.extend(share_lines("classes in training", named.collect()));
    }
    lines
}

fn quantile_line(name: &str, quantiles: &Quantiles, missing: &str) -> Vec<String> {
    let shown = [0, 5, 50, 95, 100].map(|percent| {
        let number = quantiles.at(percent);
        number.map_or_else(|| "-".to_owned(), six_significant_digits)
    });
    let mut line = vec![cut(name, NAME_CHARS)];
    line.extend(shown);
    line.push(missing.to_owned());
    line
}

/// The most frequent of some values, with their shares, in lines of a terminal's width.
fn share_lines(name: &str, mut counts: Vec<(&str, u64)>) -> Vec<String> {
    let total = counts.iter().map(|(_, count)| count).sum::<u64>().max(1);
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let others = counts.len().saturating_sub(SHOWN_VALUES);
    let shown = counts.iter().take(SHOWN_VALUES).map(|(value, count)| {
        let share = *count as f64 / total as f64;
        format!("{} {}", cut(value, NAME_CHARS), percent(share))
    });
    let mut parts: Vec<String> = shown.collect();
    if others > 0 {
        parts.push(format!("{others} others"));
    }
    let mut lines = Vec::new();
    let mut line = format!("  {}:", cut(name, NAME_CHARS));
    for (index, part) in parts.iter().enumerate() {
        let comma = if index + 1 < parts.len() { "," } else { "" };
        if line.chars().count() + part.chars().count() + 2 > TERMINAL_CHARS {
            lines.push(std::mem::replace(&mut line, "   ".to_owned()));
        }
        line.push_str(&format!(" {part}{comma}"));
    }
    lines.push(line);
    lines
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_categories_are_cut_and_wrapped() {
        let names: Vec<String> = (0..40).map(|index| format!("category {index}")).collect();
        let counts = names.iter().map(String::as_str).zip(0..).collect();
        let lines = share_lines("a name that is much too long for one line", counts);
        assert!(lines.len() > 2, "{lines:?}");
        assert!(
            lines[0].starts_with("  a name that is mu...: category 39 5.0 %,"),
            "{lines:?}"
        );
        assert!(lines.last().unwrap().ends_with("28 others"), "{lines:?}");
        for line in lines {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
