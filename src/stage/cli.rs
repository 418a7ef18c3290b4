//! The flags that all programs share.

use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use clap_complete::Shell;

use crate::wire::lines::LINE_BYTES_MAX_DEFAULT;

/// Reads a span of time such as `100ms`, for every flag that takes one. A bound
/// keeps sums of times away from their limits.
pub fn duration(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if span > DURATION_MAX {
        return Err("is longer than a year".to_owned());
    }
    Ok(span)
}

const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// A size that a flag gives, in bytes. A size that memory cannot have is the largest one
/// that it can.
pub fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

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
        bytes(self.max_line_bytes)
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
