//! What became of requests and scores. Nothing is read that is not counted here
//! in the end, once.

use std::collections::{BTreeMap, HashMap};

use crate::serve::rendezvous::decision::Reason;
use crate::serve::rendezvous::mailbox::{Answer, Fate};
use crate::stage::stats::{Latencies, Snapshot};
use crate::wire::text::Text;

/// The most models that are counted by name; with `*` in a policy any name may
/// answer.
const MODELS_MAX: usize = 1000;

/// Counts of one run.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Requests read.
    pub requests: u64,
    /// Of these, those whose id was known already. They are ignored.
    pub repeated: u64,
    /// Of these, those answered by the default.
    pub defaults: u64,
    /// Answers by models, whatever the reason.
    pub by_models: u64,
    /// The same, by model.
    pub by_model: HashMap<(Text, u64), u64>,
    /// Answers by models beyond the most that are counted by name.
    pub by_others: u64,
    /// All answers, by reason.
    pub by_reason: BTreeMap<Reason, u64>,
    /// Scores read.
    pub scores: u64,
    /// Scores that answered.
    pub used: u64,
    /// Scores in time that did not answer.
    pub unused: u64,
    /// Scores after the deadline.
    pub late: u64,
    /// Scores of a model that had reported already.
    pub duplicate: u64,
    /// Scores without a request.
    pub orphaned: u64,
    /// Scores with an error.
    pub failed: u64,
    /// Of all scores, those that there was no room for. Each has its fate all the
    /// same.
    pub not_kept: u64,
    /// When the answers were given, from the origins of their requests.
    pub answered_after: Latencies,
}

impl Counts {
    /// Counts an answer.
    pub fn answer(&mut self, answer: &Answer) {
        let outcome = answer.outcome;
        *self.by_reason.entry(outcome.reason).or_default() += 1;
        self.answered_after.record(outcome.at);
        let Some((name, version)) = &answer.model else {
            self.defaults += 1;
            return;
        };
        self.by_models += 1;
        let model = (name.clone(), *version);
        if let Some(count) = self.by_model.get_mut(&model) {
            *count += 1;
        } else if self.by_model.len() < MODELS_MAX {
            // A text of its own: the name may be a piece of a long one.
            self.by_model.insert((Text::from(&**name), *version), 1);
        } else {
            self.by_others += 1;
        }
    }

    /// Counts what became of a score.
    pub fn fate(&mut self, fate: Fate) {
        match fate {
            Fate::Used => self.used += 1,
            Fate::Unused => self.unused += 1,
            Fate::Late => self.late += 1,
            Fate::Duplicate => self.duplicate += 1,
            Fate::Failed => self.failed += 1,
        }
    }

    /// Answers by `name@version`, in the order of the names.
    pub fn by_model(&self) -> BTreeMap<String, u64> {
        let named = self.by_model.iter();
        let named = named.map(|((name, version), count)| (format!("{name}@{version}"), *count));
        let others = (self.by_others > 0).then(|| ("others".to_owned(), self.by_others));
        named.chain(others).collect()
    }

    /// Whether the counts of a finished run add up.
    #[cfg(test)]
    pub fn is_balanced(&self) -> bool {
        let answered = self.by_models + self.defaults;
        let fates = self.used + self.unused + self.late + self.duplicate;
        self.requests == answered + self.repeated
            && self.scores == fates + self.orphaned + self.failed
            && answered == self.by_reason.values().sum::<u64>()
    }

    /// As they are shown. `open` requests have no answer yet.
    pub fn snapshot(&self, open: usize) -> Snapshot {
        let snapshot = Snapshot::default()
            .count("requests", self.requests)
            .count("answersByModels", self.by_models)
            .count("defaults", self.defaults)
            .count("repeated", self.repeated)
            .gauge("open", open as u64);
        let by_reason = Reason::ALL.iter().map(|reason| {
            let count = self.by_reason.get(reason).copied().unwrap_or_default();
            (reason.name().to_owned(), count)
        });
        snapshot
            .by_label("answersByReason", "reason", by_reason)
            .by_label("answersByModel", "model", self.by_model())
            .count("scores", self.scores)
            .count("used", self.used)
            .count("unused", self.unused)
            .count("late", self.late)
            .count("duplicate", self.duplicate)
            .count("orphaned", self.orphaned)
            .count("failed", self.failed)
            .count("notKept", self.not_kept)
            .latencies("answeredAfter", &self.answered_after)
    }

    /// Fails a test in which the counts do not add up.
    #[cfg(test)]
    pub fn assert_balanced(&self) {
        assert!(self.is_balanced(), "{self:#?}");
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::serve::rendezvous::decision::Outcome;
    use crate::serve::rendezvous::policy::Policy;
    use crate::wire::micros::Micros;

    #[test]
    fn models_are_counted_by_name_up_to_a_bound() {
        let policy = "deadline_ms = 1\n[[prefer]]\nafter_ms = 0\nmodels = [\"*\"]";
        let policy = Rc::new(Policy::parse(policy, "p").unwrap());
        let mut counts = Counts::default();
        for number in 0..3 * MODELS_MAX as u64 {
            counts.answer(&Answer {
                request: "{}".into(),
                model_result: "{}".into(),
                model: Some((format!("model-{number}").into(), number)),
                outcome: Outcome {
                    winner: Some(0),
                    at: Micros(0),
                    reason: Reason::Preferred,
                },
                policy: Rc::clone(&policy),
            });
        }
        let shown = counts.by_model();
        assert_eq!(shown.len(), MODELS_MAX + 1);
        assert_eq!(shown["others"], 2 * MODELS_MAX as u64);
        assert_eq!(shown["model-7@7"], 1);
    }
}
