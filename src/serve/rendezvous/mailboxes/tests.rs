//! Tests of the mailboxes: examples, and random histories. The tests move the clock.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::serve::rendezvous::record::write_decision;
use crate::wire::decision::Decision;
use crate::wire::message::{self, OutcomeKind};

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

const LIMITS: MailboxLimits = MailboxLimits {
    mailboxes_max: 3,
    mailbox_bytes_max: 1 << 20,
    scores_bytes_max: 1 << 20,
    linger: Micros(1_000_000),
    remembered_max: 2,
    seed: 7,
    orphan_bytes_max: 16 * 1024,
    orphan_age_max: Micros(1_000_000),
};

/// A rendezvous and its clock, which the test moves.
struct Bench {
    mailboxes: Mailboxes,
    now: Micros,
    effects: Vec<MailboxEffect>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(LIMITS)
    }

    fn with(limits: MailboxLimits) -> Bench {
        let policy = Policy::parse(POLICY, "policy").unwrap();
        Bench {
            mailboxes: Mailboxes::new(Rc::new(policy), limits),
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
            .step(MailboxEvent::Request(request), self.now, &mut self.effects);
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
        self.by_stream(0, id, model, version, outcome)
    }

    fn by_stream(
        &mut self,
        stream: u32,
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
        self.mailboxes.step(
            MailboxEvent::Score {
                score: &score,
                stream,
                seat: Seat::Model,
            },
            self.now,
            &mut self.effects,
        );
        self
    }

    /// Ends this wake-up. Returns the answers that were given in it.
    fn tick(&mut self) -> Vec<String> {
        self.event(MailboxEvent::Tick)
    }

    fn event(&mut self, event: MailboxEvent) -> Vec<String> {
        self.mailboxes.step(event, self.now, &mut self.effects);
        self.effects
            .drain(..)
            .filter_map(|effect| {
                let MailboxEffect::Answer(answer) = effect else {
                    return None;
                };
                let id = crate::wire::object::at_pointer(&answer.request, "/messageId").unwrap();
                let model = answer
                    .model
                    .map_or("default".into(), |(_, version)| format!("v{version}"));
                let at = answer.choice.at.as_millis();
                let reason = answer.choice.reason.name();
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
    // The step began at 50. The preferred model reported at 70, and was read at 70.
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
    // The request was accepted at 990. lr reported 10 ms later, and dt 20 ms later.
    bench.at(1050).request("a", 60);
    assert_eq!(bench.tick(), ["\"a\" v1 20.000 preferred"]);
    bench.event(MailboxEvent::Shutdown);
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
    // An answered mailbox is closed first.
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
    assert_eq!(
        bench.event(MailboxEvent::ScoresEnded),
        ["\"a\" v0 3.000 shutdown"]
    );
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
    assert!(bench.mailboxes.orphans.bytes() <= LIMITS.orphan_bytes_max);
    let forgotten = bench.mailboxes.counts.orphaned;
    assert!(forgotten > 0);
    bench.at(1_000).tick();
    assert_eq!(bench.mailboxes.counts.orphaned, 100);
    assert_eq!(bench.mailboxes.orphans.bytes(), 0);
}

/// A result of `bytes` bytes.
fn large(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes))
}

const MANY: MailboxLimits = MailboxLimits {
    mailboxes_max: 100_000,
    ..LIMITS
};

#[test]
fn the_scores_of_one_request_are_bounded_and_the_models_of_the_policy_have_their_room() {
    let mut bench = Bench::with(MailboxLimits {
        mailbox_bytes_max: 8 << 20,
        ..MANY
    });
    bench.request("a", 0).request("b", 0).tick();
    let result = large(100_000);
    for version in 0..100 {
        let outcome = message::Outcome::Result(&result);
        bench.at(1).outcome("a", "shadow", version, outcome);
        // The answer does not need the duplicates of `lr` either.
        bench.outcome("a", "lr", 0, message::Outcome::Result(&result));
        assert!(bench.mailboxes.bytes < 1 << 20, "{}", bench.mailboxes.bytes);
    }
    assert_eq!(bench.tick(), NOTHING);
    bench.at(2).score("b", "dt", 1);
    bench.outcome("a", "dt", 1, message::Outcome::Result(&result));
    let mut answers = bench.tick();
    answers.sort();
    assert_eq!(
        answers,
        ["\"a\" v1 2.000 preferred", "\"b\" v1 2.000 preferred"]
    );
    bench.event(MailboxEvent::Shutdown);
    let counts = &bench.mailboxes.counts;
    assert_eq!((counts.used, counts.duplicate), (2, 99));
    // All 100 scores of `shadow` count here, whether they were kept or not, and so does
    // the first score of `lr`.
    assert_eq!(counts.unused, 101);
    assert!(counts.not_kept > 180, "{}", counts.not_kept);
    counts.assert_balanced();
}

#[test]
fn a_model_of_many_versions_takes_no_place_of_another() {
    let mut bench = Bench::with(MANY);
    bench.request("a", 0).tick();
    for version in 0..10_000 {
        bench.at(1).score("a", "shadow", version);
    }
    assert_eq!(bench.tick(), NOTHING);
    bench.at(2).score("a", "dt", 1);
    assert_eq!(bench.tick(), ["\"a\" v1 2.000 preferred"]);
    bench.event(MailboxEvent::Shutdown);
    assert_eq!(bench.mailboxes.counts.not_kept, 10_000 - 256);
    bench.mailboxes.counts.assert_balanced();
}

#[test]
fn no_flood_of_scores_pushes_a_request_out() {
    let mut bench = Bench::with(MANY);
    let result = large(10_000);
    for number in 0..200 {
        bench.request(&number.to_string(), 0);
    }
    for version in 0..50 {
        for number in 0..200 {
            let outcome = message::Outcome::Result(&result);
            bench.outcome(&number.to_string(), "shadow", version, outcome);
        }
    }
    assert!(bench.mailboxes.spare_bytes <= MANY.mailbox_bytes_max / 2);
    assert_eq!(bench.tick(), NOTHING);
    for number in 0..200 {
        bench.at(2).score(&number.to_string(), "dt", 1);
    }
    let answers = bench.tick();
    assert_eq!(answers.len(), 200);
    assert!(
        answers.iter().all(|it| it.ends_with("v1 2.000 preferred")),
        "{answers:?}"
    );
    bench.event(MailboxEvent::Shutdown);
    bench.mailboxes.counts.assert_balanced();
}

#[test]
fn a_flood_of_scores_that_nobody_asked_for_leaves_early_scores_in_place() {
    let mut bench = Bench::new();
    bench.score("a", "dt", 1);
    for number in 0..10_000 {
        let outcome = message::Outcome::Result("7");
        let id = format!("nobody-{}", number % 1000);
        bench.by_stream(1, &id, "dt", 1, outcome);
        assert!(bench.mailboxes.orphans.bytes() <= LIMITS.orphan_bytes_max);
    }
    bench.request("a", 0);
    assert_eq!(bench.tick(), ["\"a\" v1 0.000 preferred"]);
    bench.event(MailboxEvent::Shutdown);
    let counts = &bench.mailboxes.counts;
    assert_eq!((counts.orphaned, counts.used), (10_000, 1));
    counts.assert_balanced();
}

#[test]
fn of_equal_early_scores_only_so_many_are_adopted() {
    let mut bench = Bench::with(MailboxLimits {
        orphan_bytes_max: 1 << 30,
        ..LIMITS
    });
    for _ in 0..5_000 {
        bench.score("a", "lr", 0);
    }
    bench.request("a", 0).tick();
    bench.event(MailboxEvent::Shutdown);
    let counts = &bench.mailboxes.counts;
    assert_eq!(
        (counts.orphaned, counts.used, counts.duplicate),
        (5_000 - 512, 1, 511)
    );
    assert_eq!(counts.not_kept, 5_000 - 257);
    counts.assert_balanced();
}

#[test]
fn memory_is_bounded_in_bytes_and_the_oldest_is_answered() {
    let mut bench = Bench::with(MANY);
    let padding = "x".repeat(10_000);
    for number in 0..1_000 {
        let text = format!("{{\"messageId\":\"{number}\",\"padding\":\"{padding}\"}}");
        let request = NewRequest {
            message_id: &number.to_string(),
            text: &text,
            age: Micros(0),
        };
        bench.mailboxes.step(
            MailboxEvent::Request(request),
            bench.now,
            &mut bench.effects,
        );
        assert!(bench.mailboxes.bytes <= MANY.mailbox_bytes_max);
    }
    let answers = bench.tick();
    assert!((890..910).contains(&answers.len()), "{}", answers.len());
    assert_eq!(answers[0], "\"0\" default 0.000 overflow");
    assert_eq!(bench.mailboxes.open(), 1_000 - answers.len());
}

#[test]
fn a_million_requests_leave_nothing_behind() {
    // This test uses a hundred thousand requests, because a debug build is slow.
    // scripts/bench/mailboxes.sh uses a million.
    let mut bench = Bench::with(MailboxLimits {
        mailboxes_max: 5_000,
        mailbox_bytes_max: 1 << 30,
        remembered_max: 1_000,
        ..LIMITS
    });
    let mut answers = 0;
    for number in 0..100_000u64 {
        bench
            .at(number as i64 / 100)
            .request(&number.to_string(), 0);
        bench.score(&number.to_string(), "lr", 0);
        if number % 100 == 99 {
            answers += bench.tick().len();
        }
        let all = bench.mailboxes.open.len() + bench.mailboxes.answered.len();
        assert!(all <= 5_000 && bench.mailboxes.timers.len() <= all);
        assert!(bench.mailboxes.numbers.len() == all && bench.mailboxes.bytes < all * 2_000);
    }
    answers += bench.event(MailboxEvent::Shutdown).len();
    assert_eq!(answers, 100_000);
    let Mailboxes {
        numbers,
        timers,
        bytes,
        spare_bytes,
        ..
    } = &bench.mailboxes;
    assert_eq!(
        (numbers.len(), timers.len(), *bytes, *spare_bytes),
        (0, 0, 0, 0)
    );
    bench.mailboxes.counts.assert_balanced();
}

#[test]
fn of_a_million_open_requests_the_oldest_is_answered() {
    const OPEN: u64 = 1_000_000;
    let mut bench = Bench::with(MailboxLimits {
        mailboxes_max: OPEN as usize,
        mailbox_bytes_max: 1 << 30,
        ..LIMITS
    });
    for number in 0..OPEN {
        bench.request(&number.to_string(), 0);
    }
    assert_eq!(bench.tick(), [""; 0]);
    let bytes = bench.mailboxes.bytes;
    for oldest in 0..10_000 {
        bench.request(&(OPEN + oldest).to_string(), 0);
        let answer = format!("\"{oldest}\" default 0.000 overflow");
        assert_eq!(bench.tick(), [answer]);
    }
    assert_eq!(bench.mailboxes.open(), OPEN as usize);
    // The later ids are a little longer, so each needs a little more memory.
    assert!(bench.mailboxes.bytes < bytes + bytes / 1000);
}

#[test]
fn an_open_mailbox_keeps_its_policy() {
    let mut bench = Bench::new();
    bench.request("a", 0).tick();
    let other = Policy::parse(
        &POLICY.replace("dt@1", "lr@0").replace(", \"lr@0\"", ""),
        "p",
    );
    bench.event(MailboxEvent::Policy(Rc::new(other.unwrap())));
    bench.request("b", 0).tick();
    bench.at(1).score("a", "lr", 0).score("b", "lr", 0);
    assert_eq!(bench.tick(), ["\"b\" v0 1.000 preferred"]);
}

/// The next event in a random history.
#[derive(Clone, Debug)]
enum Act {
    Request {
        id: u8,
        age_ms: i64,
    },
    Score {
        id: u8,
        model: u8,
        kind: OutcomeKind,
    },
    Wait {
        us: i64,
    },
    Policy {
        which: bool,
    },
}

fn any_kind() -> impl Strategy<Value = OutcomeKind> {
    prop_oneof![
        6 => Just(OutcomeKind::Result),
        1 => Just(OutcomeKind::Refusal),
        1 => Just(OutcomeKind::Failure),
    ]
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0u8..20, prop_oneof![Just(0i64), -5i64..150])
            .prop_map(|(id, age_ms)| Act::Request { id, age_ms }),
        5 => (0u8..20, 0u8..6, any_kind())
            .prop_map(|(id, model, kind)| Act::Score { id, model, kind }),
        4 => prop_oneof![1i64..1000, 1000i64..60_000].prop_map(|us| Act::Wait { us }),
        1 => any::<bool>().prop_map(|which| Act::Policy { which }),
    ]
}

