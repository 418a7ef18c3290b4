//! requests -> scores: runs one model on every request.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::model::Model;
use crate::model::inspect::{self, InspectArgs};
use crate::model::training::{self, TrainArgs};
use crate::stage::cli::{Program, RunArgs, VERSION, duration};
use crate::stage::clock::Clock;
use crate::stage::filter::{self, Filter, InputArgs, OutputArgs, Streams};
use crate::stage::stats::{Latencies, Snapshot};
use crate::stage::{Stage, usage};
use crate::wire::endpoint::{Input, Progress};
use crate::wire::lines::{Line, Lines};
use crate::wire::message::{Field, Record};
use crate::wire::micros::Micros;
use crate::wire::object::decode_string;

/// Read requests, run a model on each, and write its scores, in order.
///
/// A request that the model cannot score gets a score with an `error`, so that
/// nobody waits for it. SIGHUP loads the model file again.
#[derive(Parser, Clone, Debug)]
#[command(name = "rv-score", version = VERSION, args_conflicts_with_subcommands = true, after_help = "\
Examples:
  rv-score train --input fixtures/iris.csv --target target \\
    --features sepalLength,sepalWidth,petalLength,petalWidth \\
    --algorithm decision-tree --name dt --model-version 1 --output dt.json
  rv-score --model dt.json < requests.ndjson > scores.ndjson
  rv-archive cat logs | rv-score --rescore --model new.json > rescored.ndjson")]
pub struct ScoreArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    scoring: ScoringArgs,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Train a model on a table and write its file
    Train(TrainArgs),
    /// Print a model for people
    Inspect(InspectArgs),
}

#[derive(Args, Clone, Debug)]
struct ScoringArgs {
    /// The model file, as `rv-score train` writes it
    #[arg(long, value_name = "FILE")]
    model: Option<String>,

    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,

    /// Write the probability of every class, not of the chosen one alone
    #[arg(long)]
    probabilities: bool,

    /// Answer requests older than this with an error, without evaluating them
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "rescore")]
    skip_older: Option<std::time::Duration>,

    /// Evaluate these recorded requests before the input is opened
    #[arg(long, value_name = "FILE")]
    warm_up: Option<String>,

    /// Let SIGHUP bring another name or version
    #[arg(long)]
    allow_new_version: bool,

    /// The input is a recording: earlier results are replaced, the time since
    /// the request is the evaluation time, and errors make the exit status 1
    #[arg(long)]
    rescore: bool,

    /// Keep the earlier result under `previous`
    #[arg(long, requires = "rescore")]
    keep_previous: bool,

    /// Write this as the time since the request
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "rescore")]
    assume_elapsed: Option<std::time::Duration>,

    /// `fixed:SECONDS` makes the output the same every time
    #[arg(long, value_name = "CLOCK", default_value = "system")]
    clock: Clock,
}

impl Program for ScoreArgs {
    const NAME: &'static str = "rv-score";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        match self.command {
            Some(Command::Train(args)) => training::run(args, stage),
            Some(Command::Inspect(args)) => inspect::run(args, stage),
            None => score(self.scoring, stage),
        }
    }
}

fn score(args: ScoringArgs, stage: &mut Stage) -> Result<()> {
    let Some(path) = args.model.clone() else {
        return Err(usage(
            "no model: name its file with --model (`rv-score train` makes one)",
        ));
    };
    let model = Model::load(&path)?;
    let (input, output) = (args.input.clone(), args.output.clone());
    let warm_up = args.warm_up.clone();
    let mut scorer = Scorer::new(model, path, args);
    if let Some(path) = warm_up {
        scorer.warm_up(&path, stage)?;
    }
    let streams = Streams::open(&input, &output)?;
    filter::run(stage, streams, &mut scorer)?;
    if scorer.args.rescore && scorer.errors > 0 {
        stage.found_wanting = true;
    }
    Ok(())
}

struct Scorer {
    model: Model,
    path: String,
    args: ScoringArgs,
    row: Vec<f64>,
    probabilities: Vec<f64>,
    read: u64,
    scored: u64,
    errors: u64,
    blank: u64,
    evaluation: Latencies,
}

impl Scorer {
    fn new(model: Model, path: String, args: ScoringArgs) -> Scorer {
        Scorer {
            model,
            path,
            args,
            row: Vec::new(),
            probabilities: Vec::new(),
            read: 0,
            scored: 0,
            errors: 0,
            blank: 0,
            evaluation: Latencies::default(),
        }
    }

    /// Runs recorded requests through the model, so that the first real one
    /// finds code and data in memory.
    fn warm_up(&mut self, path: &str, stage: &Stage) -> Result<()> {
        let mut input = Input::open(path, false)?;
        if !input.is_file() {
            bail!("{path}: a warm-up is read from a file on disk");
        }
        let mut lines = Lines::new(stage.line_bytes_max);
        let mut evaluated = 0u64;
        loop {
            let ended = input.read(&mut lines)? == Progress::End;
            while let Some(line) = lines.next_line() {
                evaluated += u64::from(self.warm_up_with(&line));
            }
            if ended {
                let last = lines.last_line().map(|line| self.warm_up_with(&line));
                evaluated += u64::from(last == Some(true));
                break;
            }
        }
        if evaluated == 0 {
            bail!("{path}: no request in it that the model can evaluate");
        }
        Ok(())
    }

