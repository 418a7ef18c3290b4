//! The end of everything, one stage after the other.

use std::fs;
use std::time::Instant;

use anyhow::anyhow;
use crossbeam_channel::Sender;

use crate::up::control::Reply;
use crate::up::plan::end_order;
use crate::up::run_folder::{STARTED, STOPPING};
use crate::up::supervisor::change::Stopping;
use crate::up::supervisor::state::Supervisor;

impl Supervisor {
    /// Begins the end of everything, or waits for it with the others.
    pub(super) fn stop(&mut self, reply: Option<Sender<Reply>>, fault: Option<anyhow::Error>) {
        // If this supervisor dies, the next one goes on with the end.
        let _ = fs::write(self.around.run.path(STOPPING), "");
        let stopping = self.stopping.get_or_insert_with(Stopping::default);
        stopping.waiting.extend(reply);
        if stopping.fault.is_none() {
            stopping.fault = fault;
        }
        if let Some(reply) = self.job.take().and_then(|job| job.reply) {
            let _ = reply.send(Reply::failed(&anyhow!("everything is ending")));
        }
    }

    /// Ends the stages whose turn it is. Returns true when all have ended.
    pub(super) fn advance_stop(&mut self, now: Instant) -> bool {
        if self.stopping.is_none() {
            return false;
        }
        let dir = self.around.run.dir.clone();
        let open = self.stages.iter().filter(|stage| !stage.has_ended());
        if let Some(turn) = open.map(|stage| end_order(&stage.plan)).min() {
            for stage in &mut self.stages {
                if end_order(&stage.plan) == turn && !stage.is_ending() {
                    stage.end(&mut self.holder, &dir, now);
                }
            }
            return false;
        }
        for stage in &mut self.stages {
            stage.release(&mut self.holder, &dir);
        }
        let run = &self.around.run;
        for name in [STARTED, STOPPING, "control.sock", "processes/supervisor"] {
            let _ = fs::remove_file(run.path(name));
        }
        self.say("all stages have ended");
        let fault = self.stopping.as_ref().and_then(|it| it.fault.as_ref());
        self.holder
            .bye(fault.map(|fault| format!("{fault:#}")).as_deref());
        if let Some(stopping) = self.stopping.take() {
            let reply = match &stopping.fault {
                Some(fault) => Reply::failed(fault),
                None => Reply::done("down"),
            };
            for waiting in &stopping.waiting {
                let _ = waiting.send(reply.clone());
            }
        }
        true
    }
}
