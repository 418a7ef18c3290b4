//! Which score answers a request, and when: the rules, as a pure function.
//!
//! The outcome is asked for as if nothing more were to come. What comes later
//! than the outcome's time cannot change it, and what comes before is asked
//! about again. So the same function says what to answer and when to wake.

use crate::serve::rendezvous::policy::{Accepting, Policy, Share, step_at};
use crate::wire::micros::Micros;
use crate::wire::text::Text;

/// A score as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The model's name.
    pub model_name: Text,
    /// The model's version.
    pub model_version: u64,
    /// When it came, from the request's origin.
    pub at: Micros,
    /// Whether the model failed.
    pub failed: bool,
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The score that answers, by its place among the arrivals; `None` is the
    /// policy's default.
    pub winner: Option<usize>,
    /// When, from the request's origin.
    pub at: Micros,
    /// By which rule.
    pub reason: Reason,
}

/// The rule that gave the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// By the model of the request's share, in its time.
    Share,
    /// By the first step.
    Preferred,
    /// By a later step.
    Fallback,
    /// By a later step before its time, since nothing more could come.
    Settled,
    /// By no model.
    Default,
    /// Before its time, since there were too many requests.
    Overflow,
    /// Before its time, since the rendezvous or all models ended.
    Shutdown,
}

impl Reason {
    /// All reasons, in the order in which they are shown.
    pub const ALL: [Reason; 7] = [
        Reason::Share,
        Reason::Preferred,
        Reason::Fallback,
        Reason::Settled,
        Reason::Default,
        Reason::Overflow,
        Reason::Shutdown,
    ];

    /// As it stands in records.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Share => "share",
            Reason::Preferred => "preferred",
            Reason::Fallback => "fallback",
            Reason::Settled => "settled",
            Reason::Default => "default",
            Reason::Overflow => "overflow",
            Reason::Shutdown => "shutdown",
        }
    }
}

/// What comes of a request if no score comes but `arrivals`, each model's first.
/// `share` is the place of the request's share in the policy.
pub fn outcome(policy: &Policy, share: Option<usize>, arrivals: &[Arrival]) -> Outcome {
    let share = share.map(|share| &policy.shares[share]);
    let steps_from = match share.map(|share| share_ends(share, arrivals)) {
        Some(ShareEnds::Answers(winner)) => {
            return Outcome {
                winner: Some(winner),
                at: arrivals[winner].at,
                reason: Reason::Share,
            };
        }
        Some(ShareEnds::Gives(at)) => at,
        None => Micros(0),
    };
    let settles = settles_at(policy, steps_from, arrivals);
    let first = arrivals
        .iter()
        .filter_map(|arrival| acceptable_from(policy, steps_from, arrival))
        .min();
    if let Some((at, step)) = first
        && settles.is_none_or(|settles| at <= settles)
    {
        return Outcome {
            winner: best(policy, step, arrivals, at),
            at,
            reason: match step {
                0 => Reason::Preferred,
                _ => Reason::Fallback,
            },
        };
    }
    match settles {
        Some(at) => early(policy, arrivals, at, Reason::Settled),
        None => Outcome {
            winner: None,
            at: policy.deadline,
            reason: Reason::Default,
        },
    }
}

/// The answer at once, at the time `at`, by the walk through the steps in force
/// and to come.
pub fn early(policy: &Policy, arrivals: &[Arrival], at: Micros, reason: Reason) -> Outcome {
    let at = at.min(policy.deadline);
    let from = step_at(&policy.steps, at);
    let step = arrivals
        .iter()
        .filter(|arrival| arrival.at <= at)
        .filter_map(|arrival| accepting(policy, arrival)?.first_from(from))
        .min();
    let winner = step.and_then(|step| best(policy, step, arrivals, at));
    let reason = match (winner, reason) {
        // A settled request that no step answers is like one at its deadline.
        (None, Reason::Settled) => Reason::Default,
        (_, reason) => reason,
    };
    Outcome { winner, at, reason }
}

/// How the time of a share ends.
enum ShareEnds {
    /// With the answer of its model.
    Answers(usize),
    /// Without, and from this time on the steps apply.
    Gives(Micros),
}

fn share_ends(share: &Share, arrivals: &[Arrival]) -> ShareEnds {
    let its_model = arrivals.iter().position(|arrival| {
        share.model.is(&arrival.model_name, arrival.model_version) && arrival.at <= share.until
    });
    match its_model {
        Some(index) if arrivals[index].failed => ShareEnds::Gives(arrivals[index].at),
        Some(index) => ShareEnds::Answers(index),
        None => ShareEnds::Gives(share.until),
    }
}

