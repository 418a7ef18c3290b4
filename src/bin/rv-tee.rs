//! requests -> one copy a reader.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::main::<rv::TeeArgs>()
}
