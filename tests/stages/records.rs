//! No stage changes a byte that it does not own.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use crate::es::FakeService;
use crate::harness::Workdir;

/// The members of a record, in their order, as JSON text.
type Members = Vec<(String, String)>;

const MODEL_INPUT: &str =
    r#"{"sepalLength":5.10,"sepalWidth":3.5e0,"petalLength":14E-1,"petalWidth":0.2,"more":[1.10]}"#;

fn any_value() -> impl Strategy<Value = String> {
    let scalars = prop_oneof![
        Just("1.10".to_owned()),
        Just("1e400".to_owned()),
        Just("-0".to_owned()),
        Just("9007199254740993".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just("12345678901234567890123".to_owned()),
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just(r#""\u0041\/\ud83d\ude00""#.to_owned()),
        Just(r#""\ud800 alone""#.to_owned()),
        Just(format!("{}{}", "[".repeat(200), "]".repeat(200))),
        "[a-zA-Z0-9 äß€😀]{0,12}".prop_map(|text| format!("{text:?}")),
        any::<f64>()
            .prop_filter("no JSON", |number| number.is_finite())
            .prop_map(|number| format!("{number:e}")),
    ];
    scalars.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3)
                .prop_map(|items| format!("[{}]", items.join(","))),
            (inner.clone(), inner)
                .prop_map(|(one, two)| format!("{{\"k\":{one},\"messageId\":{two}}}")),
        ]
    })
}

/// Members that no stage knows. Some keys contain escapes, which must stay. Some keys
/// occur twice.
fn unknown_members() -> impl Strategy<Value = Members> {
    let key = prop_oneof![
        "[a-z]{1,6}".prop_map(|key| format!("\"x{key}\"")),
        Just(r#""a\u0062""#.to_owned()),
        Just(r#""ünï""#.to_owned()),
        Just(r#""""#.to_owned()),
    ];
    proptest::collection::vec((key, any_value()), 0..6)
}

/// A valid request with unknown members between the known ones.
fn any_request() -> impl Strategy<Value = Members> {
    let known = vec![
        ("\"messageId\"".to_owned(), String::new()),
        ("\"timestamp\"".to_owned(), "1.50".to_owned()),
        ("\"modelInput\"".to_owned(), MODEL_INPUT.to_owned()),
        ("\"scoreTopic\"".to_owned(), "\"sc\\u006fre\"".to_owned()),
        ("\"returnAddress\"".to_owned(), "\"here\"".to_owned()),
    ];
    unknown_members().prop_flat_map(move |mut members| {
        members.extend(known.clone());
        Just(members).prop_shuffle()
    })
}

fn record(members: &Members) -> String {
    format!("{{{}}}", joined(members, |_| true))
}

fn joined(members: &Members, kept: impl Fn(&str) -> bool) -> String {
    let members = members.iter().filter(|(key, _)| kept(key));
    let texts: Vec<_> = members
        .map(|(key, value)| format!("{key}:{value}"))
        .collect();
    texts.join(",")
}

fn requests() -> Vec<Members> {
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::default()
    });
    let strategy = any_request();
    (0..500)
        .map(|number| {
            let mut members = strategy.new_tree(&mut runner).unwrap().current();
            for (key, value) in &mut members {
                if key == "\"messageId\"" {
                    *value = format!("\"r-{number}\"");
                }
            }
            members
        })
        .collect()
}

fn input(requests: &[Members]) -> String {
    requests
        .iter()
        .map(|members| record(members) + "\n")
        .collect()
}

/// Checks that each line begins with the kept members of its request, and continues
/// with `next`.
fn assert_begins<S: AsRef<str>>(
    requests: &[Members],
    lines: &[S],
    kept: impl Fn(&str) -> bool + Copy,
    next: &str,
) {
    assert_eq!(lines.len(), requests.len());
    for (members, line) in requests.iter().zip(lines) {
        let expected = format!("{{{},{next}", joined(members, kept));
        let line = line.as_ref();
        assert!(
            line.starts_with(&expected),
            "{line}\ndoes not begin with\n{expected}"
        );
    }
}

#[test]
fn the_decoy_and_the_archive_carry_every_byte() {
    let workdir = Workdir::new();
    let input = input(&requests());
    let decoy = workdir.run("rv-decoy").input(&input).succeeds();
    assert_eq!(decoy.stdout(), input);
    let archive = workdir.run("rv-archive").args(["--dir", "logs"]);
    archive.input(&input).succeeds();
    let cat = workdir.run("rv-archive").args(["cat", "logs"]).succeeds();
    assert_eq!(cat.stdout(), input);
}

#[test]
fn a_request_carries_its_model_input_as_it_came() {
    let workdir = Workdir::new();
    let requests = requests();
    let run = workdir
        .run("rv-request")
        .args(["--id", "/messageId", "--clock", "fixed:1"]);
    let finished = run.input(input(&requests)).succeeds();
    for (members, line) in requests.iter().zip(finished.lines()) {
        let id = members.iter().find(|(key, _)| key == "\"messageId\"");
        let expected = format!(
            "{{\"messageId\":{},\"timestamp\":1.000000,\"modelInput\":{}}}",
            id.unwrap().1,
            record(members)
        );
        assert_eq!(line, expected);
    }
}

#[test]
fn a_score_is_its_request_and_the_result() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    let requests = requests();
    let run = workdir.run("rv-score").args(["--model", "dt.json"]);
    let finished = run.input(input(&requests)).succeeds();
    let result = r#""result":{"modelName":"dt","result":0,"#;
    assert_begins(&requests, &finished.lines(), |_| true, result);
}

