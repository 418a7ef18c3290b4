//! Counts of requests and scores, by outcome. Everything that is read is counted here
//! once.

use std::collections::BTreeMap;

use crate::serve::rendezvous::answer::{Answer, AnswerContent};
use crate::serve::rendezvous::decision::Reason;
use crate::serve::rendezvous::fate::Fate;
use crate::stage::stats::{Latencies, Snapshot};
use crate::wire::text::Text;

/// The largest number of models that are counted by name. With `"*"` in a policy, models
/// of any name may answer.
const MODELS_MAX: usize = 1000;

/// The counts of one run.
#[derive(Clone, Debug, Default)]
pub struct RendezvousCounts {
    /// Requests that were read.
    pub requests: u64,
    /// Requests whose id was already known. They are ignored.
    pub repeated: u64,
    /// Requests that got the default.
    pub defaults: u64,
    /// Requests that a model answered.
    pub by_models: u64,
    /// Requests that a model refused.
    pub refused: u64,
    /// The number of answers of each model, sorted by name, then version.
    by_model: Vec<((Text, u64), u64)>,
    /// Answers by further models, which are not counted by name.
    by_others: u64,
    /// All answers, by reason.
    by_reason: [u64; Reason::ALL.len()],
    /// Scores that were read.
    pub scores: u64,
    /// Scores that gave the answer.
    pub used: u64,
    /// Scores that arrived in time and did not give the answer.
    pub unused: u64,
    /// Scores that arrived after the deadline.
    pub late: u64,
    /// Scores of a model that had already reported.
    pub duplicate: u64,
    /// Scores without a request.
    pub orphaned: u64,
    /// Scores with an error.
    pub failed: u64,
    /// Scores for which there was no memory. Each of them is also counted by its fate.
    pub not_kept: u64,
    /// The times of the answers, measured from the origins of their requests.
    pub answered_after: Latencies,
}

impl RendezvousCounts {
    /// Counts an answer.
    pub fn answer(&mut self, answer: &Answer) {
        let choice = answer.choice;
        self.by_reason[choice.reason as usize] += 1;
        self.answered_after.record(choice.at);
        let model = match &answer.content {
            AnswerContent::Result(_) => answer.model.as_ref(),
            AnswerContent::Refusal(_) => {
                self.refused += 1;
                return;
            }
            AnswerContent::Default(_) => None,
        };
        let Some((name, version)) = model else {
            self.defaults += 1;
            return;
        };
        self.by_models += 1;
        let model = (&**name, *version);
        let order = |((name, version), _): &((Text, u64), u64)| (&**name, *version).cmp(&model);
        match self.by_model.binary_search_by(order) {
            Ok(place) => self.by_model[place].1 += 1,
            Err(place) if self.by_model.len() < MODELS_MAX => {
                // The name is copied, because it may be a piece of a long text.
                let model = (Text::from(&**name), *version);
                self.by_model.insert(place, (model, 1));
            }
            Err(_) => self.by_others += 1,
        }
    }

    /// Counts the fate of a score.
    pub fn fate(&mut self, fate: Fate) {
        match fate {
            Fate::Used => self.used += 1,
            Fate::Unused => self.unused += 1,
            Fate::Late => self.late += 1,
            Fate::Duplicate => self.duplicate += 1,
            Fate::Failed => self.failed += 1,
        }
    }

    /// The number of answers with this reason.
    pub fn by_reason(&self, reason: Reason) -> u64 {
        self.by_reason[reason as usize]
    }

    /// The number of answers of each `name@version`, sorted by name.
    pub fn by_model(&self) -> BTreeMap<String, u64> {
        let named = self.by_model.iter();
        let named = named.map(|((name, version), count)| (format!("{name}@{version}"), *count));
        let others = (self.by_others > 0).then(|| ("others".to_owned(), self.by_others));
        named.chain(others).collect()
    }

    /// Whether the counts of a finished run add up.
    #[cfg(test)]
    pub fn is_balanced(&self) -> bool {
        let answered = self.by_models + self.refused + self.defaults;
        let fates = self.used + self.unused + self.late + self.duplicate;
        self.requests == answered + self.repeated
            && self.used == self.by_models + self.refused
            && self.scores == fates + self.orphaned + self.failed
            && answered == self.by_reason.iter().sum::<u64>()
    }

    /// The counts in the form of the stats. `open` is the number of requests without
    /// an answer.
    pub fn snapshot(&self, open: usize) -> Snapshot {
        let snapshot = Snapshot::default()
            .count("requests", self.requests)
            .count("answersByModels", self.by_models)
            .count("refused", self.refused)
            .count("defaults", self.defaults)
            .count("repeated", self.repeated)
            .gauge("open", open as u64);
        let reasons = Reason::ALL.iter();
        let by_reason = reasons.map(|it| (it.name().to_owned(), self.by_reason(*it)));
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
    use crate::serve::rendezvous::decision::Choice;
    use crate::serve::rendezvous::policy::Policy;
    use crate::wire::micros::Micros;

    #[test]
    fn models_are_counted_by_name_up_to_a_bound() {
        let policy = "deadline_ms = 1\n[[prefer]]\nafter_ms = 0\nmodels = [\"*\"]";
        let policy = Rc::new(Policy::parse(policy, "p").unwrap());
        let mut counts = RendezvousCounts::default();
        for number in 0..3 * MODELS_MAX as u64 {
            counts.answer(&Answer {
                request: "{}".into(),
                content: AnswerContent::Result("{}".into()),
                model: Some((format!("model-{number}").into(), number)),
                choice: Choice {
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
