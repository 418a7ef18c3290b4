//! rv-score: reads requests and writes scores.
//!
//! `args` defines its flags. `scorer` is the filter in the loop: it gives each request
//! to an `engine` and writes the finished scores. The engines `single_thread` and
//! `threads` use a `model_file` with an `evaluator`; `onnx` has the engine of ONNX
//! models. `scoring` is what they share, and `score_writer` writes the scores.

mod answer;
mod args;
mod engine;
mod evaluator;
mod model_file;
mod onnx;
mod score_writer;
mod scorer;
mod scoring;
mod single_thread;
mod threads;
mod warm_up;

use anyhow::Result;

pub use crate::serve::score::args::ScoreArgs;

use crate::model::inspect;
use crate::serve::score::args::{Command, ModelChoice, ScoreOptions};
use crate::serve::score::engine::Engine;
use crate::serve::score::model_file::ModelFile;
use crate::serve::score::onnx::engine::OnnxEngine;
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
            None => score(&self.scoring.check()?, stage),
        }
    }
}

fn score(options: &ScoreOptions, stage: &mut Stage) -> Result<()> {
    let mut engine = start_engine(options)?;
    if let Some(path) = &options.warm_up {
        warm_up(path, &mut *engine, stage)?;
    }
    let streams = Streams::open(&options.input, &options.output)?;
    if options.threads > 1 || matches!(options.model, ModelChoice::Onnx(_)) {
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

/// The engine for the model that was chosen.
fn start_engine(options: &ScoreOptions) -> Result<Box<dyn Engine>> {
    let scoring = options.scoring.clone();
    Ok(match &options.model {
        ModelChoice::File(path) => {
            let model = ModelFile::load(path, options.allow_new_version, scoring)?;
            match options.threads {
                1 => Box::new(SingleThread::new(model)),
                threads => Box::new(Threads::start(model, threads)?),
            }
        }
        ModelChoice::Onnx(model) => Box::new(OnnxEngine::start((**model).clone(), scoring)?),
    })
}