/// When this score becomes acceptable, from `steps_from` on, and by which step.
fn acceptable_from(
    policy: &Policy,
    steps_from: Micros,
    arrival: &Arrival,
) -> Option<(Micros, usize)> {
    let there = arrival.at.max(steps_from);
    if there > policy.deadline {
        return None;
    }
    let in_force = step_at(&policy.steps, there);
    let step = accepting(policy, arrival)?.first_from(in_force)?;
    Some((there.max(policy.steps[step].after), step))
}

/// When nothing more can come, since every expected model has reported and no
/// share waits.
fn settles_at(policy: &Policy, steps_from: Micros, arrivals: &[Arrival]) -> Option<Micros> {
    if policy.expect.is_empty() {
        return None;
    }
    // Each arrival is of another model.
    let mut settles = steps_from;
    let mut reported = 0;
    for arrival in arrivals {
        if policy
            .index
            .expects(&arrival.model_name, arrival.model_version)
        {
            reported += 1;
            settles = settles.max(arrival.at);
        }
    }
    (reported == policy.expect.len() && settles <= policy.deadline).then_some(settles)
}

/// The score that a step prefers of those that were there at `at`.
fn best(policy: &Policy, step: usize, arrivals: &[Arrival], at: Micros) -> Option<usize> {
    arrivals
        .iter()
        .enumerate()
        .filter(|(_, arrival)| arrival.at <= at)
        .filter_map(|(index, arrival)| {
            let rank = accepting(policy, arrival)?.rank_in(step)?;
            let key = (
                rank,
                arrival.at,
                &*arrival.model_name,
                arrival.model_version,
            );
            Some((key, index))
        })
        .min()
        .map(|(_, index)| index)
}

/// The steps that accept a score; `None` for a failure, which none accepts.
fn accepting<'a>(policy: &'a Policy, arrival: &Arrival) -> Option<Accepting<'a>> {
    let of = || {
        policy
            .index
            .accepting(&arrival.model_name, arrival.model_version)
    };
    (!arrival.failed).then(of)
}