    fn warm_up_with(&mut self, line: &Line) -> bool {
        let Some(record) = line.record().and_then(|bytes| Record::parse(bytes).ok()) else {
            return false;
        };
        let Ok(model_input) = record.model_input() else {
            return false;
        };
        self.evaluate(model_input).is_ok()
    }

    /// The class of the model's choice.
    fn evaluate(&mut self, model_input: &str) -> Result<usize, String> {
        self.model.read_input(model_input, &mut self.row)?;
        Ok(self.model.evaluate(&self.row, &mut self.probabilities))
    }

    /// Appends the score of one request to `out`. The error says why the line is
    /// no request.
    fn score(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let record = Record::parse(line)?;
        record.message_id()?;
        let timestamp = record.timestamp()?;
        let model_input = record.model_input()?;
        let provenance = record.provenance()?;

        let begun = self.args.clock.monotonic();
        let age = self.args.clock.unix() - timestamp;
        let stale = self
            .args
            .skip_older
            .filter(|limit| age > Micros::from_duration(*limit));
        let outcome = match stale {
            Some(limit) => Err(format!(
                "not evaluated: the request is older than {}",
                humantime::format_duration(limit)
            )),
            None => self.evaluate(model_input),
        };
        let evaluation = self.args.clock.monotonic() - begun;
        self.evaluation.record(evaluation);
        let elapsed = match self.args.assume_elapsed {
            Some(assumed) => Micros::from_duration(assumed),
            None if self.args.rescore => evaluation,
            None => age + evaluation,
        };

        let mut owned = vec![Field::Result, Field::Error, Field::Provenance];
        let earlier = record.get(Field::Result).or(record.get(Field::Error));
        if self.args.keep_previous && earlier.is_some() {
            owned.push(Field::Previous);
        }
        let mut score = record.rewrite(out, &owned);
        if let Some(earlier) = earlier.filter(|_| self.args.keep_previous) {
            score.raw("previous", earlier);
        }
        match outcome {
            Ok(class) => {
                self.scored += 1;
                score.object("result", |result| {
                    result
                        .string("modelName", self.model.name())
                        .raw("result", self.model.label(class))
                        .display("confidence", six_digits(self.probabilities[class]));
                    if self.args.probabilities {
                        result.object("probabilities", |all| {
                            for (class, probability) in self.probabilities.iter().enumerate() {
                                let label = self.model.label(class);
                                let name = decode_string(label).unwrap_or(label.into());
                                all.display(&name, six_digits(*probability));
                            }
                        });
                    }
                });
            }
            Err(message) => {
                self.errors += 1;
                score.object("error", |error| {
                    error
                        .string("modelName", self.model.name())
                        .string("message", &message);
                });
            }
        }
        score.object_with("provenance", provenance.as_ref(), "model", |entry| {
            entry
                .string("modelName", self.model.name())
                .display("modelVersion", self.model.version())
                .string("modelHash", self.model.hash())
                .display("elapsedTimeAfterRequest", elapsed.as_millis())
                .display("evaluationTime", evaluation.as_millis());
            if self.args.rescore {
                entry.raw("rescored", "true");
            }
        });
        score.end();
        out.push(b'\n');
        Ok(())
    }

    fn reload(&mut self) -> Result<()> {
        let new = Model::load(&self.path)?;
        let (old_name, old_version) = (self.model.name(), self.model.version());
        let same = (new.name(), new.version()) == (old_name, old_version);
        if !same && !self.args.allow_new_version {
            bail!(
                "{}: holds {}@{} now; run it beside {old_name}@{old_version} and let the policy \
                 promote it, or allow the change with --allow-new-version",
                self.path,
                new.name(),
                new.version(),
            );
        }
        self.model = new;
        Ok(())
    }
}

fn six_digits(probability: f64) -> String {
    format!("{probability:.6}")
}

impl Filter for Scorer {
    fn line(
        &mut self,
        stage: &mut Stage,
        input: &str,
        line: &Line,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        if line.oversized.is_some() {
            self.read += 1;
            return stage.report.reject_oversized(input, line);
        }
        let Some(record) = line.record() else {
            self.blank += 1;
            return Ok(());
        };
        self.read += 1;
        match self.score(record, out) {
            Ok(()) => Ok(()),
            Err(reason) => stage.report.reject(input, line, &reason),
        }
    }

    fn hangup(&mut self, stage: &mut Stage) -> Result<()> {
        match self.reload().context("the model in use stays") {
            Ok(()) => {
                let (name, version) = (self.model.name(), self.model.version());
                let hash = self.model.hash();
                stage
                    .report
                    .info(&format!("loaded {name}@{version} ({hash})"));
            }
            Err(error) => stage.report.warn(&format!("{error:#}")),
        }
        Ok(())
    }

    fn snapshot(&self, stage: &Stage) -> Snapshot {
        Snapshot::default()
            .count("in", self.read)
            .count("out", self.scored + self.errors)
            .count("rejected", stage.report.rejected())
            .count("errors", self.errors)
            .count("blank", self.blank)
            .latencies("evaluation", &self.evaluation)
    }
}
