//! One mailbox: a request, the scores that came for it, and what became of each.

use std::collections::HashMap;
use std::rc::Rc;

use crate::serve::rendezvous::counts::Counts;
use crate::serve::rendezvous::decision::{Arrival, Outcome, Reason, early, outcome};
use crate::serve::rendezvous::policy::Policy;
use crate::wire::micros::Micros;
use crate::wire::text::Text;

/// The most models of one request that its policy does not name. Scores of further
/// ones are counted and not kept: a model that changes its name with every score must
/// not slow the others.
const UNNAMED_MAX: usize = 256;

/// The most duplicates of one request that are kept for its decision. Further
/// ones are counted.
const DUPLICATES_MAX: usize = 256;

/// Of more models than these, a map finds one.
const FEW_MODELS: usize = 16;

/// About what a mailbox takes beside its texts: itself, its places in the maps of
/// all mailboxes, its timer, and the heads of its allocations.
const MAILBOX_BYTES: usize = size_of::<Mailbox>() + 450;

/// About what a score takes beside its texts: its places in two lists that may grow
/// to twice what they hold, and the heads of its allocations.
const SCORE_BYTES: usize = 2 * (size_of::<Candidate>() + size_of::<Arrival>()) + 64;

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
        SCORE_BYTES + self.arrival.model_name.len() + self.outcome.len() + hash
    }
}

/// How much the scores of one request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// All that are kept, in bytes.
    pub bytes: usize,
    /// Those that no answer needs, in bytes: of models that the policy does not name,
    /// and duplicates. Less than [`bytes`](Room::bytes), so that nobody can take the
    /// room of the models that the policy names.
    pub spare_bytes: usize,
}

impl Room {
    /// As much as there is.
    #[cfg(test)]
    pub const UNBOUNDED: Room = Room {
        bytes: usize::MAX,
        spare_bytes: usize::MAX,
    };

    /// Half of these bytes is for the models that the policy names.
    pub fn half_named(bytes: usize) -> Room {
        Room {
            bytes,
            spare_bytes: bytes / 2,
        }
    }
}

/// What a mailbox does with a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is the first of its model, and may change the outcome.
    First,
    /// It is kept for the decision's record.
    Duplicate,
    /// There is no room: it is counted as this, and not kept.
    Refused(Fate),
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
    /// The places of the firsts, where there are many.
    places: HashMap<(Text, u64), usize>,
    duplicates: Vec<Candidate>,
    /// How many firsts are of models that the policy does not name.
    unnamed: usize,
    /// About what the scores take in memory.
    scores_bytes: usize,
    /// Of these bytes, those of scores that no answer needs.
    spare_bytes: usize,
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
            places: HashMap::new(),
            duplicates: Vec::new(),
            unnamed: 0,
            scores_bytes: 0,
            spare_bytes: 0,
        }
    }

    /// Takes a score in, where there is room. Of one model's scores the earliest
    /// counts; in service that is the first to be read, and in a recording it may
    /// come later. `text_bytes` is the length of what `whole` adds to the arrival:
    /// a score that is refused is never copied.
    pub fn take(
        &mut self,
        arrival: Arrival,
        text_bytes: usize,
        room: Room,
        whole: impl FnOnce(Arrival) -> Candidate,
    ) -> Taken {
        let bytes = SCORE_BYTES + arrival.model_name.len() + text_bytes;
        let fits = self.scores_bytes.saturating_add(bytes) <= room.bytes;
        let fits_spare = fits && self.spare_bytes.saturating_add(bytes) <= room.spare_bytes;
        let (name, version) = (&*arrival.model_name, arrival.model_version);
        match self.place_of(name, version) {
            None => {
                let is_named = self.policy.index.names(name, version);
                if !fits || !is_named && (!fits_spare || self.unnamed >= UNNAMED_MAX) {
                    return Taken::Refused(self.fate_of(&arrival));
                }
                self.unnamed += usize::from(!is_named);
                self.spare_bytes += if is_named { 0 } else { bytes };
                self.scores_bytes += bytes;
                self.put_first(whole(arrival));
                Taken::First
            }
            Some(first) if fits_spare && self.duplicates.len() < DUPLICATES_MAX => {
                self.spare_bytes += bytes;
                self.scores_bytes += bytes;
                let is_earlier = arrival.at < self.arrivals[first].at;
                let mut candidate = whole(arrival);
                if is_earlier {
                    self.arrivals[first] = candidate.arrival.clone();
                    std::mem::swap(&mut self.firsts[first], &mut candidate);
                }
                self.duplicates.push(candidate);
                if is_earlier {
                    Taken::First
                } else {
                    Taken::Duplicate
                }
            }
            Some(_) => Taken::Refused(Fate::Duplicate),
        }
    }

    /// Takes in a score that is there already.
    pub fn put(&mut self, candidate: Candidate, room: Room) -> Taken {
        let hash = candidate.model_hash.as_ref().map_or(0, |hash| hash.len());
        let text_bytes = candidate.outcome.len() + hash;
        let arrival = candidate.arrival.clone();
        self.take(arrival, text_bytes, room, |_| candidate)
    }

    /// The place of a model among the firsts.
    fn place_of(&self, name: &str, version: u64) -> Option<usize> {
        if self.arrivals.len() > FEW_MODELS {
            return self.places.get(&(Text::from(name), version)).copied();
        }
        self.arrivals
            .iter()
            .position(|it| it.model_version == version && *it.model_name == *name)
    }

    fn put_first(&mut self, candidate: Candidate) {
        self.arrivals.push(candidate.arrival.clone());
        self.firsts.push(candidate);
        let from = match self.arrivals.len() {
            0..=FEW_MODELS => return,
            _ if self.places.is_empty() => 0,
            count => count - 1,
        };
        for (place, arrival) in self.arrivals.iter().enumerate().skip(from) {
            let model = (arrival.model_name.clone(), arrival.model_version);
            self.places.insert(model, place);
        }
    }

    /// The fate of a score for which there is no room.
    fn fate_of(&self, arrival: &Arrival) -> Fate {
        if arrival.at > self.policy.deadline {
            Fate::Late
        } else if arrival.failed {
            Fate::Failed
        } else {
            Fate::Unused
        }
    }

    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        MAILBOX_BYTES + self.request.len() + self.message_id.len() + self.scores_bytes
    }

    /// Of [`bytes`](Mailbox::bytes), those of scores that no answer needs.
    pub fn spare_bytes(&self) -> usize {
        self.spare_bytes
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
            counts.fate(self.fate(index, arrival, outcome));
        }
        for _ in &self.duplicates {
            counts.fate(Fate::Duplicate);
        }
    }

    fn fate(&self, index: usize, arrival: &Arrival, outcome: Outcome) -> Fate {
        match self.fate_of(arrival) {
            Fate::Unused if outcome.winner == Some(index) => Fate::Used,
            fate => fate,
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
