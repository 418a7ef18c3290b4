//! Requests and scores to responses.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::main::<rv::RendezvousArgs>()
}