#[cfg(test)]
mod second_reading;

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        deadline_ms = 100
        expect = ["dt", "lr"]
        [versions]
        dt = 1
        lr = 0
        [[prefer]]
        after_ms = 0
        models = ["dt"]
        [[prefer]]
        after_ms = 50
        models = ["dt", "lr"]
        [split]
        key = "messageId"
        [[share]]
        model = "dt@2"
        from = 0.0
        to = 1.0
        until_ms = 80
    "#;

    fn arrival(model_name: &str, model_version: u64, at_ms: i64) -> Arrival {
        Arrival {
            model_name: model_name.into(),
            model_version,
            at: Micros(at_ms * 1000),
            failed: false,
        }
    }

    fn failure(model_name: &str, model_version: u64, at_ms: i64) -> Arrival {
        Arrival {
            failed: true,
            ..arrival(model_name, model_version, at_ms)
        }
    }

    /// (winner, answered after ms, reason)
    fn ask(policy: &str, share: Option<usize>, arrivals: &[Arrival]) -> (String, i64, Reason) {
        let policy = Policy::parse(policy, "policy").unwrap();
        let outcome = outcome(&policy, share, arrivals);
        let winner = outcome.winner.map_or("default".to_owned(), |winner| {
            let winner = &arrivals[winner];
            format!("{}@{}", winner.model_name, winner.model_version)
        });
        (winner, outcome.at.0 / 1000, outcome.reason)
    }

    fn said(winner: &str, at_ms: i64, reason: Reason) -> (String, i64, Reason) {
        (winner.to_owned(), at_ms, reason)
    }

    #[test]
    fn the_rules_by_example() {
        let dt = |at| arrival("dt", 1, at);
        let lr = |at| arrival("lr", 0, at);
        for (story, arrivals, expected) in [
            (
                "nothing comes",
                vec![],
                said("default", 100, Reason::Default),
            ),
            (
                "the preferred one comes",
                vec![dt(7)],
                said("dt@1", 7, Reason::Preferred),
            ),
            (
                "the other waits for its step",
                vec![lr(3)],
                said("lr@0", 50, Reason::Fallback),
            ),
            (
                "the preferred one is in time",
                vec![lr(3), dt(49)],
                said("dt@1", 49, Reason::Preferred),
            ),
            (
                "at a step's begin preference speaks",
                vec![lr(3), dt(50)],
                said("dt@1", 50, Reason::Fallback),
            ),
            (
                "after it the first to come answers",
                vec![lr(60), dt(61)],
                said("lr@0", 60, Reason::Fallback),
            ),
            (
                "both at once",
                vec![lr(60), dt(60)],
                said("dt@1", 60, Reason::Fallback),
            ),
            (
                "exactly at the deadline counts",
                vec![lr(100)],
                said("lr@0", 100, Reason::Fallback),
            ),
            (
                "a moment later does not",
                vec![lr(101)],
                said("default", 100, Reason::Default),
            ),
            (
                "another version never counts",
                vec![arrival("dt", 2, 1)],
                said("default", 100, Reason::Default),
            ),
            (
                "a shadow never counts",
                vec![arrival("x", 0, 1)],
                said("default", 100, Reason::Default),
            ),
            (
                "the preferred one fails",
                vec![lr(3), failure("dt", 1, 9)],
                said("lr@0", 9, Reason::Settled),
            ),
            (
                "both fail",
                vec![failure("lr", 0, 3), failure("dt", 1, 9)],
                said("default", 9, Reason::Default),
            ),
            (
                "one fails, one is missing",
                vec![failure("dt", 1, 9)],
                said("default", 100, Reason::Default),
            ),
            (
                "the order of reading is nothing",
                vec![dt(7), lr(3)],
                said("dt@1", 7, Reason::Preferred),
            ),
        ] {
            assert_eq!(ask(POLICY, None, &arrivals), expected, "{story}");
        }
    }

    #[test]
    fn a_share_waits_for_its_model_first() {
        let dt = |at| arrival("dt", 1, at);
        let new = |at| arrival("dt", 2, at);
        let lr = |at| arrival("lr", 0, at);
        for (story, arrivals, expected) in [
            (
                "its model comes",
                vec![dt(1), new(70)],
                said("dt@2", 70, Reason::Share),
            ),
            (
                "exactly at its end",
                vec![dt(1), new(80)],
                said("dt@2", 80, Reason::Share),
            ),
            (
                "too late",
                vec![dt(1), new(81)],
                said("dt@1", 80, Reason::Fallback),
            ),
            (
                "it fails",
                vec![dt(1), failure("dt", 2, 5)],
                said("dt@1", 5, Reason::Preferred),
            ),
            (
                "it fails before the others",
                vec![failure("dt", 2, 5), lr(6)],
                said("lr@0", 50, Reason::Fallback),
            ),
            (
                "all report",
                vec![lr(1), failure("dt", 1, 2), failure("dt", 2, 5)],
                said("lr@0", 5, Reason::Settled),
            ),
            (
                "the others fail while it is awaited",
                vec![failure("lr", 0, 1), failure("dt", 1, 2)],
                said("default", 80, Reason::Default),
            ),
        ] {
            assert_eq!(ask(POLICY, Some(0), &arrivals), expected, "{story}");
        }
    }

    #[test]
    fn scores_gather_before_the_first_step() {
        let policy = r#"
            deadline_ms = 100
            expect = ["a@1", "b@1"]
            [[prefer]]
            after_ms = 20
            models = ["a@1", "*"]
        "#;
        let (a, b) = (|at| arrival("a", 1, at), |at| arrival("b", 1, at));
        for (arrivals, expected) in [
            (vec![b(3)], said("b@1", 20, Reason::Preferred)),
            (vec![b(3), a(9)], said("a@1", 9, Reason::Settled)),
            (
                vec![b(3), arrival("c", 0, 2)],
                said("c@0", 20, Reason::Preferred),
            ),
            (
                vec![b(30), arrival("c", 0, 30)],
                said("b@1", 30, Reason::Preferred),
            ),
            (
                vec![b(30), arrival("b", 0, 30)],
                said("b@0", 30, Reason::Preferred),
            ),
        ] {
            assert_eq!(ask(policy, None, &arrivals), expected, "{arrivals:?}");
        }
    }

    #[test]
    fn an_early_answer_walks_through_the_steps_to_come() {
        let policy = Policy::parse(POLICY, "policy").unwrap();
        let arrivals = [arrival("lr", 0, 3)];
        let cut = early(&policy, &arrivals, Micros(4_000), Reason::Overflow);
        assert_eq!(
            (cut.winner, cut.at, cut.reason),
            (Some(0), Micros(4_000), Reason::Overflow)
        );
        let cut = early(&policy, &[], Micros(400_000), Reason::Shutdown);
        assert_eq!(
            (cut.winner, cut.at, cut.reason),
            (None, Micros(100_000), Reason::Shutdown)
        );
    }
}
