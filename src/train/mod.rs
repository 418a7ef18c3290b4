//! How a table becomes a model: reads rows, splits, learns, measures, writes.

mod cart;
mod csv_rows;
mod joined_rows;
pub mod label;
pub mod linfa_tree;
mod ndjson_rows;
mod source;
mod split;
pub mod table;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use serde_json::value::RawValue;

use crate::model::logistic::{self, Settings};
use crate::model::metrics::Metrics;
use crate::model::profile::{Profile, Quantiles, ScoreProfile, Seen};
use crate::model::{
    About, Algorithm, Hyperparameters, Learned, Measured, Model, Trained, TreeParameters, file,
};
use crate::stage::report::shown;
use crate::stage::{EndedEarly, Stage, usage};
use crate::train::cart::Limits;
use crate::train::source::{Format, Wanted, read_table};
use crate::train::split::Split;
use crate::train::table::{FEATURES_MAX, Rows, Table, duplicate};
use crate::wire::endpoint::STANDARD;

/// The depth of a tree unless told otherwise.
const DEPTH_MAX_DEFAULT: u32 = 32;

/// The penalty of logistic regression unless told otherwise.
const L2_DEFAULT: f64 = 1.0;

/// Its iterations unless told otherwise.
const ITERATIONS_MAX_DEFAULT: u64 = 1000;

/// Train a model on rows of numbers with labels
#[derive(Args, Clone, Debug)]
pub struct TrainArgs {
    /// Read the rows from PATH, CSV under a line of names or NDJSON, `.gz` too;
    /// `-` is standard input. With --labels: recorded requests, a folder that
    /// rv-archive writes among them
    #[arg(short, long, value_name = "PATH", default_value = STANDARD)]
    input: String,

    /// Write the model to PATH, which is replaced whole; `-` is standard output
    #[arg(short, long, value_name = "PATH")]
    output: String,

    /// The column of labels: numbers or texts that name up to 1000 classes
    #[arg(short, long, value_name = "COLUMN")]
    target: String,

    /// Learn from the `modelInput` of recorded requests, each with the label that
    /// FILE has for its `messageId`: CSV (`.csv`) or NDJSON with the columns
    /// `messageId` and the target. Requests without a label are passed over
    #[arg(long, value_name = "FILE", conflicts_with = "format")]
    labels: Option<String>,

    /// The columns to learn from, all of them numbers; all but the target where
    /// not given
    #[arg(short, long, value_name = "COLUMN,...", value_delimiter = ',')]
    features: Option<Vec<String>>,

    /// How to learn
    #[arg(short, long, value_enum, value_name = "ALGORITHM")]
    algorithm: Algorithm,

    /// What policies and scores call the model: letters, digits, `.`, `-`, `_`
    #[arg(short, long, value_name = "NAME")]
    name: String,

    /// The version of the model, a whole number
    #[arg(long, value_name = "N")]
    model_version: u64,

    /// Choose other rows to hold out
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// The share of each class that is held out of training to measure the model;
    /// 0 trains on all rows and measures nothing
    #[arg(long, value_name = "FRACTION", default_value_t = 0.2)]
    holdout: f64,

    /// How the rows are written; told from the name of the file or from the data
    /// where not given
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,

    /// For trees: the most questions on the way to an answer, up to 128; 32
    /// where not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=128))]
    max_depth: Option<u32>,

    /// For trees: the fewest rows behind an answer; 1 where not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    min_leaf: Option<u32>,

    /// For logistic regression: the weight of the penalty on large coefficients;
    /// 1 where not given
    #[arg(long, value_name = "WEIGHT")]
    l2: Option<f64>,

    /// For logistic regression: give up after N steps; 1000 where not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_iterations: Option<u64>,

    /// Set rows that cannot be used aside, instead of ending at the first one
    #[arg(long)]
    skip_bad_rows: bool,
}

