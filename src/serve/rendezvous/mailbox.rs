//! One mailbox: a request, its scores, and their fates.

use std::rc::Rc;

use crate::join::kept_score::{KeptScore, Seat, score_text_bytes};
use crate::serve::rendezvous::answer::{Answer, AnswerContent};
use crate::serve::rendezvous::decision::{Arrival, Choice, Reason, choose, choose_early};
use crate::serve::rendezvous::fate::Fate;
use crate::serve::rendezvous::policy::{NamedModel, Policy};
use crate::wire::message::{OutcomeKind, Score};
use crate::wire::micros::Micros;
use crate::wire::text::Text;

/// For one request, scores of at most this many models that the policy does not name
/// are kept, and of as many shadows. Scores of further models are only counted, so that a model that changes
/// its name with every score does not slow the other models.
const UNNAMED_MAX: usize = 256;

/// The largest number of duplicates of one request that are kept for its decision.
/// Further duplicates are only counted.
const DUPLICATES_MAX: usize = 256;

/// A mailbox with more models than this uses binary search to find a model.
const FEW_MODELS: usize = 16;

/// The approximate memory of a mailbox without its texts, in bytes: the value itself, its
/// entries in the maps of all mailboxes, its timer, and the headers of its allocations.
const MAILBOX_BYTES: usize = size_of::<Mailbox>() + 450;

/// The approximate memory of a score without its texts, in bytes: its entries in lists,
/// whose capacity may be twice their length, and the headers of its allocations.
const SCORE_BYTES: usize = 2 * (size_of::<FirstScore>() + size_of::<u32>()) + 64;

/// The approximate memory of a score, in bytes.
pub fn score_bytes(score: &KeptScore) -> usize {
    SCORE_BYTES + score.text_bytes()
}

/// The limits of memory for the scores of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoreRoom {
    /// The limit for all scores that are kept, in bytes.
    pub bytes: usize,
    /// The limit for scores that no answer needs, in bytes: duplicates, and scores of
    /// models that the policy does not name. This limit is less than
    /// [`bytes`](ScoreRoom::bytes), so that these scores cannot use all the memory.
    pub spare_bytes: usize,
}

impl ScoreRoom {
    /// Limits that any number of scores satisfies.
    #[cfg(test)]
    pub const UNBOUNDED: ScoreRoom = ScoreRoom {
        bytes: usize::MAX,
        spare_bytes: usize::MAX,
    };

    /// A limit of `bytes`, with half of it reserved for the models that the policy
    /// names.
    pub fn half_named(bytes: usize) -> ScoreRoom {
        ScoreRoom {
            bytes,
            spare_bytes: bytes / 2,
        }
    }
}

/// How a mailbox handled a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The score is the first of its model. `can_matter` tells whether an answer may
    /// depend on it.
    First {
        /// Whether a step, a share or `expect` of the policy names the model.
        can_matter: bool,
    },
    /// The score is a duplicate, and is kept for the record of the decision.
    Duplicate,
    /// The score has this fate and was not kept, because a limit is reached.
    Refused(Fate),
}

/// A request with or without its answer.
#[derive(Clone, Debug)]
pub struct Mailbox {
    /// The request's id, decoded.
    pub message_id: Text,
    /// The whole request.
    pub request: Text,
    /// The policy of the request.
    pub policy: Rc<Policy>,
    /// The request's share, as its index in the policy.
    share: Option<usize>,
    /// Each model's first score, in the order of arrival.
    firsts: Vec<FirstScore>,
    /// The indices of `firsts`, sorted by the name and version of their models. The
    /// list is empty while there are at most [`FEW_MODELS`] models.
    by_model: Vec<u32>,
    /// The first score of each model in a shadow's seat. They are not among `firsts`, so
    /// no rule can choose one of them.
    shadows: Vec<KeptScore>,
    duplicates: Vec<KeptScore>,
    /// The number of first scores of models that the policy does not name.
    unnamed: usize,
    /// The approximate memory of the scores, in bytes.
    scores_bytes: usize,
    /// The approximate memory of the scores that no answer needs, in bytes.
    spare_bytes: usize,
}

