//! requests -> the same bytes.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::stage::cli::main::<rv::serve::decoy::DecoyArgs>()
}
