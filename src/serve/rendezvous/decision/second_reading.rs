//! The rules of the decision, implemented a second time. This implementation goes
//! through the time in steps of a millisecond, and applies the rules at each step. A
//! property test compares it with [`choose`].

use crate::serve::rendezvous::decision::{Arrival, Reason, choose};
use crate::serve::rendezvous::policy::Policy;
use crate::wire::micros::Micros;
use proptest::prelude::*;

const DEADLINE: i64 = 12;

/// A random policy and random scores. Times are whole milliseconds.
#[derive(Clone, Debug)]
struct Case {
    expect: Vec<&'static str>,
    /// For each step: the time at which it begins, and its selectors.
    steps: Vec<(i64, Vec<&'static str>)>,
    /// The time until which the request waits for `c@1`.
    share_until: Option<i64>,
    /// For each score: the model's name and version, the arrival, and whether the model
    /// failed.
    scores: Vec<(&'static str, u64, i64, bool)>,
}

impl Case {
    fn policy(&self) -> Policy {
        let mut text = format!("deadline_ms = {DEADLINE}\nexpect = {:?}\n", self.expect);
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
    fn firsts(&self) -> Vec<(&'static str, u64, i64, bool)> {
        let mut firsts: Vec<(&'static str, u64, i64, bool)> = Vec::new();
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

    /// Applies the rules. Returns the winner, the time of the answer, and the reason.
    fn naive(&self) -> (Option<(&'static str, u64)>, i64, &'static str) {
        let scores = self.firsts();
        for now in 0..=DEADLINE {
            let there: Vec<_> = scores.iter().filter(|score| score.2 <= now).collect();
            let reported = |model: &str| there.iter().any(|it| is(model, it.0, it.1));
            let mut waiting = false;
            if let Some(until) = self.share_until {
                let of_share = there
                    .iter()
                    .find(|it| is("c@1", it.0, it.1) && it.2 <= until);
                match of_share {
                    Some(score) if !score.3 => return (Some((score.0, score.1)), now, "share"),
                    Some(_) => {}
                    None => waiting = now < until,
                }
            }
            if waiting {
                continue;
            }
            let pick = |selectors: &[&'static str]| {
                selectors.iter().find_map(|selector| {
                    let mut accepted: Vec<_> = there
                        .iter()
                        .filter(|it| !it.3)
                        .filter(|it| match *selector {
                            "*" => self.share_until.is_none() || !is("c@1", it.0, it.1),
                            model => is(model, it.0, it.1),
                        })
                        .collect();
                    accepted.sort_by_key(|it| (it.2, it.0, it.1));
                    accepted.first().map(|it| (it.0, it.1))
                })
            };
            let in_force = self.steps.iter().rposition(|(after, _)| *after <= now);
            if let Some(index) = in_force
                && let Some(winner) = pick(&self.steps[index].1)
            {
                let reason = if index == 0 { "preferred" } else { "fallback" };
                return (Some(winner), now, reason);
            }
            if !self.expect.is_empty() && self.expect.iter().all(|it| reported(it)) {
                let from = in_force.unwrap_or(0);
                let later = self.steps[from..]
                    .iter()
                    .find_map(|(_, models)| pick(models));
                return match later {
                    Some(winner) => (Some(winner), now, "settled"),
                    None => (None, now, "default"),
                };
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
    let selectors =
        proptest::sample::subsequence(vec!["a@1", "a@2", "b@1", "c@1", "*"], 1..=5).prop_shuffle();
    let steps = proptest::collection::btree_map(0..=DEADLINE, selectors, 1..4);
    let score = (
        prop_oneof![
            Just(("a", 1u64)),
            Just(("a", 2)),
            Just(("b", 1)),
            Just(("c", 1)),
            Just(("d", 0))
        ],
        0..=DEADLINE + 2,
        proptest::bool::weighted(0.25),
    );
    (
        proptest::sample::subsequence(models.to_vec(), 0..=3),
        steps,
        proptest::option::of(0..=DEADLINE),
        proptest::collection::vec(score, 0..8),
    )
        .prop_map(|(expect, steps, share_until, scores)| Case {
            expect,
            steps: steps.into_iter().collect(),
            share_until,
            scores: scores
                .into_iter()
                .map(|((name, version), at, failed)| (name, version, at, failed))
                .collect(),
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
            .map(|(name, version, at, failed)| Arrival {
                model_name: name,
                model_version: version,
                named: policy.index.find(name, version),
                at: Micros(at * 1000),
                failed,
            })
            .collect();
        // The order in which the scores were read must not matter.
        let count = arrivals.len().max(1);
        arrivals.rotate_left(turn % count);
        let share = case.share_until.map(|_| 0);
        let choice = choose(&policy, share, arrivals.iter().copied());
        let winner = choice.winner.map(|index| {
            (arrivals[index].model_name.to_string(), arrivals[index].model_version)
        });
        let (expected, at, reason) = case.naive();
        let expected = expected.map(|(name, version)| (name.to_owned(), version));
        prop_assert_eq!((winner, choice.at, choice.reason.name()), (expected, Micros(at * 1000), reason));
    }
}

#[test]
fn every_reason_of_the_rules_has_its_own_name() {
    let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|it| it.name()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
}
