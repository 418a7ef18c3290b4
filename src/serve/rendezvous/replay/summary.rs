//! What a replay says at its end.

use std::collections::BTreeMap;

use crate::serve::rendezvous::counts::Counts;
use crate::serve::rendezvous::decision::Reason;
use crate::serve::rendezvous::mailbox::Answer;
use crate::serve::rendezvous::record::Decided;
use crate::stage::stats::Snapshot;

/// The most kinds of change that are told one by one.
const KINDS_SHOWN: usize = 20;

/// How many kinds of change are counted; further ones are counted together.
const KINDS_MAX: usize = 1000;

/// How the answers differ from those that were recorded.
#[derive(Debug, Default)]
pub struct Changes {
    compared: u64,
    changed: u64,
    /// Of these, those in which the same model or none answers with another
    /// text, or another model.
    kinds: BTreeMap<(String, String), u64>,
}

impl Changes {
    /// Compares an answer with the one that was recorded.
    pub fn compare(&mut self, recorded: &Decided, answer: &Answer) {
        self.compared += 1;
        let model = answer
            .model
            .as_ref()
            .map(|(name, version)| format!("{name}@{version}"));
        if recorded.model == model && recorded.model_result == *answer.model_result {
            return;
        }
        self.changed += 1;
        let default = || "the default".to_owned();
        let mut kind = (
            recorded.model.clone().unwrap_or_else(default),
            model.unwrap_or_else(default),
        );
        if self.kinds.len() >= KINDS_MAX && !self.kinds.contains_key(&kind) {
            kind = ("others".to_owned(), "others".to_owned());
        }
        *self.kinds.entry(kind).or_default() += 1;
    }

    /// Adds them to the counts, where there was anything to compare with.
    pub fn snapshot(&self, snapshot: Snapshot) -> Snapshot {
        snapshot
            .count("compared", self.compared)
            .count("changed", self.changed)
    }
}

/// The summary, line by line.
pub fn lines(counts: &Counts, changes: &Changes) -> Vec<String> {
    let mut lines = vec![format!(
        "{} requests: {} answered by models, {} by the default, {} repeated",
        counts.requests, counts.by_models, counts.defaults, counts.repeated
    )];
    let by_model = counts.by_model();
    let models = by_model.iter();
    let models: Vec<_> = models
        .map(|(model, count)| format!("{model} {count}"))
        .collect();
    if !models.is_empty() {
        lines.push(format!("by model: {}", models.join(", ")));
    }
    let reasons = Reason::ALL.iter().filter_map(|reason| {
        let count = counts.by_reason.get(reason)?;
        Some(format!("{} {count}", reason.name()))
    });
    let reasons: Vec<_> = reasons.collect();
    if !reasons.is_empty() {
        lines.push(format!("by reason: {}", reasons.join(", ")));
        let after = |q| counts.answered_after.quantile(q).as_millis();
        lines.push(format!(
            "answered after: p50 {} ms, p90 {} ms, p99 {} ms, p99.9 {} ms",
            after(0.5),
            after(0.9),
            after(0.99),
            after(0.999)
        ));
    }
    lines.push(format!(
        "{} scores: {} used, {} unused, {} late, {} duplicate, {} orphaned, {} failed",
        counts.scores,
        counts.used,
        counts.unused,
        counts.late,
        counts.duplicate,
        counts.orphaned,
        counts.failed
    ));
    if changes.compared > 0 {
        lines.push(format!(
            "{} of {} answers differ from those recorded",
            changes.changed, changes.compared
        ));
    }
    let mut kinds: Vec<_> = changes.kinds.iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for ((from, to), count) in kinds.into_iter().take(KINDS_SHOWN) {
        lines.push(format!("  {count} from {from} to {to}"));
    }
    lines
}
