//! The flags that all programs share.

use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use clap_complete::Shell;

use crate::wire::lines::LINE_BYTES_MAX_DEFAULT;

/// Parses a duration such as `100ms`, for every flag that takes one. Durations have an
/// upper bound, so that sums of times cannot overflow.
pub fn duration(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if span > DURATION_MAX {
        return Err("is longer than a year".to_owned());
    }
    Ok(span)
}

const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// The size that a flag gives, in bytes; at most `usize::MAX`.
pub fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// The version of the package, and the commit if it was built in a repository.
pub const VERSION: &str = env!("RV_VERSION");

/// Flags of every program.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub struct RunArgs {
    /// Append rejected records to FILE, one JSON object a line (program, input, line,
    /// offset, reason, raw)
    #[arg(global = true, long, value_name = "FILE")]
    pub rejects: Option<String>,

    /// Exit at the first rejected record, with status 3
    #[arg(global = true, long)]
    pub strict: bool,

    /// Reject lines longer than SIZE
    #[arg(global = true, long, value_name = "SIZE", default_value_t = ByteSize::b(LINE_BYTES_MAX_DEFAULT as u64))]
    pub max_line_bytes: ByteSize,

    /// Allow the program this long to finish after SIGINT or SIGTERM. A second
    /// SIGTERM has no effect; a second SIGINT ends the program at once
    #[arg(global = true, long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub grace: Duration,

    /// Rewrite FILE with the current counts while running: as JSON, or as Prometheus
    /// text if its name ends in .prom
    #[arg(global = true, long, value_name = "FILE")]
    pub stats: Option<String>,

    /// Print a summary at the end even if stderr is not a terminal and no record was
    /// rejected
    #[arg(global = true, short, long, conflicts_with = "quiet")]
    pub verbose: bool,

    /// Print only errors
    #[arg(global = true, short, long)]
    pub quiet: bool,

    /// The format of messages on stderr
    #[arg(global = true, long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Print completions for SHELL and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<Shell>,

    /// Print the manual page in roff and exit
    #[arg(long, exclusive = true)]
    pub man: bool,

    /// Check the command line and exit: status 0 or 2. rv-up checks its file with it
    #[arg(global = true, long, hide = true)]
    pub check_flags: bool,
}

impl RunArgs {
    /// The flags of a program that has none of these: rv-up, which handles no records.
    pub fn of_supervision() -> RunArgs {
        RunArgs {
            rejects: None,
            strict: false,
            max_line_bytes: ByteSize::b(LINE_BYTES_MAX_DEFAULT as u64),
            // All stages end within this time, each within its own.
            grace: Duration::from_secs(3600),
            stats: None,
            verbose: false,
            quiet: false,
            log_format: LogFormat::Text,
            completions: None,
            man: false,
            check_flags: false,
        }
    }

    /// The longest line that is accepted, in bytes.
    pub fn line_bytes_max(&self) -> usize {
        bytes(self.max_line_bytes)
    }
}

/// The format of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Plain text.
    Text,
    /// One JSON object a message.
    Json,
}
