//! model file -> text for people.

use anyhow::Result;
use clap::Args;

use crate::model::logistic::Logistic;
use crate::model::metrics::aligned;
use crate::model::profile::{Quantiles, Seen};
use crate::model::tree::{NodeView, Tree};
use crate::model::{Learned, Model};
use crate::stage::Stage;
use crate::wire::endpoint::{Output, STANDARD};

/// Show what a model file holds
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// The model file
    #[arg(value_name = "FILE")]
    model: String,

    /// Show a tree to this depth
    #[arg(long, value_name = "N", default_value_t = 6)]
    depth: u32,
}

/// Prints what a model file holds on standard output.
pub fn run(args: InspectArgs, stage: &mut Stage) -> Result<()> {
    let model = Model::load(&args.model)?;
    let mut text = String::new();
    for line in lines(&model, args.depth) {
        text.push_str(&printable(&line));
        text.push('\n');
    }
    let mut output = Output::open(STANDARD)?;
    stage.write_all(&mut output, &mut text.into_bytes())?;
    stage.close(&mut output)
}

/// Names and labels come from a file: no control character of theirs reaches the
/// terminal.
fn printable(line: &str) -> String {
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

/// All that is worth knowing, line by line.
fn lines(model: &Model, depth: u32) -> Vec<String> {
    let about = &model.about;
    let labels: Vec<&str> = (0..model.class_count())
        .map(|class| model.label(class))
        .collect();
    let mut lines = vec![
        format!(
            "{}@{}, {}, hash {}",
            model.name(),
            model.version(),
            about.algorithm.name(),
            model.hash()
        ),
        format!("predicts {}: {}", about.target, labels.join(", ")),
        format!(
            "trained on {} rows, {} held out, {} left out",
            about.training.rows, about.training.held_out, about.training.left_out
        ),
    ];
    match &about.metrics.held_out {
        Some(metrics) => lines.extend(metrics.lines(&labels).into_iter().enumerate().map(
            |(index, line)| {
                if index == 0 {
                    format!("held-out {line}")
                } else {
                    line
                }
            },
        )),
        None => lines.push("no row was held out, so nothing is known of its accuracy".to_owned()),
    }
    lines.push(String::new());
    lines.push("features, where they lay in training:".to_owned());
    let head = [
        "", "min", "p05", "p25", "p50", "p75", "p95", "max", "missing",
    ];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    for feature in &about.profile.features {
        let mut cells = vec![feature.name.clone()];
        cells.extend(quantiles(&feature.quantiles));
        cells.push(feature.missing.to_string());
        table.push(cells);
    }
    let scores = &about.profile.scores;
    let seen = match scores.on {
        Seen::HeldOut => "confidence, held-out",
        Seen::Training => "confidence, training",
    };
    table.push([vec![seen.to_owned()], quantiles(&scores.confidence)].concat());
    lines.extend(aligned(&table));
    lines.push(String::new());
    match &model.learned {
        Learned::Tree(tree) => lines.extend(rules(tree, model.features(), &labels, depth)),
        Learned::Logistic(logistic) => lines.extend(weights(logistic, model.features(), &labels)),
    }
    lines
}

fn quantiles(quantiles: &Quantiles) -> Vec<String> {
    let Quantiles {
        min,
        p05,
        p25,
        p50,
        p75,
        p95,
        max,
    } = *quantiles;
    [min, p05, p25, p50, p75, p95, max].map(brief).to_vec()
}

/// A number with up to six digits; the file has all of them.
fn brief(number: f64) -> String {
    let whole = number.to_string();
    if whole.len() <= 8 {
        return whole;
    }
    let rounded: f64 = format!("{number:.5e}").parse().unwrap_or(number);
    let (plain, scientific) = (rounded.to_string(), format!("{rounded:e}"));
    if plain.len() <= 12 { plain } else { scientific }
}

/// A tree as rules, a question a line and what follows indented.
fn rules(tree: &Tree, features: &[String], labels: &[&str], depth_max: u32) -> Vec<String> {
    // Children stand behind their parents, so from the end on every child is
    // known before its parent.
    let mut sizes = vec![1usize; tree.node_count()];
    let mut leaves = 0;
    for index in (0..tree.node_count()).rev() {
        match tree.node(index) {
            NodeView::Split { left, right, .. } => sizes[index] += sizes[left] + sizes[right],
            NodeView::Leaf { .. } => leaves += 1,
        }
    }
    let mut lines = vec![format!(
        "tree of {} nodes, {leaves} of them leaves:",
        tree.node_count()
    )];
    let mut open = vec![(0, 0, String::new())];
    while let Some((index, depth, question)) = open.pop() {
        let indent = "  ".repeat(depth as usize);
        if !question.is_empty() {
            lines.push(format!("{indent}{question}"));
        }
        match tree.node(index) {
            NodeView::Leaf { class, counts } => {
                let all: u64 = counts.iter().map(|(_, count)| u64::from(*count)).sum();
                let own = counts.iter().find(|(of, _)| *of as usize == class);
                let own = own.map_or(0, |(_, count)| *count);
                lines.push(format!("{indent}  {} ({own} of {all} rows)", labels[class]));
            }
            NodeView::Split { .. } if depth >= depth_max => {
                let nodes = sizes[index];
                lines.push(format!(
                    "{indent}  ... {nodes} nodes not shown; --depth shows more"
                ));
            }
            NodeView::Split {
                feature,
                threshold,
                left,
                right,
            } => {
                let (name, threshold) = (&features[feature], brief(threshold));
                open.push((right, depth + 1, format!("{name} > {threshold}")));
                open.push((left, depth + 1, format!("{name} <= {threshold}")));
            }
        }
    }
    lines
}

/// The weights of a logistic regression as a table.
fn weights(logistic: &Logistic, features: &[String], labels: &[&str]) -> Vec<String> {
    let mut lines =
        vec!["coefficients of the standardised features, (value - mean) / scale:".to_owned()];
    let head = ["", "mean", "scale"].map(str::to_owned).to_vec();
    let mut table = vec![[head, labels.iter().map(|label| label.to_string()).collect()].concat()];
    for (name, (mean, scale, weights)) in features.iter().zip(logistic.coefficients()) {
        let numbers = [mean, scale].into_iter().chain(weights.iter().copied());
        table.push([vec![name.clone()], numbers.map(brief).collect()].concat());
    }
    let intercepts = logistic.intercepts().iter().copied().map(brief);
    let start = ["(intercept)", "", ""].map(str::to_owned).to_vec();
    table.push([start, intercepts.collect()].concat());
    lines.extend(aligned(&table));
    lines
}
