//! clients -> requests, responses -> clients.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::stage::cli::main::<rv::serve::request::RequestArgs>()
}
