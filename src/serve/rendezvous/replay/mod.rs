//! Recordings -> responses, decided without a clock.

mod decisions;
mod responder;
mod streams;
mod summary;

use anyhow::Result;

use crate::serve::rendezvous::args::RendezvousArgs;
use crate::serve::rendezvous::replay::responder::Responder;
use crate::stage::Stage;

/// Runs `rv-rendezvous --replay`.
pub fn run(stage: &mut Stage, args: &RendezvousArgs) -> Result<()> {
    let mut responder = Responder::open(args)?;
    if args.requests.is_some() {
        streams::run(stage, args, &mut responder)?;
    } else {
        decisions::run(stage, args, &mut responder)?;
    }
    responder.finish(stage)
}
