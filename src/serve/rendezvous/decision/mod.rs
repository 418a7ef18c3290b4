//! The rules, as a pure function: which score answers a request, and when.
//!
//! [`choose`] returns the answer that the request gets if no further score arrives. A
//! score that arrives after the time of this answer cannot change the answer. If a
//! score arrives earlier, the caller calls [`choose`] again. So one function gives both
//! the answer and the time at which the caller must wake.

use crate::serve::rendezvous::policy::{AcceptingSteps, NamedModel, Policy, Share};
use crate::wire::message::OutcomeKind;
use crate::wire::micros::Micros;

/// The properties of a score that the rules use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival<'a> {
    /// The model's name.
    pub model_name: &'a str,
    /// The model's version.
    pub model_version: u64,
    /// The model in the index of the policy; `None` if the policy does not name the
    /// model.
    pub named: Option<NamedModel>,
    /// The arrival of the score, measured from the request's origin.
    pub at: Micros,
    /// Whether the score is a result, a refusal or another error.
    pub kind: OutcomeKind,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The score that answers, as its index in the arrivals; `None` is the policy's
    /// default.
    pub winner: Option<usize>,
    /// The time of the answer, measured from the request's origin.
    pub at: Micros,
    /// The rule that gave the answer.
    pub reason: Reason,
}

/// The rule that gave an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// The model of the request's share answered before the share's time was over.
    Share,
    /// The first step accepted the score.
    Preferred,
    /// A later step accepted the score.
    Fallback,
    /// All expected models had reported, so a later step was applied before its time.
    Settled,
    /// The model whose answer comes first refused the request.
    Refused,
    /// No acceptable score arrived.
    Default,
    /// Too many requests were open, so this request was answered early.
    Overflow,
    /// The rendezvous was stopped, or all score inputs had ended, so this request was
    /// answered early.
    Shutdown,
}

impl Reason {
    /// All reasons, in the order in which they are shown.
    pub const ALL: [Reason; 8] = [
        Reason::Share,
        Reason::Preferred,
        Reason::Fallback,
        Reason::Settled,
        Reason::Refused,
        Reason::Default,
        Reason::Overflow,
        Reason::Shutdown,
    ];

    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Share => "share",
            Reason::Preferred => "preferred",
            Reason::Fallback => "fallback",
            Reason::Settled => "settled",
            Reason::Refused => "refused",
            Reason::Default => "default",
            Reason::Overflow => "overflow",
            Reason::Shutdown => "shutdown",
        }
    }
}

/// The answer to a request if no further score arrives. `arrivals` holds each model's
/// first score. `share` is the request's share, as its index in the policy.
pub fn choose<'a>(
    policy: &Policy,
    share: Option<usize>,
    arrivals: impl Iterator<Item = Arrival<'a>> + Clone,
) -> Choice {
    let share = share.map(|share| &policy.shares[share]);
    let steps_from = match share.map(|share| share_end(share, arrivals.clone())) {
        Some(ShareEnd::Answer(winner, at, reason)) => {
            return Choice {
                winner: Some(winner),
                at,
                reason,
            };
        }
        Some(ShareEnd::StepsFrom(at)) => at,
        None => Micros(0),
    };
    let settles = settles_at(policy, steps_from, arrivals.clone());
    let first = arrivals
        .clone()
        .filter_map(|arrival| acceptable_from(policy, steps_from, &arrival))
        .min();
    if let Some((at, step)) = first
        && settles.is_none_or(|settles| at <= settles)
    {
        let best = best(policy, step, arrivals, at);
        return Choice {
            winner: best.map(|best| best.place),
            at,
            reason: match step {
                _ if best.is_some_and(|best| best.is_refusal) => Reason::Refused,
                0 => Reason::Preferred,
                _ => Reason::Fallback,
            },
        };
    }
    match settles {
        Some(at) => choose_early(policy, arrivals, at, Reason::Settled),
        None => Choice {
            winner: None,
            at: policy.deadline,
            reason: Reason::Default,
        },
    }
}

/// The answer to a request that must be answered at the time `at`. The current step and
/// the later steps are tried at once, in order.
pub fn choose_early<'a>(
    policy: &Policy,
    arrivals: impl Iterator<Item = Arrival<'a>> + Clone,
    at: Micros,
    reason: Reason,
) -> Choice {
    let at = at.min(policy.deadline);
    let from = policy.step_at(at);
    let step = arrivals
        .clone()
        .filter(|arrival| arrival.at <= at)
        .filter_map(|arrival| accepting(policy, &arrival)?.first_from(from))
        .min();
    let best = step.and_then(|step| best(policy, step, arrivals, at));
    let reason = match (best, reason) {
        // A settled request without an acceptable score gets the default, as it would
        // at its deadline.
        (None, Reason::Settled) => Reason::Default,
        (Some(best), Reason::Settled) if best.is_refusal => Reason::Refused,
        (_, reason) => reason,
    };
    Choice {
        winner: best.map(|best| best.place),
        at,
        reason,
    }
}

