//! `rv-es-sink setup`, and what its templates make of records.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Run, Workdir};
use crate::records::sink;
use crate::service::{Service, score_ids, scores};

fn setup(workdir: &Workdir, service: &Service) -> Run {
    workdir
        .run("rv-es-sink")
        .args(["setup", "--url", &service.url])
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn templates_make_dates_with_fractions_numbers_and_keywords() {
    let (service, workdir) = (Service::running(), Workdir::new());
    for _ in 0..2 {
        let finished = setup(&workdir, &service).succeeds();
        assert!(
            finished.stderr.contains("rv-score-log is in place"),
            "{finished}"
        );
    }
    let other = r#"{"messageId":"other","timestamp":1700000000.000001,"modelInput":{"x":1,"colour":"red","deep":{"n":2.5}},"result":{"modelName":"words","result":"setosa","probabilities":{"a.b":0.1}},"region":"north 7"}"#;
    sink(&workdir, &service, "score-log-%Y")
        .input(scores(0..1000) + other)
        .succeeds();
    let index = "score-log-2023";
    service.refresh(index);
    let count = |query| service.count(index, query);
    // Within a millisecond.
    let between = |from: &str, to: &str| json!({"range": {"timestamp": {"gte": from, "lt": to}}});
    let second = "2023-11-14T22:13:20";
    assert_eq!(
        count(between(
            &format!("{second}.007771Z"),
            &format!("{second}.007772Z")
        )),
        2
    );
    assert_eq!(
        count(between(
            &format!("{second}.007772Z"),
            &format!("{second}.008Z")
        )),
        0
    );
    assert_eq!(count(json!({"term": {"messageId": "r-000007"}})), 2);
    assert_eq!(count(json!({"term": {"result.modelName": "lr"}})), 1000);
    assert_eq!(count(json!({"term": {"result.result": "setosa"}})), 1);
    assert_eq!(
        count(json!({"range": {"result.result.number": {"gt": 1.5}}})),
        100
    );
    assert_eq!(
        count(json!({"range": {"modelInput.x": {"gte": 999.05}}})),
        2
    );
    assert_eq!(count(json!({"term": {"modelInput.colour": "red"}})), 1);
    assert_eq!(count(json!({"term": {"region": "north 7"}})), 1);
    let mapping = service.get(&format!("/{index}/_mapping"));
    let properties = &mapping[index]["mappings"]["properties"];
    assert_eq!(
        properties["modelInput"]["properties"]["x"]["type"],
        "double"
    );
    assert_eq!(properties["timestamp"]["type"], "date_nanos");
    let again = setup(&workdir, &service).succeeds();
    assert!(
        again
            .stderr
            .contains("not changed by the template: score-log-2023"),
        "{again}"
    );
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn unknown_fields_and_results_can_be_kept_only() {
    let (service, workdir) = (Service::running(), Workdir::new());
    setup(&workdir, &service)
        .args([
            "--index",
            "kept",
            "--unknown-fields",
            "kept",
            "--results",
            "kept",
        ])
        .succeeds();
    let records = r#"{"messageId":"k-1","modelInput":{"x":1},"region":"north","result":{"modelName":"m","result":{"boxes":[1]}}}
{"messageId":"k-2","modelInput":"text","region":{"a":1},"result":{"modelName":"m","result":3}}
"#;
    sink(&workdir, &service, "kept").input(records).succeeds();
    service.holds_exactly("kept", ["k-1/m/0", "k-2/m/0"].map(str::to_owned));
    assert_eq!(
        service.count("kept", json!({"exists": {"field": "region"}})),
        0
    );
    assert_eq!(
        service.count("kept", json!({"term": {"messageId": "k-2"}})),
        1
    );
    let kept = service.get("/kept/_doc/k-1%2Fm%2F0");
    assert_eq!(kept["_source"]["result"]["result"]["boxes"], json!([1]));
    assert_eq!(kept["_source"]["region"], "north");
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn a_template_of_others_is_left_alone() {
    let (service, workdir) = (Service::running(), Workdir::new());
    let other = json!({"index_patterns": ["theirs"], "priority": 300});
    service.put("/_index_template/rv-theirs", other);
    let setup = || setup(&workdir, &service).args(["--index", "theirs"]);
    let finished = setup().finish();
    finished.assert_status(3);
    assert!(finished.stderr.contains("--replace"), "{finished}");
    setup().arg("--replace").succeeds();
    setup().succeeds();
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn a_data_stream_has_each_document_once() {
    let (service, workdir) = (Service::running(), Workdir::new());
    let finished = setup(&workdir, &service)
        .args(["--index", "stream", "--data-stream"])
        .finish();
    if service.kind == "elasticsearch7" {
        // The one of the tests is without its licensed modules.
        finished.assert_status(3);
        assert!(finished.stderr.contains("data_stream"), "{finished}");
        return;
    }
    finished.assert_status(0);
    for _ in 0..2 {
        sink(&workdir, &service, "stream")
            .input(scores(0..1500))
            .succeeds();
        service.holds_exactly("stream", score_ids(0..1500));
    }
    assert_eq!(
        crate::harness::stat(&workdir, "stats.json", "present"),
        3000
    );
    let document = service.search(
        "stream",
        json!({"query": {"ids": {"values": ["r-000007/dt/1"]}}}),
    );
    let hit = &document["hits"]["hits"][0];
    assert_eq!(hit["_source"]["@timestamp"], "2023-11-14T22:13:20.007771Z");
    assert!(
        hit["_index"].as_str().unwrap().starts_with(".ds-stream-"),
        "{hit}"
    );
    service.ask(Method::DELETE, "/_data_stream/stream", None);
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn a_pipeline_can_belong_to_the_index() {
    let (service, workdir) = (Service::running(), Workdir::new());
    service.put("/_ingest/pipeline/rv-default", json!({"processors": []}));
    setup(&workdir, &service)
        .args(["--index", "by-default", "--pipeline", "rv-default"])
        .succeeds();
    sink(&workdir, &service, "by-default")
        .input(scores(0..1))
        .succeeds();
    let settings = service.get("/by-default/_settings");
    assert_eq!(
        settings["by-default"]["settings"]["index"]["default_pipeline"],
        "rv-default"
    );
}
