//! What makes a function a Unix program: its command line, messages, signals,
//! statistics and exit status, and the loop that moves records through it.

pub mod backlog;
pub mod cli;
pub mod clock;
pub mod filter;
#[cfg(test)]
pub mod limit;
pub mod queue;
pub mod recording;
pub mod rejects;
pub mod report;
pub mod signals;
pub mod stats;
pub mod streams;
pub mod task;
pub mod wait;

mod watchdog;
pub mod worker_pool;

use anyhow::Result;

use crate::stage::cli::RunArgs;
use crate::stage::report::Report;
use crate::stage::signals::{Signals, Stop};
use crate::stage::stats::StatsFile;
use crate::stream::input::Input;

/// What every stage holds while it runs.
#[derive(Debug)]
pub struct Stage {
    /// Messages, and the records set aside.
    pub report: Report,
    /// What the program was asked to do by signals.
    pub signals: Signals,
    /// Where the counts go while it runs.
    pub stats: StatsFile,
    /// The limit of a line in bytes.
    pub line_bytes_max: usize,
    /// Set where the work is done but its outcome is not what was hoped for, such
    /// as errors in a rescoring: exit status 1.
    pub found_wanting: bool,
}

impl Stage {
    /// Sets up what the flags ask for. Nothing is read or written yet.
    pub fn new(program: &'static str, args: &RunArgs) -> Result<Stage> {
        Ok(Stage {
            signals: Signals::new(program, args.log_format, args.grace)?,
            report: Report::new(program, args)?,
            stats: StatsFile::new(program, args.stats.clone()),
            line_bytes_max: args.line_bytes_max(),
            found_wanting: false,
        })
    }

    /// Tells what was wrong with the recorded files of `input`. To be called after
    /// each read of an input that may be an archive.
    pub fn hear(&mut self, input: &mut Input) -> Result<()> {
        for fault in input.take_faults() {
            self.report.damaged(&fault)?;
        }
        Ok(())
    }
}

/// Why a program ends before its work is done. Everything else is a failure.
#[derive(Debug, thiserror::Error)]
pub enum EndedEarly {
    /// The command line or a file of settings is wrong.
    #[error("{0}")]
    Usage(String),
    /// The reader of the output has gone, as `head` does.
    #[error("the reader of the output has gone")]
    DownstreamClosed,
    /// A signal left no time to finish.
    #[error("cut short by {0}")]
    Signal(Stop),
}

/// An error of usage or configuration: exit status 2.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    EndedEarly::Usage(message.into()).into()
}
