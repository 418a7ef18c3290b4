//! `rv-es-sink setup`, and how its templates index records.

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
    // The first range is shorter than a millisecond.
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
    assert_eq!(
        count(json!({"term": {"modelInput.colour.label": "red"}})),
        1
    );
    assert_eq!(count(json!({"term": {"region.label": "north 7"}})), 1);
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
            .contains("does not change them: score-log-2023"),
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
    assert_eq!(kept["_source"]["result"]["result/boxes"], json!([1]));
    let received = kept["_source"]["asReceived"].as_str().unwrap();
    assert_eq!(received, records.lines().next().unwrap());
    for field in ["result.result/boxes", "result.result"] {
        let exists = json!({"exists": {"field": field}});
        assert_eq!(service.count("kept", exists), 0, "{field}");
    }
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
        // The test build of this server has no module for data streams.
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

/// Values of every kind for one field.
const VALUES: [&str; 9] = [
    r#"{"value":5.1,"unit":"cm","deep":{"er":[1]}}"#,
    r#""5.1""#,
    r#""setosa""#,
    "true",
    "null",
    "7",
    r#"[1,"a",{"b":[2]},[3]]"#,
    r#"[{"x":1},{"x":"y"}]"#,
    "1e400",
];

/// The first two requests have `value` in some fields. In these fields, the other
/// requests have a text, a number or an object.
fn inputs(value: &str) -> String {
    let mut input = format!(
        "{{\"messageId\":\"first\",\"timestamp\":1700000000,\"region\":{value},\"modelInput\":{{\"x\":{value}}}}}\n\
         {{\"messageId\":\"second\",\"timestamp\":1700000000,\"modelInput\":{value}}}\n"
    );
    for number in 0..100 {
        input += &format!(
            "{{\"messageId\":\"g-{number}\",\"timestamp\":1700000000,\"region\":\"north\",\"modelInput\":{{\"x\":{}.5,\"colour\":\"red\"}}}}\n",
            1000 + number
        );
    }
    input
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn the_first_value_of_a_field_decides_nothing() {
    let (service, workdir) = (Service::running(), Workdir::new());
    setup(&workdir, &service).succeeds();
    for (number, value) in VALUES.iter().enumerate() {
        let index = format!("decoy-log-first-{number}");
        // The two requests with `value` are sent first, so that they determine the
        // mapping.
        let input = inputs(value);
        let (odd, rest) = input.split_at(input.find("{\"messageId\":\"g-0").unwrap());
        for part in [odd, rest] {
            sink(&workdir, &service, &index).input(part).succeeds();
        }
        service.refresh(&index);
        let count = |query| service.count(&index, query);
        assert_eq!(count(json!({"match_all": {}})), 102, "{value}");
        let over = |least| json!({"range": {"modelInput.x": {"gte": least}}});
        assert_eq!((count(over(1000)), count(over(1050))), (100, 50), "{value}");
        assert_eq!(count(json!({"term": {"modelInput.x.label": "1007.5"}})), 1);
        assert_eq!(
            count(json!({"term": {"modelInput.colour.label": "red"}})),
            100
        );
        assert_eq!(count(json!({"term": {"region.label": "north"}})), 100);
        let average = json!({"size": 0, "query": over(1000), "aggs": {"of x": {"avg": {"field": "modelInput.x"}}}});
        let found = service.search(&index, average);
        assert_eq!(found["aggregations"]["of x"]["value"], 1050.0, "{value}");
    }
    let index = "decoy-log-first-0";
    let deep = json!({"range": {"modelInput.x/value": {"gt": 5, "lt": 6}}});
    assert_eq!(service.count(index, deep), 1);
    let label = json!({"term": {"modelInput.x/unit.label": "cm"}});
    assert_eq!(service.count(index, label), 1);
    let first = service.get(&format!("/{index}/_doc/first"));
    let received = first["_source"]["asReceived"].as_str().unwrap();
    assert_eq!(received, inputs(VALUES[0]).lines().next().unwrap());
}

/// A decision with the models `fast` and `slow`. `result` is the result of `slow` and
/// of the answer.
fn decision(number: usize, result: &str) -> String {
    format!(
        "{{\"messageId\":\"d-{number}\",\"timestamp\":1700000000,\"modelInput\":{{\"x\":1}},\
         \"modelResult\":{{\"modelName\":\"fast\",\"result\":{result}}},\
         \"candidates\":[{{\"modelName\":\"fast\",\"modelVersion\":1,\"arrivedAfter\":{number}.5,\"result\":{{\"modelName\":\"fast\",\"result\":3}},\"fate\":\"used\"}},\
         {{\"modelName\":\"slow\",\"modelVersion\":0,\"arrivedAfter\":{}.5,\"result\":{{\"modelName\":\"slow\",\"result\":{result},\"confidence\":{result},\"note\":{result}}},\"fate\":\"unused\"}}]}}\n",
        number + 5000
    )
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn each_candidate_can_be_asked_for_by_itself_whatever_the_others_answer() {
    let (service, workdir) = (Service::running(), Workdir::new());
    setup(&workdir, &service).succeeds();
    let index = "decision-log-candidates";
    let odd: String = (0..VALUES.len())
        .map(|number| decision(number, VALUES[number]))
        .collect();
    let plain: String = (VALUES.len()..100)
        .map(|number| decision(number, "\"b\""))
        .collect();
    for part in [odd, plain] {
        sink(&workdir, &service, index).input(part).succeeds();
    }
    service.refresh(index);
    assert_eq!(service.count(index, json!({"match_all": {}})), 100);
    let found = service.search(
        index,
        json!({"size": 0, "aggs": {"each": {
            "nested": {"path": "candidates"},
            "aggs": {"models": {
                "terms": {"field": "candidates.modelName", "order": {"_key": "asc"}},
                "aggs": {"latency": {"percentiles": {"field": "candidates.arrivedAfter", "percents": [0, 99]}}},
            }},
        }}}),
    );
    let buckets = &found["aggregations"]["each"]["models"]["buckets"];
    for (place, name, least) in [(0, "fast", 0.0), (1, "slow", 5000.0)] {
        let (bucket, latency) = (&buckets[place], &buckets[place]["latency"]["values"]);
        assert_eq!(
            (&bucket["key"], &bucket["doc_count"]),
            (&json!(name), &json!(100))
        );
        assert_eq!(latency["0.0"], least + 0.5);
        let high = latency["99.0"].as_f64().unwrap();
        assert!((least + 98.0..least + 100.0).contains(&high), "{latency}");
    }
    // A nested query matches within one candidate. Any other query matches all
    // candidates together.
    let nested = |query| json!({"nested": {"path": "candidates", "query": query}});
    let both = |name: &str| {
        json!({"bool": {"filter": [
            {"term": {"candidates.modelName": name}}, {"term": {"candidates.result.result": "b"}}]}})
    };
    assert_eq!(service.count(index, nested(both("slow"))), 91);
    assert_eq!(service.count(index, nested(both("fast"))), 0);
    assert_eq!(service.count(index, both("fast")), 91);
    let number = json!({"range": {"candidates.result.result.number": {"gte": 2.5, "lt": 3.5}}});
    assert_eq!(service.count(index, nested(number)), 100);
    assert_eq!(
        service.count(index, json!({"term": {"modelResult.result": "setosa"}})),
        1
    );
    let object = json!({"range": {"modelResult.result/value": {"gt": 5, "lt": 6}}});
    assert_eq!(service.count(index, object), 1);
}

/// Makes random JSON from a seed.
struct Anything(u64);

impl Anything {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn value(&mut self, depth: u64) -> String {
        const SCALARS: [&str; 14] = [
            "null",
            "true",
            "false",
            "0",
            "-1.5e3",
            "1e400",
            "1E99999",
            "-0.0",
            "123456789012345678901234567890",
            "\"\"",
            "\"text\"",
            "\"\\ud800\"",
            "\"a\\u0000\"",
            "\"2023-11-14\"",
        ];
        let count = self.roll(4);
        match self.roll(if depth < 3 { 5 } else { 3 }) {
            0 if self.roll(20) == 0 => "9".repeat(2000),
            0 if self.roll(20) == 0 => format!("\"{}\"", "long ".repeat(10_000)),
            0..3 => SCALARS[self.roll(SCALARS.len() as u64) as usize].to_owned(),
            3 => {
                let items: Vec<String> = (0..count).map(|_| self.value(depth + 1)).collect();
                format!("[{}]", items.join(","))
            }
            _ => {
                let members: Vec<String> = (0..count).map(|_| self.member(depth)).collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }

    fn member(&mut self, depth: u64) -> String {
        // There are few names, because the service changes the mapping for each new
        // one.
        const NAMES: [&str; 16] = [
            "x",
            "a.b",
            "",
            " ",
            "_id",
            "x/y",
            "*",
            "\\ud800",
            "\\u0000",
            "value",
            "modelName",
            "result",
            "probabilities",
            "confidence",
            "message",
            "modelVersion",
        ];
        let name = NAMES[self.roll(NAMES.len() as u64) as usize];
        format!("\"{name}\":{}", self.value(depth + 1))
    }
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn whatever_is_in_a_record_it_is_taken() {
    let (service, workdir) = (Service::running(), Workdir::new());
    setup(&workdir, &service).succeeds();
    let mut anything = Anything(1);
    let record = |number: u64| {
        let mut any = || anything.value(0);
        let candidate = format!(
            "{{\"modelName\":{},\"modelVersion\":{},\"arrivedAfter\":{},\"shadow\":{},\"result\":{{\"modelName\":{},\"result\":{},\"confidence\":{},\"probabilities\":{}}},\"error\":{}}}",
            any(),
            any(),
            any(),
            any(),
            any(),
            any(),
            any(),
            any(),
            any()
        );
        format!(
            "{{\"messageId\":\"a-{number}\",\"timestamp\":1700000000,\"modelInput\":{},\"modelResult\":{},\"candidates\":[{candidate},{}],\"provenance\":{{\"rendezvous\":{},\"model\":{}}},\"region\":{},\"_id\":{},\"asReceived\":{}}}\n",
            any(),
            any(),
            any(),
            any(),
            any(),
            any(),
            any(),
            any()
        )
    };
    let input: String = (0..100).map(record).collect();
    let index = "decision-log-anything";
    sink(&workdir, &service, index).input(input).succeeds();
    service.holds_exactly(index, (0..100).map(|number| format!("a-{number}")));
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn an_index_without_room_for_more_fields_takes_records_all_the_same() {
    let (service, workdir) = (Service::running(), Workdir::new());
    setup(&workdir, &service).succeeds();
    service.put(
        "/decoy-log-full",
        json!({"settings": {"index.mapping.total_fields.limit": 150}}),
    );
    let record = |number: usize| {
        format!(
            "{{\"messageId\":\"f-{number}\",\"timestamp\":1700000000,\"modelInput\":{{\"k{number}\":1}}}}\n"
        )
    };
    let input: String = (0..200).map(record).collect();
    let finished = sink(&workdir, &service, "decoy-log-full")
        .input(input)
        .succeeds();
    assert!(
        finished.stderr.contains("Limit of total fields [150]"),
        "{finished}"
    );
    service.holds_exactly(
        "decoy-log-full",
        (0..200).map(|number| format!("f-{number}")),
    );
    let narrowed = crate::harness::stat(&workdir, "stats.json", "narrowed");
    assert!((100..200).contains(&narrowed), "{narrowed}");
    let last = service.get("/decoy-log-full/_doc/f-199");
    assert_eq!(last["_source"]["asReceived"], record(199).trim_end());
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn a_date_that_no_index_takes_is_refused_with_a_hint() {
    let (service, workdir) = (Service::running(), Workdir::new());
    setup(&workdir, &service).succeeds();
    // A time in tenths of a second. Read as seconds, it is in the year 2508.
    let input = "{\"messageId\":\"late\",\"timestamp\":17000000000,\"modelInput\":{}}\n";
    let finished = sink(&workdir, &service, "decoy-log-late")
        .input(input)
        .exits(1);
    assert!(
        finished
            .stderr
            .contains("is field \"timestamp\" in seconds since 1970?"),
        "{finished}"
    );
}
