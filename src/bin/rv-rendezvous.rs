//! Turns requests and their scores into responses.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::main::<rv::RendezvousArgs>()
}
