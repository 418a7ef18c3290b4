//! One mailbox: a request, the scores that came for it, and what became of each.

use std::rc::Rc;

use crate::serve::rendezvous::counts::Counts;
use crate::serve::rendezvous::decision::{Arrival, Outcome, Reason, early, outcome};
use crate::serve::rendezvous::policy::Policy;
use crate::wire::micros::Micros;
use crate::wire::text::Text;

/// The most models of one request. Scores of further ones are counted as unused
/// and take no part: a model that changes its name with every score must not
/// slow the others.
const MODELS_MAX: usize = 256;

/// The most duplicates of one request that are kept for its decision. Further
/// ones are counted.
const DUPLICATES_MAX: usize = 256;

/// A score in a mailbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Which model, and when it came from the request's origin.
    pub arrival: Arrival,
    /// The hash of the model's content, where the score names it.
    pub model_hash: Option<Text>,
    /// The result, or the error, as JSON text.
    pub outcome: Text,
}

impl Candidate {
    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        let hash = self.model_hash.as_ref().map_or(0, |hash| hash.len());
        size_of::<Candidate>() + self.arrival.model_name.len() + self.outcome.len() + hash
    }
}

/// What became of a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It answered.
    Used,
    /// It came in time, and another answered.
    Unused,
    /// It came after the deadline.
    Late,
    /// Its model had reported already.
    Duplicate,
    /// The model failed.
    Failed,
}

impl Fate {
    /// As it stands in records.
    pub fn name(self) -> &'static str {
        match self {
            Fate::Used => "used",
            Fate::Unused => "unused",
            Fate::Late => "late",
            Fate::Duplicate => "duplicate",
            Fate::Failed => "failed",
        }
    }
}

/// A request that waits, or has waited, for its answer.
#[derive(Clone, Debug)]
pub struct Mailbox {
    /// The request's id, decoded.
    pub message_id: Text,
    /// The request, whole.
    pub request: Text,
    /// The policy that was in force when the request came.
    pub policy: Rc<Policy>,
    share: Option<usize>,
    /// Each model's first score.
    arrivals: Vec<Arrival>,
    /// The rest of the same scores, in the same order.
    firsts: Vec<Candidate>,
    duplicates: Vec<Candidate>,
    /// Duplicates that were not kept.
    duplicates_dropped: u64,
    /// Scores of models beyond the most there may be.
    excess: u64,
}

impl Mailbox {
    /// A mailbox without scores.
    pub fn new(message_id: Text, request: Text, policy: Rc<Policy>) -> Mailbox {
        Mailbox {
            share: policy.share_of(&request),
            message_id,
            request,
            policy,
            arrivals: Vec::new(),
            firsts: Vec::new(),
            duplicates: Vec::new(),
            duplicates_dropped: 0,
            excess: 0,
        }
    }

    /// Takes a score in. Of one model's scores the earliest counts; in service
    /// that is the first to be read, and in a recording it may come later.
    pub fn take(&mut self, mut candidate: Candidate) {
        let first = self.arrivals.iter().position(|arrival| {
            arrival.model_version == candidate.arrival.model_version
                && arrival.model_name == candidate.arrival.model_name
        });
        match first {
            None if self.arrivals.len() >= MODELS_MAX => {
                self.excess += 1;
                return;
            }
            None => {
                self.arrivals.push(candidate.arrival.clone());
                self.firsts.push(candidate);
                return;
            }
            Some(first) if candidate.arrival.at < self.arrivals[first].at => {
                self.arrivals[first] = candidate.arrival.clone();
                std::mem::swap(&mut self.firsts[first], &mut candidate);
            }
            Some(_) => {}
        }
        if self.duplicates.len() < DUPLICATES_MAX {
            self.duplicates.push(candidate);
        } else {
            self.duplicates_dropped += 1;
        }
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        let scores = self.firsts.iter().chain(&self.duplicates);
        size_of::<Mailbox>()
            + self.request.len()
            + self.message_id.len()
            + scores.map(Candidate::bytes).sum::<usize>()
    }

    /// What comes of the request if no more scores come.
    pub fn outcome(&self) -> Outcome {
        outcome(&self.policy, self.share, &self.arrivals)
    }

    /// What comes of it if it has to be answered now.
    pub fn outcome_now(&self, at: Micros, reason: Reason) -> Outcome {
        early(&self.policy, &self.arrivals, at, reason)
    }

    /// The answer that an outcome of this mailbox gives.
    pub fn answer(&self, outcome: Outcome) -> Answer {
        let winner = outcome.winner.map(|winner| &self.firsts[winner]);
        Answer {
            request: self.request.clone(),
            model_result: match winner {
                Some(winner) => winner.outcome.clone(),
                None => self.policy.default.clone(),
            },
            model: winner.map(|winner| {
                let arrival = &winner.arrival;
                (arrival.model_name.clone(), arrival.model_version)
            }),
            outcome,
            policy: Rc::clone(&self.policy),
        }
    }

    /// Counts the fate of every score.
    pub fn count_fates(&self, outcome: Outcome, counts: &mut Counts) {
        for (index, arrival) in self.arrivals.iter().enumerate() {
            match self.fate(index, arrival, outcome) {
                Fate::Used => counts.used += 1,
                Fate::Unused => counts.unused += 1,
                Fate::Late => counts.late += 1,
                Fate::Failed => counts.failed += 1,
                Fate::Duplicate => {}
            }
        }
        counts.unused += self.excess;
        counts.duplicate += self.duplicates.len() as u64 + self.duplicates_dropped;
    }

    fn fate(&self, index: usize, arrival: &Arrival, outcome: Outcome) -> Fate {
        if arrival.at > self.policy.deadline {
            Fate::Late
        } else if arrival.failed {
            Fate::Failed
        } else if outcome.winner == Some(index) {
            Fate::Used
        } else {
            Fate::Unused
        }
    }

    /// All scores and their fates, in the order of their arrival.
    pub fn candidates(&self, outcome: Outcome) -> Vec<(&Candidate, Fate)> {
        let firsts = self.firsts.iter().enumerate();
        let firsts = firsts.map(|(index, it)| (it, self.fate(index, &it.arrival, outcome)));
        let duplicates = self.duplicates.iter().map(|it| (it, Fate::Duplicate));
        let mut all: Vec<_> = firsts.chain(duplicates).collect();
        all.sort_by_key(|(candidate, _)| candidate.arrival.at);
        all
    }
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The request, whole.
    pub request: Text,
    /// The winning result, or the policy's default, as JSON text.
    pub model_result: Text,
    /// The model that won; `None` for the default.
    pub model: Option<(Text, u64)>,
    /// When and by which rule.
    pub outcome: Outcome,
    /// The policy that was in force when the request came.
    pub policy: Rc<Policy>,
}
