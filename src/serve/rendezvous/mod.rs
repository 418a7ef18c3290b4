//! `rv-rendezvous`: requests and scores -> one response for each request, before its
//! deadline.

mod answer;
mod args;
mod check;
mod counts;
mod decision;
mod explain;
mod fate;
mod inputs;
mod live;
mod mailbox;
mod mailboxes;
mod orphans;
mod pace;
mod policy;
mod policy_files;
mod record;
mod replay;
mod routes;

use anyhow::Result;

use crate::serve::rendezvous::args::Command;
pub use crate::serve::rendezvous::args::RendezvousArgs;
use crate::stage::Stage;
use crate::stage::cli::RunArgs;
use crate::stage::program::Program;

impl Program for RendezvousArgs {
    const NAME: &'static str = "rv-rendezvous";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        match &self.command {
            Some(Command::Check(args)) => check::run(args, stage),
            Some(Command::Explain(args)) => explain::run(args, stage),
            None if self.replaying.replay => replay::run(stage, &self),
            None => {
                self.requests()?;
                live::run(stage, &self, self.policy.load()?)
            }
        }
    }
}
