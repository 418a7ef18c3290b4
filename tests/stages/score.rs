//! rv-score: requests -> scores.

use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Workdir, checkout, eventually, json, now, request, request_at};

/// The 150 flowers: the measurements as JSON, and the class.
fn flowers() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(checkout().join("fixtures/iris.csv")).unwrap();
    let mut rows = text.lines();
    let names: Vec<&str> = rows.next().unwrap().split(',').take(4).collect();
    let flowers: Vec<_> = rows
        .map(|row| {
            let values: Vec<&str> = row.split(',').collect();
            let members = names.iter().zip(&values);
            let members: Vec<_> = members
                .map(|(name, value)| format!("\"{name}\":{value}"))
                .collect();
            (format!("{{{}}}", members.join(",")), values[4].to_owned())
        })
        .collect();
    assert_eq!(flowers.len(), 150);
    flowers
}

fn requests() -> String {
    let line = |(number, (measures, _)): (usize, (String, String))| {
        format!("{{\"messageId\":\"{number}\",\"timestamp\":1,\"modelInput\":{measures}}}\n")
    };
    flowers().into_iter().enumerate().map(line).collect()
}

/// The labels that a model gives the flowers, in order.
fn labels(workdir: &Workdir, model: &str) -> Vec<String> {
    let run = workdir.run("rv-score").args(["--model", model]);
    let finished = run.input(requests()).succeeds();
    let mut labels = Vec::new();
    for (number, line) in finished.lines().iter().enumerate() {
        let score = json(line);
        assert_eq!(score["messageId"], number.to_string());
        labels.push(score["result"]["result"].to_string());
    }
    assert_eq!(labels.len(), 150);
    labels
}

#[test]
fn each_flower_gets_the_label_of_its_class() {
    let workdir = Workdir::new();
    let expected: Vec<String> = flowers().into_iter().map(|(_, class)| class).collect();
    // The model has not learned the rows that were held out, so some labels may be
    // wrong.
    for (algorithm, right_at_least) in [
        ("decision-tree", 141),
        ("linfa-tree", 141),
        ("logistic-regression", 141),
    ] {
        let model = workdir.train(algorithm, "m", 1);
        let labels = labels(&workdir, &model);
        let right = labels.iter().zip(&expected).filter(|(a, b)| a == b).count();
        assert!(right >= right_at_least, "{algorithm}: {right} of 150");
    }
}

#[test]
fn the_same_data_and_seed_give_the_same_bytes() {
    for algorithm in ["decision-tree", "logistic-regression"] {
        let files = [Workdir::new(), Workdir::new()].map(|workdir| {
            workdir.train(algorithm, "m", 1);
            workdir.read("m.json")
        });
        assert_eq!(files[0], files[1]);
    }
}

#[test]
fn a_score_says_which_model_and_how_long() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 7);
    let run = workdir.run("rv-score").args(["--model", "dt.json"]);
    let finished = run.input(request_at("a", now() - 2.0)).succeeds();
    let score = json(finished.lines()[0]);
    assert_eq!(score["result"]["modelName"], "dt");
    let confidence = score["result"]["confidence"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&confidence));
    let entry = &score["provenance"]["model"];
    assert_eq!(entry["modelName"], "dt");
    assert_eq!(entry["modelVersion"], 7);
    assert_eq!(entry["modelHash"].as_str().unwrap().len(), 16);
    let elapsed = entry["elapsedTimeAfterRequest"].as_f64().unwrap();
    assert!((2_000.0..30_000.0).contains(&elapsed), "{elapsed}");
    assert!(entry["evaluationTime"].as_f64().unwrap() < 1_000.0);
}

#[test]
fn a_record_is_never_held_back() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    let mut running = workdir.run("rv-score").args(["--model", "dt.json"]).start();
    for number in 0..100 {
        running.write(request(&format!("r-{number}")) + "\n");
        assert!(running.line().contains(&format!("\"r-{number}\"")));
    }
    drop(running.stdin.take());
    running.wait().assert_status(0);
}