/// The first score of a model.
#[derive(Clone, Debug)]
struct FirstScore {
    score: KeptScore,
    /// The model in the index of the mailbox's policy.
    named: Option<NamedModel>,
}

impl FirstScore {
    fn arrival(&self) -> Arrival<'_> {
        Arrival {
            model_name: &self.score.model_name,
            model_version: self.score.model_version,
            named: self.named,
            at: self.score.at,
            kind: self.score.kind,
        }
    }

    fn model(&self) -> (&str, u64) {
        (&self.score.model_name, self.score.model_version)
    }
}

/// The result of a check that a mailbox has memory for a score.
struct Admission {
    named: Option<NamedModel>,
    /// The index of the first score of this model, if there is one.
    first: Option<usize>,
    bytes: usize,
}

impl Mailbox {
    /// A mailbox without scores.
    pub fn new(message_id: Text, request: Text, policy: Rc<Policy>) -> Mailbox {
        Mailbox {
            share: policy.share_of(&request),
            message_id,
            request,
            policy,
            firsts: Vec::new(),
            by_model: Vec::new(),
            shadows: Vec::new(),
            duplicates: Vec::new(),
            unnamed: 0,
            scores_bytes: 0,
            spare_bytes: 0,
        }
    }

    /// Adds a score, unless a limit is reached. The earliest score of a model counts.
    /// In service, this is the score that is read first. In a recording, the earliest
    /// score may be read after a later one.
    pub fn take(&mut self, score: KeptScore, room: ScoreRoom) -> Taken {
        if score.seat == Seat::Shadow {
            let model = (&*score.model_name, score.model_version);
            return match self.admit_shadow(model, score.at, score.kind, score.text_bytes(), room) {
                Ok(first) => self.insert_shadow(first, score),
                Err(fate) => Taken::Refused(fate),
            };
        }
        let arrival = self.arrival(&score.model_name, score.model_version, score.at, score.kind);
        match self.admit(&arrival, score.text_bytes(), room) {
            Ok(admission) => self.insert(admission, score),
            Err(fate) => Taken::Refused(fate),
        }
    }

    /// Adds a copy of a score that arrived at `at`, unless a limit is reached. A
    /// refused score is not copied.
    pub fn take_copy(&mut self, score: &Score, at: Micros, seat: Seat, room: ScoreRoom) -> Taken {
        let kind = score.outcome.kind();
        if seat == Seat::Shadow {
            let model = (&*score.model_name, score.model_version);
            return match self.admit_shadow(model, at, kind, score_text_bytes(score), room) {
                Ok(first) => self.insert_shadow(first, KeptScore::of_kind(score, at, seat, kind)),
                Err(fate) => Taken::Refused(fate),
            };
        }
        let arrival = self.arrival(&score.model_name, score.model_version, at, kind);
        match self.admit(&arrival, score_text_bytes(score), room) {
            Ok(admission) => self.insert(admission, KeptScore::of_kind(score, at, seat, kind)),
            Err(fate) => Taken::Refused(fate),
        }
    }

