//! HTTP clients to requests, and responses back to the clients.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::main::<rv::RequestArgs>()
}
