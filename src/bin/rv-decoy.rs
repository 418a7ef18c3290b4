//! Passes on requests, byte for byte.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::main::<rv::DecoyArgs>()
}