/// The two ways in which the wait for the model of a share can end.
enum ShareEnd {
    /// The model answers or refuses: the index of its score, the arrival of the score,
    /// and the reason.
    Answer(usize, Micros, Reason),
    /// The model does not answer, and the steps apply from this time on.
    StepsFrom(Micros),
}

fn share_end<'a>(share: &Share, arrivals: impl Iterator<Item = Arrival<'a>>) -> ShareEnd {
    let of_model = arrivals.enumerate().find(|(_, arrival)| {
        share.model.is(arrival.model_name, arrival.model_version) && arrival.at <= share.until
    });
    let Some((place, arrival)) = of_model else {
        return ShareEnd::StepsFrom(share.until);
    };
    match arrival.kind {
        OutcomeKind::Result => ShareEnd::Answer(place, arrival.at, Reason::Share),
        OutcomeKind::Refusal => ShareEnd::Answer(place, arrival.at, Reason::Refused),
        OutcomeKind::Failure => ShareEnd::StepsFrom(arrival.at),
    }
}

/// The time at which a score becomes acceptable, and the step that accepts it. No step
/// applies before `steps_from`.
fn acceptable_from(
    policy: &Policy,
    steps_from: Micros,
    arrival: &Arrival,
) -> Option<(Micros, usize)> {
    let there = arrival.at.max(steps_from);
    if there > policy.deadline {
        return None;
    }
    let in_force = policy.step_at(there);
    let step = accepting(policy, arrival)?.first_from(in_force)?;
    Some((there.max(policy.steps[step].after), step))
}

/// The time at which no further report is expected: every expected model has reported,
/// and the wait for the share's model is over.
fn settles_at<'a>(
    policy: &Policy,
    steps_from: Micros,
    arrivals: impl Iterator<Item = Arrival<'a>>,
) -> Option<Micros> {
    let expected = policy.expected.as_ref()?;
    // Each model has only one arrival, so the arrivals can be counted.
    let mut settles = steps_from;
    let mut reported = 0;
    for arrival in arrivals.filter(|arrival| policy.index.expects(arrival.named)) {
        reported += 1;
        settles = settles.max(arrival.at);
    }
    (reported == expected.models.len() && settles <= policy.deadline).then_some(settles)
}

/// The score that a step prefers.
#[derive(Clone, Copy, Debug)]
struct Best {
    /// The index of the score in the arrivals.
    place: usize,
    is_refusal: bool,
}

/// The score that a step prefers among the scores that have arrived at `at`.
fn best<'a>(
    policy: &Policy,
    step: usize,
    arrivals: impl Iterator<Item = Arrival<'a>>,
    at: Micros,
) -> Option<Best> {
    arrivals
        .enumerate()
        .filter(|(_, arrival)| arrival.at <= at)
        .filter_map(|(place, arrival)| {
            let rank = accepting(policy, &arrival)?.rank_in(step)?;
            let order = (rank, arrival.at, arrival.model_name, arrival.model_version);
            let is_refusal = arrival.kind == OutcomeKind::Refusal;
            Some((order, place, is_refusal))
        })
        .min()
        .map(|(_, place, is_refusal)| Best { place, is_refusal })
}

