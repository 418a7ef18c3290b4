//! Reads what a comparison needs of a decision.

use std::borrow::Cow;

use crate::compare::legs::{ByLeg, Leg, LegScore, Observation, Roles};
use crate::wire::decision::{Candidate, candidates_of};
use crate::wire::message::quick_decision::decision;
use crate::wire::message::{Field, Outcome, Record};
use crate::wire::micros::Micros;
use crate::wire::object::value_of;
use crate::wire::reject::Reject;

/// What a comparison reads of a decision.
#[derive(Clone, Debug, Default)]
pub struct ReadDecision<'a> {
    /// The decoded id of the request.
    pub message_id: Cow<'a, str>,
    /// When the request was accepted.
    pub time: Micros,
    model_input: Option<&'a str>,
    /// The answer that the client got, as JSON text.
    answered: Option<&'a str>,
    /// The score of each leg.
    pub scores: ByLeg<Option<LegScore<'a>>>,
    /// The number of scores of other models.
    pub strangers: u64,
    /// The number of further scores of a model. The first one counts.
    pub repeated: u64,
}

impl<'a> ReadDecision<'a> {
    fn add(&mut self, leg: Option<Leg>, score: impl FnOnce() -> LegScore<'a>) {
        match leg.map(|leg| &mut self.scores[leg as usize]) {
            None => self.strangers += 1,
            Some(Some(_)) => self.repeated += 1,
            Some(place) => *place = Some(score()),
        }
    }

    /// The request that was decided.
    pub fn observation(&self) -> Observation<'_> {
        Observation {
            message_id: &self.message_id,
            time: Some(self.time),
            model_input: self.model_input,
            answered: self.answered,
            is_decision: true,
            scores: self.scores,
        }
    }
}

/// Reads a decision of the usual form; `None` if it is unusual or invalid.
pub fn quick_decision<'a>(text: &'a str, roles: &Roles) -> Option<ReadDecision<'a>> {
    let mut read = ReadDecision::default();
    let found = decision(text, |candidate| {
        let leg = roles.leg_of(&candidate.model_name, candidate.model_version);
        read.add(leg, || {
            let (late, after) = (candidate.is_late, candidate.arrived_after);
            match (candidate.outcome, candidate.answer) {
                (Outcome::Result(text), Some(answer)) => {
                    LegScore::with_answer(late, after, text, answer)
                }
                (Outcome::Result(text), None) => LegScore::new(false, late, after, text),
                (Outcome::Error(text), _) => LegScore::new(true, late, after, text),
            }
        });
    })?;
    read.message_id = found.message_id;
    read.time = found.timestamp;
    read.model_input = found.model_input;
    read.answered = found.answered;
    Some(read)
}

/// Reads a decision of any form.
pub fn read_decision<'a>(record: &Record<'a>, roles: &Roles) -> Result<ReadDecision<'a>, Reject> {
    let result = record.get(Field::ModelResult);
    let mut read = ReadDecision {
        message_id: record.message_id()?,
        time: record.timestamp()?,
        model_input: record.get(Field::ModelInput),
        answered: result.and_then(|it| value_of(it, "result")),
        ..ReadDecision::default()
    };
    for (number, candidate) in candidates_of(record)?.enumerate() {
        let found = candidate.and_then(|candidate| read_candidate(&candidate, roles));
        let found = found.map_err(|fault| Reject::Field(format!("candidate {number}: {fault}")))?;
        match found {
            None => read.strangers += 1,
            Some((leg, score)) => read.add(Some(leg), || score),
        }
    }
    Ok(read)
}

/// The leg and the score of a candidate; `None` for a model that is not compared.
fn read_candidate<'a>(
    candidate: &Candidate<'a>,
    roles: &Roles,
) -> Result<Option<(Leg, LegScore<'a>)>, String> {
    let name = candidate.model_name()?;
    let Some(leg) = roles.leg_of(&name, candidate.model_version()?) else {
        return Ok(None);
    };
    let (failed, outcome) = match candidate.outcome()? {
        Outcome::Result(text) => (false, text),
        Outcome::Error(text) => (true, text),
    };
    let score = LegScore::new(
        failed,
        candidate.fate().is_ok_and(|fate| fate == "late"),
        candidate.arrived_after().ok(),
        outcome,
    );
    Ok(Some((leg, score)))
}