#[test]
fn what_the_model_cannot_score_becomes_an_error_at_once() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    let of =
        |input: &str| format!("{{\"messageId\":\"a\",\"timestamp\":1,\"modelInput\":{input}}}\n");
    let whole = r#""sepalLength":1,"sepalWidth":1,"petalLength":1"#;
    let inputs = [
        ("[1]".to_owned(), "modelInput is not an object"),
        (format!("{{{whole}}}"), "feature \"petalWidth\" is missing"),
        (
            format!("{{{whole},\"petalWidth\":\"1\"}}"),
            "feature \"petalWidth\" is not a number",
        ),
        (
            format!("{{{whole},\"petalWidth\":null}}"),
            "feature \"petalWidth\" is missing",
        ),
        (
            format!("{{{whole},\"petalWidth\":1e400}}"),
            "feature \"petalWidth\" is out of range",
        ),
    ];
    let input: String = inputs.iter().map(|(input, _)| of(input)).collect();
    let run = workdir.run("rv-score").args(["--model", "dt.json"]);
    let finished = run.input(input).succeeds();
    assert_eq!(finished.lines().len(), inputs.len());
    for (line, (_, message)) in finished.lines().iter().zip(&inputs) {
        let score = json(&line.replace("1e400", "0"));
        assert_eq!(score["error"]["modelName"], "dt");
        assert_eq!(score["error"]["message"], *message);
        assert!(score.get("result").is_none());
        assert_eq!(score["provenance"]["model"]["modelVersion"], 1);
    }
}

#[test]
fn earlier_results_are_replaced_or_kept() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    workdir.train("logistic-regression", "lr", 0);
    let score = |model: &str| {
        workdir
            .run("rv-score")
            .args(["--model", model, "--clock", "fixed:2"])
    };
    let first = score("lr.json").input(request("a")).succeeds();
    let plain = score("dt.json")
        .arg("--rescore")
        .input(&first.stdout)
        .succeeds();
    let value = json(plain.lines()[0]);
    assert_eq!(value["result"]["modelName"], "dt");
    assert!(value.get("previous").is_none());
    let entry = &value["provenance"]["model"];
    assert_eq!(entry["rescored"], true);
    assert_eq!(entry["elapsedTimeAfterRequest"], 0.0);
    let kept = score("dt.json").args(["--rescore", "--keep-previous", "--assume-elapsed", "5ms"]);
    let kept = kept.input(&first.stdout).succeeds();
    let value = json(kept.lines()[0]);
    assert_eq!(value["previous"]["modelName"], "lr");
    assert_eq!(value["provenance"]["model"]["elapsedTimeAfterRequest"], 5.0);
    let bad = r#"{"messageId":"a","timestamp":1,"modelInput":{}}"#;
    score("dt.json").arg("--rescore").input(bad).exits(1);
    score("dt.json").arg("--keep-previous").input("").exits(2);
}

#[test]
fn stale_requests_are_answered_unevaluated() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    let run = workdir
        .run("rv-score")
        .args(["--model", "dt.json", "--skip-older", "1s"]);
    let input = format!(
        "{}\n{}\n",
        request_at("old", now() - 60.0),
        request_at("new", now())
    );
    let finished = run.input(input).succeeds();
    let lines = finished.lines();
    let message = json(lines[0])["error"]["message"].to_string();
    assert!(message.contains("older than 1s"), "{message}");
    assert_eq!(json(lines[1])["result"]["result"], 0);
}

