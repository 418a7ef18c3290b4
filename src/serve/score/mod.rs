//! rv-score: reads requests and writes scores.
//!
//! `args` defines its flags. `scorer` is the filter in the loop: it gives each request
//! to an `engine` and writes the finished scores. There are two engines:
//! `single_thread` and `threads`. Both use a `model_file` with an `evaluator`, and
//! `score_writer` writes the scores.

mod answer;
mod args;
mod engine;
mod evaluator;
mod model_file;
mod score_writer;
mod scorer;
mod scoring;
mod single_thread;
mod threads;
mod warm_up;

use anyhow::Result;

pub use crate::serve::score::args::ScoreArgs;

use crate::model::inspect;
use crate::serve::score::args::{Command, ScoreOptions};
use crate::serve::score::engine::Engine;
use crate::serve::score::model_file::ModelFile;
use crate::serve::score::scorer::Scorer;
use crate::serve::score::single_thread::SingleThread;
use crate::serve::score::threads::Threads;
use crate::serve::score::warm_up::warm_up;
use crate::stage::Stage;
use crate::stage::cli::RunArgs;
use crate::stage::filter;
use crate::stage::program::Program;
use crate::stage::streams::Streams;
use crate::train;

impl Program for ScoreArgs {
    const NAME: &'static str = "rv-score";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        match self.command {
            Some(Command::Train(args)) => train::run(*args, stage),
            Some(Command::Inspect(args)) => inspect::run(args, stage),
            Some(Command::Eval(args)) => train::eval::run(args, stage),
            None => score(&self.scoring.check()?, stage),
        }
    }
}

fn score(options: &ScoreOptions, stage: &mut Stage) -> Result<()> {
    let model = ModelFile::load(
        &options.model,
        options.allow_new_version,
        options.scoring.clone(),
    )?;
    let mut engine: Box<dyn Engine> = match options.threads {
        1 => Box::new(SingleThread::new(model)),
        threads => Box::new(Threads::start(model, threads)?),
    };
    if let Some(path) = &options.warm_up {
        warm_up(path, &mut *engine, stage)?;
    }
    let streams = Streams::open(&options.input, &options.output)?;
    if options.threads > 1 {
        // A pipe of the default size holds too few bytes to keep more than one thread
        // busy.
        streams.input.widen();
    }
    let mut scorer = Scorer::new(engine);
    filter::run(stage, streams, &mut scorer)?;
    if options.scoring.rescore && scorer.errors() > 0 {
        stage.has_findings = true;
    }
    Ok(())
}
