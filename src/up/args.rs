//! The flags of `rv-up`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::stage::cli::{RunArgs, VERSION};
use crate::up::launch::LaunchArgs;

/// Run the whole architecture from one file: start it, keep it running, change it.
///
/// The file names the front end, the models and the shadows. Paths in it are relative to
/// its folder. The policy is policy.toml beside it; without one, the production model
/// alone answers, within 10 s. Everything that runs is in the run folder (rv-run).
#[derive(Parser, Clone, Debug)]
#[command(name = "rv-up", version = VERSION, arg_required_else_help = true, after_help = "\
Examples:
  rv-up demo
  rv-up start --production http://127.0.0.1:9001/classify --shadow 'python3 next.py'
  rv-up start rv.toml
  rv-up add next --shadow --exec 'python3 next.py' --model-version 4
  rv-up status
  rv-up stop")]
pub struct UpArgs {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    /// The file
    #[arg(
        global = true,
        short,
        long,
        value_name = "FILE",
        default_value = "rv.toml"
    )]
    pub(super) file: PathBuf,

    /// Print completions for SHELL and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<Shell>,

    /// Print the manual page in roff and exit
    #[arg(long, exclusive = true)]
    man: bool,

    #[arg(skip = RunArgs::of_supervision())]
    pub(super) run: RunArgs,
}

/// The subcommands.
#[derive(Subcommand, Clone, Debug)]
pub(super) enum Command {
    /// Start everything, and return when it runs
    Start(StartArgs),
    /// End everything in order, so that every request is answered
    Stop,
    /// Show the state of all stages; the exit status is 0 if models answer, and 3 if not
    Status(StatusArgs),
    /// Add a model or a shadow while everything runs, and to the file
    Add(AddArgs),
    /// Remove a model or a shadow while everything runs, and from the file
    Remove(RemoveArgs),
    /// Put the models, shadows and policy of the files into effect
    Reload,
    /// Print the last messages of rv-up, or of one stage
    Logs(LogsArgs),
    /// Check the file and the policy, and start nothing
    Check,
    /// Show everything with two small models: makes a folder and starts it
    Demo(DemoArgs),
    #[command(hide = true)]
    Hold(HoldArgs),
    #[command(hide = true)]
    Supervise(SuperviseArgs),
    #[command(hide = true)]
    Launch(LaunchArgs),
}

/// The flags of `start`.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct StartArgs {
    /// The file, instead of --file
    #[arg(value_name = "FILE")]
    pub start_file: Option<PathBuf>,

    /// Write the file: the model server at URL answers, and clients call its path
    #[arg(long, value_name = "URL", conflicts_with = "start_file")]
    pub production: Option<String>,

    /// With --production: a program that never answers, as for `exec` in the file. May be
    /// repeated
    #[arg(long, value_name = "COMMAND", requires = "production")]
    pub shadow: Vec<String>,

    /// With --production: the address of the calls
    #[arg(long, value_name = "ADDRESS", requires = "production")]
    pub listen: Option<String>,

    /// With --production: the address for operators
    #[arg(long, value_name = "ADDRESS", requires = "production")]
    pub admin: Option<String>,

    /// With --production: the run folder
    #[arg(long, value_name = "DIR", requires = "production")]
    pub dir: Option<String>,

    /// Stay in the foreground until everything has ended, as systemd wants
    #[arg(long)]
    pub foreground: bool,
}

/// The flags of `status`.
#[derive(Args, Clone, Debug)]
pub(super) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The flags of `add`.
#[derive(Args, Clone, Debug)]
pub(super) struct AddArgs {
    /// The name of the seat
    pub name: String,

    /// It never answers, whatever the policy says
    #[arg(long)]
    pub shadow: bool,

    /// What runs in the seat.
    #[command(flatten)]
    pub runs: RunsArgs,

    /// The name of the model in its scores, if it has no file [default: NAME]
    #[arg(long, value_name = "NAME")]
    pub model_name: Option<String>,

    /// The version of the model in its scores, if it has no file [default: 1]
    #[arg(long, value_name = "N")]
    pub model_version: Option<u64>,

    /// Restart it when it makes no progress
    #[arg(long)]
    pub restart_when_stuck: bool,

    /// Flags of rv-score, such as `--batch 64`
    #[arg(last = true, value_name = "FLAG")]
    pub flags: Vec<String>,
}

/// What runs in the seat.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct RunsArgs {
    /// A model file, of rv or ONNX
    #[arg(long, value_name = "FILE")]
    pub model: Option<String>,

    /// A program that answers model inputs, as for `rv-score --exec`
    #[arg(long, value_name = "COMMAND")]
    pub exec: Option<String>,

    /// A model server, as for `rv-score --url`
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,

    /// A program that reads requests and writes scores
    #[arg(long, value_name = "COMMAND")]
    pub command: Option<String>,
}

/// The flags of `remove`.
#[derive(Args, Clone, Debug)]
pub(super) struct RemoveArgs {
    /// The name of the seat
    pub name: String,
}

/// The flags of `logs`.
#[derive(Args, Clone, Debug)]
pub(super) struct LogsArgs {
    /// The stage: front, tee, rendezvous, archive, decisions, or the name of a seat
    pub name: Option<String>,

    /// The number of lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    pub lines: usize,
}

/// The flags of `demo`.
#[derive(Args, Clone, Debug)]
pub(super) struct DemoArgs {
    /// The folder that is made
    #[arg(value_name = "FOLDER", default_value = "rv-demo")]
    pub folder: PathBuf,

    /// The address of the calls
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    pub listen: String,

    /// The address for operators
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8001")]
    pub admin: String,
}

/// The flags of the holder.
#[derive(Args, Clone, Debug)]
pub(super) struct HoldArgs {
    /// Standard input is the connection to a supervisor that runs
    #[arg(long)]
    pub adopt: bool,

    /// The run folder, which the file may name differently by now
    #[arg(long)]
    pub dir: String,
}

/// The flags of the supervisor.
#[derive(Args, Clone, Debug)]
pub(super) struct SuperviseArgs {
    /// The run folder, which the file may name differently by now
    #[arg(long)]
    pub dir: String,
}
