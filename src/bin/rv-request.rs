//! clients -> requests, responses -> clients.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::main::<rv::RequestArgs>()
}
