//! The models of a comparison, each with its role, and what they answered to one
//! request.

use std::fmt;
use std::str::FromStr;

use crate::wire::answer::answer_of;
use crate::wire::message::is_model_name;
use crate::wire::micros::Micros;

/// A model as a flag names it: `dt@1`, or `dt` for any version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelId {
    name: String,
    version: Option<u64>,
}

impl FromStr for ModelId {
    type Err = String;

    fn from_str(text: &str) -> Result<ModelId, String> {
        let (name, version) = match text.rsplit_once('@') {
            Some((name, version)) => {
                let version = version.parse().map_err(|_| {
                    format!("the version {version:?} is not a whole number from 0 up")
                })?;
                (name, Some(version))
            }
            None => (text, None),
        };
        if !is_model_name(name) {
            return Err("a model is NAME@VERSION, or NAME for any version".to_owned());
        }
        let name = name.to_owned();
        Ok(ModelId { name, version })
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self.version {
            Some(version) => write!(formatter, "{}@{version}", self.name),
            None => formatter.write_str(&self.name),
        }
    }
}

impl ModelId {
    /// Whether a score of the model `name` with `version` belongs to this model.
    pub fn is(&self, name: &str, version: u64) -> bool {
        self.name == name && self.version.is_none_or(|own| own == version)
    }

    /// Whether one model could be both.
    pub fn overlaps(&self, other: &ModelId) -> bool {
        let versions = self.version.zip(other.version);
        self.name == other.name && versions.is_none_or(|(own, other)| own == other)
    }
}

/// The role of a model in the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// The model that is the measure.
    Base,
    /// The model that may replace the base.
    Candidate,
    /// A second copy of the base, whose differences from the base are noise.
    Noise,
    /// The model with which both are compared, usually the canary.
    Ruler,
}

impl Leg {
    /// All legs, in the order of their numbers.
    pub const ALL: [Leg; 4] = [Leg::Base, Leg::Candidate, Leg::Noise, Leg::Ruler];
}

/// A value for each leg.
pub type ByLeg<T> = [T; Leg::ALL.len()];

/// The models of the comparison.
#[derive(Clone, Debug)]
pub struct Roles {
    /// The model of each leg, if the leg is used.
    pub models: ByLeg<Option<ModelId>>,
}

impl Roles {
    /// The leg of a model.
    #[inline]
    pub fn leg_of(&self, name: &str, version: u64) -> Option<Leg> {
        let is_model = |leg: &Leg| {
            let model = self.models[*leg as usize].as_ref();
            model.is_some_and(|model| model.is(name, version))
        };
        Leg::ALL.into_iter().find(is_model)
    }

    /// The name of a leg's model. A leg without a model has an empty name.
    pub fn name(&self, leg: Leg) -> String {
        let model = self.models[leg as usize].as_ref();
        model.map(ModelId::to_string).unwrap_or_default()
    }

    /// Whether the leg has a model.
    pub fn has(&self, leg: Leg) -> bool {
        self.models[leg as usize].is_some()
    }
}

/// What a model answered to one request.
#[derive(Clone, Copy, Debug)]
pub struct LegScore<'a> {
    /// Whether the model failed.
    pub failed: bool,
    /// Whether the score came after the deadline.
    pub late: bool,
    /// The time from the request to the score, if it is known.
    pub after: Option<Micros>,
    /// The whole `result` or `error`, as JSON text.
    pub outcome: &'a str,
    /// The answer within the outcome, as JSON text; `None` if the model failed.
    answer: Option<&'a str>,
}

impl<'a> LegScore<'a> {
    /// A score with its whole `result` or `error`.
    pub fn new(failed: bool, late: bool, after: Option<Micros>, outcome: &'a str) -> LegScore<'a> {
        LegScore {
            failed,
            late,
            after,
            outcome,
            answer: (!failed).then(|| answer_of(outcome)),
        }
    }

    /// A score whose answer was found before.
    pub fn with_answer(
        late: bool,
        after: Option<Micros>,
        outcome: &'a str,
        answer: &'a str,
    ) -> LegScore<'a> {
        LegScore {
            failed: false,
            late,
            after,
            outcome,
            answer: Some(answer),
        }
    }

    /// The answer, as JSON text; `None` if the model failed.
    pub fn answer(&self) -> Option<&'a str> {
        self.answer
    }
}

/// All that is known about one request.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// The id of the request, decoded.
    pub message_id: &'a str,
    /// When the request was accepted, if a record says it.
    pub time: Option<Micros>,
    /// The input of the models, as JSON text, if the records hold it.
    pub model_input: Option<&'a str>,
    /// The answer that the client got, as JSON text, if the records hold it.
    pub answered: Option<&'a str>,
    /// Whether the record is a decision. Only a decision tells whether a score was late.
    pub is_decision: bool,
    /// The score of each leg.
    pub scores: ByLeg<Option<LegScore<'a>>>,
}

impl<'a> Observation<'a> {
    /// The score of a leg.
    pub fn score(&self, leg: Leg) -> Option<&LegScore<'a>> {
        self.scores[leg as usize].as_ref()
    }

    /// The answer of a leg; `None` if it failed or is absent.
    pub fn answer(&self, leg: Leg) -> Option<&'a str> {
        self.score(leg).and_then(LegScore::answer)
    }
}