#[test]
fn probabilities_are_written_for_every_class() {
    let workdir = Workdir::new();
    workdir.train("logistic-regression", "lr", 0);
    let run = workdir
        .run("rv-score")
        .args(["--model", "lr.json", "--probabilities"]);
    let finished = run.input(request("a")).succeeds();
    let score = json(finished.lines()[0]);
    let all = score["result"]["probabilities"].as_object().unwrap();
    assert_eq!(all.keys().collect::<Vec<_>>(), ["0", "1", "2"]);
    let sum: f64 = all.values().map(|it| it.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
}

#[test]
fn a_model_is_reloaded_whole_or_not_at_all() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    let mut running = workdir.run("rv-score").args(["--model", "dt.json"]).start();
    let hash = |running: &mut crate::harness::Running| {
        running.write(request("a") + "\n");
        let score = json(&running.line());
        score["provenance"]["model"]["modelHash"].to_string()
    };
    let first = hash(&mut running);

    let good = workdir.read("dt.json");
    workdir.write("dt.json", &good[..good.len() / 2]);
    running.signal(Signal::HUP);
    running.says("the model in use stays");
    assert_eq!(hash(&mut running), first);

    workdir.train("decision-tree", "dt", 2);
    running.signal(Signal::HUP);
    running.says("now holds dt@2");
    assert_eq!(hash(&mut running), first);

    workdir.train("linfa-tree", "dt", 1);
    running.signal(Signal::HUP);
    running.says("loaded dt@1");
    assert_ne!(hash(&mut running), first);
}

#[test]
fn a_warm_up_needs_something_to_evaluate() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    workdir.write("recorded", request("a"));
    workdir.write("empty", "");
    let run = |file| {
        workdir
            .run("rv-score")
            .args(["--model", "dt.json", "--warm-up", file])
    };
    let finished = run("recorded").input(request("b")).succeeds();
    assert_eq!(finished.lines().len(), 1);
    run("empty").exits(3);
}

#[test]
fn an_idle_stage_uses_no_processor() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    let run = workdir
        .run("rv-score")
        .args(["--model", "dt.json", "--stats", "stats.json"]);
    let mut running = run.start();
    running.write(request("a") + "\n");
    running.line();
    assert!(
        eventually(|| std::fs::exists(workdir.path("stats.json"))
            .unwrap()
            .then_some(()))
        .is_some()
    );
    std::thread::sleep(Duration::from_millis(1200));
    crate::harness::assert_idle(running.id());
}

#[test]
fn training_names_what_is_wrong() {
    let workdir = Workdir::new();
    for (data, expected) in [
        ("", "is empty"),
        ("a,y,a\n1,2,3\n", "twice"),
        ("a,y\n1,0\n", "at least two classes"),
        ("a,y\n1,0\nx,1\n2,0\n3,1\n", "column \"a\""),
        ("a,y\n1,0\ninf,1\n2,0\n3,1\n", "column \"a\""),
        ("a,y\n,0\nNA,1\n,0\n,1\n", "\"a\" has no value"),
        ("a,z\n1,0\n2,1\n", "\"y\""),
    ] {
        let run = workdir.run("rv-score");
        let run = run.args(["train", "--target", "y", "--algorithm", "decision-tree"]);
        let run = run.args([
            "--format",
            "csv",
            "--name",
            "m",
            "--model-version",
            "1",
            "--output",
            "m.json",
        ]);
        let finished = run.input(data).finish();
        assert!([2, 3].contains(&finished.status), "{finished}");
        let lower = finished.stderr.to_lowercase();
        assert!(
            lower.contains(expected) || finished.stderr.contains(expected),
            "{data:?}: {finished}"
        );
        assert!(!finished.stderr.contains("panicked"), "{finished}");
    }
}

#[test]
fn inspect_prints_a_model_for_people() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    let finished = workdir
        .run("rv-score")
        .args(["inspect", "dt.json"])
        .succeeds();
    for expected in ["dt@1", "decision-tree", "petalWidth"] {
        assert!(finished.stdout().contains(expected), "{finished}");
    }
    let run = workdir.run("rv-score").args(["inspect", "nothing.json"]);
    assert!(run.exits(3).stderr.contains("nothing.json"));
}