/// The steps that accept a score; `None` for a failure, which no step accepts.
fn accepting<'p>(policy: &'p Policy, arrival: &Arrival) -> Option<AcceptingSteps<'p>> {
    match arrival.kind {
        OutcomeKind::Result => Some(policy.index.accepting(arrival.named)),
        OutcomeKind::Refusal => Some(policy.index.accepting_refusal(arrival.named)),
        OutcomeKind::Failure => None,
    }
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

    /// The test looks the model up later, when it has the policy.
    fn arrival(model_name: &str, model_version: u64, at_ms: i64) -> Arrival<'_> {
        Arrival {
            model_name,
            model_version,
            named: None,
            at: Micros(at_ms * 1000),
            kind: OutcomeKind::Result,
        }
    }

    fn failure(model_name: &str, model_version: u64, at_ms: i64) -> Arrival<'_> {
        Arrival {
            kind: OutcomeKind::Failure,
            ..arrival(model_name, model_version, at_ms)
        }
    }

    fn refusal(model_name: &str, model_version: u64, at_ms: i64) -> Arrival<'_> {
        Arrival {
            kind: OutcomeKind::Refusal,
            ..arrival(model_name, model_version, at_ms)
        }
    }

    fn found<'a>(
        policy: &Policy,
        arrivals: &[Arrival<'a>],
    ) -> impl Iterator<Item = Arrival<'a>> + Clone {
        arrivals.iter().map(|arrival| Arrival {
            named: policy.index.find(arrival.model_name, arrival.model_version),
            ..*arrival
        })
    }

    /// Returns the winner, the time of the answer in ms, and the reason.
    fn ask(policy: &str, share: Option<usize>, arrivals: &[Arrival]) -> (String, i64, Reason) {
        let policy = Policy::parse(policy, "policy").unwrap();
        let choice = choose(&policy, share, found(&policy, arrivals));
        let winner = choice.winner.map_or("default".to_owned(), |winner| {
            let winner = &arrivals[winner];
            format!("{}@{}", winner.model_name, winner.model_version)
        });
        (winner, choice.at.0 / 1000, choice.reason)
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
                "the preferred one refuses",
                vec![refusal("dt", 1, 9), dt(10), lr(10)],
                said("dt@1", 9, Reason::Refused),
            ),
            (
                "the other's refusal is a failure",
                vec![refusal("lr", 0, 3), dt(60)],
                said("dt@1", 60, Reason::Fallback),
            ),
            (
                "both report, and the other's is a refusal",
                vec![refusal("lr", 0, 3), failure("dt", 1, 9)],
                said("default", 9, Reason::Default),
            ),
            (
                "a shadow refuses",
                vec![refusal("x", 0, 3), refusal("dt", 2, 3), dt(7)],
                said("dt@1", 7, Reason::Preferred),
            ),
            (
                "a refusal exactly at the deadline counts",
                vec![refusal("dt", 1, 100)],
                said("dt@1", 100, Reason::Refused),
            ),
            (
                "a later refusal does not",
                vec![refusal("dt", 1, 101)],
                said("default", 100, Reason::Default),
            ),
            (
                "the first selector goes before a result that came earlier",
                vec![lr(60), refusal("dt", 1, 60)],
                said("dt@1", 60, Reason::Refused),
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
                "it refuses",
                vec![dt(1), refusal("dt", 2, 70)],
                said("dt@2", 70, Reason::Refused),
            ),
            (
                "it refuses exactly at its end",
                vec![dt(1), refusal("dt", 2, 80)],
                said("dt@2", 80, Reason::Refused),
            ),
            (
                "it refuses too late",
                vec![dt(1), refusal("dt", 2, 81)],
                said("dt@1", 80, Reason::Fallback),
            ),
            (
                "another refuses while it is awaited",
                vec![refusal("dt", 1, 1), new(70)],
                said("dt@2", 70, Reason::Share),
            ),
            (
                "another has refused when its time is over",
                vec![refusal("dt", 1, 1), lr(2)],
                said("dt@1", 80, Reason::Refused),
            ),
            (
                "another has refused when it fails",
                vec![refusal("dt", 1, 1), failure("dt", 2, 5)],
                said("dt@1", 5, Reason::Refused),
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
    fn a_refusal_waits_for_the_step_whose_first_model_refuses() {
        let policy = r#"
            deadline_ms = 100
            expect = ["a@1", "b@1"]
            [[prefer]]
            after_ms = 20
            models = ["a@1", "b@1"]
            [[prefer]]
            after_ms = 50
            models = ["b@1", "a@1"]
        "#;
        let (a, b) = (|at| arrival("a", 1, at), |at| arrival("b", 1, at));
        for (arrivals, expected) in [
            // The refusal arrived before the step, so it answers when the step begins.
            (vec![refusal("a", 1, 3)], said("a@1", 20, Reason::Refused)),
            (
                vec![b(2), refusal("a", 1, 3)],
                said("a@1", 3, Reason::Refused),
            ),
            (vec![refusal("b", 1, 3)], said("b@1", 50, Reason::Refused)),
            (
                vec![refusal("b", 1, 3), a(49)],
                said("a@1", 49, Reason::Preferred),
            ),
            (
                vec![refusal("b", 1, 3), a(50)],
                said("b@1", 50, Reason::Refused),
            ),
            // All models have reported, so the later step is tried at once.
            (
                vec![refusal("b", 1, 3), failure("a", 1, 30)],
                said("b@1", 30, Reason::Refused),
            ),
        ] {
            assert_eq!(ask(policy, None, &arrivals), expected, "{arrivals:?}");
        }
    }

    #[test]
    fn a_refusal_of_any_model_is_no_answer() {
        let policy = r#"
            deadline_ms = 100
            [[prefer]]
            after_ms = 0
            models = ["*", "a@1"]
        "#;
        let arrivals = [refusal("a", 1, 1), refusal("x", 0, 2), arrival("y", 0, 3)];
        let expected = said("y@0", 3, Reason::Preferred);
        assert_eq!(ask(policy, None, &arrivals), expected);
    }

    #[test]
    fn without_expect_the_models_of_the_steps_are_expected() {
        const STEPS: &str = r#"
            deadline_ms = 100
            [[prefer]]
            after_ms = 0
            models = ["a@1"]
            [[prefer]]
            after_ms = 50
            models = ["a@1", "b@1"]
        "#;
        let b = |at| arrival("b", 1, at);
        let settled = said("b@1", 7, Reason::Settled);
        let default = |at| said("default", at, Reason::Default);
        let any = STEPS.replace("\"b@1\"", "\"b@1\", \"*\"");
        for (policy, arrivals, expected) in [
            (STEPS, vec![b(2), failure("a", 1, 7)], settled.clone()),
            (STEPS, vec![failure("a", 1, 2), b(7)], settled),
            (
                STEPS,
                vec![failure("b", 1, 2), failure("a", 1, 7)],
                default(7),
            ),
            (STEPS, vec![failure("a", 1, 7)], default(100)),
            // A report of another version does not count for the model that the step
            // names.
            (
                STEPS,
                vec![failure("a", 1, 7), failure("b", 2, 7)],
                default(100),
            ),
            // The policy accepts any model, so another one may still answer.
            (
                &any,
                vec![failure("b", 1, 2), failure("a", 1, 7)],
                default(100),
            ),
        ] {
            assert_eq!(ask(policy, None, &arrivals), expected, "{arrivals:?}");
        }
        let one = "deadline_ms = 100\n[[prefer]]\nafter_ms = 0\nmodels = [\"a@1\"]";
        assert_eq!(ask(one, None, &[failure("a", 1, 3)]), default(3));
    }

    #[test]
    fn without_steps_nobody_but_the_model_of_the_share_is_waited_for() {
        let policy = r#"
            deadline_ms = 100
            [split]
            key = "messageId"
            [[share]]
            model = "a@1"
            from = 0.0
            to = 0.5
        "#;
        let default = |at| said("default", at, Reason::Default);
        assert_eq!(ask(policy, None, &[]), default(0));
        assert_eq!(ask(policy, Some(0), &[]), default(100));
        assert_eq!(ask(policy, Some(0), &[failure("a", 1, 9)]), default(9));
    }

    #[test]
    fn an_early_answer_walks_through_the_steps_to_come() {
        let policy = Policy::parse(POLICY, "policy").unwrap();
        let arrivals = [arrival("lr", 0, 3)];
        let arrivals = found(&policy, &arrivals);
        let cut = choose_early(&policy, arrivals, Micros(4_000), Reason::Overflow);
        assert_eq!(
            (cut.winner, cut.at, cut.reason),
            (Some(0), Micros(4_000), Reason::Overflow)
        );
        // The steps to come are tried at once. A refusal that one of them accepts is
        // the answer, too.
        let swapped = POLICY.replace(r#"["dt", "lr"]"#, r#"["lr", "dt"]"#);
        let swapped = Policy::parse(&swapped, "policy").unwrap();
        for (arrivals, winner) in [
            ([refusal("lr", 0, 3), arrival("x", 0, 3)], Some(0)),
            ([refusal("lr", 0, 3), arrival("dt", 1, 4)], Some(1)),
            ([refusal("lr", 0, 5), arrival("x", 0, 3)], None),
        ] {
            let arrivals = found(&swapped, &arrivals);
            let cut = choose_early(&swapped, arrivals, Micros(4_000), Reason::Overflow);
            assert_eq!((cut.winner, cut.reason), (winner, Reason::Overflow));
        }
        let nothing = found(&policy, &[]);
        let cut = choose_early(&policy, nothing, Micros(400_000), Reason::Shutdown);
        assert_eq!(
            (cut.winner, cut.at, cut.reason),
            (None, Micros(100_000), Reason::Shutdown)
        );
    }
}
