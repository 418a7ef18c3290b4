//! requests, scores -> responses.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::stage::cli::main::<rv::serve::rendezvous::RendezvousArgs>()
}
