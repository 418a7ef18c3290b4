//! The flags of a model that is another program, and their checks.

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::stage::cli::duration;
use crate::stage::usage;

/// The largest `--batch`.
const BATCH_MAX: usize = 100_000;

/// The default of `--start-timeout`.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The flags of a model that is another program.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "A program as the model")]
pub struct ExecArgs {
    /// Run COMMAND with `sh -c`. It reads the `modelInput` of each request from its
    /// standard input, one a line, and writes one line for each: any JSON as the result;
    /// an object with `result` and optionally `confidence` and `probabilities`; or
    /// {"error": "..."}. It gets the next line when it has answered
    #[arg(long, value_name = "COMMAND")]
    pub exec: Option<String>,

    /// Write arrays of up to N waiting inputs as a line; the reply must be an array of
    /// the same length
    #[arg(long, value_name = "N", requires = "exec")]
    batch: Option<NonZeroUsize>,

    /// Allow the first line after a start of the program this long, because it may load
    /// its model first. Requests that wait longer than --timeout get error scores
    /// meanwhile [default: 1m]
    #[arg(long, value_name = "DURATION", requires = "exec", value_parser = duration)]
    start_timeout: Option<Duration>,
}

/// The checked options of a model that is another program.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// The command line.
    pub command: String,
    /// The largest number of inputs on a line; `None` if a line is one input and not an
    /// array.
    pub batch: Option<usize>,
    /// The longest time from a line to its reply.
    pub timeout: Duration,
    /// The longest time from a start to the first reply.
    pub start_timeout: Duration,
    /// The longest reply, in bytes.
    pub reply_bytes_max: usize,
}

impl ExecArgs {
    /// Checks the flags; `None` if `--exec` is not given.
    pub fn check(self, timeout: Duration, reply_bytes_max: usize) -> Result<Option<ExecOptions>> {
        let Some(command) = self.exec else {
            return Ok(None);
        };
        if command.trim().is_empty() {
            return Err(usage(
                "--exec is empty: give a command line, such as --exec 'python3 model.py'",
            ));
        }
        if command.contains('\0') {
            return Err(usage("--exec holds a NUL character"));
        }
        let batch = self.batch.map(NonZeroUsize::get);
        if batch.is_some_and(|batch| batch > BATCH_MAX) {
            return Err(usage(format!("--batch must be at most {BATCH_MAX}")));
        }
        Ok(Some(ExecOptions {
            command,
            batch,
            timeout,
            start_timeout: self.start_timeout.unwrap_or(START_TIMEOUT.max(timeout)),
            reply_bytes_max,
        }))
    }
}
