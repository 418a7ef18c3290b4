//! Tests of the meaning of policies, and of refused policies.

use std::time::Duration;

use super::*;

const WHOLE: &str = r#"
deadline_ms = 100
measure_from = "arrival"
expect = ["dt", "lr"]

[versions]
dt = 1
lr = 0

[[prefer]]
after_ms = 0
models = ["dt"]

[[prefer]]
after_ms = 50.5
models = ["dt", "lr@3", "*"]

[split]
key = "/modelInput/customer"
salt = "rollout-7"

[[share]]
model = "dt@2"
from = 0.00
to = 0.5
until_ms = 80

[default]
modelResult = { result = 0.50, modelName = "default", more = [1, true] }
"#;

fn model(name: &str, version: u64) -> ModelId {
    ModelId {
        name: name.to_owned(),
        version,
    }
}

#[test]
fn a_whole_policy_is_read() {
    let policy = Policy::parse(WHOLE, "policy.toml").unwrap();
    assert_eq!(policy.deadline, Micros(100_000));
    assert_eq!(policy.measure_from, MeasureFrom::Arrival);
    let expected = Expected {
        models: vec![model("dt", 1), model("lr", 0)],
        is_written: true,
    };
    assert_eq!(policy.expected, Some(expected));
    assert_eq!(policy.steps[1].after, Micros(50_500));
    assert_eq!(
        policy.steps[1].selectors,
        [
            Selector::Model(model("dt", 1)),
            Selector::Model(model("lr", 3)),
            Selector::Any
        ]
    );
    assert_eq!(policy.shares[0].until, Micros(80_000));
    assert_eq!(
        &*policy.default,
        r#"{"result":0.5,"modelName":"default","more":[1,true]}"#
    );
    assert_eq!(policy.hash.len(), 16);
    let accepting = |name, version| policy.index.accepting(policy.index.find(name, version));
    // "*" does not accept a model that has a share.
    assert_eq!(accepting("x", 9).rank_in(1), Some(2));
    assert_eq!(accepting("dt", 2).rank_in(1), None);
}

#[test]
fn each_fault_is_named_with_its_line_and_remedy() {
    for (from, to, expected) in [
        ("expect =", "expects =", "p:4: unknown field `expects`"),
        (
            "dt = 1",
            "",
            "p:4: \"dt\" has no version: write \"dt@1\", or pin it with `dt = 1` under [versions]",
        ),
        ("dt = 1", "dt = -1", "p:7: "),
        (
            "dt = 1",
            "\"dt@1\" = 1",
            "p:7: [versions] needs the name of a model without a version, and \"dt@1\" is not one",
        ),
        (
            "lr@3",
            "lr@x",
            "p:16: \"lr@x\": a version is a whole number, as in \"dt@1\"",
        ),
        (
            "lr@3",
            "@3",
            "p:16: \"@3\" names no model; write it as \"name@version\"",
        ),
        ("lr@3", "dt@1", "p:16: \"dt@1\" appears twice in this step"),
        (
            "after_ms = 50.5",
            "after_ms = 0",
            "p:15: steps must stand in the order",
        ),
        (
            "after_ms = 50.5",
            "after_ms = 101",
            "p:15: this step begins after the deadline",
        ),
        (
            "after_ms = 50.5",
            "after_ms = nan",
            "p:15: after_ms must be a number of milliseconds from 0 up",
        ),
        (
            "deadline_ms = 100",
            "deadline_ms = 0",
            "p:2: deadline_ms must be more than 0",
        ),
        ("deadline_ms = 100", "", "p:1: missing field `deadline_ms`"),
        (
            "to = 0.5",
            "to = 1.5",
            "p:22: a share must be within 0 and 1",
        ),
        (
            "to = 0.5",
            "to = 0.0",
            "p:22: a share must be within 0 and 1",
        ),
        (
            "until_ms = 80",
            "until_ms = 101",
            "p:26: until_ms is after the deadline",
        ),
        (
            "[split]\nkey = \"/modelInput/customer\"\nsalt = \"rollout-7\"",
            "",
            "p:20: a share needs a [split]",
        ),
        (
            "key = \"/modelInput/customer\"",
            "key = \"customer\"",
            "p:19: \"customer\" is neither \"messageId\" nor a JSON pointer",
        ),
        (
            "[default]",
            "[[share]]\nmodel = \"x@1\"\nfrom = 0.4\nto = 0.6\n[default]",
            "p:28: overlaps the share 0..0.5 of dt@2",
        ),
        (
            "result = 0.50",
            "result = 1979-05-27",
            "p:29: modelResult must be a value that JSON can hold",
        ),
        (
            "models = [\"dt\"]",
            "models = []",
            "p:10: this step accepts no model",
        ),
        ("lr@3", "l\\rr@3", "p:16: no score can name this model"),
        (
            "expect = [\"dt\", \"lr\"]",
            "expect = [\"dt\", \"dt@1\"]",
            "p:4: dt@1 is expected twice",
        ),
    ] {
        let text = WHOLE.replacen(from, to, 1);
        assert_ne!(text, WHOLE, "{from}");
        let error = Policy::parse(&text, "p").unwrap_err();
        assert!(error.starts_with(expected), "{error}\nis not\n{expected}");
    }
    assert_eq!(
        Policy::parse("deadline_ms = 1", "p").unwrap_err(),
        "p:1: no model can answer: add a [[prefer]] step with its `models`"
    );
}

