//! The mailboxes by example, and against random histories, with a clock that the
//! test moves.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::serve::rendezvous::record::{Decided, write_decision};

const POLICY: &str = r#"
    deadline_ms = 100
    [[prefer]]
    after_ms = 0
    models = ["dt@1"]
    [[prefer]]
    after_ms = 50
    models = ["dt@1", "lr@0"]
    [default]
    modelResult = { modelName = "default", result = 0 }
"#;

const LIMITS: Limits = Limits {
    mailboxes_max: 3,
    mailbox_bytes_max: 1 << 20,
    linger: Micros(1_000_000),
    remembered_max: 2,
    seed: 7,
    orphan_bytes_max: 16 * 1024,
    orphan_age_max: Micros(1_000_000),
};

/// A rendezvous and the time, which the test moves.
struct Bench {
    mailboxes: Mailboxes,
    now: Micros,
    effects: Vec<Effect>,
}

impl Bench {
    fn new() -> Bench {
        let policy = Policy::parse(POLICY, "policy").unwrap();
        Bench {
            mailboxes: Mailboxes::new(Rc::new(policy), LIMITS),
            now: Micros(0),
            effects: Vec::new(),
        }
    }

    fn request(&mut self, id: &str, age_ms: i64) -> &mut Bench {
        let request = NewRequest {
            message_id: id,
            text: &format!("{{\"messageId\":\"{id}\"}}"),
            age: Micros(age_ms * 1000),
        };
        self.mailboxes
            .step(Event::Request(request), self.now, &mut self.effects);
        self
    }

    fn score(&mut self, id: &str, model: &str, version: u64) -> &mut Bench {
        self.outcome(id, model, version, message::Outcome::Result("7"))
    }

    fn failure(&mut self, id: &str, model: &str, version: u64) -> &mut Bench {
        self.outcome(id, model, version, message::Outcome::Error("{}"))
    }

    fn outcome(
        &mut self,
        id: &str,
        model: &str,
        version: u64,
        outcome: message::Outcome,
    ) -> &mut Bench {
        let score = Score {
            message_id: id.into(),
            model_name: model.into(),
            model_version: version,
            model_hash: None,
            elapsed: None,
            timestamp: None,
            outcome,
        };
        self.mailboxes
            .step(Event::Score(&score), self.now, &mut self.effects);
        self
    }

    /// Ends this wake-up, and says what was answered in it.
    fn tick(&mut self) -> Vec<String> {
        self.event(Event::Tick)
    }

    fn event(&mut self, event: Event) -> Vec<String> {
        self.mailboxes.step(event, self.now, &mut self.effects);
        self.effects
            .drain(..)
            .filter_map(|effect| {
                let Effect::Answer(answer) = effect else {
                    return None;
                };
                let id = crate::wire::object::at_pointer(&answer.request, "/messageId").unwrap();
                let model = answer
                    .model
                    .map_or("default".into(), |(_, version)| format!("v{version}"));
                let at = answer.outcome.at.as_millis();
                let reason = answer.outcome.reason.name();
                Some(format!("{id} {model} {at} {reason}"))
            })
            .collect()
    }

