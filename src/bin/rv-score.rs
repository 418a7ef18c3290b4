//! requests -> scores.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::stage::cli::main::<rv::serve::score::ScoreArgs>()
}