/// Trains a model as `args` say.
pub fn run(args: TrainArgs, stage: &mut Stage) -> Result<()> {
    let parameters = args.check()?;
    let wanted = Wanted {
        target: args.target.clone(),
        features: args.features.clone(),
        format: args.format,
        skip_bad_rows: args.skip_bad_rows,
        labels: args.labels.clone(),
    };
    let table = read_table(stage, &args.input, &wanted)?;
    if table.classes.len() < 2 {
        bail!(
            "column {} has one value only, {}; a classifier needs two classes at least",
            shown(&args.target),
            table.classes[0]
        );
    }
    if table.features.len() > FEATURES_MAX {
        return Err(usage(format!(
            "there are {} features, more than {FEATURES_MAX}; choose some with --features",
            table.features.len()
        )));
    }
    let split = Split::new(&table, args.seed, args.holdout)?;
    let training = table.rows.subset(&split.training);
    let held_out = table.rows.subset(&split.held_out);
    let learned = learn(&table, &training, &held_out, args.algorithm, &parameters)?;
    let text = compose(&args, &table, &training, &held_out, &learned, parameters)?;
    // What was written is what will be read, or it is not written.
    let model = Model::from_text(&text).map_err(|fault| anyhow!("the model {fault}"))?;
    if model.learned != learned {
        bail!("the model changes when it is written; this is a defect");
    }
    if let Some(stop) = stage.signals.stop() {
        return Err(EndedEarly::Signal(stop).into());
    }
    file::write(stage, &args.output, text)?;
    tell(stage, &model);
    Ok(())
}

impl TrainArgs {
    /// Refuses what cannot be meant, and settles what was left open.
    fn check(&self) -> Result<Hyperparameters> {
        file::check_name(&self.name).map_err(usage)?;
        if !(0.0..1.0).contains(&self.holdout) {
            return Err(usage("--holdout is a share of the rows from 0 to below 1"));
        }
        if let Some(features) = &self.features {
            if features.contains(&self.target) {
                return Err(usage(format!(
                    "column {} is both --target and among the --features; the model would only \
                     repeat its input",
                    shown(&self.target)
                )));
            }
            if let Some(name) = duplicate(features.iter().map(String::as_str)) {
                let name = shown(name);
                return Err(usage(format!("--features names column {name} twice")));
            }
            if features.iter().any(String::is_empty) {
                return Err(usage("--features names a column without a name"));
            }
        }
        let unfit = |flag: &str, others: &str| {
            let algorithm = self.algorithm.name();
            Err(usage(format!(
                "{flag} is for {others}, not for {algorithm}; leave it out"
            )))
        };
        let is_logistic = self.algorithm == Algorithm::LogisticRegression;
        if is_logistic && self.max_depth.is_some() {
            return unfit("--max-depth", "trees");
        }
        if is_logistic && self.min_leaf.is_some() {
            return unfit("--min-leaf", "trees");
        }
        if !is_logistic && self.l2.is_some() {
            return unfit("--l2", "logistic-regression");
        }
        if !is_logistic && self.max_iterations.is_some() {
            return unfit("--max-iterations", "logistic-regression");
        }
        if !self.l2.is_none_or(|l2| (0.0..=1e9).contains(&l2)) {
            return Err(usage("--l2 is a number from 0 to 1e9"));
        }
        Ok(if is_logistic {
            Hyperparameters {
                l2: Some(self.l2.unwrap_or(L2_DEFAULT)),
                max_iterations: Some(self.max_iterations.unwrap_or(ITERATIONS_MAX_DEFAULT)),
                ..Hyperparameters::default()
            }
        } else {
            Hyperparameters {
                max_depth: Some(self.max_depth.unwrap_or(DEPTH_MAX_DEFAULT)),
                min_leaf: Some(self.min_leaf.unwrap_or(1)),
                ..Hyperparameters::default()
            }
        })
    }
}

