//! The state of everything, as `status`, `/status.json` and `/readyz` show it.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::up::checks::Identities;
use crate::up::config::Role;
use crate::up::policy::{ModelId, NamedModels};
use crate::up::supervisor::running::Health;

/// The state of everything.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Report {
    /// Whether calls are answered by a model.
    pub ready: bool,
    /// The reason if not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Everything that is wrong although calls are answered.
    pub degraded: Vec<String>,
    /// The address of the calls.
    pub listen: String,
    /// The address for operators, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// The stages, in the order in which they were started.
    pub stages: Vec<StageReport>,
}

/// The state of one stage.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct StageReport {
    /// The name.
    pub name: String,
    /// `stage`, `model` or `shadow`.
    pub kind: String,
    /// The name and version of the model, if they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// `up`, `stuck`, `restarting`, `ending` or `down`.
    pub state: String,
    /// The number of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// How often the stage was started again.
    pub restarts: u64,
    /// For how long the process has run, in seconds.
    pub running_seconds: u64,
    /// For how long the input has waited without progress, in seconds.
    pub stuck_seconds: u64,
    /// How the last process ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_end: Option<String>,
    /// Whether the last five scores of a model were errors.
    pub failing: bool,
    /// The counts without labels, by their names.
    pub counts: BTreeMap<String, u64>,
}

/// What decides whether the whole is ready.
#[derive(Clone, Copy, Debug)]
pub struct SeenStage<'s> {
    /// The name.
    pub name: &'s str,
    /// The state.
    pub health: Health,
    /// Whether the last five scores of a model were errors.
    pub failing: bool,
}

/// Whether calls are answered by a model: `Err` with the reason if not. The list names
/// everything else that is wrong.
pub fn readiness(
    stages: &[SeenStage],
    seats: &Identities,
    named: &NamedModels,
) -> (Result<(), String>, Vec<String>) {
    let mut degraded = Vec::new();
    let mut reason = None;
    for stage in stages {
        let is_core = ["front", "tee", "rendezvous"].contains(&stage.name);
        let fault = match stage.health {
            Health::Up if stage.failing => "fails: its last scores are errors",
            Health::Up => continue,
            Health::Stuck => "makes no progress",
            Health::Restarting => "has died and is starting again",
            Health::Ending | Health::Down => "is not running",
        };
        let fault = format!("{} {fault}", stage.name);
        match is_core && reason.is_none() {
            true => reason = Some(fault),
            false => degraded.push(fault),
        }
    }
    let is_up = |name: &str| {
        let stage = stages.iter().find(|stage| stage.name == name);
        stage.is_some_and(|stage| stage.health == Health::Up && !stage.failing)
    };
    let may_answer = |role: Role, id: Option<&ModelId>| {
        // A model whose name only it knows may be one that the policy names.
        role == Role::Model && id.is_none_or(|id| named.may_answer(id))
    };
    let answering = { seats.iter() }.filter(|(_, role, id)| may_answer(*role, id.as_ref()));
    if reason.is_none() && !answering.clone().any(|(name, _, _)| is_up(name)) {
        reason = Some("no model that may answer is up".to_owned());
    }
    let unknown = seats.iter().any(|(_, _, id)| id.is_none());
    for id in named.expected.union(&named.answering) {
        let runs = seats.iter().any(|(_, _, seat)| seat.as_ref() == Some(id));
        if !runs && !unknown {
            degraded.push(format!("the policy names {id}, which no model here is"));
        }
    }
    (reason.map_or(Ok(()), Err), degraded)
}

