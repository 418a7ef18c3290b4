//! requests -> scores: runs one model on every request.

mod evaluator;
mod threads;

use std::num::NonZeroU16;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::model::Model;
use crate::model::inspect::{self, InspectArgs};
use crate::serve::score::evaluator::{Evaluator, Manner, Scratch};
use crate::serve::score::threads::{Crowd, Done};
use crate::stage::cli::{Program, RunArgs, VERSION, duration};
use crate::stage::clock::Clock;
use crate::stage::filter::{self, Filter, InputArgs, OutputArgs, Streams};
use crate::stage::stats::{Latencies, Snapshot};
use crate::stage::{Stage, usage};
use crate::train;
use crate::train::args::TrainArgs;
use crate::wire::endpoint::{Input, Progress};
use crate::wire::lines::{Line, Lines};
use crate::wire::message::Record;

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

    /// Score with N threads, for bulk; the scores keep the order of the requests
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroU16,

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
            Some(Command::Train(args)) => train::run(args, stage),
            Some(Command::Inspect(args)) => inspect::run(args, stage),
            None => score(self.scoring, stage),
        }
    }
}

fn score(args: ScoringArgs, stage: &mut Stage) -> Result<()> {
    let Some(path) = args.model else {
        return Err(usage(
            "no model: name its file with --model (`rv-score train` makes one)",
        ));
    };
    let manner = Manner {
        probabilities: args.probabilities,
        skip_older: args.skip_older,
        rescore: args.rescore,
        keep_previous: args.keep_previous,
        assume_elapsed: args.assume_elapsed,
        clock: args.clock,
    };
    let mut scorer = Scorer {
        evaluator: Arc::new(Evaluator::new(Model::load(&path)?, manner)),
        path,
        allow_new_version: args.allow_new_version,
        scratch: Scratch::default(),
        crowd: match args.threads.get() {
            1 => None,
            threads => Some(Crowd::start(threads.into())?),
        },
        read: 0,
        scored: 0,
        errors: 0,
        blank: 0,
        evaluation: Latencies::default(),
    };
    if let Some(path) = args.warm_up {
        scorer.warm_up(&path, stage)?;
    }
    let streams = Streams::open(&args.input, &args.output)?;
    if scorer.crowd.is_some() {
        // One block of a pipe at a time would keep one thread busy.
        streams.input.widen();
    }
    filter::run(stage, streams, &mut scorer)?;
    if args.rescore && scorer.errors > 0 {
        stage.found_wanting = true;
    }
    Ok(())
}

struct Scorer {
    evaluator: Arc<Evaluator>,
    path: String,
    allow_new_version: bool,
    scratch: Scratch,
    /// Where there is more than one thread.
    crowd: Option<Crowd>,
    read: u64,
    scored: u64,
    errors: u64,
    blank: u64,
    evaluation: Latencies,
}

impl Scorer {
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
        let outcome = self.evaluator.evaluate(&mut self.scratch, model_input);
        outcome.is_ok()
    }

    /// Appends what threads have done to `out`, and counts it.
    fn take_in(
        &mut self,
        stage: &mut Stage,
        input: &str,
        done: Done,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        out.extend_from_slice(&done.out);
        self.scored += done.scored;
        self.errors += done.errors;
        for evaluation in &done.evaluations {
            self.evaluation.record(*evaluation);
        }
        for (line, reason) in &done.rejects {
            stage.report.reject(input, &line.line(), reason)?;
        }
        if let Some(crowd) = &mut self.crowd {
            crowd.give_back(done);
        }
        Ok(())
    }

    fn reload(&mut self) -> Result<()> {
        let new = Model::load(&self.path)?;
        let old = self.evaluator.model();
        let same = (new.name(), new.version()) == (old.name(), old.version());
        if !same && !self.allow_new_version {
            bail!(
                "{}: holds {}@{} now; run it beside {}@{} and let the policy promote it, or allow \
                 the change with --allow-new-version",
                self.path,
                new.name(),
                new.version(),
                old.name(),
                old.version(),
            );
        }
        self.evaluator = Arc::new(self.evaluator.with_model(new));
        Ok(())
    }
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
        if let Some(crowd) = &mut self.crowd {
            return match crowd.take(&self.evaluator, record, line)? {
                Some(done) => self.take_in(stage, input, done, out),
                None => Ok(()),
            };
        }
        match self.evaluator.score(&mut self.scratch, record, out) {
            Ok(scored) => {
                self.errors += u64::from(scored.failed);
                self.scored += u64::from(!scored.failed);
                self.evaluation.record(scored.evaluation);
                Ok(())
            }
            Err(reason) => stage.report.reject(input, line, &reason),
        }
    }

    fn gather(
        &mut self,
        stage: &mut Stage,
        input: &str,
        out: &mut Vec<u8>,
        wait: bool,
    ) -> Result<bool> {
        let Some(crowd) = &mut self.crowd else {
            return Ok(false);
        };
        let done = match wait {
            true => {
                crowd.submit(&self.evaluator)?;
                crowd.wait_for_next()?
            }
            false => crowd.next_if_done()?,
        };
        match done {
            Some(done) => self.take_in(stage, input, done, out).map(|()| true),
            None => Ok(false),
        }
    }

    fn is_shared(&self) -> bool {
        self.crowd.is_some()
    }

    fn hangup(&mut self, stage: &mut Stage) -> Result<()> {
        match self.reload().context("the model in use stays") {
            Ok(()) => {
                let model = self.evaluator.model();
                let (name, version, hash) = (model.name(), model.version(), model.hash());
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
