//! The schemas in docs/schemas describe what the programs write and accept.

use std::fs;
use std::io::Write;

use crate::harness::{Workdir, checkout, json, open_writer};

/// One schema of docs/schemas.
pub struct Schema {
    name: String,
    validator: jsonschema::Validator,
}

impl Schema {
    /// The schema of a record: `request`, `score`, `response`, `decision` or `reject`.
    pub fn named(name: &str) -> Schema {
        let path = checkout().join(format!("docs/schemas/{name}.schema.json"));
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("no schema of a {name}: {}: {error}", path.display()));
        let validator = jsonschema::draft202012::new(&json(&text))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Schema {
            name: name.to_owned(),
            validator,
        }
    }

    /// Fails the test unless the line fits the schema.
    pub fn accepts(&self, line: &str, place: &str) {
        if let Err(fault) = self.validator.validate(&json(line)) {
            panic!(
                "{place}: no {} by docs/schemas: {fault} at {}\n{line}",
                self.name,
                fault.instance_path()
            );
        }
    }

    fn is_valid(&self, line: &str) -> bool {
        serde_json::from_str(line).is_ok_and(|value| self.validator.is_valid(&value))
    }
}

#[test]
fn every_golden_record_fits_its_schema() {
    for (name, file, least) in [
        ("request", "one_request/1_requests.ndjson", 1),
        ("request", "one_request/2_decoy.ndjson", 1),
        ("score", "one_request/2_scores.dt.ndjson", 1),
        ("score", "one_request/2_scores.lr.ndjson", 1),
        ("response", "one_request/3_responses.ndjson", 1),
        ("response", "one_request/4_http_body.json", 1),
        ("score", "recording/rescored.lr.ndjson", 15),
        ("response", "recording/answers.lr.ndjson", 15),
        ("decision", "recording/decisions.ndjson", 15),
    ] {
        let schema = Schema::named(name);
        let text = fs::read_to_string(checkout().join("fixtures").join(file)).unwrap();
        for line in text.lines() {
            schema.accepts(line, file);
        }
        assert!(text.lines().count() >= least, "{file}");
    }
}

