//! Runs the whole architecture from one file.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::main::<rv::UpArgs>()
}
