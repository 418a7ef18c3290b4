//! The flags of `rv-score`, and their checks.

use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::model::inspect::InspectArgs;
use crate::serve::score::scoring::ScoringOptions;
use crate::stage::cli::{RunArgs, VERSION, duration};
use crate::stage::clock::Clock;
use crate::stage::streams::{InputArgs, OutputArgs};
use crate::stage::usage;
use crate::stream::address::Address;
use crate::train::args::TrainArgs;
use crate::train::eval::args::EvalArgs;

/// Read requests, evaluate a model on each, and write the scores in the order of the
/// requests.
///
/// A request that the model cannot evaluate gets a score with an `error`, so that the
/// rendezvous does not wait for it. SIGHUP reloads the model file.
#[derive(Parser, Clone, Debug)]
#[command(name = "rv-score", version = VERSION, args_conflicts_with_subcommands = true, after_help = "\
Examples:
  rv-score train --input fixtures/iris.csv --target target \\
    --features sepalLength,sepalWidth,petalLength,petalWidth \\
    --algorithm decision-tree --name dt --model-version 1 --output dt.json
  rv-score eval --model dt.json --data fixtures/iris.csv
  rv-score --model dt.json < requests.ndjson > scores.ndjson
  rv-archive cat logs | rv-score --rescore --model new.json > rescored.ndjson")]
pub struct ScoreArgs {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) scoring: ScoringArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// The commands other than scoring.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Train a model on a table and write its file
    Train(Box<TrainArgs>),
    /// Print a model as readable text
    Inspect(InspectArgs),
    /// Measure a model on rows whose labels are known
    Eval(EvalArgs),
}

/// The flags of scoring.
#[derive(Args, Clone, Debug)]
pub(super) struct ScoringArgs {
    /// The model file, as `rv-score train` writes it
    #[arg(long, value_name = "FILE")]
    model: Option<String>,

    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,

    /// Write the probability of every class, not only of the predicted one
    #[arg(long)]
    probabilities: bool,

    /// Answer requests older than this with an error instead of evaluating them
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "rescore")]
    skip_older: Option<Duration>,

    /// Evaluate the recorded requests in FILE before the input is opened
    #[arg(long, value_name = "FILE")]
    warm_up: Option<Address>,

    /// Evaluate with N threads; the scores keep the order of the requests
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroU16,

    /// Allow SIGHUP to load a model with another name or version
    #[arg(long)]
    allow_new_version: bool,

    /// Treat the input as a recording: replace earlier results, write the evaluation
    /// time as the time since the request, and exit with status 1 if a score is an
    /// error
    #[arg(long)]
    rescore: bool,

    /// Keep the earlier result in the field `previous`
    #[arg(long, requires = "rescore")]
    keep_previous: bool,

    /// Write DURATION as the time since the request
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "rescore")]
    assume_elapsed: Option<Duration>,

    /// The source of times: `system`, or `fixed:SECONDS` for reproducible output
    #[arg(long, value_name = "CLOCK", default_value = "system")]
    clock: Clock,
}

/// The checked options of scoring.
#[derive(Clone, Debug)]
pub struct ScoreOptions {
    /// The path of the model file.
    pub model: String,
    /// Whether a reload may change the name or version.
    pub allow_new_version: bool,
    /// Recorded requests to evaluate first.
    pub warm_up: Option<Address>,
    /// The input of requests.
    pub input: InputArgs,
    /// The output of scores.
    pub output: OutputArgs,
    /// The number of evaluating threads.
    pub threads: usize,
    /// The options of scoring.
    pub scoring: ScoringOptions,
}

impl ScoringArgs {
    /// Checks the flags.
    pub(super) fn check(self) -> Result<ScoreOptions> {
        let Some(model) = self.model else {
            return Err(usage(
                "no model is given: name its file with --model (`rv-score train` writes one)",
            ));
        };
        Ok(ScoreOptions {
            model,
            allow_new_version: self.allow_new_version,
            warm_up: self.warm_up,
            input: self.input,
            output: self.output,
            threads: usize::from(self.threads.get()),
            scoring: ScoringOptions {
                probabilities: self.probabilities,
                skip_older: self.skip_older,
                rescore: self.rescore,
                keep_previous: self.keep_previous,
                assume_elapsed: self.assume_elapsed,
                clock: self.clock,
            },
        })
    }
}