#[test]
fn any_table_makes_a_model() {
    let workdir = Workdir::new();
    let mut table = "temperature,\"load, kW\",state\n".to_owned();
    for row in 0..60 {
        let (load, state) = if row % 3 == 0 {
            (90, "trips")
        } else {
            (20, "holds")
        };
        table += &format!("{}.5,{},{state}\n", row % 7, load + row % 5);
    }
    workdir.write("machines.csv", table);
    let run = workdir
        .run("rv-score")
        .args(["train", "--input", "machines.csv"]);
    let run = run.args(["--target", "state", "--algorithm", "decision-tree"]);
    let run = run.args([
        "--name",
        "breaker",
        "--model-version",
        "3",
        "--output",
        "m.json",
    ]);
    let finished = run.succeeds();
    assert!(
        finished.stderr.contains("held-out accuracy 1.0000"),
        "{finished}"
    );
    let input = r#"{"messageId":"a","timestamp":1,"modelInput":{"load, kW":88,"temperature":1}}"#;
    let finished = workdir
        .run("rv-score")
        .args(["--model", "m.json"])
        .input(input)
        .succeeds();
    let result = &json(finished.lines()[0])["result"];
    assert_eq!(
        (&result["modelName"], &result["result"]),
        (&"breaker".into(), &"trips".into())
    );
}

/// Lines that get a result, an error, or no score.
fn mixed_requests(count: usize) -> String {
    let flowers = flowers();
    (0..count)
        .map(|number| match number % 50 {
            7 => format!("{{\"messageId\":\"{number}\"}}\n"),
            8 => "\n".to_owned(),
            9 => format!("{{\"messageId\":\"{number}\",\"timestamp\":1,\"modelInput\":{{}}}}\n"),
            _ => format!(
                "{{\"messageId\":\"{number}\",\"timestamp\":1,\"modelInput\":{}}}\r\n",
                flowers[number % 150].0
            ),
        })
        .collect()
}

#[test]
fn threads_change_neither_a_byte_nor_the_order() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    workdir.write("requests", mixed_requests(20_000));
    let score = |threads: &str, shell: bool| {
        let flags = "--model dt.json --rescore --clock fixed:7 --threads";
        let files = format!("--rejects rejects.{threads} --stats {threads}.json");
        let input = match shell {
            true => "cat requests |",
            false => "< requests",
        };
        let script = format!("{input} rv-score {flags} {threads} {files}");
        let finished = workdir.shell(&script).exits(1);
        assert!(finished.stderr.contains("<stdin>:8: "), "{finished}");
        finished.stdout
    };
    let alone = score("1", false);
    assert_eq!(alone.split(|byte| *byte == b'\n').count(), 19_201);
    for (threads, shell) in [("2", false), ("3", true), ("16", false)] {
        assert!(score(threads, shell) == alone, "{threads} threads");
        let rejects = workdir.read(&format!("rejects.{threads}"));
        assert_eq!(rejects, workdir.read("rejects.1"));
        for name in ["in", "out", "rejected", "errors", "blank"] {
            let of =
                |threads: &str| crate::harness::stat(&workdir, &format!("{threads}.json"), name);
            assert_eq!(of(threads), of("1"), "{name}");
        }
    }
}

#[test]
fn threads_hold_no_record_back() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    let run = workdir.run("rv-score").args(["--model", "dt.json"]);
    let mut running = run.args(["--threads", "3"]).start();
    for number in 0..100 {
        running.write(request(&format!("r-{number}")) + "\n");
        assert!(running.line().contains(&format!("\"r-{number}\"")));
    }
    running.write(request("last") + "\n");
    running.signal(Signal::TERM);
    let finished = running.wait();
    finished.assert_status(0);
    assert!(finished.stdout().contains("\"last\""), "{finished}");
}

