//! The rules of the decision, implemented a second time. This implementation goes
//! through the time in steps of a millisecond, and applies the rules at each step. A
//! property test compares it with [`choose`].

use crate::serve::rendezvous::decision::{Arrival, Choice, Reason, choose, choose_early};
use crate::serve::rendezvous::policy::Policy;
use crate::wire::message::OutcomeKind;
use crate::wire::micros::Micros;
use proptest::prelude::*;

const DEADLINE: i64 = 12;

/// A score: the model's name and version, the arrival, and what the model says.
type Drawn = (&'static str, u64, i64, OutcomeKind);

/// A winner or the default, the time of the answer, and the reason.
type Said = (Option<(&'static str, u64)>, i64, &'static str);

/// A random policy and random scores. Times are whole milliseconds.
#[derive(Clone, Debug)]
struct Case {
    /// The list in `expect`; the policy has none if the list is empty.
    expect: Vec<&'static str>,
    /// For each step: the time at which it begins, and its selectors.
    steps: Vec<(i64, Vec<&'static str>)>,
    /// The time until which the request waits for `c@1`.
    share_until: Option<i64>,
    scores: Vec<Drawn>,
    /// The time at which the request must be answered, if it has no answer by then.
    cut: i64,
}

impl Case {
    fn policy(&self) -> Policy {
        let mut text = format!("deadline_ms = {DEADLINE}\n");
        if !self.expect.is_empty() {
            text += &format!("expect = {:?}\n", self.expect);
        }
        for (after, models) in &self.steps {
            text += &format!("[[prefer]]\nafter_ms = {after}\nmodels = {models:?}\n");
        }
        text += "[split]\nkey = \"messageId\"\n";
        // A request outside of all shares gets a policy without shares.
        if let Some(until) = self.share_until {
            text +=
                &format!("[[share]]\nmodel = \"c@1\"\nfrom = 0.0\nto = 1.0\nuntil_ms = {until}\n");
        }
        Policy::parse(&text, "drawn").unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// Each model's earliest score. If several scores of a model arrived at the same
    /// time, the first of them counts.
    fn firsts(&self) -> Vec<Drawn> {
        let mut firsts: Vec<Drawn> = Vec::new();
        for score in &self.scores {
            match firsts
                .iter_mut()
                .find(|it| (it.0, it.1) == (score.0, score.1))
            {
                None => firsts.push(*score),
                Some(first) if score.2 < first.2 => *first = *score,
                Some(_) => {}
            }
        }
        firsts
    }

    /// The answer of one step if the scores in `there` have arrived. Returns the score
    /// that answers, and whether it is a refusal.
    fn of_step(&self, selectors: &[&'static str], there: &[Drawn]) -> Option<(Drawn, bool)> {
        // A refusal answers only if the first selector names its model. `"*"` names no
        // model.
        let refusal = there
            .iter()
            .find(|it| is(selectors[0], it.0, it.1) && it.3 == OutcomeKind::Refusal);
        if let Some(refusal) = refusal {
            return Some((*refusal, true));
        }
        selectors.iter().find_map(|selector| {
            let accepted = there
                .iter()
                .filter(|it| it.3 == OutcomeKind::Result)
                .filter(|it| match *selector {
                    "*" => self.share_until.is_none() || !is("c@1", it.0, it.1),
                    model => is(model, it.0, it.1),
                });
            let first = accepted.min_by_key(|it| (it.2, it.0, it.1));
            first.map(|it| (*it, false))
        })
    }

    /// Whether every expected model has reported. A policy without `expect` expects the
    /// models that its steps name. If a step has `"*"`, this set is not known, and the
    /// result is false.
    fn all_have_reported(&self, there: &[Drawn]) -> bool {
        let reported = |model: &&str| there.iter().any(|it| is(model, it.0, it.1));
        if !self.expect.is_empty() {
            return self.expect.iter().all(reported);
        }
        let mut named = self.steps.iter().flat_map(|(_, models)| models);
        named.all(|model| *model != "*" && reported(model))
    }

    /// Applies the rules. If they give no answer until `cut`, the steps are tried at
    /// once.
    fn naive(&self, cut: Option<i64>) -> Said {
        let scores = self.firsts();
        for now in 0..=DEADLINE {
            let there: Vec<Drawn> = scores.iter().filter(|it| it.2 <= now).copied().collect();
            let in_force = self.steps.iter().rposition(|(after, _)| *after <= now);
            let walk = || {
                let later = &self.steps[in_force.unwrap_or(0)..];
                later
                    .iter()
                    .find_map(|(_, models)| self.of_step(models, &there))
            };
            let mut waiting = false;
            if let Some(until) = self.share_until {
                let of_share = there
                    .iter()
                    .find(|it| is("c@1", it.0, it.1) && it.2 <= until);
                let answer = of_share.map(|it| (Some((it.0, it.1)), it.3));
                match answer {
                    Some((model, OutcomeKind::Result)) => return (model, now, "share"),
                    Some((model, OutcomeKind::Refusal)) => return (model, now, "refused"),
                    Some((_, OutcomeKind::Failure)) => {}
                    None => waiting = now < until,
                }
            }
            if !waiting {
                if let Some(index) = in_force
                    && let Some((winner, refuses)) = self.of_step(&self.steps[index].1, &there)
                {
                    let reason = match index {
                        _ if refuses => "refused",
                        0 => "preferred",
                        _ => "fallback",
                    };
                    return (Some((winner.0, winner.1)), now, reason);
                }
                if self.all_have_reported(&there) {
                    return match walk() {
                        Some((it, true)) => (Some((it.0, it.1)), now, "refused"),
                        Some((it, false)) => (Some((it.0, it.1)), now, "settled"),
                        None => (None, now, "default"),
                    };
                }
            }
            if now == DEADLINE {
                break;
            }
            if cut == Some(now) {
                return (walk().map(|(it, _)| (it.0, it.1)), now, "overflow");
            }
        }
        (None, DEADLINE, "default")
    }
}

fn is(model: &str, name: &str, version: u64) -> bool {
    model == format!("{name}@{version}")
}

fn any_case() -> impl Strategy<Value = Case> {
    let models = ["a@1", "a@2", "b@1", "c@1"];
    // Most of these policies name few models and do not have "*". So the case that all
    // models have reported occurs often enough.
    let named = proptest::sample::subsequence(models.to_vec(), 1..=2).prop_shuffle();
    let all = vec!["a@1", "a@2", "b@1", "c@1", "*"];
    let any = proptest::sample::subsequence(all, 1..=5).prop_shuffle();
    let of_steps = |selectors: BoxedStrategy<Vec<&'static str>>, least: usize| {
        proptest::collection::btree_map(0..=DEADLINE, selectors, least..4)
    };
    let kind = prop_oneof![
        2 => Just(OutcomeKind::Result),
        1 => Just(OutcomeKind::Refusal),
        1 => Just(OutcomeKind::Failure),
    ];
    let score = (
        prop_oneof![
            Just(("a", 1u64)),
            Just(("a", 2)),
            Just(("b", 1)),
            Just(("c", 1)),
            Just(("d", 0))
        ],
        0..=DEADLINE + 2,
        kind,
    );
    let share_and_steps = proptest::option::of(0..=DEADLINE).prop_flat_map(move |share_until| {
        // A policy needs a step or a share.
        let least = usize::from(share_until.is_none());
        let steps = prop_oneof![
            of_steps(named.clone().boxed(), least),
            of_steps(any.clone().boxed(), least)
        ];
        (Just(share_until), steps)
    });
    (
        proptest::sample::subsequence(models.to_vec(), 0..=3),
        share_and_steps,
        proptest::collection::vec(score, 0..8),
        0..DEADLINE,
    )
        .prop_map(|(expect, (share_until, steps), scores, cut)| Case {
            expect,
            steps: steps.into_iter().collect(),
            share_until,
            scores: scores
                .into_iter()
                .map(|((name, version), at, kind)| (name, version, at, kind))
                .collect(),
            cut,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]
    #[test]
    fn both_readings_of_the_rules_agree(case in any_case(), turn in 0usize..8) {
        let policy = case.policy();
        let mut arrivals: Vec<Arrival> = case
            .firsts()
            .into_iter()
            .map(|(name, version, at, kind)| Arrival {
                model_name: name,
                model_version: version,
                named: policy.index.find(name, version),
                at: Micros(at * 1000),
                kind,
            })
            .collect();
        // The order in which the scores were read must not matter.
        let count = arrivals.len().max(1);
        arrivals.rotate_left(turn % count);
        let share = case.share_until.map(|_| 0);
        let told = |arrivals: &[Arrival], choice: Choice| {
            let winner = choice.winner.map(|index| &arrivals[index]);
            let winner = winner.map(|it| (it.model_name.to_owned(), it.model_version));
            (winner, choice.at, choice.reason.name())
        };
        let expected = |cut| {
            let (winner, at, reason) = case.naive(cut);
            let winner = winner.map(|(name, version)| (name.to_owned(), version));
            (winner, Micros(at * 1000), reason)
        };
        let choice = choose(&policy, share, arrivals.iter().copied());
        prop_assert_eq!(told(&arrivals, choice), expected(None));

        // Later scores have not been read when the request must be answered.
        let cut = Micros(case.cut * 1000);
        arrivals.retain(|it| it.at <= cut);
        let mut choice = choose(&policy, share, arrivals.iter().copied());
        if choice.at > cut {
            choice = choose_early(&policy, arrivals.iter().copied(), cut, Reason::Overflow);
        }
        prop_assert_eq!(told(&arrivals, choice), expected(Some(case.cut)));
    }
}

#[test]
fn every_reason_of_the_rules_has_its_own_name() {
    let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|it| it.name()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
}
