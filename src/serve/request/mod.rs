//! rv-request: model inputs or HTTP calls -> requests, responses -> answers.
//!
//! `args` holds the flags. The program works in one of three modes. A filter
//! (`line_wrapper`) makes requests from lines. `closed_loop` also reads the responses,
//! and limits the number of unanswered requests (`unanswered`). `http` serves calls. In
//! each mode `request_writer` writes the requests, after `required_fields` has accepted
//! the input.

mod args;
mod closed_loop;
mod http;
mod http_args;
mod line_wrapper;
mod recent_ids;
mod request_writer;
mod required_fields;
mod unanswered;

use anyhow::Result;

pub use crate::serve::request::args::RequestArgs;

use crate::serve::request::args::Mode;
use crate::serve::request::line_wrapper::LineWrapper;
use crate::serve::request::request_writer::RequestWriter;
use crate::stage::cli::RunArgs;
use crate::stage::program::Program;
use crate::stage::streams::Streams;
use crate::stage::{Stage, filter};

impl Program for RequestArgs {
    const NAME: &'static str = "rv-request";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        let (mode, content) = self.check()?;
        let writer = RequestWriter::new(content)?;
        match mode {
            Mode::Http(options) => http::run(stage, &options, writer),
            Mode::ClosedLoop(options) => closed_loop::run(stage, *options, writer),
            Mode::Filter(options) => {
                let mut streams = Streams::open(&options.input, &options.output)?;
                streams.is_source = true;
                let mut wrapper = LineWrapper::new(writer, options.id_pointer);
                filter::run(stage, streams, &mut wrapper)
            }
        }
    }
}
