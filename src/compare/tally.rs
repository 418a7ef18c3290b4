//! The counts of a comparison, request by request, in memory that does not grow.

use crate::compare::classes::{Classes, PairCounts};
use crate::compare::fields::Fields;
use crate::compare::gates::Sequences;
use crate::compare::label_file::Label;
use crate::compare::labelled::LabelCounts;
use crate::compare::legs::{Leg, LegScore, Observation, Roles};
use crate::compare::slices::Slices;
use crate::compare::speed::Speeds;
use crate::compare::values::{Equality, is_compound};
use crate::wire::micros::Micros;

/// What the comparison is asked to do.
#[derive(Clone, Debug)]
pub struct Question {
    /// The models.
    pub roles: Roles,
    /// When two answers are equal.
    pub equality: Equality,
    /// The JSON pointers of the slices.
    pub slices: Vec<String>,
    /// Whether the model input is needed, for slices or for drift.
    pub needs_input: bool,
    /// The kind of labels; `None` without labels.
    pub labels: Option<LabelKind>,
}

/// How the requests with a label were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelKind {
    /// Without regard to the answers, as far as is known.
    Plain,
    /// Each label has a weight.
    Weighted,
    /// Only among the disagreements.
    Disagreements,
}

/// Requests to which the base gave an answer, and what the candidate did. Gates count
/// these.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// All of them.
    pub all: u64,
    /// Those of which a decision tells whether the candidate was late.
    pub decided: u64,
    /// The candidate gave another answer in time.
    pub differ: u64,
    /// The candidate failed.
    pub failed: u64,
    /// The candidate was late, whatever it answered.
    pub late: u64,
    /// The candidate gave no score.
    pub absent: u64,
}

impl Asked {
    /// The requests that count as a disagreement in gates.
    pub fn disagreements(&self) -> u64 {
        self.differ + self.failed + self.late + self.absent
    }
}

/// Requests that base, candidate and noise leg all answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoiseCounts {
    /// All of them.
    pub requests: u64,
    /// Requests in which only the candidate differs from the base.
    pub candidate_only: u64,
    /// Requests in which only the noise leg differs from the base.
    pub noise_only: u64,
    /// Requests in which both differ from the base.
    pub both: u64,
}

/// How often a model agrees with the ruler.
#[derive(Clone, Copy, Debug, Default)]
pub struct RulerCounts {
    /// Requests that both answered.
    pub pairs: u64,
    /// Of these, the requests with equal answers.
    pub same: u64,
}

/// The counts of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// All requests.
    pub requests: u64,
    /// Requests that base and candidate both answered.
    pub pairs: u64,
    /// Pairs with equal answers.
    pub same: u64,
    /// Requests that only the base answered, while the candidate is absent.
    pub unpaired_base: u64,
    /// Requests that only the candidate answered, while the base is absent.
    pub unpaired_candidate: u64,
    /// Requests in which base or candidate failed.
    pub errors: u64,
    /// Requests in which the base failed.
    pub base_failed: u64,
    /// Requests in which the candidate failed.
    pub candidate_failed: u64,
    /// Requests without a score of base or candidate.
    pub neither: u64,
    /// Late scores of the base.
    pub base_late: u64,
    /// Late scores of the candidate.
    pub candidate_late: u64,
    /// What the candidate did when the base answered.
    pub asked: Asked,
    /// Counts of pairs of classes.
    pub confusion: PairCounts,
    /// Counts by field of compound answers.
    pub fields: Fields,
    /// The noise leg beside the candidate.
    pub noise: NoiseCounts,
    /// The base beside the ruler.
    pub base_ruler: RulerCounts,
    /// The candidate beside the ruler.
    pub candidate_ruler: RulerCounts,
    /// The times of the models.
    pub speeds: Speeds,
    /// The results beside the labels.
    pub labels: LabelCounts,
    /// The slices, in the order of their flags.
    pub slices: Vec<Slices>,
    /// The values for gates that are read at any time.
    pub sequences: Sequences,
    /// The times of the oldest and the newest request.
    pub times: Option<(Micros, Micros)>,
}

