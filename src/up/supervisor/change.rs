//! A change of what runs, and how far it has gone.

use std::time::Instant;

use crossbeam_channel::Sender;

use crate::up::checks::CheckedPolicy;
use crate::up::config::{Config, Role};
use crate::up::control::Reply;
use crate::up::plan::StagePlan;
use crate::up::supervisor::running::RunningStage;

/// A change that is being made.
pub struct Job {
    /// What the change is.
    pub change: Change,
    /// Who waits for the outcome.
    pub reply: Option<Sender<Reply>>,
    /// The stages that end.
    pub ends: Vec<String>,
    /// The stages that start when the others have ended.
    pub starts: Vec<StagePlan>,
    /// The stages that were started.
    pub started: Vec<String>,
    /// How far the change has gone.
    pub phase: Phase,
    /// When this phase began.
    pub since: Instant,
}

/// What a job changes.
pub enum Change {
    /// The first start of all stages.
    Start,
    /// A new seat.
    Add {
        role: Role,
        name: String,
        section: String,
    },
    /// A seat that goes.
    Remove { name: String },
    /// The file and the policy as they are now.
    Reload {
        text: String,
        config: Box<Config>,
        policy: Box<CheckedPolicy>,
    },
}

/// How far a change has gone.
pub enum Phase {
    /// Stages end.
    Ending,
    /// Stages start.
    Starting,
    /// The rendezvous reads the policy with this hash.
    Confirming { hash: String },
    /// A stage did not start, so all that were started end.
    Undoing(anyhow::Error),
}

/// The end of everything.
#[derive(Default)]
pub struct Stopping {
    /// Who waits for the end.
    pub waiting: Vec<Sender<Reply>>,
    /// Why the start has failed, if it has.
    pub fault: Option<anyhow::Error>,
}

impl Job {
    /// The first start of all stages, which were prepared.
    pub fn start(stages: &[RunningStage], now: Instant) -> Job {
        Job {
            change: Change::Start,
            reply: None,
            ends: Vec::new(),
            starts: Vec::new(),
            started: stages.iter().map(|it| it.name().to_owned()).collect(),
            phase: Phase::Starting,
            since: now,
        }
    }

    /// The change in words.
    pub fn text(&self) -> String {
        match &self.change {
            Change::Start => "start".to_owned(),
            Change::Add { name, role, .. } => format!("added {}.{name}", role.table()),
            Change::Remove { name } => format!("removed {name}"),
            Change::Reload { policy, .. } => {
                let mut text = "reloaded".to_owned();
                for warning in &policy.warnings {
                    text += &format!("\nwarning: {warning}");
                }
                text
            }
        }
    }
}
