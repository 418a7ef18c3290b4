//! Tests of the documents that a working service gets.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Run, Workdir, eventually, json, stat};
use crate::service::{Service, score_ids, scores};

/// The sink, on an index of the running service.
pub fn sink(workdir: &Workdir, service: &Service, index: &str) -> Run {
    workdir
        .run("rv-es-sink")
        .args(["--url", &service.url, "--index", index])
        .args(["--stats", "stats.json", "--rejects", "rejects"])
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn each_score_of_two_models_is_one_document_however_often_it_is_sent() {
    let (service, workdir) = (Service::running(), Workdir::new());
    for (run, flags) in [
        &["--batch-records=100"][..],
        &["--gzip", "--connections=4", "--batch-bytes=20KB"],
    ]
    .iter()
    .enumerate()
    {
        let sink = sink(&workdir, &service, "once").args(*flags);
        sink.input(scores(0..2000)).succeeds();
        assert_eq!(stat(&workdir, "stats.json", "indexed"), 4000, "{run}");
        service.holds_exactly("once", score_ids(0..2000));
    }
    let stats = workdir.read("stats.json");
    assert!(stat(&workdir, "stats.json", "batches") < 200, "{stats}");
    let document = service.get("/once/_doc/r-000007%2Fdt%2F1");
    let source = &document["_source"];
    assert_eq!(source["timestamp"], "2023-11-14T22:13:20.007771Z");
    // The value 7.10 has not become another number.
    assert!(source.to_string().contains("7.1"));
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn a_record_goes_to_the_index_of_its_day() {
    let (service, workdir) = (Service::running(), Workdir::new());
    let day = |day: u32| {
        format!(
            "{{\"messageId\":\"d-{day}\",\"timestamp\":{}}}\n",
            86_400 * day
        )
    };
    let input: String = (0..3).map(day).collect();
    sink(&workdir, &service, "daily-%Y.%m.%d")
        .input(input)
        .succeeds();
    for (index, id) in [
        ("daily-1970.01.01", "d-0"),
        ("daily-1970.01.02", "d-1"),
        ("daily-1970.01.03", "d-2"),
    ] {
        service.holds_exactly(index, [id.to_owned()]);
    }
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn a_mapping_conflict_sets_three_of_five_hundred_aside() {
    let (service, workdir) = (Service::running(), Workdir::new());
    service.put(
        "/conflict",
        json!({"mappings": {"properties": {"x": {"type": "long"}}}}),
    );
    let record = |number: usize| {
        let value = if [7, 99, 499].contains(&number) {
            "\"word\""
        } else {
            "1"
        };
        format!("{{\"messageId\":\"c-{number:03}\",\"x\":{value}}}\n")
    };
    let input: String = (0..500).map(record).collect();
    let finished = sink(&workdir, &service, "conflict").input(input).finish();
    finished.assert_status(1);
    let good = (0..500).filter(|number| ![7, 99, 499].contains(number));
    service.holds_exactly("conflict", good.map(|number| format!("c-{number:03}")));
    let rejects: Vec<_> = workdir.read("rejects").lines().map(json).collect();
    assert_eq!(rejects.len(), 3);
    for (reject, number) in rejects.iter().zip([7, 99, 499]) {
        assert_eq!(reject["line"], number + 1);
        assert_eq!(reject["raw"], record(number as usize).trim_end());
        let reason = reject["reason"].as_str().unwrap();
        assert!(
            reason.starts_with("refused: 400 ") && reason.contains("[x]"),
            "{reason}"
        );
    }
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn calls_too_large_for_the_service_are_halved() {
    let (service, workdir) = (Service::running(), Workdir::new());
    // The service refuses calls of more than 1 MiB.
    let record = |number: usize, bytes: usize| {
        let filling = "y".repeat(bytes);
        format!("{{\"messageId\":\"l-{number:04}\",\"modelInput\":\"{filling}\"}}\n")
    };
    let mut input: String = (0..1500).map(|number| record(number, 2000)).collect();
    input += &record(9999, 2 << 20);
    input += &record(1500, 10);
    service.put(
        "/large",
        json!({"mappings": {"properties": {"modelInput": {"type": "object", "enabled": false}}}}),
    );
    let finished = sink(&workdir, &service, "large").input(input).finish();
    finished.assert_status(1);
    service.holds_exactly("large", (0..=1500).map(|number| format!("l-{number:04}")));
    let rejects: Vec<_> = workdir.read("rejects").lines().map(json).collect();
    assert_eq!(rejects.len(), 1);
    assert_eq!(rejects[0]["line"], 1501);
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn of_two_addresses_the_one_that_is_dead_is_done_without() {
    let (service, workdir) = (Service::running(), Workdir::new());
    let sink = sink(&workdir, &service, "failover").args(["--url", "http://127.0.0.1:9"]);
    let finished = sink
        .args(["--batch-records=50", "--retry-min=1h", "--retry-max=1h"])
        .input(scores(0..500))
        .succeeds();
    assert!(
        finished.stderr.contains("http://127.0.0.1:9: "),
        "{finished}"
    );
    service.holds_exactly("failover", score_ids(0..500));
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn the_ingest_pipeline_sees_every_document() {
    let (service, workdir) = (Service::running(), Workdir::new());
    let missing = sink(&workdir, &service, "piped").args(["--pipeline", "rv-none"]);
    let finished = missing.input(scores(0..1)).finish();
    finished.assert_status(2);
    assert!(
        finished.stderr.contains("has no pipeline of this name"),
        "{finished}"
    );
    service.put("/_ingest/pipeline/rv-test", json!({"processors": []}));
    // The test service lacks the modules for a pipeline that changes documents. So this
    // test removes the pipeline, and expects an error that names it.
    let sink = sink(&workdir, &service, "piped").args(["--pipeline", "rv-test"]);
    let mut running = sink.args(["--batch-age=10ms", "--retry-max=1s"]).start();
    running.write(scores(0..5));
    let indexed = || {
        let stats = std::fs::read_to_string(workdir.path("stats.json")).ok()?;
        (serde_json::from_str::<Value>(&stats).ok()?["indexed"] == 10).then_some(())
    };
    eventually(indexed).expect("the first are indexed");
    service.ask(Method::DELETE, "/_ingest/pipeline/rv-test", None);
    running.write(scores(5..10));
    running.says("pipeline with id [rv-test] does not exist");
    service.put("/_ingest/pipeline/rv-test", json!({"processors": []}));
    drop(running.stdin.take());
    running.wait().assert_status(0);
    service.holds_exactly("piped", score_ids(0..10));
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn what_is_passed_on_is_indexed_and_what_is_refused_is_not_passed_on() {
    let (service, workdir) = (Service::running(), Workdir::new());
    service.put(
        "/passed",
        json!({"mappings": {"properties": {"x": {"type": "long"}}}}),
    );
    let record = |number: usize| {
        let value = if number == 7 { "\"word\"" } else { "1" };
        format!("{{\"messageId\":\"p-{number:04}\",\"x\":{value}}}\n")
    };
    let input: String = (0..3000).map(record).collect();
    let pass = ["--pass", "--connections=3", "--batch-records=100"];
    let sink = sink(&workdir, &service, "passed").args(pass);
    let finished = sink.input(input).exits(1);
    let good = || (0..3000).filter(|number| *number != 7);
    let expected: String = good().map(record).collect();
    assert!(finished.stdout() == expected);
    service.holds_exactly("passed", good().map(|number| format!("p-{number:04}")));
}
