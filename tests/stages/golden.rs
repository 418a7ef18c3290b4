//! One request through all stages, as files that a reader can follow.

use std::path::{Path, PathBuf};

use crate::es::FakeService;
use crate::harness::{Workdir, checkout, open_reader, open_writer};
use std::io::Write;

/// If this variable is set, the tests write the files instead of comparing them.
const RENEW: &str = "RV_RENEW_GOLDEN";

const CLOCK: [&str; 2] = ["--clock", "fixed:1644370787.021771"];

fn folder() -> PathBuf {
    checkout().join("fixtures/one_request")
}

fn golden(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Checks that the output of a stage equals the golden file.
fn assert_golden(name: &str, actual: &str) {
    assert_golden_at(&folder().join(name), actual);
}

fn assert_golden_at(path: &Path, actual: &str) {
    let name = path.display();
    if std::env::var_os(RENEW).is_some() {
        std::fs::write(path, actual).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(
        actual, expected,
        "{name} has changed; if that is meant, renew it with\n  {RENEW}=1 cargo test golden"
    );
}

#[test]
fn an_input_becomes_a_request() {
    let workdir = Workdir::new();
    let run = workdir
        .run("rv-request")
        .args(CLOCK)
        .args(["--ids", "seq:request-"]);
    let run = run
        .args(["--score-topic", "score"])
        .input(golden("0_input.ndjson"));
    assert_golden("1_requests.ndjson", run.succeeds().stdout());
}

#[test]
fn the_decoy_passes_a_request_on() {
    let workdir = Workdir::new();
    let run = workdir.run("rv-decoy").input(golden("1_requests.ndjson"));
    assert_golden("2_decoy.ndjson", run.succeeds().stdout());
}

#[test]
fn each_model_scores_a_request() {
    for model in ["dt", "lr"] {
        let workdir = Workdir::new();
        let file = folder().join(format!("0_model.{model}.json"));
        let run = workdir.run("rv-score").args(CLOCK).arg("--model").arg(file);
        let run = run
            .arg("--probabilities")
            .input(golden("1_requests.ndjson"));
        assert_golden(&format!("2_scores.{model}.ndjson"), run.succeeds().stdout());
    }
}

#[test]
fn the_rendezvous_answers_a_request() {
    let workdir = Workdir::new();
    let pipes = ["requests", "dt.scores", "lr.scores"].map(|pipe| workdir.fifo(pipe));
    let policy = folder().join("0_policy.toml");
    let run = workdir.run("rv-rendezvous").arg("--policy").arg(policy);
    let run = run.args([
        "--requests",
        "requests",
        "--scores",
        "dt.scores",
        "lr.scores",
    ]);
    let mut running = run.start();
    let [mut requests, mut dt, mut lr] = pipes.map(|pipe| open_writer(&pipe));
    // The scores arrive before their request, so it is answered at 0 ms.
    dt.write_all(golden("2_scores.dt.ndjson").as_bytes())
        .unwrap();
    lr.write_all(golden("2_scores.lr.ndjson").as_bytes())
        .unwrap();
    requests
        .write_all(golden("1_requests.ndjson").as_bytes())
        .unwrap();
    let response = running.line() + "\n";
    assert_golden("3_responses.ndjson", &response);
}

#[test]
fn the_front_end_sends_the_response_without_its_provenance() {
    let workdir = Workdir::new();
    workdir.fifo("requests");
    workdir.fifo("responses");
    let (_running, address) = crate::http::front_end(&workdir, &["--id-header", "x-id"]);
    let mut requests = open_reader(&workdir.path("requests"));
    let mut responses = open_writer(&workdir.path("responses"));
    let body = golden("0_input.ndjson");
    let (mut client, _) =
        crate::http::call_through(&address, "x-id: request-1\r\n", &body, &mut requests);
    responses
        .write_all(golden("3_responses.ndjson").as_bytes())
        .unwrap();
    assert_golden("4_http_body.json", &client.reply().body);
}

#[test]
fn the_sink_sends_a_document_for_each_record() {
    let workdir = Workdir::new();
    let service = FakeService::start();
    let run = workdir
        .run("rv-es-sink")
        .args(["--url", &service.url(), "--index", "score-log"]);
    run.input(golden("2_scores.dt.ndjson") + &golden("2_scores.lr.ndjson"))
        .succeeds();
    assert_eq!(service.ids(), ["request-1/dt/1", "request-1/lr/0"]);
    assert_golden(
        "5_documents.ndjson",
        &(service.documents().join("\n") + "\n"),
    );
}

#[test]
fn the_tree_of_these_files_is_what_training_gives() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    assert_golden("0_model.dt.json", &workdir.read("dt.json"));
    // The regression's last digits depend on the machine's mathematical library,
    // so its file is an input of this test and is not compared.
    if std::env::var_os(RENEW).is_some() {
        workdir.train("logistic-regression", "lr", 0);
        std::fs::write(folder().join("0_model.lr.json"), workdir.read("lr.json")).unwrap();
    }
}

#[test]
fn a_recording_rescored_by_a_candidate_gives_the_same_bytes_on_every_run() {
    let recording = checkout().join("fixtures/recording");
    let workdir = Workdir::new();
    for threads in ["1", "3", "1"] {
        let run = workdir
            .run("rv-score")
            .args(["--rescore", "--clock", "fixed:0", "--assume-elapsed", "8ms"])
            .args(["--threads", threads, "--model"])
            .arg(folder().join("0_model.lr.json"));
        let finished = run.arg("--input").arg(recording.join("logs")).succeeds();
        assert_eq!(finished.lines().len(), 15);
        assert_golden_at(&recording.join("rescored.lr.ndjson"), finished.stdout());
    }
}

#[test]
fn yesterdays_decisions_are_replayed_under_a_policy_that_prefers_the_candidate() {
    let recording = checkout().join("fixtures/recording");
    let workdir = Workdir::new();
    let run = workdir.run("rv-rendezvous").args(["--replay", "-i"]);
    let run = run.arg(recording.join("decisions.ndjson")).arg("--policy");
    let finished = run.arg(recording.join("candidate.toml")).succeeds();
    assert_eq!(
        finished.stdout().matches("\"modelName\":\"lr\"").count(),
        15
    );
    assert_golden_at(&recording.join("answers.lr.ndjson"), finished.stdout());
}

#[test]
fn the_flowers_are_those_of_the_table() {
    let flowers = std::fs::read_to_string(checkout().join("fixtures/flowers.ndjson")).unwrap();
    let table = std::fs::read_to_string(checkout().join("fixtures/iris.csv")).unwrap();
    let mut rows = table.lines();
    let names: Vec<&str> = rows.next().unwrap().split(',').take(4).collect();
    let mut count = 0;
    for (row, flower) in rows.zip(flowers.lines()) {
        let members = names.iter().zip(row.split(','));
        let members: Vec<_> = members
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        assert_eq!(flower, format!("{{{}}}", members.join(",")));
        count += 1;
    }
    assert_eq!((count, flowers.lines().count()), (150, 150));
}
