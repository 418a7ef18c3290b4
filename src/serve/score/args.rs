//! The flags of `rv-score`, and their checks.

use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::import::args::ImportArgs;
use crate::model::bounds::check_name;
use crate::model::inspect::InspectArgs;
use crate::serve::score::exec::args::{ExecArgs, ExecOptions};
use crate::serve::score::identity::Identity;
use crate::serve::score::onnx::args::{OnnxArgs, OnnxOptions, list_fault};
use crate::serve::score::scoring::ScoringOptions;
use crate::serve::score::server::args::{ServerArgs, ServerOptions};
use crate::stage::cli::{RunArgs, VERSION, duration};
use crate::stage::clock::Clock;
use crate::stage::streams::{InputArgs, OutputArgs};
use crate::stage::usage;
use crate::stream::address::Address;
use crate::train::args::TrainArgs;
use crate::train::eval::args::EvalArgs;
use crate::wire::message::is_model_name;

/// Read requests, evaluate a model on each, and write the scores in the order of the
/// requests; those of a server come as they are ready, unless --rescore is given.
///
/// A request that the model cannot evaluate gets a score with an `error`, so that the
/// rendezvous does not wait for it. The model is a file of rv or an ONNX file (--model),
/// any program (--exec) or a server (--url). SIGHUP reloads the file, starts the program again, or reads the
/// credentials for the server again.
#[derive(Parser, Clone, Debug)]
#[command(name = "rv-score", version = VERSION, args_conflicts_with_subcommands = true, after_help = "\
Examples:
  rv-score train --input fixtures/iris.csv --target target \\
    --features sepalLength,sepalWidth,petalLength,petalWidth \\
    --algorithm decision-tree --name dt --model-version 1 --output dt.json
  rv-score eval --model dt.json --data fixtures/iris.csv
  rv-score --model dt.json < requests.ndjson > scores.ndjson
  rv-score --exec 'python3 model.py' --batch 64 --name mine --model-version 1 \\
    < requests.ndjson > scores.ndjson
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
    /// Turn a LightGBM or XGBoost model into a model file that needs no library
    Import(Box<ImportArgs>),
    /// Print a model as readable text
    Inspect(InspectArgs),
    /// Measure a model on rows whose labels are known
    Eval(EvalArgs),
}

/// The flags of scoring.
#[derive(Args, Clone, Debug)]
pub(super) struct ScoringArgs {
    /// The model file, as `rv-score train` and `rv-score import` write it, or an ONNX
    /// model (`FILE.onnx`)
    #[arg(long, value_name = "FILE")]
    model: Option<String>,

    /// The name of the model in its scores, for a model that has no file of rv's own
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// The version of the model in its scores, for a model that has no file of rv's own
    #[arg(long, value_name = "N")]
    model_version: Option<u64>,

    /// For ONNX models and for servers with `v2` or `mlflow`: the features to pass, in the
    /// order of the model's inputs. A name that begins with `/` is a JSON pointer into
    /// `modelInput`. Default: `rv.features` in an ONNX file's metadata, or its inputs' names;
    /// for servers all members in their order
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    features: Vec<String>,

    /// The `modelHash` in the scores of a model that is a program or a server
    #[arg(long, value_name = "TEXT")]
    model_hash: Option<String>,

    /// Write an error score if a program or a server has not answered within DURATION
    /// [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,

    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,

    /// Write the probability of every class, not only of the predicted one, if the model
    /// gives it
    #[arg(long)]
    probabilities: bool,

    /// Answer requests older than this with an error instead of evaluating them. With
    /// --exec and --url, the age includes the expected time of the evaluation
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "rescore")]
    skip_older: Option<Duration>,

    /// Evaluate the recorded requests in FILE before the input is opened
    #[arg(long, value_name = "FILE")]
    warm_up: Option<Address>,

    /// Evaluate a model file with N threads; the scores keep the order of the requests
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

    // These flags come last, because each of these groups begins a heading of the help.
    #[command(flatten)]
    exec: ExecArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    onnx: OnnxArgs,
}

/// The checked options of scoring.
#[derive(Clone, Debug)]
pub struct ScoreOptions {
    /// The model.
    pub model: ModelSource,
    /// Whether a reload may change the name or version.
    pub allow_new_version: bool,
    /// The file of recorded requests that are evaluated before the input is opened.
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

/// The model to run.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// A model file of rv's own, at this path.
    File(String),
    /// An ONNX model.
    Onnx(Box<OnnxOptions>),
    /// Another program.
    Program(ExecOptions, Identity),
    /// An HTTP server.
    Server(Box<ServerOptions>, Identity),
}

/// The default of `--timeout`.
const TIMEOUT: Duration = Duration::from_secs(10);