    fn at(&mut self, ms: i64) -> &mut Bench {
        self.now = Micros(ms * 1000);
        self
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_deadline_fires_without_traffic_when_the_bench_wakes_as_told() {
    let mut bench = Bench::new();
    bench.at(10).request("a", 0);
    assert_eq!(bench.tick(), NOTHING);
    assert_eq!(bench.mailboxes.next_wake(), Some(Micros(110_000)));
    assert_eq!(bench.at(110).tick(), ["\"a\" default 100.000 default"]);
    assert_eq!(bench.mailboxes.next_wake(), Some(Micros(1_110_000)));
    bench.at(1110).tick();
    assert!(bench.mailboxes.is_empty());
    assert_eq!(bench.mailboxes.next_wake(), None);
    bench.mailboxes.counts.assert_balanced();
}

#[test]
fn a_late_wake_up_answers_as_if_it_had_been_in_time() {
    let mut bench = Bench::new();
    bench.request("a", 0).tick();
    bench.at(20).score("a", "lr", 0);
    assert_eq!(bench.tick(), NOTHING);
    // The step began at 50; the preferred one came at 70, and was read at 70.
    bench.at(70).score("a", "dt", 1);
    assert_eq!(bench.tick(), ["\"a\" v0 50.000 fallback"]);
}

#[test]
fn scores_of_one_wake_up_count_together() {
    let mut bench = Bench::new();
    bench.request("a", 0).tick();
    bench.at(60).score("a", "lr", 0).score("a", "dt", 1);
    assert_eq!(bench.tick(), ["\"a\" v1 60.000 fallback"]);
}

#[test]
fn scores_may_come_before_their_request() {
    let mut bench = Bench::new();
    bench.at(1000).score("a", "lr", 0).tick();
    bench.at(1010).score("a", "dt", 1).tick();
    // Accepted at 990: lr came 20 ms later, dt 30.
    bench.at(1050).request("a", 60);
    assert_eq!(bench.tick(), ["\"a\" v1 20.000 preferred"]);
    bench.event(Event::Shutdown);
    bench.mailboxes.counts.assert_balanced();
}

#[test]
fn a_wrong_wall_clock_moves_a_deadline_by_its_length_at_the_most() {
    let mut bench = Bench::new();
    bench.request("old", 3_600_000).request("young", -3_600_000);
    assert_eq!(bench.tick(), ["\"old\" default 100.000 default"]);
    assert_eq!(bench.at(99).tick(), NOTHING);
    assert_eq!(bench.at(100).tick(), ["\"young\" default 100.000 default"]);
}

#[test]
fn every_score_has_one_fate() {
    let mut bench = Bench::new();
    bench.request("a", 0).request("a", 0).tick();
    bench
        .at(5)
        .score("a", "dt", 1)
        .score("a", "dt", 1)
        .failure("a", "x", 0);
    bench.score("a", "lr", 0).tick();
    bench.at(101).score("a", "y", 0).score("a", "lr", 0).tick();
    bench.score("nobody", "dt", 1).tick();
    bench.at(1_200).tick();
    bench.score("a", "late", 9).tick();
    bench.at(9_000).tick();
    let counts = &bench.mailboxes.counts;
    assert_eq!((counts.requests, counts.repeated), (2, 1));
    assert_eq!((counts.used, counts.unused, counts.failed), (1, 1, 1));
    assert_eq!((counts.late, counts.duplicate, counts.orphaned), (1, 2, 2));
    counts.assert_balanced();
}

#[test]
fn the_oldest_is_answered_at_once_when_there_are_too_many() {
    let mut bench = Bench::new();
    for id in ["a", "b", "c", "d"] {
        bench.request(id, 0);
    }
    assert_eq!(bench.tick(), ["\"a\" default 0.000 overflow"]);
    // An answered mailbox goes first.
    bench.at(1).score("c", "dt", 1);
    assert_eq!(bench.tick(), ["\"c\" v1 1.000 preferred"]);
    bench.request("e", 0);
    assert_eq!(bench.tick(), NOTHING);
    assert_eq!(bench.mailboxes.open(), 3);
}

#[test]
fn when_all_scores_have_ended_nobody_waits() {
    let mut bench = Bench::new();
    bench.request("a", 0).tick();
    bench.at(3).score("a", "lr", 0).tick();
    assert_eq!(bench.event(Event::ScoresEnded), ["\"a\" v0 3.000 shutdown"]);
    assert_eq!(
        bench.request("b", 0).tick(),
        ["\"b\" default 0.000 shutdown"]
    );
}

#[test]
fn orphans_are_bounded_in_bytes_and_age() {
    let mut bench = Bench::new();
    for number in 0..100 {
        bench.score(&format!("orphan-{number}"), "dt", 1);
    }
    assert!(bench.mailboxes.orphan_bytes <= LIMITS.orphan_bytes_max);
    let forgotten = bench.mailboxes.counts.orphaned;
    assert!(forgotten > 0);
    bench.at(1_000).tick();
    assert_eq!(bench.mailboxes.counts.orphaned, 100);
    assert_eq!(bench.mailboxes.orphan_bytes, 0);
}

#[test]
fn an_open_mailbox_keeps_its_policy() {
    let mut bench = Bench::new();
    bench.request("a", 0).tick();
    let other = Policy::parse(
        &POLICY.replace("dt@1", "lr@0").replace(", \"lr@0\"", ""),
        "p",
    );
    bench.event(Event::Policy(Rc::new(other.unwrap())));
    bench.request("b", 0).tick();
    bench.at(1).score("a", "lr", 0).score("b", "lr", 0);
    assert_eq!(bench.tick(), ["\"b\" v0 1.000 preferred"]);
}

/// What happens next in a random history.
#[derive(Clone, Debug)]
enum Act {
    Request { id: u8, age_ms: i64 },
    Score { id: u8, model: u8, failed: bool },
    Wait { us: i64 },
    Policy { which: bool },
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0u8..20, prop_oneof![Just(0i64), -5i64..150])
            .prop_map(|(id, age_ms)| Act::Request { id, age_ms }),
        5 => (0u8..20, 0u8..4, proptest::bool::weighted(0.2))
            .prop_map(|(id, model, failed)| Act::Score { id, model, failed }),
        4 => prop_oneof![1i64..1000, 1000i64..60_000].prop_map(|us| Act::Wait { us }),
        1 => any::<bool>().prop_map(|which| Act::Policy { which }),
    ]
}

