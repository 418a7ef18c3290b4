//! rv-bridge: puts a program between the topics of a broker.
//!
//! `address` reads the addresses of topics, and `plan` checks what was asked for. The
//! `ledger` knows which messages may be acknowledged; it is pure. `frame` makes lines of
//! payloads. `child` starts the program, and `pipes` are its streams. `broker` holds the
//! clients, each behind a cargo feature; they fill the `inbox` as far as their `gate` is
//! open. `run` is the loop.

mod address;
mod args;
mod broker;
mod check;
mod child;
mod frame;
mod gate;
mod inbox;
mod ledger;
mod pipes;
mod plan;
mod run;

use anyhow::Result;

pub use crate::bridge::args::BridgeArgs;

use crate::bridge::plan::Plan;
use crate::bridge::run::Bridge;
use crate::stage::Stage;
use crate::stage::cli::RunArgs;
use crate::stage::program::Program;

impl Program for BridgeArgs {
    const NAME: &'static str = "rv-bridge";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        let has_rejects_file = self.run.rejects.is_some();
        let (streams, only_checks) = self.mode();
        let plan = Plan::new(streams, has_rejects_file)?;
        if only_checks {
            return check::run(&plan, stage);
        }
        Bridge::open(plan, stage, has_rejects_file)?.run()
    }
}
