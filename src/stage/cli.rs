//! The flags that all programs share, and the way a program begins and ends.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bytesize::ByteSize;
use clap::{Args, Parser, ValueEnum};
use clap_complete::Shell;

use crate::stage::report::say;
use crate::stage::{EndedEarly, Stage};
use crate::wire::lines::LINE_BYTES_MAX_DEFAULT;

/// The version of the package and, where it was built in a repository, the
/// commit.
pub const VERSION: &str = env!("RV_VERSION");

/// Flags of every program.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub struct RunArgs {
    /// Keep rejected records in FILE, one JSON object a line (program, input,
    /// line, offset, reason, raw)
    #[arg(long, value_name = "FILE")]
    pub rejects: Option<String>,

    /// End at the first rejected record, with status 3
    #[arg(long)]
    pub strict: bool,

    /// Reject longer lines
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::b(LINE_BYTES_MAX_DEFAULT as u64))]
    pub max_line_bytes: ByteSize,

    /// How long to go on after SIGINT or SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub grace: Duration,

    /// Keep the counts in FILE while running: JSON, or Prometheus text where the
    /// name ends in .prom
    #[arg(long, value_name = "FILE")]
    pub stats: Option<String>,

    /// Print a summary at the end even where nobody watches and all went well
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,

    /// Print errors only
    #[arg(short, long)]
    pub quiet: bool,

    /// The form of messages on stderr
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
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
    let args = P::parse();
    let run_args = args.run_args().clone();
    if let Some(shell) = run_args.completions {
        clap_complete::generate(shell, &mut P::command(), P::NAME, &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    if run_args.man {
        let printed = clap_mangen::Man::new(P::command()).render(&mut std::io::stdout());
        return ExitCode::from(if printed.is_ok() { 0 } else { 3 });
    }
    let outcome = Stage::new(P::NAME, &run_args).and_then(|mut stage| {
        let outcome = args.run(&mut stage);
        let flushed = stage.report.flush();
        outcome.and(flushed)?;
        Ok(u8::from(stage.report.rejected() > 0 || stage.found_wanting))
    });
    ExitCode::from(match outcome {
        Ok(status) => status,
        Err(error) => {
            let status = exit_status(&error);
            if status != DOWNSTREAM_CLOSED {
                say(P::NAME, run_args.log_format, "error", &format!("{error:#}"));
            }
            status
        }
    })
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