impl Report {
    /// The report as a table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<16} {:<8} {:<12} {:<11} {:>8}  {}\n",
            "stage", "kind", "model", "state", "restarts", "counts"
        );
        for stage in &self.stages {
            let shown = ["in", "out", "requests", "errors", "dropped"];
            let counts: Vec<String> = { shown.iter() }
                .filter_map(|name| Some(format!("{name} {}", stage.counts.get(*name)?)))
                .collect();
            let mut notes = counts.join(", ");
            if stage.state == "stuck" {
                let _ = write!(notes, "; no progress for {} s", stage.stuck_seconds);
            }
            if let (true, Some(end)) = (stage.restarts > 0, &stage.last_end) {
                let _ = write!(notes, "; {end}");
            }
            let _ = writeln!(
                text,
                "{:<16} {:<8} {:<12} {:<11} {:>8}  {}",
                stage.name,
                stage.kind,
                stage.model.as_deref().unwrap_or("-"),
                stage.state,
                stage.restarts,
                notes.trim_start_matches("; ")
            );
        }
        for fault in &self.degraded {
            let _ = writeln!(text, "degraded: {fault}");
        }
        match &self.reason {
            None => text += "ready\n",
            Some(reason) => {
                let _ = writeln!(text, "not ready: {reason}");
            }
        }
        text
    }

    /// The body of `/readyz`.
    pub fn readyz(&self) -> serde_json::Value {
        match &self.reason {
            None => serde_json::json!({"ready": true, "degraded": self.degraded}),
            Some(reason) => serde_json::json!({
                "ready": false, "reason": reason, "degraded": self.degraded
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str, version: u64) -> ModelId {
        ModelId {
            name: name.to_owned(),
            version,
        }
    }

    /// The readiness if these stages are not up.
    fn seen(faults: &[(&str, Health)], failing: &[&str]) -> (Result<(), String>, Vec<String>) {
        let names = ["front", "tee", "rendezvous", "archive", "dt", "lr", "next"];
        let stages = names.map(|name| {
            let fault = faults.iter().find(|(stage, _)| *stage == name);
            SeenStage {
                name,
                health: fault.map_or(Health::Up, |(_, health)| *health),
                failing: failing.contains(&name),
            }
        });
        let seats = vec![
            ("dt".to_owned(), Role::Model, Some(id("dt", 1))),
            ("lr".to_owned(), Role::Model, Some(id("lr", 0))),
            ("next".to_owned(), Role::Shadow, Some(id("dt", 2))),
        ];
        let named = NamedModels {
            answering: [id("dt", 1), id("lr", 0)].into(),
            expected: [id("dt", 1), id("lr", 0)].into(),
            ..NamedModels::default()
        };
        readiness(&stages, &seats, &named)
    }

    #[test]
    fn it_is_ready_while_one_model_that_may_answer_is_up() {
        assert_eq!(seen(&[], &[]), (Ok(()), vec![]));
        let (ready, degraded) = seen(
            &[("dt", Health::Restarting), ("archive", Health::Down)],
            &[],
        );
        assert_eq!(ready, Ok(()));
        assert_eq!(
            degraded,
            [
                "archive is not running",
                "dt has died and is starting again"
            ]
        );
        let (ready, degraded) = seen(&[("dt", Health::Stuck)], &["lr"]);
        assert_eq!(ready, Err("no model that may answer is up".to_owned()));
        assert_eq!(
            degraded,
            [
                "dt makes no progress",
                "lr fails: its last scores are errors"
            ]
        );
    }

    #[test]
    fn it_is_not_ready_while_a_stage_of_the_path_makes_no_progress() {
        for stage in ["front", "tee", "rendezvous"] {
            let (ready, degraded) = seen(&[(stage, Health::Stuck)], &[]);
            assert_eq!(ready, Err(format!("{stage} makes no progress")));
            assert!(degraded.is_empty());
        }
    }

    #[test]
    fn a_model_that_only_the_policy_names_is_degraded() {
        let named = NamedModels {
            answering: [id("dt", 1), id("dt", 2)].into(),
            ..NamedModels::default()
        };
        let seats = vec![("dt".to_owned(), Role::Model, Some(id("dt", 1)))];
        let stages = [SeenStage {
            name: "dt",
            health: Health::Up,
            failing: false,
        }];
        let (ready, degraded) = readiness(&stages, &seats, &named);
        assert_eq!(ready, Ok(()));
        assert_eq!(degraded, ["the policy names dt@2, which no model here is"]);
    }
}
