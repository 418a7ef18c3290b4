//! `rv-tee`: copies a stream to many readers, so that no reader delays the others.

mod args;
mod block;
mod branch;
mod bulk;
mod copier;
mod opening;
mod pacing;
mod sending;
mod spill;
mod stats;

use anyhow::Result;

pub use crate::serve::tee::args::TeeArgs;
use crate::serve::tee::copier::Tee;
use crate::stage::Stage;
use crate::stage::cli::RunArgs;
use crate::stage::program::Program;
use crate::stream::cursor::Cursor;
use crate::stream::input::Input;

impl Program for TeeArgs {
    const NAME: &'static str = "rv-tee";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        let input = Input::open(&self.input.input, self.input.follow)?;
        let cursor = Cursor::new(input, stage.line_bytes_max);
        let mut tee = Tee::open(self, cursor, stage)?;
        let stopped = tee.serve(stage)?;
        tee.finish(stopped, stage)
    }
}