#[test]
fn a_request_that_a_schema_refuses_is_refused_by_the_programs() {
    let good = r#"{"messageId":"a","timestamp":1,"modelInput":{}}"#;
    for (line, fits) in [
        (good, true),
        (
            r#"{"messageId":"a","timestamp":1.5,"modelInput":null,"new":[]}"#,
            true,
        ),
        (r#"{"messageId":"a","timestamp":1}"#, false),
        (r#"{"messageId":"a","modelInput":1}"#, false),
        (r#"{"timestamp":1,"modelInput":1}"#, false),
        (r#"{"messageId":"","timestamp":1,"modelInput":1}"#, false),
        (r#"{"messageId":7,"timestamp":1,"modelInput":1}"#, false),
        (r#"{"messageId":"a","timestamp":"1","modelInput":1}"#, false),
        (
            r#"{"messageId":"a","timestamp":1,"modelInput":1,"returnAddress":1}"#,
            false,
        ),
        (
            r#"{"messageId":"a","timestamp":1,"modelInput":1,"provenance":[]}"#,
            false,
        ),
        ("[]", false),
    ] {
        assert_eq!(Schema::named("request").is_valid(line), fits, "{line}");
        let workdir = Workdir::new();
        workdir.write("requests", format!("{line}\n"));
        workdir.write("scores", "");
        assert_eq!(replay_takes(&workdir), fits, "{line}");
    }
}

#[test]
fn a_score_that_a_schema_refuses_is_refused_by_the_programs() {
    for (line, fits) in [
        (
            r#"{"messageId":"a","timestamp":1,"result":{"modelName":"m","result":[1]}}"#,
            true,
        ),
        (
            r#"{"messageId":"a","timestamp":1,"error":{"modelName":"m"}}"#,
            true,
        ),
        (r#"{"messageId":"a","timestamp":1}"#, false),
        (r#"{"timestamp":1,"result":{"modelName":"m"}}"#, false),
        (r#"{"messageId":"a","timestamp":1,"result":1}"#, false),
        (r#"{"messageId":"a","timestamp":1,"result":{}}"#, false),
        (
            r#"{"messageId":"a","timestamp":1,"result":{"modelName":1}}"#,
            false,
        ),
        (
            r#"{"messageId":"a","timestamp":1,"result":{"modelName":"m"},"error":{"modelName":"m"}}"#,
            false,
        ),
        (
            r#"{"messageId":"a","timestamp":1,"result":{"modelName":"m"},"provenance":{"model":{"modelVersion":-1}}}"#,
            false,
        ),
        (
            r#"{"messageId":"a","timestamp":1,"result":{"modelName":"m"},"provenance":{"model":1}}"#,
            false,
        ),
    ] {
        assert_eq!(Schema::named("score").is_valid(line), fits, "{line}");
        let workdir = Workdir::new();
        workdir.write(
            "requests",
            r#"{"messageId":"a","timestamp":1,"modelInput":{}}"#,
        );
        workdir.write("scores", format!("{line}\n"));
        assert_eq!(replay_takes(&workdir), fits, "{line}");
    }
}

/// Whether a replay rejects none of the records in `requests` and `scores`. Checks its
/// outputs and rejects against the schemas.
fn replay_takes(workdir: &Workdir) -> bool {
    let run = workdir.run("rv-rendezvous").args([
        "--replay",
        "--requests",
        "requests",
        "--scores",
        "scores",
        "--prefer",
        "m@0",
        "--deadline",
        "1s",
        "--rejects",
        "rejects",
        "--decisions",
        "decisions",
    ]);
    let finished = run.finish();
    for (name, text) in [
        ("response", finished.stdout().to_owned()),
        ("decision", workdir.read("decisions")),
        ("reject", workdir.read("rejects")),
    ] {
        let schema = Schema::named(name);
        text.lines().for_each(|line| schema.accepts(line, name));
    }
    let rejected = !workdir.read("rejects").is_empty();
    finished.assert_status(i32::from(rejected));
    !rejected
}

#[test]
fn the_model_in_python_keeps_the_contract() {
    let workdir = Workdir::new();
    workdir.fifo("requests");
    let model = checkout().join("examples/model.py");
    let script = format!("exec python3 '{}' < requests", model.display());
    let mut running = workdir.shell(&script).start();
    let mut requests = open_writer(&workdir.path("requests"));
    let schema = Schema::named("score");
    let request = crate::harness::request("r-1");

    // The model writes a score before it gets the next request.
    writeln!(requests, "{request}").unwrap();
    let score = running.line();
    schema.accepts(&score, "model.py");
    assert_eq!(json(&score)["messageId"], "r-1");
    assert_eq!(json(&score)["result"]["result"], 0);
    assert_eq!(json(&score)["modelInput"], json(&request)["modelInput"]);

    // An input that the model cannot use becomes an error score at once.
    let bad_input = r#"{"messageId":"r-2","timestamp":1.5,"modelInput":{"sepalLength":"x"}}"#;
    writeln!(requests, "{bad_input}").unwrap();
    let score = running.line();
    schema.accepts(&score, "model.py");
    assert_eq!(json(&score)["error"]["modelName"], "nearest");

    // Blank lines, bad lines and a missing newline affect no other line.
    write!(
        requests,
        "\n\r\nno record\n[1]\n{{\"timestamp\":1}}\n{request}"
    )
    .unwrap();
    drop(requests);
    let last = running.line();
    schema.accepts(&last, "model.py");
    let finished = running.wait();
    finished.assert_status(1);
    assert_eq!(finished.stderr.lines().count(), 3, "{finished}");
    assert!(finished.stderr.contains("<stdin>:5:"), "{finished}");
}
