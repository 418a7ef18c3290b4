//! Turns requests into scores.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::main::<rv::ScoreArgs>()
}
