//! The reasons for which a program ends, and the exit status of each.

use std::fmt;

/// The work is done.
pub const DONE: u8 = 0;

/// The work is done, but a record was rejected or a check failed.
pub const DONE_WITH_FINDINGS: u8 = 1;

/// The command line or a configuration file is wrong.
const USAGE: u8 = 2;

/// The program has failed.
pub const FAILED: u8 = 3;

/// The reader of the output has closed it. A shell reports the same status for a
/// program that SIGPIPE ended.
pub const DOWNSTREAM_CLOSED: u8 = 141;

/// The signal that tells a program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT reaches all stages of a pipeline: sources stop, and the other stages read
    /// to the end of their input.
    Interrupt,
    /// SIGTERM is sent to this stage alone, so that a successor can replace the stage.
    Terminate,
}

impl Stop {
    /// The exit status of a program that the signal ended before its work was done.
    pub fn exit_status(self) -> u8 {
        match self {
            // 128 plus the number of the signal, as shells report it.
            Stop::Interrupt => 130,
            Stop::Terminate => 143,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Stop::Interrupt => "SIGINT",
            Stop::Terminate => "SIGTERM",
        })
    }
}

/// The reasons for ending before the work is done. Any other error is a failure.
#[derive(Debug, thiserror::Error)]
pub enum EndedEarly {
    /// The command line or a configuration file is wrong.
    #[error("{0}")]
    Usage(String),
    /// The reader of the output has closed it, as `head` does.
    #[error("the reader has closed the output")]
    DownstreamClosed,
    /// A signal ended the program before it could finish.
    #[error("cut short by {0}")]
    Signal(Stop),
    /// The program that this one runs has ended with a status other than 0.
    #[error("{message}")]
    Program {
        /// What has happened.
        message: String,
        /// The exit status of that program.
        status: u8,
    },
}

/// An error of usage or configuration: exit status 2.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    EndedEarly::Usage(message.into()).into()
}

/// The exit status of a program that ends with `error`.
pub fn status_of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(EndedEarly::Usage(_)) => USAGE,
        Some(EndedEarly::DownstreamClosed) => DOWNSTREAM_CLOSED,
        Some(EndedEarly::Signal(stop)) => stop.exit_status(),
        Some(EndedEarly::Program { status, .. }) => *status,
        None => FAILED,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, Error, anyhow};

    use super::*;

    #[test]
    fn each_reason_has_its_exit_status() {
        let signal = |stop| Error::from(EndedEarly::Signal(stop));
        let in_context = |error: Error| Err::<(), _>(error).context("in a file").unwrap_err();
        for (error, status) in [
            (usage("no such flag"), 2),
            (anyhow!("the disk is full"), 3),
            (signal(Stop::Interrupt), 130),
            (signal(Stop::Terminate), 143),
            (EndedEarly::DownstreamClosed.into(), 141),
        ] {
            assert_eq!(status_of(&error), status, "{error}");
            assert_eq!(status_of(&in_context(error)), status);
        }
    }
}
