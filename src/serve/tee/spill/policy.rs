//! What a spill does with lines when it is full, and when its branch ends.

use clap::ValueEnum;

/// What to do with lines for which a spill has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFull {
    /// Drop and count new lines; no branch waits
    Drop,
    /// Read no more input until the spill has room; all branches wait
    Block,
}

/// What to do with the stored lines when a branch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpillEnd {
    /// Keep the lines for the next process.
    Keep,
    /// Delete the lines, because the pipe of the branch was removed.
    Remove,
}
