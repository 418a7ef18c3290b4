//! One stream to several copies, one for each reader.

use std::process::ExitCode;

fn main() -> ExitCode {
    rv::main::<rv::TeeArgs>()
}
