//! The flags of a stage that also writes its records to an output (`--pass`).

use clap::Args;

use crate::stream::address::Address;

/// The output for the records that are passed on.
#[derive(Args, Clone, Debug)]
pub struct PassArgs {
    /// With --pass: write to PATH; `-` is standard output
    #[arg(short, long, value_name = "PATH", default_value_t = Address::Standard, value_parser = Address::of_output, requires = "pass")]
    pub output: Address,

    /// With --pass: write a newline first, because this writer replaces one that may
    /// have died in the middle of a line
    #[arg(long, requires = "pass")]
    pub resume: bool,
}
