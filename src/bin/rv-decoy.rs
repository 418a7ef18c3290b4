//! Requests to the same bytes.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::main::<rv::DecoyArgs>()
}
