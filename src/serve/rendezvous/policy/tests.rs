//! Policies by example: what they mean, and what is refused.

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
    assert_eq!(policy.expect, [model("dt", 1), model("lr", 0)]);
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
    assert!(policy.selects(&Selector::Any, "x", 9));
    assert!(!policy.selects(&Selector::Any, "dt", 2));
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
            "p:7: [versions] pins bare names, and \"dt@1\" is none",
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
        ("lr@3", "dt@1", "p:16: \"dt@1\" stands twice in this step"),
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
        ("to = 0.5", "to = 1.5", "p:22: a share lies within 0 and 1"),
        ("to = 0.5", "to = 0.0", "p:22: a share lies within 0 and 1"),
        (
            "until_ms = 80",
            "until_ms = 101",
            "p:26: until_ms is past the deadline",
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
            "p:29: modelResult must be what JSON can say",
        ),
        (
            "models = [\"dt\"]",
            "models = []",
            "p:10: this step accepts no model",
        ),
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
    // xxh3_64(b"rollout-7\0alice") / 2**64 and xxh3_64(b"rollout-7\x0017") / 2**64
    // by the reference implementation in Python.
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
