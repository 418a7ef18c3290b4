//! The flags for the input and the output of a stage, and the opening of both.

use anyhow::Result;
use clap::Args;

use crate::stage::exit::usage;
use crate::stream::address::Address;
use crate::stream::input::Input;
use crate::stream::output::Output;

/// The flags for the input of a filter.
#[derive(Args, Clone, Debug)]
pub struct InputArgs {
    /// Read from PATH: a file (also `.gz`), a pipe, or a folder that rv-archive writes;
    /// `-` is standard input
    #[arg(short, long, value_name = "PATH", default_value_t = Address::Standard)]
    pub input: Address,

    /// If the input is a pipe, wait for the next writer when the last one has closed,
    /// until SIGINT or SIGTERM
    #[arg(long)]
    pub follow: bool,
}

/// The flags for the output of a filter.
#[derive(Args, Clone, Debug)]
pub struct OutputArgs {
    /// Write to PATH; `-` is standard output
    #[arg(short, long, value_name = "PATH", default_value_t = Address::Standard, value_parser = Address::of_output)]
    pub output: Address,

    /// Begin with a newline, because a previous writer may have died in the middle of a
    /// line
    #[arg(long)]
    pub resume: bool,
}

/// Refuses an output that is the same file as the input.
pub fn refuse_same_file(input: &Address, output: &Address) -> Result<()> {
    if input.is_same_file(output) {
        let shown = match output {
            Address::Standard => input,
            _ => output,
        };
        return Err(usage(format!(
            "{shown}: is both input and output; write to another file and rename it afterwards"
        )));
    }
    Ok(())
}

/// The streams of a filter.
#[derive(Debug)]
pub struct Streams {
    /// The input.
    pub input: Input,
    /// The output.
    pub output: Output,
    /// Whether to begin the output with a newline.
    pub resume: bool,
    /// Whether the stage brings records into the pipeline, so that SIGINT makes it stop
    /// reading. Other stages read to the end of their input.
    pub is_source: bool,
}

impl Streams {
    /// Opens both streams of a filter, without waiting for another program.
    pub fn open(input: &InputArgs, output: &OutputArgs) -> Result<Streams> {
        refuse_same_file(&input.input, &output.output)?;
        // The output is opened first, because its reader may be the writer of the
        // input.
        let output_end = Output::open(&output.output)?;
        let mut streams = Streams::open_input(input)?;
        streams.output = output_end;
        streams.resume = output.resume;
        Ok(streams)
    }

    /// Opens the input of a stage that writes no stream.
    pub fn open_input(input: &InputArgs) -> Result<Streams> {
        let input = Input::open(&input.input, input.follow)?;
        let is_source = input.is_file() || input.is_terminal();
        Ok(Streams {
            input,
            output: Output::nowhere(),
            resume: false,
            is_source,
        })
    }
}
