//! requests -> one copy a reader.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::stage::cli::main::<rv::serve::tee::TeeArgs>()
}