fn indicator(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

impl Tally {
    /// Starts without a request.
    pub fn new(question: &Question) -> Tally {
        Tally {
            slices: question.slices.iter().map(|it| Slices::new(it)).collect(),
            ..Tally::default()
        }
    }

    /// Adds a request. `label` is its true label, if it is known. Returns whether it is
    /// a pair, and if so, whether the answers are equal.
    pub fn add(
        &mut self,
        seen: &Observation,
        label: Option<&Label>,
        question: &Question,
        classes: &mut Classes,
    ) -> Option<bool> {
        self.requests += 1;
        if let Some(time) = seen.time {
            let (first, last) = self.times.unwrap_or((time, time));
            self.times = Some((first.min(time), last.max(time)));
        }
        let (base, candidate) = (seen.score(Leg::Base), seen.score(Leg::Candidate));
        self.count_presence(base, candidate);
        self.speeds.add(
            base.and_then(|score| score.after),
            candidate.and_then(|score| score.after),
        );
        let answers = (seen.answer(Leg::Base), seen.answer(Leg::Candidate));
        let is_same = match answers {
            (Some(one), Some(other)) => Some(question.equality.is_same(one, other)),
            _ => None,
        };
        if answers.0.is_some() {
            self.ask(candidate, is_same, seen.is_decision);
        }
        if question.roles.has(Leg::Ruler) {
            self.add_ruler(seen, question.equality);
        }
        if let Some(is_same) = is_same {
            self.add_pair(seen, is_same, question, classes);
        }
        if let Some(label) = label {
            self.add_label(seen, label, question, classes);
        }
        is_same
    }

    /// Adds the label of a pair that was counted before.
    pub fn add_label(
        &mut self,
        seen: &Observation,
        label: &Label,
        question: &Question,
        classes: &mut Classes,
    ) {
        let (Some(base), Some(candidate)) = (seen.score(Leg::Base), seen.score(Leg::Candidate))
        else {
            return;
        };
        let scores = (base, candidate);
        let right = self
            .labels
            .add(scores, seen.answered, label, question.equality, classes);
        if let Some(right) = right {
            self.sequences.accuracy.add(indicator(right.candidate));
            let difference = indicator(right.base) - indicator(right.candidate);
            self.sequences.accuracy_loss.add((difference + 1.0) / 2.0);
        }
    }

    fn count_presence(&mut self, base: Option<&LegScore>, candidate: Option<&LegScore>) {
        let failed = |score: Option<&LegScore>| score.is_some_and(|score| score.failed);
        let late = |score: Option<&LegScore>| score.is_some_and(|score| score.late);
        self.base_failed += u64::from(failed(base));
        self.candidate_failed += u64::from(failed(candidate));
        self.base_late += u64::from(late(base));
        self.candidate_late += u64::from(late(candidate));
        let counter = match (base, candidate) {
            _ if failed(base) || failed(candidate) => &mut self.errors,
            (Some(_), Some(_)) => &mut self.pairs,
            (Some(_), None) => &mut self.unpaired_base,
            (None, Some(_)) => &mut self.unpaired_candidate,
            (None, None) => &mut self.neither,
        };
        *counter += 1;
    }

    /// Counts a request that the base answered.
    fn ask(&mut self, candidate: Option<&LegScore>, is_same: Option<bool>, is_decision: bool) {
        let absent = candidate.is_none();
        let failed = candidate.is_some_and(|score| score.failed);
        let late = candidate.is_some_and(|score| score.late && !score.failed);
        let differs = !late && is_same == Some(false);
        self.asked.all += 1;
        self.asked.decided += u64::from(is_decision);
        self.asked.absent += u64::from(absent);
        self.asked.failed += u64::from(failed);
        self.asked.late += u64::from(late);
        self.asked.differ += u64::from(differs);
        let disagrees = absent || failed || late || differs;
        self.sequences.disagreement.add(indicator(disagrees));
        self.sequences.absent.add(indicator(absent));
        self.sequences.failures.add(indicator(failed));
        if is_decision {
            self.sequences.late.add(indicator(late));
        }
    }

    fn add_ruler(&mut self, seen: &Observation, equality: Equality) {
        let Some(ruler) = seen.answer(Leg::Ruler) else {
            return;
        };
        let legs = [
            (Leg::Base, &mut self.base_ruler),
            (Leg::Candidate, &mut self.candidate_ruler),
        ];
        for (leg, counts) in legs {
            if let Some(answer) = seen.answer(leg) {
                counts.pairs += 1;
                counts.same += u64::from(equality.is_same(answer, ruler));
            }
        }
    }

    fn add_pair(
        &mut self,
        seen: &Observation,
        is_same: bool,
        question: &Question,
        classes: &mut Classes,
    ) {
        let (Some(base), Some(candidate)) = (seen.answer(Leg::Base), seen.answer(Leg::Candidate))
        else {
            return;
        };
        let equality = question.equality;
        self.same += u64::from(is_same);
        let noise = seen.answer(Leg::Noise);
        if let Some(noise) = noise {
            let noise_same = equality.is_same(base, noise);
            self.noise.requests += 1;
            self.noise.candidate_only += u64::from(!is_same && noise_same);
            self.noise.noise_only += u64::from(is_same && !noise_same);
            self.noise.both += u64::from(!is_same && !noise_same);
        }
        if is_compound(base) && is_compound(candidate) {
            let noise = noise.filter(|noise| is_compound(noise));
            self.fields.add(equality, base, candidate, noise);
        } else if equality.tolerance.is_none() {
            let pair = (classes.class_of(base), classes.class_of(candidate));
            self.confusion.add(pair.0, pair.1, is_same);
        }
        if let Some(model_input) = seen.model_input {
            for slices in &mut self.slices {
                slices.add(model_input, is_same);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn question() -> Question {
        let model = |name: &str| Some(name.parse().unwrap());
        Question {
            roles: Roles {
                models: [model("a@1"), model("b@1"), model("c@1"), model("d@1")],
            },
            equality: Equality::default(),
            slices: Vec::new(),
            needs_input: false,
            labels: Some(LabelKind::Plain),
        }
    }

    /// A score: absent, failed, or an answer, in time or late.
    fn any_score() -> impl Strategy<Value = Option<(bool, bool, usize)>> {
        proptest::option::of((any::<bool>(), any::<bool>(), 0..3_usize))
    }

    const OUTCOMES: [&str; 3] = [r#"{"result":1}"#, r#"{"result":1.0}"#, r#"{"result":"x"}"#];

    proptest! {
        #[test]
        fn every_request_is_counted_once(
            requests in proptest::collection::vec(proptest::array::uniform4(any_score()), 0..40),
        ) {
            let (question, mut classes) = (question(), Classes::default());
            let mut tally = Tally::new(&question);
            let label = Label {
                text: "1".to_owned(),
                weight: 1.0,
            };
            for scores in &requests {
                let seen = Observation {
                    message_id: "x",
                    time: None,
                    model_input: None,
                    answered: Some("1"),
                    is_decision: true,
                    scores: scores.map(|score| score.map(|(failed, late, outcome)| LegScore::new(failed, late, Some(Micros(1)), OUTCOMES[outcome]))),
                };
                tally.add(&seen, Some(&label), &question, &mut classes);
            }
            let unpaired = tally.unpaired_base + tally.unpaired_candidate;
            prop_assert_eq!(
                tally.pairs + unpaired + tally.errors + tally.neither,
                requests.len() as u64
            );
            prop_assert!(tally.asked.disagreements() <= tally.asked.all);
            prop_assert!(tally.same <= tally.pairs);
            let (_, table) = tally.confusion.table(&classes);
            prop_assert_eq!(table.iter().flatten().sum::<u64>(), tally.pairs);
            prop_assert_eq!(tally.labels.labelled, tally.pairs);
            prop_assert_eq!(tally.sequences.disagreement.count(), tally.asked.all);
        }
    }

    #[test]
    fn labels_beyond_the_bound_agree_only_if_they_are_equal() {
        let (question, mut classes) = (question(), Classes::default());
        let mut tally = Tally::new(&question);
        // Two times 400 labels. From the 200th on, all are "others", and none are equal.
        for number in 0..400 {
            let (base, candidate) = match number {
                0..200 => (number, number),
                _ => (number, number + 1000),
            };
            let outcomes = [base, candidate].map(|answer| format!("{{\"result\":{answer}}}"));
            let score = |leg: usize| Some(LegScore::new(false, false, None, &outcomes[leg]));
            let seen = Observation {
                message_id: "x",
                time: None,
                model_input: None,
                answered: None,
                is_decision: true,
                scores: [score(0), score(1), None, None],
            };
            let label = Label {
                text: (number + 1000).to_string(),
                weight: 1.0,
            };
            tally.add(&seen, Some(&label), &question, &mut classes);
        }
        let report = crate::compare::summary::report(&tally, &question, &classes, false);
        assert_eq!(report.agreement.unwrap().rate, 0.5);
        assert_eq!(report.confusion.others_differ, 200);
        assert_eq!(report.kappa, None);
        let labels = report.labels.unwrap();
        assert_eq!(labels.candidate.accuracy.unwrap().rate, 0.5);
        let claims = labels
            .base
            .classes
            .iter()
            .any(|it| it.label.get().contains("others"));
        assert!(!claims);
    }

    #[test]
    fn what_the_candidate_did_not_answer_in_time_is_a_disagreement() {
        let (question, mut classes) = (question(), Classes::default());
        let mut tally = Tally::new(&question);
        let score = |failed, late, outcome| Some(LegScore::new(failed, late, None, outcome));
        let base = score(false, false, OUTCOMES[0]);
        for candidate in [
            score(false, false, OUTCOMES[1]),
            score(false, false, OUTCOMES[2]),
            score(false, true, OUTCOMES[0]),
            score(true, false, "{}"),
            None,
        ] {
            let seen = Observation {
                message_id: "x",
                time: None,
                model_input: None,
                answered: None,
                is_decision: true,
                scores: [base, candidate, None, None],
            };
            tally.add(&seen, None, &question, &mut classes);
        }
        let asked = tally.asked;
        assert_eq!((asked.all, asked.disagreements()), (5, 4));
        assert_eq!(
            (asked.differ, asked.late, asked.failed, asked.absent),
            (1, 1, 1, 1)
        );
        // The late pair still tells whether the models agree.
        assert_eq!((tally.pairs, tally.same), (3, 2));
    }
}