#[test]
fn threads_hold_a_bounded_part_of_the_input() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    workdir.write("requests", mixed_requests(150).repeat(10_000));
    let run = workdir
        .run("rv-score")
        .args(["--model", "dt.json", "-i", "requests"]);
    let mut running = run.args(["--threads", "4", "--quiet"]).start();
    // The reader is slow. The memory for scores that wait does not grow with the input.
    assert!(running.line().contains("\"0\""));
    let mut most = 0;
    let mut stdout = running.stdout.take().unwrap();
    let mut block = vec![0; 1 << 20];
    while let Ok(count @ 1..) = std::io::Read::read(&mut stdout, &mut block) {
        most = most.max(crate::harness::resident_bytes_if_running(running.id()));
        std::hint::black_box(count);
    }
    running.wait().assert_status(1);
    let size = std::fs::metadata(workdir.path("requests")).unwrap().len();
    assert!(size > 150 << 20, "{size}");
    assert!((1..64 << 20).contains(&most), "{most} bytes");
}

#[test]
fn a_model_learns_from_an_archive_and_a_file_of_labels() {
    let workdir = Workdir::new();
    let flowers = flowers();
    let requests = requests();
    workdir
        .run("rv-archive")
        .args(["--dir", "logs", "--max-records", "40"])
        .input(requests.clone() + requests.lines().next().unwrap())
        .succeeds();
    let label = |number: usize| flowers[number].1.clone();
    // Every third flower has no label yet, and some labels have no request.
    let known = || (0..150).filter(|number| number % 3 != 0);
    let csv: String = known().map(|n| format!("{},{n}\n", label(n))).collect();
    workdir.write(
        "labels.csv",
        format!("species,messageId\n{csv}1,no-request\n,unknown\n"),
    );
    let ndjson: String = known()
        .map(|n| format!("{{\"messageId\":\"{n}\",\"species\":{}}}\n", label(n)))
        .collect();
    workdir.write("labels.ndjson", ndjson);
    let train = |labels: &str, model: &str| {
        let run = workdir.run("rv-score").args(["train", "--input", "logs"]);
        run.args(["--labels", labels, "--target", "species", "--output", model])
            .args([
                "--algorithm",
                "decision-tree",
                "--name",
                "dt",
                "--model-version",
                "2",
            ])
    };
    for labels in ["labels.csv", "labels.ndjson"] {
        let finished = train(labels, &format!("{labels}.model")).succeeds();
        let story = "100 of 151 records have labels, 51 have none, 0 are repeated";
        assert!(finished.stderr.contains(story), "{finished}");
    }
    assert_eq!(
        workdir.read("labels.csv.model"),
        workdir.read("labels.ndjson.model")
    );
    // The model gives most flowers the right label.
    let right = labels(&workdir, "labels.csv.model")
        .iter()
        .zip(&flowers)
        .filter(|(found, (_, class))| *found == class)
        .count();
    assert!(right >= 141, "{right} of 150");

    workdir.write("twice.csv", "messageId,species\n1,0\n1,0\n1,2\n");
    let finished = train("twice.csv", "x").exits(3);
    assert!(
        finished
            .stderr
            .contains("twice.csv:4: message \"1\" has two labels"),
        "{finished}"
    );
    workdir.write("others.csv", "messageId,species\nx,0\ny,1\n");
    let finished = train("others.csv", "x").exits(3);
    assert!(
        finished
            .stderr
            .contains("none of its 151 records has a label"),
        "{finished}"
    );
    workdir.write("wrong.csv", "id,species\nx,0\n");
    let finished = train("wrong.csv", "x").exits(3);
    assert!(
        finished
            .stderr
            .contains("has no column \"messageId\"; its columns are id, species"),
        "{finished}"
    );
    workdir.write(
        "bad.ndjson",
        "{\"messageId\":\"1\",\"species\":0}\n{\"messageId\":2}\n",
    );
    let finished = train("bad.ndjson", "x").exits(3);
    assert!(
        finished
            .stderr
            .contains("bad.ndjson:2: field \"messageId\""),
        "{finished}"
    );
}
