//! A score that is kept until its request is decided.

use crate::wire::decision::Candidate;
use crate::wire::message::{OutcomeKind, Score};
use crate::wire::micros::Micros;
use crate::wire::text::Text;

/// Whether the scores of a stream may answer requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// The policy decides by the name and the version of the model.
    Model,
    /// The scores never answer, whatever name they claim.
    Shadow,
}

/// A score without the request that it carries.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptScore {
    /// The model's name.
    pub model_name: Text,
    /// The model's version.
    pub model_version: u64,
    /// The hash of the model's content, if the score names it.
    pub model_hash: Option<Text>,
    /// The arrival of the score, measured from its request's origin.
    pub at: Micros,
    /// Whether `outcome` is a result, a refusal or another error.
    pub kind: OutcomeKind,
    /// The result, or the error, as JSON text.
    pub outcome: Text,
    /// The seat of the stream with the score.
    pub seat: Seat,
}

impl KeptScore {
    /// A copy of a score that arrived at `at` on a stream with this seat.
    pub fn of(score: &Score, at: Micros, seat: Seat) -> KeptScore {
        KeptScore::of_kind(score, at, seat, score.outcome.kind())
    }

    /// A copy of a score whose outcome is of this kind. Finding the kind of an error parses
    /// the error.
    pub fn of_kind(score: &Score, at: Micros, seat: Seat, kind: OutcomeKind) -> KeptScore {
        KeptScore {
            model_name: Text::from(&*score.model_name),
            model_version: score.model_version,
            model_hash: score.model_hash.as_deref().map(Text::from),
            at,
            kind,
            outcome: score.outcome.text().into(),
            seat,
        }
    }

    /// A copy of a decision's candidate. The error names the fault.
    pub fn of_candidate(candidate: &Candidate) -> Result<KeptScore, String> {
        let outcome = candidate.outcome()?;
        // A rendezvous writes a fate for each score, so a candidate without a fate is
        // refused.
        candidate.fate()?;
        Ok(KeptScore {
            model_name: Text::from(&*candidate.model_name()?),
            model_version: candidate.model_version()?,
            model_hash: candidate.model_hash().map(|hash| Text::from(&*hash)),
            at: candidate.arrived_after()?,
            kind: outcome.kind(),
            outcome: outcome.text().into(),
            seat: match candidate.is_shadow()? {
                true => Seat::Shadow,
                false => Seat::Model,
            },
        })
    }

    /// The number of bytes in the texts of this copy.
    pub fn text_bytes(&self) -> usize {
        let hash = self.model_hash.as_ref().map_or(0, |hash| hash.len());
        self.model_name.len() + self.outcome.len() + hash
    }
}

/// The number of bytes that the texts of a copy of `score` take.
pub fn score_text_bytes(score: &Score) -> usize {
    let hash = score.model_hash.as_ref().map_or(0, |hash| hash.len());
    score.model_name.len() + score.outcome.text().len() + hash
}