    fn arrival<'a>(
        &self,
        model_name: &'a str,
        model_version: u64,
        at: Micros,
        kind: OutcomeKind,
    ) -> Arrival<'a> {
        Arrival {
            model_name,
            model_version,
            named: self.policy.index.find(model_name, model_version),
            at,
            kind,
        }
    }

    /// Checks the limits for a score whose texts take `text_bytes`. The error is the
    /// fate of a refused score.
    fn admit(
        &self,
        arrival: &Arrival,
        text_bytes: usize,
        room: ScoreRoom,
    ) -> Result<Admission, Fate> {
        let bytes = SCORE_BYTES + text_bytes;
        let fits = self.scores_bytes.saturating_add(bytes) <= room.bytes;
        let fits_spare = fits && self.spare_bytes.saturating_add(bytes) <= room.spare_bytes;
        let first = self.find_first(arrival.model_name, arrival.model_version);
        let has_room = match (first, arrival.named) {
            (Some(_), _) => fits_spare && self.duplicates.len() < DUPLICATES_MAX,
            (None, Some(_)) => fits,
            (None, None) => fits_spare && self.unnamed < UNNAMED_MAX,
        };
        match (has_room, first) {
            (true, _) => Ok(Admission {
                named: arrival.named,
                first,
                bytes,
            }),
            (false, Some(_)) => Err(Fate::Duplicate),
            (false, None) => Err(self.fate_of_loser(arrival.at, arrival.kind)),
        }
    }

    fn insert(&mut self, admission: Admission, mut score: KeptScore) -> Taken {
        let Admission {
            named,
            first,
            bytes,
        } = admission;
        self.scores_bytes += bytes;
        let taken = Taken::First {
            can_matter: self.policy.index.can_matter(named),
        };
        let Some(first) = first else {
            if named.is_none() {
                self.unnamed += 1;
                self.spare_bytes += bytes;
            }
            self.firsts.push(FirstScore { score, named });
            self.index_last_first();
            return taken;
        };
        self.spare_bytes += bytes;
        let earliest = &mut self.firsts[first].score;
        let is_earlier = score.at < earliest.at;
        if is_earlier {
            std::mem::swap(earliest, &mut score);
        }
        self.duplicates.push(score);
        if is_earlier { taken } else { Taken::Duplicate }
    }

    /// Checks the limits for the score of a shadow. Returns the index of the shadow's
    /// first score, if there is one. The error is the fate of a refused score.
    fn admit_shadow(
        &self,
        model: (&str, u64),
        at: Micros,
        kind: OutcomeKind,
        text_bytes: usize,
        room: ScoreRoom,
    ) -> Result<Option<usize>, Fate> {
        let bytes = SCORE_BYTES + text_bytes;
        let has_bytes = self.scores_bytes.saturating_add(bytes) <= room.bytes
            && self.spare_bytes.saturating_add(bytes) <= room.spare_bytes;
        let is_same = |shadow: &KeptScore| (&*shadow.model_name, shadow.model_version) == model;
        let first = self.shadows.iter().position(is_same);
        let (count, count_max, fate) = match first {
            Some(_) => (self.duplicates.len(), DUPLICATES_MAX, Fate::Duplicate),
            None => (
                self.shadows.len(),
                UNNAMED_MAX,
                self.fate_of_loser(at, kind),
            ),
        };
        match has_bytes && count < count_max {
            true => Ok(first),
            false => Err(fate),
        }
    }

    fn insert_shadow(&mut self, first: Option<usize>, mut score: KeptScore) -> Taken {
        let bytes = score_bytes(&score);
        self.scores_bytes += bytes;
        self.spare_bytes += bytes;
        let Some(first) = first else {
            self.shadows.push(score);
            return Taken::First { can_matter: false };
        };
        if score.at < self.shadows[first].at {
            std::mem::swap(&mut self.shadows[first], &mut score);
        }
        self.duplicates.push(score);
        Taken::Duplicate
    }

    /// The index of the first score of a model.
    fn find_first(&self, name: &str, version: u64) -> Option<usize> {
        let model = (name, version);
        if self.by_model.is_empty() {
            // The versions differ more often than the names, and compare faster.
            return self.firsts.iter().position(|first| {
                first.score.model_version == version && *first.score.model_name == *name
            });
        }
        let place = |place: &u32| self.firsts[*place as usize].model().cmp(&model);
        let found = self.by_model.binary_search_by(place).ok()?;
        Some(self.by_model[found] as usize)
    }

    /// Adds the last element of `firsts` to the index, if there are many models.
    fn index_last_first(&mut self) {
        let count = self.firsts.len();
        if count <= FEW_MODELS {
            return;
        }
        let firsts = &self.firsts;
        let model = |place: u32| firsts[place as usize].model();
        if self.by_model.is_empty() {
            self.by_model = (0..count as u32).collect();
            self.by_model
                .sort_unstable_by(|one, other| model(*one).cmp(&model(*other)));
            return;
        }
        let last = count as u32 - 1;
        let after = self
            .by_model
            .partition_point(|place| model(*place) < model(last));
        self.by_model.insert(after, last);
    }

    /// The fate of a score that is neither the answer nor a duplicate.
    fn fate_of_loser(&self, at: Micros, kind: OutcomeKind) -> Fate {
        if at > self.policy.deadline {
            Fate::Late
        } else if kind == OutcomeKind::Result {
            Fate::Unused
        } else {
            Fate::Failed
        }
    }

    /// The approximate memory of the mailbox, in bytes.
    pub fn bytes(&self) -> usize {
        MAILBOX_BYTES + self.request.len() + self.message_id.len() + self.scores_bytes
    }

    /// The part of [`bytes`](Mailbox::bytes) for scores that no answer needs.
    pub fn spare_bytes(&self) -> usize {
        self.spare_bytes
    }

    fn arrivals(&self) -> impl Iterator<Item = Arrival<'_>> + Clone {
        self.firsts.iter().map(FirstScore::arrival)
    }

    /// The choice for the request if no further score arrives.
    pub fn choice(&self) -> Choice {
        choose(&self.policy, self.share, self.arrivals())
    }

    /// The choice for the request if it must be answered at the time `at`.
    pub fn early_choice(&self, at: Micros, reason: Reason) -> Choice {
        choose_early(&self.policy, self.arrivals(), at, reason)
    }

    /// The answer for a choice of this mailbox.
    pub fn answer(&self, choice: Choice) -> Answer {
        let winner = choice.winner.map(|winner| &self.firsts[winner].score);
        Answer {
            request: self.request.clone(),
            content: match winner {
                Some(winner) if winner.kind == OutcomeKind::Result => {
                    AnswerContent::Result(winner.outcome.clone())
                }
                Some(winner) => AnswerContent::Refusal(winner.outcome.clone()),
                None => AnswerContent::Default(self.policy.default.clone()),
            },
            model: winner.map(|winner| (winner.model_name.clone(), winner.model_version)),
            choice,
            policy: Rc::clone(&self.policy),
        }
    }

    /// The scores that are kept, each with its fate.
    pub fn fates(&self, choice: Choice) -> impl Iterator<Item = (&KeptScore, Fate)> {
        let firsts = self.firsts.iter().enumerate();
        let firsts = firsts.map(move |(place, FirstScore { score, .. })| {
            let is_winner = choice.winner == Some(place);
            let fate = match is_winner {
                true => Fate::Used,
                false => self.fate_of_loser(score.at, score.kind),
            };
            (score, fate)
        });
        let shadows = self.shadows.iter();
        let shadows = shadows.map(|score| (score, self.fate_of_loser(score.at, score.kind)));
        let duplicates = self.duplicates.iter();
        let duplicates = duplicates.map(|score| (score, Fate::Duplicate));
        firsts.chain(shadows).chain(duplicates)
    }

    /// The scores that are kept, each with its fate, in the order of arrival.
    pub fn fates_by_arrival(&self, choice: Choice) -> Vec<(&KeptScore, Fate)> {
        let mut all: Vec<_> = self.fates(choice).collect();
        all.sort_by_key(|(score, _)| score.at);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(model: u64, at: i64) -> KeptScore {
        KeptScore {
            model_name: format!("m{}", model % 7).into(),
            model_version: model,
            model_hash: None,
            at: Micros(at),
            kind: OutcomeKind::Result,
            outcome: "1".into(),
            seat: Seat::Model,
        }
    }

    #[test]
    fn each_of_many_models_is_found_again() {
        let policy = "deadline_ms = 1\n[[prefer]]\nafter_ms = 0\nmodels = [\"m0@0\"]";
        let policy = Rc::new(Policy::parse(policy, "p").unwrap());
        let mut mailbox = Mailbox::new("a".into(), "{}".into(), policy);
        // Every number below 101 appears once, in an order that is not sorted.
        for model in (0..101).map(|number| number * 37 % 101) {
            let first = Taken::First {
                can_matter: model == 0,
            };
            let mut take = |at| mailbox.take(score(model, at), ScoreRoom::UNBOUNDED);
            assert_eq!(take(5), first, "{model}");
            assert_eq!(take(5), Taken::Duplicate, "{model}");
            // The earlier score replaces the first score.
            assert_eq!(take(4), first, "{model}");
        }
        assert_eq!((mailbox.firsts.len(), mailbox.duplicates.len()), (101, 202));
        assert!(
            mailbox
                .firsts
                .iter()
                .all(|first| first.score.at == Micros(4))
        );
    }
}
