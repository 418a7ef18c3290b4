//! rv-score: reads requests and writes scores.
//!
//! `args` defines its flags. `scorer` is the filter that the main loop runs: it gives
//! each request to an `engine` and writes the finished scores. A model file of rv's own
//! has two engines, `single_thread` and `threads`. Both use a `model_file` with an
//! `evaluator`. `onnx` has the engine of ONNX models, `exec` has the engine of a model
//! that is another program, and `server` has the engine of a model behind an HTTP
//! server. `scoring` and `score_writer` write the scores of all engines.

mod answer;
mod args;
mod engine;
mod evaluation_time;
mod evaluator;
mod exec;
mod held;
mod identity;
mod model_file;
mod onnx;
mod score_writer;
mod scorer;
mod scoring;
mod server;
mod single_thread;
mod threads;
mod warm_up;

use anyhow::Result;

pub use crate::serve::score::args::ScoreArgs;

use crate::import;
use crate::model::inspect;
use crate::serve::score::args::{Command, ModelSource, ScoreOptions};
use crate::serve::score::engine::Engine;
use crate::serve::score::exec::Exec;
use crate::serve::score::model_file::ModelFile;
use crate::serve::score::onnx::engine::OnnxEngine;
use crate::serve::score::scorer::Scorer;
use crate::serve::score::server::Server;
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
            Some(Command::Import(args)) => import::run(*args, stage),
            Some(Command::Inspect(args)) => inspect::run(args, stage),
            Some(Command::Eval(args)) => train::eval::run(args, stage),
            None => score(&self.scoring.check(stage.line_bytes_max)?, stage),
        }
    }
}

fn score(options: &ScoreOptions, stage: &mut Stage) -> Result<()> {
    let mut scorer = Scorer::new(start_engine(options)?);
    let outcome = run(options, &mut scorer, stage);
    let closed = scorer.close(stage);
    outcome.and(closed)?;
    if options.scoring.rescore && scorer.errors() > 0 {
        stage.has_findings = true;
    }
    Ok(())
}

fn run(options: &ScoreOptions, scorer: &mut Scorer, stage: &mut Stage) -> Result<()> {
    if let Some(path) = &options.warm_up {
        warm_up(path, scorer.engine(), stage)?;
    }
    let streams = Streams::open(&options.input, &options.output)?;
    if options.threads > 1 || matches!(options.model, ModelSource::Onnx(_)) {
        // A pipe of the default size holds so few bytes that only one thread would be
        // busy.
        streams.input.widen();
    }
    let input = streams.input.name().to_owned();
    let outcome = filter::run(stage, streams, scorer);
    outcome.map_err(|error| scorer.reject_unscored(stage, &input, error))
}

/// Loads or starts the model.
fn start_engine(options: &ScoreOptions) -> Result<Box<dyn Engine>> {
    let scoring = options.scoring.clone();
    Ok(match &options.model {
        ModelSource::File(path) => {
            let model = ModelFile::load(path, options.allow_new_version, scoring)?;
            match options.threads {
                1 => Box::new(SingleThread::new(model)),
                threads => Box::new(Threads::start(model, threads)?),
            }
        }
        ModelSource::Onnx(model) => Box::new(OnnxEngine::start((**model).clone(), scoring)?),
        ModelSource::Program(program, identity) => {
            Box::new(Exec::start(program.clone(), identity, scoring)?)
        }
        ModelSource::Server(server, identity) => {
            Box::new(Server::start(server, identity, scoring)?)
        }
    })
}
