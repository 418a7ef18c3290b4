//! rv-archive: any stream -> `log-<id>.gz`, files that are complete as soon as they have
//! this name.
//!
//! `args` holds the flags. `writer` is the loop's filter: it writes lines into a `part`.
//! `publisher` compresses closed parts, one at a time, with `complete_file`. `recovery`
//! completes the parts of a killed run, and `retention` removes the oldest files. The
//! subcommands `cat`, `find` and `verify` read archives.

mod args;
mod cat;
mod closed_part;
mod complete_file;
mod file_id;
mod find;
mod folder;
mod gzip_members;
mod pace;
mod parallel;
mod part;
mod publisher;
mod read_ahead;
mod recovery;
mod retention;
mod stamp;
#[cfg(test)]
mod tests;
mod time_range;
mod verify;
mod writer;

use anyhow::Result;

pub use crate::observe::archive::args::ArchiveArgs;

use crate::observe::archive::args::{ArchiveCommand, ArchiveOptions};
use crate::observe::archive::writer::ArchiveWriter;
use crate::stage::cli::RunArgs;
use crate::stage::program::Program;
use crate::stage::streams::Streams;
use crate::stage::{EndedEarly, Stage, filter};
use crate::stream::output::Output;

impl Program for ArchiveArgs {
    const NAME: &'static str = "rv-archive";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        match &self.command {
            Some(ArchiveCommand::Cat(args)) => cat::run(args, stage),
            Some(ArchiveCommand::Find(args)) => find::run(args, stage),
            Some(ArchiveCommand::Verify(args)) => verify::run(args, stage),
            None => write_archive(&self.check()?, stage),
        }
    }
}

fn write_archive(options: &ArchiveOptions, stage: &mut Stage) -> Result<()> {
    let mut writer = ArchiveWriter::open(stage, options)?;
    // The output is opened before the input, because the reader of the output may be
    // the writer of the input.
    let output = match &options.pass {
        Some(pass) => Output::open(&pass.to.output)?,
        None => Output::nowhere(),
    };
    let mut streams = Streams::open_input(&options.input)?;
    streams.output = output;
    streams.resume = options.pass.as_ref().is_some_and(|pass| pass.to.resume);
    let outcome = filter::run(stage, streams, &mut writer);
    match &outcome {
        // Only the reader of the output has ended. The lines that were read are still
        // archived.
        Err(error) if is_downstream_closed(error) => writer.complete_files(stage)?,
        Err(_) => writer.write_before_failure(stage),
        Ok(()) => {}
    }
    outcome
}

fn is_downstream_closed(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(EndedEarly::DownstreamClosed))
}