#[test]
fn a_response_is_its_request_without_the_addresses() {
    let workdir = Workdir::new();
    workdir.fifo("scores");
    let requests = requests();
    let run = workdir.run("rv-rendezvous");
    let run = run.args(["--requests", "-", "--scores", "scores", "--linger", "0s"]);
    let run = run.args(["--prefer", "dt@1", "--deadline", "10ms"]);
    let finished = run.input(input(&requests)).succeeds();
    let kept = |key: &str| !matches!(key, "\"scoreTopic\"" | "\"returnAddress\"");
    let mut lines = finished.lines();
    // Requests of the same age are answered in any order.
    lines.sort_by_key(|line| {
        let (_, id) = line.split_once("\"messageId\":\"r-").unwrap();
        id.split_once('"').unwrap().0.parse::<u32>().unwrap()
    });
    assert_begins(&requests, &lines, kept, r#""modelResult":null,"#);
}

/// The documents that the sink makes of `requests`.
fn documents(requests: &[Members], flags: &[&str]) -> Vec<String> {
    let workdir = Workdir::new();
    let service = FakeService::start();
    let run = workdir
        .run("rv-es-sink")
        .args(["--url", &service.url(), "--index", "log"]);
    run.args(flags).input(input(requests)).succeeds();
    service.documents()
}

const DATE: &str = r#""timestamp":"1970-01-01T00:00:01.500000Z"}"#;

#[test]
fn a_document_is_its_record_with_a_date() {
    let requests = requests();
    let documents = documents(&requests, &["--keep-shape"]);
    let kept = |key: &str| key != "\"timestamp\"";
    assert_begins(&requests, &documents, kept, DATE);
}

#[test]
fn a_document_says_all_that_its_record_does_or_holds_it() {
    let requests = requests();
    let documents = documents(&requests, &[]);
    assert_eq!(documents.len(), requests.len());
    let mut held = 0;
    for (members, document) in requests.iter().zip(&documents) {
        let stays = joined(members, |key| key != "\"timestamp\"");
        if *document != format!("{{{stays},{DATE}") {
            let text = serde_json::Value::from(record(members));
            let member = format!("\"asReceived\":{text},\"timestamp\"");
            assert!(
                document.contains(&member),
                "{document}\ndoes not hold\n{member}"
            );
            held += 1;
        }
    }
    assert!(0 < held && held < documents.len(), "{held} are taken apart");
}