impl ScoringArgs {
    /// Checks the flags. A line of a model may have up to `line_bytes_max` bytes.
    pub(super) fn check(mut self, line_bytes_max: usize) -> Result<ScoreOptions> {
        Ok(ScoreOptions {
            model: self.check_model(line_bytes_max)?,
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

    /// Checks the flags that say which model runs.
    fn check_model(&mut self, line_bytes_max: usize) -> Result<ModelSource> {
        let timeout = self.timeout.unwrap_or(TIMEOUT);
        if timeout.is_zero() {
            return Err(usage("--timeout must be more than 0"));
        }
        if let Some(fault) = list_fault(&self.features) {
            return Err(usage(format!("--features: {fault}")));
        }
        let program = self.exec.clone().check(timeout, line_bytes_max)?;
        let server = { self.server.clone() }.check(&self.features, timeout, line_bytes_max)?;
        match (self.model.take(), program, server) {
            (Some(file), None, None) if OnnxArgs::is_onnx(&file) => self.check_onnx(file),
            (Some(file), None, None) => {
                self.onnx.refuse()?;
                self.refuse_flags_of_others()?;
                Ok(ModelSource::File(file))
            }
            (None, Some(program), None) => {
                self.refuse_flags_of_files("--exec")?;
                if self.threads.get() > 1 {
                    return Err(usage(
                        "--threads does not apply to --exec, whose program gets one line at a time; --batch gives it several inputs at once, and the program may use threads itself",
                    ));
                }
                Ok(ModelSource::Program(program, self.identity("--exec")?))
            }
            (None, None, Some(server)) => {
                self.refuse_flags_of_files("--url")?;
                if self.threads.get() > 1 {
                    return Err(usage(
                        "--threads does not apply to --url, whose server evaluates; --in-flight says how many calls are made at once",
                    ));
                }
                Ok(ModelSource::Server(
                    Box::new(server),
                    self.identity("--url")?,
                ))
            }
            (None, None, None) => Err(usage(
                "no model is given: name its file with --model (`rv-score train` writes one), a program with --exec, or a server with --url",
            )),
            _ => Err(usage("give only one of --model, --exec and --url")),
        }
    }

    /// Checks the flags for an ONNX model.
    fn check_onnx(&self, path: String) -> Result<ModelSource> {
        if let Some(name) = &self.name {
            check_name(name).map_err(|fault| usage(format!("--name: {fault}")))?;
        }
        for (flag, is_given) in [
            ("--model-hash", self.model_hash.is_some()),
            ("--timeout", self.timeout.is_some()),
        ] {
            if is_given {
                return Err(usage(format!(
                    "{flag} does not apply to an ONNX model, which is evaluated here and has a hash"
                )));
            }
        }
        Ok(ModelSource::Onnx(Box::new(OnnxOptions {
            name: self.name.clone(),
            version: self.model_version,
            features: self.features.clone(),
            threads: usize::from(self.threads.get()),
            allow_new_version: self.allow_new_version,
            ..self.onnx.clone().check(path)?
        })))
    }

    /// Refuses the flags that have no meaning for a file of rv's own.
    fn refuse_flags_of_others(&self) -> Result<()> {
        let given = [
            ("--name", self.name.is_some()),
            ("--model-version", self.model_version.is_some()),
            ("--model-hash", self.model_hash.is_some()),
            ("--timeout", self.timeout.is_some()),
            ("--features", !self.features.is_empty()),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((flag, _)) => Err(usage(format!(
                "{flag} does not apply to a model file of rv's own, which holds its name, version and hash and is evaluated here"
            ))),
            None => Ok(()),
        }
    }

    /// Refuses the flags that have a meaning only for a model file.
    fn refuse_flags_of_files(&self, kind: &str) -> Result<()> {
        self.onnx.refuse()?;
        if kind == "--exec" && !self.features.is_empty() {
            return Err(usage(
                "--features does not apply to --exec, whose program gets the whole modelInput",
            ));
        }
        match self.allow_new_version {
            true => Err(usage(format!(
                "--allow-new-version does not apply to {kind}: --name and --model-version name the model"
            ))),
            false => Ok(()),
        }
    }

    /// The name of a model that has no file.
    fn identity(&self, kind: &str) -> Result<Identity> {
        let (Some(name), Some(version)) = (&self.name, self.model_version) else {
            return Err(usage(format!(
                "{kind} needs --name and --model-version: they stand in every score, and policies refer to them"
            )));
        };
        if !is_model_name(name) {
            return Err(usage(
                "--name must have 1 to 256 bytes and no control characters",
            ));
        }
        if let Some(hash) = &self.model_hash
            && (hash.is_empty() || hash.len() > 256 || hash.contains(char::is_control))
        {
            return Err(usage(
                "--model-hash must have 1 to 256 bytes and no control characters",
            ));
        }
        Ok(Identity {
            name: name.clone(),
            version,
            hash: self.model_hash.clone(),
        })
    }
}