const MODELS: [(&str, u64); 4] = [("dt", 1), ("lr", 0), ("dt", 2), ("shadow", 7)];

const OTHER_POLICY: &str = r#"
    deadline_ms = 80
    expect = ["dt@1", "lr@0"]
    [[prefer]]
    after_ms = 20
    models = ["lr@0", "*"]
    [split]
    key = "messageId"
    [[share]]
    model = "dt@2"
    from = 0.0
    to = 0.5
    until_ms = 40
"#;

proptest! {
    #[test]
    fn whatever_happens_each_request_is_answered_once_and_its_decision_replays(
        acts in proptest::collection::vec(any_act(), 1..300),
        mailboxes_max in 1usize..30,
    ) {
        let limits = Limits { mailboxes_max, remembered_max: 1000, ..LIMITS };
        let policies = [POLICY, OTHER_POLICY].map(|text| Rc::new(Policy::parse(text, "p").unwrap()));
        let mut mailboxes = Mailboxes::new(Rc::clone(&policies[0]), limits);
        let (mut now, mut effects) = (Micros(0), Vec::new());
        let mut requested = BTreeSet::new();
        for act in &acts {
            match act {
                Act::Request { id, age_ms } => {
                    let id = id.to_string();
                    let text = format!("{{\"messageId\":\"{id}\",\"timestamp\":1,\"modelInput\":{{}},\"x\":1.10}}");
                    let request = NewRequest { message_id: &id, text: &text, age: Micros(age_ms * 1000) };
                    mailboxes.step(Event::Request(request), now, &mut effects);
                    requested.insert(id);
                }
                Act::Score { id, model, failed } => {
                    let (name, version) = MODELS[usize::from(*model)];
                    let result = format!("{{\"modelName\":\"{name}\",\"result\":{}}}", now.0);
                    let outcome = match failed {
                        true => message::Outcome::Error(&result),
                        false => message::Outcome::Result(&result),
                    };
                    let score = Score {
                        message_id: id.to_string().into(),
                        model_name: name.into(),
                        model_version: version,
                        model_hash: None,
                        elapsed: None,
                        timestamp: None,
                        outcome,
                    };
                    mailboxes.step(Event::Score(&score), now, &mut effects);
                }
                Act::Policy { which } => {
                    let policy = Rc::clone(&policies[usize::from(*which)]);
                    mailboxes.step(Event::Policy(policy), now, &mut effects);
                }
                Act::Wait { us } => {
                    mailboxes.step(Event::Tick, now, &mut effects);
                    let until = now + Micros(*us);
                    // As a loop would that sleeps until something is due.
                    while let Some(wake) = mailboxes.next_wake().filter(|wake| *wake < until) {
                        now = now.max(wake) + Micros(1);
                        mailboxes.step(Event::Tick, now, &mut effects);
                    }
                    now = now.max(until);
                }
            }
            prop_assert!(mailboxes.open.len() + mailboxes.answered.len() <= mailboxes_max);
            prop_assert!(mailboxes.orphan_bytes <= limits.orphan_bytes_max);
        }
        mailboxes.step(Event::Shutdown, now, &mut effects);
        prop_assert!(mailboxes.is_empty());
        prop_assert_eq!((mailboxes.bytes, mailboxes.orphan_bytes), (0, 0));
        prop_assert!(mailboxes.counts.is_balanced(), "{:#?}", mailboxes.counts);

        let mut answers: BTreeMap<String, Answer> = BTreeMap::new();
        for effect in effects {
            match effect {
                Effect::Answer(answer) => {
                    let id = crate::wire::object::at_pointer(&answer.request, "/messageId").unwrap();
                    let again = answers.insert(id.to_owned(), *answer.clone());
                    prop_assert!(again.is_none(), "answered twice");
                }
                Effect::Decision(decision) => {
                    let (mailbox, outcome) = *decision;
                    let mut line = Vec::new();
                    write_decision(&mailbox, outcome, &mut line).unwrap();
                    let decided = Decided::parse(line.trim_ascii_end()).unwrap();
                    prop_assert_eq!(&*decided.request, &*mailbox.request);
                    let id = format!("\"{}\"", mailbox.message_id);
                    let answer = &answers[&id];
                    prop_assert_eq!(&*answer.model_result, decided.model_result.as_str());
                    let mut replayed = Mailbox::new(
                        decided.message_id.clone(),
                        decided.request.as_str().into(),
                        Rc::clone(&mailbox.policy),
                    );
                    for (candidate, _) in decided.candidates {
                        replayed.take(candidate);
                    }
                    if !matches!(outcome.reason, Reason::Overflow | Reason::Shutdown) {
                        prop_assert_eq!(replayed.answer(replayed.outcome()), answer.clone());
                    }
                }
            }
        }
        prop_assert_eq!(answers.len(), requested.len());
    }
}
