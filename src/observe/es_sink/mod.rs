//! rv-es-sink: any stream -> Elasticsearch `_bulk`. Each record becomes one document, and
//! is sent again until the service has indexed it.
//!
//! `args` holds the flags. `sink` is the loop's filter. The sink makes `document`s from
//! records, collects them in an `outbox`, sends them with `bulk_calls` through a
//! `client`, and reads the verdict on each record with `bulk_reply`. The subcommand
//! `setup` creates index templates.

mod agreement;
mod args;
mod batch;
mod bulk_calls;
mod bulk_reply;
mod call_error;
mod call_limit;
mod client;
mod credentials;
mod document;
mod index_name;
mod outbox;
mod pass_through;
mod pipeline;
mod schema;
mod servers;
mod service_version;
mod setup;
mod shape;
mod sink;
#[cfg(test)]
mod tests;

use anyhow::Result;

pub use crate::observe::es_sink::args::EsSinkArgs;

use crate::observe::es_sink::args::{EsSinkCommand, SinkOptions};
use crate::observe::es_sink::sink::EsSink;
use crate::stage::cli::RunArgs;
use crate::stage::program::Program;
use crate::stage::streams::Streams;
use crate::stage::{Stage, filter};

impl Program for EsSinkArgs {
    const NAME: &'static str = "rv-es-sink";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        match &self.command {
            Some(EsSinkCommand::Setup(args)) => setup::run(args, stage),
            None => send_stream(&self.check()?, stage),
        }
    }
}

fn send_stream(options: &SinkOptions, stage: &mut Stage) -> Result<()> {
    let mut sink = EsSink::new(stage, options)?;
    // The input is opened before the service answers, so that the writer of a pipe does
    // not wait for the service.
    let streams = Streams::open_input(&options.input)?;
    let outcome = sink
        .check_service(stage)
        .and_then(|()| filter::run(stage, streams, &mut sink));
    outcome.map_err(|error| sink.reject_undelivered(stage, error))
}
