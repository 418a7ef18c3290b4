//! rv-decoy: passes requests on unchanged. A decoy takes the place of a model and never
//! scores.

use anyhow::Result;
use clap::Parser;

use crate::stage::Stage;
use crate::stage::cli::{RunArgs, VERSION};
use crate::stage::filter::{self, Filter};
use crate::stage::program::Program;
use crate::stage::stats::Snapshot;
use crate::stage::streams::{InputArgs, OutputArgs, Streams};
use crate::wire::lines::Line;

/// Pass every request on unchanged: an exact copy of the models' input.
///
/// Takes the place of a model, but never writes a score. Lines are not parsed. A
/// missing newline at the end of the input is added.
#[derive(Parser, Clone, Debug)]
#[command(name = "rv-decoy", version = VERSION, after_help = "\
Example:
  rv-decoy -i decoy.in | rv-archive --dir logs")]
pub struct DecoyArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    run: RunArgs,
}

impl Program for DecoyArgs {
    const NAME: &'static str = "rv-decoy";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        let streams = Streams::open(&self.input, &self.output)?;
        filter::run(stage, streams, &mut Decoy::default())
    }
}

#[derive(Debug, Default)]
struct Decoy {
    read: u64,
    written: u64,
}

impl Filter for Decoy {
    fn line(
        &mut self,
        stage: &mut Stage,
        input: &str,
        line: &Line,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        self.read += 1;
        match line.whole() {
            Ok(bytes) => {
                out.extend_from_slice(bytes);
                out.push(b'\n');
                self.written += 1;
                Ok(())
            }
            Err(reject) => stage.report.reject(input, line, &reject),
        }
    }

    fn snapshot(&self, stage: &Stage) -> Snapshot {
        Snapshot::default()
            .count("in", self.read)
            .count("out", self.written)
            .rejected(&stage.report)
    }
}
