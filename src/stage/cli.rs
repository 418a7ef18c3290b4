//! The flags that all programs share, and the way a program begins and ends.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bytesize::ByteSize;
use clap::{ArgMatches, Args, Parser, ValueEnum};
use clap_complete::Shell;

use crate::stage::report::say;
use crate::stage::{EndedEarly, Stage};
use crate::wire::lines::LINE_BYTES_MAX_DEFAULT;

/// Reads a span of time such as `100ms`, for every flag that takes one. A bound
/// keeps sums of times away from their limits.
pub fn duration(text: &str) -> std::result::Result<Duration, String> {
    let span = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if span > DURATION_MAX {
        return Err("is longer than a year".to_owned());
    }
    Ok(span)
}

const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// The version of the package and, where it was built in a repository, the
/// commit.
pub const VERSION: &str = env!("RV_VERSION");

/// Flags of every program.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub struct RunArgs {
    /// Keep rejected records in FILE, one JSON object a line (program, input,
    /// line, offset, reason, raw)
    #[arg(global = true, long, value_name = "FILE")]
    pub rejects: Option<String>,

    /// End at the first rejected record, with status 3
    #[arg(global = true, long)]
    pub strict: bool,

    /// Reject longer lines
    #[arg(global = true, long, value_name = "SIZE", default_value_t = ByteSize::b(LINE_BYTES_MAX_DEFAULT as u64))]
    pub max_line_bytes: ByteSize,

    /// How long to go on after SIGINT or SIGTERM. SIGTERM again changes nothing, and
    /// a second SIGINT ends at once
    #[arg(global = true, long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub grace: Duration,

    /// Keep the counts in FILE while running: JSON, or Prometheus text where the
    /// name ends in .prom
    #[arg(global = true, long, value_name = "FILE")]
    pub stats: Option<String>,

    /// Print a summary at the end even where nobody watches and all went well
    #[arg(global = true, short, long, conflicts_with = "quiet")]
    pub verbose: bool,

    /// Print errors only
    #[arg(global = true, short, long)]
    pub quiet: bool,

    /// The form of messages on stderr
    #[arg(global = true, long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<Shell>,

    /// Print the manual page in roff and exit
    #[arg(long, exclusive = true)]
    pub man: bool,
}

impl RunArgs {
    /// The limit of a line, in bytes.
    pub fn line_bytes_max(&self) -> usize {
        usize::try_from(self.max_line_bytes.as_u64()).unwrap_or(usize::MAX)
    }
}

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a message.
    Json,
}

/// One of the programs: its arguments, and what it does with them.
pub trait Program: Parser {
    /// What it is called, and how it signs its messages.
    const NAME: &'static str;

    /// The flags that it shares with the others.
    fn run_args(&self) -> &RunArgs;

    /// Does the work.
    fn run(self, stage: &mut Stage) -> Result<()>;
}

/// Runs a program from its command line to its exit status: 0 done; 1 done, but
/// something was rejected; 2 usage; 3 failure; 130 and 143 cut short by a
/// signal; 141 the reader of the output has gone.
pub fn main<P: Program>() -> ExitCode {
    let matches = P::command().get_matches();
    if let Some(status) = describe::<P>(&matches) {
        return status;
    }
    let args = P::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let run_args = args.run_args().clone();
    let status = match Stage::new(P::NAME, &run_args) {
        Ok(mut stage) => {
            let outcome = run_in(&mut stage, args);
            // The stage lives on while this is said: its signals still end a program
            // whose stderr nobody reads.
            status_of::<P>(outcome, &run_args)
        }
        Err(error) => status_of::<P>(Err(error), &run_args),
    };
    ExitCode::from(status)
}

fn run_in<P: Program>(stage: &mut Stage, args: P) -> Result<u8> {
    let outcome = args.run(stage);
    let flushed = stage.report.flush();
    stage.report.sum_up_damaged();
    outcome.and(flushed)?;
    let wanting = stage.found_wanting || stage.report.damaged_files() > 0;
    Ok(u8::from(stage.report.rejected() > 0 || wanting))
}

/// The exit status of what came of a run. An error is said.
fn status_of<P: Program>(outcome: Result<u8>, run_args: &RunArgs) -> u8 {
    outcome.unwrap_or_else(|error| {
        let status = exit_status(&error);
        // A reader that has gone is nothing to speak of; what it costs is.
        if status != DOWNSTREAM_CLOSED || error.chain().len() > 1 {
            say(P::NAME, run_args.log_format, "error", &format!("{error:#}"));
        }
        status
    })
}

/// Prints the completions or the manual page, where one is asked for. Neither
/// needs what the program's work needs.
fn describe<P: Program>(matches: &ArgMatches) -> Option<ExitCode> {
    let mut text = Vec::new();
    if let Some(shell) = matches.get_one::<Shell>("completions") {
        clap_complete::generate(*shell, &mut P::command(), P::NAME, &mut text);
    } else if matches.get_flag("man") {
        clap_mangen::Man::new(P::command())
            .render(&mut text)
            .expect("a Vec takes every write");
    } else {
        return None;
    }
    let written = std::io::stdout().write_all(&text);
    Some(ExitCode::from(if written.is_ok() { 0 } else { 3 }))
}

/// What a shell sees of a program that SIGPIPE has ended.
const DOWNSTREAM_CLOSED: u8 = 141;

fn exit_status(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(EndedEarly::Usage(_)) => 2,
        Some(EndedEarly::DownstreamClosed) => DOWNSTREAM_CLOSED,
        Some(EndedEarly::Signal(stop)) => stop.exit_status(),
        None => 3,
    }
}
