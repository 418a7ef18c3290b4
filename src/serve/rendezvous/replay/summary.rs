//! The summary at the end of a replay.

use std::collections::BTreeMap;

use crate::serve::rendezvous::answer::Answer;
use crate::serve::rendezvous::counts::RendezvousCounts;
use crate::serve::rendezvous::decision::Reason;
use crate::stage::stats::Snapshot;
use crate::wire::decision::Decision;

/// The largest number of pairs of models that the summary shows.
const PAIRS_SHOWN: usize = 20;

/// The largest number of pairs of models that are counted separately. Further pairs are
/// counted together.
const PAIRS_MAX: usize = 1000;

/// How the answers of a replay differ from the recorded ones.
#[derive(Debug, Default)]
pub struct AnswerChanges {
    compared: u64,
    changed: u64,
    /// The number of changed answers, by the model of the recorded answer and the
    /// model of the new answer. Both may be the same model, if only its result has
    /// changed.
    by_models: BTreeMap<(String, String), u64>,
}

impl AnswerChanges {
    /// Compares an answer with the recorded one.
    pub fn compare(&mut self, recorded: &Decision, answer: &Answer) {
        self.compared += 1;
        let model = answer
            .model
            .as_ref()
            .map(|(name, version)| format!("{name}@{version}"));
        let content = &answer.content;
        if recorded.model == model
            && recorded.model_result == content.model_result()
            && recorded.model_error == content.model_error()
        {
            return;
        }
        self.changed += 1;
        let default = || "the default".to_owned();
        let mut models = (
            recorded.model.clone().unwrap_or_else(default),
            model.unwrap_or_else(default),
        );
        if self.by_models.len() >= PAIRS_MAX && !self.by_models.contains_key(&models) {
            models = ("others".to_owned(), "others".to_owned());
        }
        *self.by_models.entry(models).or_default() += 1;
    }

    /// Adds the changes to the counts.
    pub fn snapshot(&self, snapshot: Snapshot) -> Snapshot {
        snapshot
            .count("compared", self.compared)
            .count("changed", self.changed)
    }
}

/// The lines of the summary.
pub fn lines(counts: &RendezvousCounts, changes: &AnswerChanges) -> Vec<String> {
    let mut lines = vec![format!(
        "{} requests: {} answered by models, {} refused, {} by the default, {} repeated",
        counts.requests, counts.by_models, counts.refused, counts.defaults, counts.repeated
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
        let count = counts.by_reason(*reason);
        (count > 0).then(|| format!("{} {count}", reason.name()))
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
            "{} of {} answers differ from the recorded ones",
            changes.changed, changes.compared
        ));
    }
    let mut by_models: Vec<_> = changes.by_models.iter().collect();
    by_models.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for ((from, to), count) in by_models.into_iter().take(PAIRS_SHOWN) {
        lines.push(format!("  {count} from {from} to {to}"));
    }
    lines
}
