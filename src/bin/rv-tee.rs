//! Copies one stream to several readers.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::main::<rv::TeeArgs>()
}
