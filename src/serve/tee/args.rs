//! The flags of `rv-tee`, and the checks of their values.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Parser;

use crate::serve::tee::spill::OnFull;
use crate::stage::cli::{RunArgs, VERSION, duration};
use crate::stage::streams::{InputArgs, OutputArgs};
use crate::stream::address::Address;

/// Copy a stream to many readers, so that no reader delays the others.
///
/// Each PATH and standard output are keeping branches: lines that the reader has not read
/// wait in memory, then on disk, and are delivered in order. A live branch (--live) drops its
/// oldest lines instead, because a model must not score requests whose answers come too late.
/// A regular file is written at full speed, as `tee` does.
///
/// A named pipe needs no reader at the start. When its reader exits, another reader may open
/// the pipe. The new reader starts with a whole line; if it opens the pipe at once, it may
/// start with one torn line. On a keeping branch, it gets all the remaining lines that the
/// last reader did not read.
///
/// If --live or --live-dir is given, a keeping branch never delays the others. When its spill
/// is full, lines are dropped, reported and counted. Without these flags no line is lost:
/// readers that keep reading set the speed of the input, the lines of a reader that lags are
/// spilled, and a full spill stops the input.
///
/// At the end of the input, rv-tee waits until every keeping branch has all its lines. It waits
/// for a live branch as long as its reader keeps reading.
#[derive(Parser, Clone, Debug)]
#[command(name = "rv-tee", version = VERSION, after_help = "\
Examples:
  rv-tee --live dt.in --live lr.in decoy.in < requests > rendezvous.in
  rv-tee -i requests --follow --no-stdout --live-dir models --keep-dir keepers \\
    --spill-dir spill --stats tee.json")]
pub struct TeeArgs {
    /// A keeping branch: a named pipe or a file; a file is truncated first
    #[arg(value_name = "PATH")]
    pub(super) paths: Vec<Address>,

    /// A live branch, through the named pipe PATH
    #[arg(long, value_name = "PATH")]
    pub(super) live: Vec<String>,

    /// Each named pipe in DIR is a live branch, from its creation to its removal
    #[arg(long, value_name = "DIR")]
    pub(super) live_dir: Vec<String>,

    /// Each named pipe in DIR is a keeping branch, from its creation to its removal; removing the
    /// pipe also deletes its spill
    #[arg(long, value_name = "DIR")]
    pub(super) keep_dir: Vec<String>,

    /// Write no copy to standard output
    #[arg(long, conflicts_with = "output")]
    pub(super) no_stdout: bool,

    /// Append to files instead of truncating them
    #[arg(short, long)]
    pub(super) append: bool,

    #[command(flatten)]
    pub(super) input: InputArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,

    /// How many bytes of lines may wait in memory for each branch
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::mib(16))]
    pub(super) queue: ByteSize,

    /// How long a line may wait for a live branch; older lines are dropped
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(super) live_age: Duration,

    /// Spill into DIR; the next rv-tee that is given DIR delivers the lines left there. Without
    /// this flag, lines are spilled to unnamed files in $TMPDIR and are lost when rv-tee exits
    #[arg(long, value_name = "DIR")]
    pub(super) spill_dir: Option<PathBuf>,

    /// How many bytes may be spilled for each branch
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::gib(1))]
    pub(super) spill_max: ByteSize,

    /// How many bytes may wait in memory to be spilled for each branch, if the disk is slower
    /// than the input. If more bytes wait, the spill counts as full
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::mib(64))]
    pub(super) spill_queue: ByteSize,

    /// What to do when a spill is full: drop new lines, or block the input for all branches. The
    /// default is drop if --live or --live-dir is given, otherwise block. If the input is a file
    /// and this flag is not given, nothing is spilled: reading waits for the readers
    #[arg(long, value_enum, value_name = "ACTION")]
    pub(super) on_full: Option<OnFull>,

    /// How many bytes the pipe of a live branch holds, rounded up to pages. Lines in the pipe
    /// cannot be dropped, so a slow model has to read them first. A larger pipe carries more
    /// lines a second
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::kib(4))]
    pub(super) live_pipe: ByteSize,

    #[command(flatten)]
    pub(super) run: RunArgs,
}

impl TeeArgs {
    /// Whether any branch is live. Then no branch may be delayed by another one.
    fn is_live(&self) -> bool {
        !(self.live.is_empty() && self.live_dir.is_empty())
    }

    /// What to do when a spill is full: the flag's value, or its default.
    pub(super) fn on_full(&self) -> OnFull {
        let default = match self.is_live() {
            true => OnFull::Drop,
            false => OnFull::Block,
        };
        self.on_full.unwrap_or(default)
    }
}
