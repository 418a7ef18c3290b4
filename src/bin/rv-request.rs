//! Turns HTTP calls into requests, and returns the responses to the clients.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::main::<rv::RequestArgs>()
}