fn learn(
    table: &Table,
    training: &Rows,
    held_out: &Rows,
    algorithm: Algorithm,
    parameters: &Hyperparameters,
) -> Result<Learned> {
    let classes = table.classes.len();
    let limits = Limits {
        depth_max: parameters.max_depth.unwrap_or(DEPTH_MAX_DEFAULT),
        leaf_rows_min: parameters.min_leaf.unwrap_or(1) as usize,
    };
    Ok(match algorithm {
        Algorithm::DecisionTree => Learned::Tree(cart::grow(training, classes, limits)),
        Algorithm::LinfaTree => Learned::Tree(linfa_tree::train(training, held_out, limits)?),
        Algorithm::LogisticRegression => {
            let settings = Settings {
                l2: parameters.l2.unwrap_or(L2_DEFAULT),
                iterations_max: parameters.max_iterations.unwrap_or(ITERATIONS_MAX_DEFAULT),
            };
            let features = &table.features;
            Learned::Logistic(logistic::train(
                training, held_out, features, classes, settings,
            )?)
        }
    })
}

/// The text of the model file.
fn compose(
    args: &TrainArgs,
    table: &Table,
    training: &Rows,
    held_out: &Rows,
    learned: &Learned,
    parameters: Hyperparameters,
) -> Result<String> {
    let classes = table.classes.iter();
    let on = if held_out.is_empty() {
        Seen::Training
    } else {
        Seen::HeldOut
    };
    let (measured, confidence) = match on {
        Seen::Training => measure(training, learned, classes.len()),
        Seen::HeldOut => measure(held_out, learned, classes.len()),
    };
    let share = |class: usize| {
        let predicted: u64 = measured.confusion.iter().map(|line| line[class]).sum();
        predicted as f64 / measured.rows as f64
    };
    let about = About {
        name: args.name.clone(),
        version: args.model_version,
        algorithm: args.algorithm,
        target: args.target.clone(),
        features: table.features.clone(),
        classes: classes
            .map(|label| RawValue::from_string(label.clone()))
            .collect::<Result<_, _>>()?,
        training: Trained {
            rows: training.len() as u64,
            held_out: held_out.len() as u64,
            left_out: table.left_out,
            seed: args.seed,
            holdout: args.holdout,
            parameters,
        },
        profile: Profile {
            features: Profile::of_features(training, &table.features, &table.missing),
            scores: ScoreProfile {
                on,
                count: measured.rows,
                class_shares: (0..table.classes.len()).map(share).collect(),
                confidence: Quantiles::of(confidence),
            },
        },
        metrics: Measured {
            held_out: (on == Seen::HeldOut).then_some(measured),
        },
    };
    let parameters = match learned {
        Learned::Tree(tree) => serde_json::to_string(&TreeParameters { nodes: tree })?,
        Learned::Logistic(logistic) => serde_json::to_string(logistic)?,
    };
    let about = serde_json::to_string(&about)?;
    Ok(file::wrap(&file::join(&about, &parameters)?))
}

/// What the model makes of some rows, and how sure it is of each.
fn measure(rows: &Rows, learned: &Learned, class_count: usize) -> (Metrics, Vec<f64>) {
    let mut probabilities = vec![0.0; class_count];
    let mut confidence = Vec::with_capacity(rows.len());
    let pairs = (0..rows.len()).map(|index| {
        let class = learned.evaluate(rows.row(index), &mut probabilities);
        confidence.push(probabilities[class]);
        (rows.class_of[index] as usize, class)
    });
    let metrics = Metrics::count(class_count, pairs);
    (metrics, confidence)
}

/// Says how the training went.
fn tell(stage: &Stage, model: &Model) {
    if stage.report.is_quiet() {
        return;
    }
    let Trained {
        rows,
        held_out,
        left_out,
        ..
    } = model.about.training;
    stage.report.tell(&format!(
        "{}@{} {}: {rows} rows for training, {held_out} held out, {left_out} left out",
        model.name(),
        model.version(),
        model.hash(),
    ));
    match &model.about.metrics.held_out {
        Some(metrics) => {
            let labels: Vec<&str> = (0..model.class_count())
                .map(|class| model.label(class))
                .collect();
            for (index, line) in metrics.lines(&labels).iter().enumerate() {
                let head = if index == 0 { "held-out " } else { "" };
                stage.report.tell(&format!("{head}{line}"));
            }
        }
        None => stage
            .report
            .tell("no row was held out, so nothing is known of its accuracy"),
    }
}

#[cfg(test)]
mod tests;