#[test]
fn a_preference_gives_each_next_model_an_equal_part_of_the_deadline() {
    let models = ["dt@1".to_owned(), "lr@0".to_owned()];
    let policy = Policy::from_preference(&models, Duration::from_millis(100)).unwrap();
    let dt = Selector::Model(model("dt", 1));
    let lr = Selector::Model(model("lr", 0));
    let expected = [
        Step {
            after: Micros(0),
            selectors: vec![dt.clone()],
        },
        Step {
            after: Micros(50_000),
            selectors: vec![dt, lr],
        },
    ];
    assert_eq!(policy.steps, expected);
    let expected = Expected {
        models: vec![model("dt", 1), model("lr", 0)],
        is_written: false,
    };
    assert_eq!(policy.expected, Some(expected));
    let any = Policy::from_preference(&["*".to_owned()], Duration::from_millis(100)).unwrap();
    assert_eq!(any.expected, None);
    assert!(Policy::from_preference(&["dt".to_owned()], Duration::from_secs(1)).is_err());
}

#[test]
fn the_draw_of_a_request_is_fixed_by_salt_and_key() {
    let policy = |from: f64, to: f64| {
        let share = format!("from = {from:?}\nto = {to:?}");
        let text = WHOLE.replace("from = 0.00\nto = 0.5", &share);
        Policy::parse(&text, "p").unwrap()
    };
    let request = |key: &str| format!(r#"{{"modelInput":{{"customer":{key}}}}}"#);
    // The draws are xxh3_64(b"rollout-7\0alice") / 2**64 and
    // xxh3_64(b"rollout-7\x0017") / 2**64, by the reference implementation in Python.
    for (key, draw) in DRAWS {
        let (below, above) = (draw - 1e-9, draw + 1e-9);
        assert_eq!(
            policy(below, above).share_of(&request(key)),
            Some(0),
            "{key}"
        );
    }
    for nothing in ["null", "[1]", "{}"] {
        assert_eq!(
            policy(0.0, 1.0).share_of(&request(nothing)),
            None,
            "{nothing}"
        );
    }
    assert_eq!(policy(0.0, 1.0).share_of("{}"), None);
}

const DRAWS: [(&str, f64); 3] = [
    ("\"alice\"", ALICE),
    ("\"al\\u0069ce\"", ALICE),
    ("17", SEVENTEEN),
];
const ALICE: f64 = 0.876_049_729_269_474_3;
const SEVENTEEN: f64 = 0.241_120_278_130_805_2;

/// Policies with 30,000 parts of one kind. If the time grew with the square of this
/// number, the test would take minutes in a debug build. scripts/bench/policy.sh measures
/// 100,000 parts.
fn long_policies() -> Vec<String> {
    const PARTS: usize = 30_000;
    let lines = |line: &dyn Fn(usize) -> String| -> String { (0..PARTS).map(line).collect() };
    let step = "[[prefer]]\nafter_ms = 0\nmodels = [\"m0@1\"]\n";
    vec![
        format!(
            "deadline_ms = 100\n[[prefer]]\nafter_ms = 0\nmodels = [{}]",
            lines(&|part| format!("\"m{part}@1\",\n"))
        ),
        format!(
            "deadline_ms = 200\n{}",
            lines(&|part| format!(
                "[[prefer]]\nafter_ms = {}.{:03}\nmodels = [\"m{part}@1\"]\n",
                part / 1000,
                part % 1000
            ))
        ),
        format!(
            "deadline_ms = 100\n{step}[split]\nkey = \"messageId\"\n{}",
            lines(&|part| {
                let part = (part * 7_919) % PARTS;
                format!(
                    "[[share]]\nmodel = \"m{part}@1\"\nfrom = {:.5}\nto = {:.5}\n",
                    part as f64 / PARTS as f64,
                    (part + 1) as f64 / PARTS as f64
                )
            })
        ),
        format!(
            "deadline_ms = 100\nexpect = [{}]\n{step}[versions]\n{}",
            lines(&|part| format!("\"m{part}\",")),
            lines(&|part| format!("m{part} = 1\n"))
        ),
    ]
}

#[test]
fn the_time_of_a_long_policy_does_not_grow_with_its_square() {
    use crate::serve::rendezvous::decision::{Arrival, choose};
    use crate::wire::message::OutcomeKind;
    let began = std::time::Instant::now();
    let names: Vec<String> = (0..200)
        .map(|number| format!("m{}", 29_999 - number))
        .collect();
    for text in long_policies() {
        let policy = Policy::parse(&text, "p").unwrap_or_else(|error| panic!("{error}"));
        let arrivals = names.iter().enumerate().map(|(number, name)| Arrival {
            model_name: name,
            model_version: 1,
            named: policy.index.find(name, 1),
            at: Micros(1_000),
            kind: [
                OutcomeKind::Failure,
                OutcomeKind::Result,
                OutcomeKind::Refusal,
            ][number % 3],
        });
        for number in 0..100 {
            let request = format!("{{\"messageId\":\"{number}\"}}");
            let share = policy.share_of(&request);
            assert_eq!(share.is_some(), !policy.shares.is_empty());
            choose(&policy, share, arrivals.clone());
        }
    }
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn shares_that_meet_are_found_wherever_they_stand() {
    let policy = |shares: &[(f64, f64)]| {
        let mut text = "deadline_ms = 1\n[split]\nkey = \"messageId\"\n".to_owned();
        for (from, to) in shares {
            text += &format!("[[share]]\nmodel = \"a@1\"\nfrom = {from:?}\nto = {to:?}\n");
        }
        Policy::parse(&text, "p")
    };
    assert!(policy(&[(0.5, 0.75), (0.0, 0.5), (0.75, 1.0)]).is_ok());
    for shares in [
        [(0.5, 0.75), (0.0, 0.5), (0.74, 0.8)],
        [(0.5, 0.75), (0.0, 0.1), (0.2, 0.51)],
        [(0.5, 0.75), (0.0, 0.1), (0.0, 1.0)],
        [(0.5, 0.75), (-0.0, 0.1), (0.0, 0.05)],
        [(0.2, 0.3), (0.6, 0.7), (0.25, 0.65)],
    ] {
        let error = policy(&shares).unwrap_err();
        assert!(error.contains("overlaps the share"), "{error}");
    }
}