/// The last two models are in the seats of shadows, and claim the name of another model.
const MODELS: [(&str, u64, Seat); 6] = [
    ("dt", 1, Seat::Model),
    ("lr", 0, Seat::Model),
    ("dt", 2, Seat::Model),
    ("other", 7, Seat::Model),
    ("dt", 1, Seat::Shadow),
    ("x", 1, Seat::Shadow),
];

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
        scores_bytes_max in prop_oneof![Just(1usize << 20), 400usize..4000],
    ) {
        let limits = MailboxLimits { mailboxes_max, scores_bytes_max, remembered_max: 1000, ..LIMITS };
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
                    mailboxes.step(MailboxEvent::Request(request), now, &mut effects);
                    requested.insert(id);
                }
                Act::Score { id, model, kind } => {
                    let (name, version, seat) = MODELS[usize::from(*model)];
                    let result = format!("{{\"modelName\":\"{name}\",\"result\":\"{seat:?} {}\"}}", now.0);
                    let refusal = result.replace("\"result\":", "\"status\":422,\"body\":");
                    let outcome = match kind {
                        OutcomeKind::Result => message::Outcome::Result(&result),
                        OutcomeKind::Refusal => message::Outcome::Error(&refusal),
                        OutcomeKind::Failure => message::Outcome::Error(&result),
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
                    let score = MailboxEvent::Score { score: &score, stream: u32::from(*model), seat };
                    mailboxes.step(score, now, &mut effects);
                }
                Act::Policy { which } => {
                    let policy = Rc::clone(&policies[usize::from(*which)]);
                    mailboxes.step(MailboxEvent::Policy(policy), now, &mut effects);
                }
                Act::Wait { us } => {
                    mailboxes.step(MailboxEvent::Tick, now, &mut effects);
                    let until = now + Micros(*us);
                    // A rendezvous in service sleeps until something is due.
                    while let Some(wake) = mailboxes.next_wake().filter(|wake| *wake < until) {
                        now = now.max(wake) + Micros(1);
                        mailboxes.step(MailboxEvent::Tick, now, &mut effects);
                    }
                    now = now.max(until);
                }
            }
            prop_assert!(mailboxes.open.len() + mailboxes.answered.len() <= mailboxes_max);
            prop_assert!(mailboxes.orphans.bytes() <= limits.orphan_bytes_max);
            let open = mailboxes.open.values();
            let all: Vec<&TimedMailbox> = open.chain(mailboxes.answered.values().map(|it| &it.timed)).collect();
            prop_assert_eq!(mailboxes.bytes, all.iter().map(|it| it.mailbox.bytes()).sum::<usize>());
            let spare = all.iter().map(|it| it.mailbox.spare_bytes());
            prop_assert_eq!(mailboxes.spare_bytes, spare.sum::<usize>());
            let timed: BTreeSet<Micros> = all.iter().map(|it| it.due).filter(|it| *it != NEVER).collect();
            let timers: BTreeSet<Micros> = mailboxes.timers.iter().map(|(due, _)| *due).collect();
            prop_assert_eq!(timed, timers);
        }
        mailboxes.step(MailboxEvent::Shutdown, now, &mut effects);
        prop_assert!(mailboxes.is_empty());
        prop_assert_eq!((mailboxes.bytes, mailboxes.orphans.bytes()), (0, 0));
        prop_assert!(mailboxes.counts.is_balanced(), "{:#?}", mailboxes.counts);

        let mut answers: BTreeMap<String, Answer> = BTreeMap::new();
        for effect in effects {
            match effect {
                MailboxEffect::Answer(answer) => {
                    let id = crate::wire::object::at_pointer(&answer.request, "/messageId").unwrap();
                    let again = answers.insert(id.to_owned(), *answer.clone());
                    prop_assert!(again.is_none(), "answered twice");
                    prop_assert!(!format!("{:?}", answer.content).contains("Shadow"), "{:?}", answer);
                }
                MailboxEffect::Decision(decision) => {
                    let (mailbox, choice) = *decision;
                    let mut line = Vec::new();
                    write_decision(&mailbox, choice, &mut line).unwrap();
                    let decision = Decision::parse(line.trim_ascii_end()).unwrap();
                    let request = decision.request().unwrap();
                    prop_assert_eq!(&*request, &*mailbox.request);
                    let id = format!("\"{}\"", mailbox.message_id);
                    let answer = &answers[&id];
                    prop_assert_eq!(answer.content.model_result(), decision.model_result);
                    prop_assert_eq!(answer.content.model_error(), decision.model_error);
                    let mut replayed = Mailbox::new(
                        Text::from(&*decision.message_id),
                        request.into(),
                        Rc::clone(&mailbox.policy),
                    );
                    for score in decision.candidates(KeptScore::of_candidate).unwrap() {
                        replayed.take(score, ScoreRoom::UNBOUNDED);
                    }
                    if !matches!(choice.reason, Reason::Overflow | Reason::Shutdown) {
                        prop_assert_eq!(replayed.answer(replayed.choice()), answer.clone());
                    }
                }
            }
        }
        prop_assert_eq!(answers.len(), requested.len());
    }
}
