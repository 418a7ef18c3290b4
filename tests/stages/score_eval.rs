//! Tests of rv-score eval, which measures a model, and of rv-score inspect.

use crate::harness::{Workdir, checkout, json, request};

fn iris() -> String {
    checkout().join("fixtures/iris.csv").display().to_string()
}

#[test]
fn eval_gives_the_metrics_of_the_held_out_rows_again() {
    let workdir = Workdir::new();
    // This file is the last fifth of the table, with the columns in another order.
    let table = std::fs::read_to_string(iris()).unwrap();
    let mut rows: Vec<Vec<&str>> = table.lines().map(|row| row.split(',').collect()).collect();
    for row in &mut rows {
        row.truncate(5);
        row.reverse();
    }
    let text = |rows: &[&Vec<&str>]| -> String {
        let lines = rows.iter().map(|row| row.join(",") + "\n");
        lines.collect()
    };
    let (head, rest) = rows.split_first().unwrap();
    let (mut training, mut held_out) = (vec![head], vec![head]);
    for (index, row) in rest.iter().enumerate() {
        match index % 5 {
            4 => held_out.push(row),
            _ => training.push(row),
        }
    }
    workdir.write("training.csv", text(&training));
    workdir.write("held_out.csv", text(&held_out));
    for algorithm in ["random-forest", "logistic-regression"] {
        let run = workdir.run("rv-score").args(["train", "-q", "-i"]);
        run.args(["training.csv", "--target", "target", "--name", "m"])
            .args(["--model-version", "1", "-o", "m.json"])
            .args(["--holdout-file", "held_out.csv", "--algorithm", algorithm])
            .succeeds();
        let run = workdir.run("rv-score");
        let inspected = run.args(["inspect", "--json", "m.json"]).succeeds();
        let description = json(inspected.stdout());
        let expected = &description["metrics"]["heldOut"];
        let run = workdir.run("rv-score");
        let run = run.args([
            "eval",
            "--model",
            "m.json",
            "--data",
            "held_out.csv",
            "--json",
        ]);
        let report = json(run.succeeds().stdout());
        assert_eq!(report["rows"], 30);
        assert_eq!(report["modelHash"], description["hash"]);
        for figure in [
            "rows",
            "correct",
            "accuracy",
            "accuracyInterval",
            "confusion",
        ] {
            assert_eq!(report[figure], expected[figure], "{algorithm} {figure}");
        }
        let loss = |of: &serde_json::Value| of["logLoss"].as_f64().unwrap();
        assert!((loss(&report) - loss(expected)).abs() < 1e-12);
        let sha256 = workdir.shell("sha256sum m.json").succeeds();
        assert_eq!(description["hash"], sha256.stdout()[..16]);
    }
}

#[test]
fn recorded_requests_are_measured_by_a_file_of_labels() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    let records: String = (0..4).map(|id| request(&format!("r{id}")) + "\n").collect();
    let again = request("r0") + "\n";
    workdir.write("records.ndjson", records + &again + "no record\n");
    workdir.write("labels.csv", "messageId,target\nr0,0\nr1,2\nr2,\nr9,1\n");
    let run = workdir
        .run("rv-score")
        .args(["eval", "-m", "dt.json", "-d"]);
    let run = run.args(["records.ndjson", "--labels", "labels.csv", "--json"]);
    let finished = run.exits(1);
    let report = json(finished.stdout());
    assert_eq!(
        (&report["rows"], &report["unlabelled"]),
        (&2.into(), &2.into())
    );
    assert_eq!(
        (&report["leftOut"], &report["repeated"]),
        (&1.into(), &1.into())
    );
}

#[test]
fn labels_are_read_as_in_training() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    let records: String = (0..4).map(|id| request(&format!("r{id}")) + "\n").collect();
    // The id of the last record is an escape of the first one.
    let again = request("r0").replacen("r0", "\\u0072\\u0030", 1) + "\n";
    assert!(again.contains("\\u0072"), "{again}");
    workdir.write("records.ndjson", records + &again);
    // An empty label is none, so a later label of the same message is no conflict. `1`
    // and `1.0` are one label.
    let rows = [
        ["r0", "0"],
        ["r1", ""],
        ["r1", "1"],
        ["r1", "1.0"],
        ["r2", "lost"],
        ["r3", "-1"],
    ];
    let table = |separator: &str| {
        let rows: String = rows.iter().map(|row| row.join(separator) + "\n").collect();
        format!("messageId{separator}target\n{rows}")
    };
    let json = |row: &[&str; 2]| match row[1] {
        "" => format!(
            "{{\"messageId\":\"\\u{:04x}{}\",\"target\":null}}\n",
            'r' as u32,
            &row[0][1..]
        ),
        "lost" => format!("{{\"messageId\":\"{}\",\"target\":\"LOST\"}}\n", row[0]),
        label => format!("{{\"messageId\":\"{}\",\"target\":{label}}}\n", row[0]),
    };
    for (name, text, flags) in [
        ("labels.csv", table(","), ""),
        ("labels.csv", table(";"), ""),
        ("labels.tsv", table("\t"), ""),
        ("labels.csv", table(":"), "--delimiter :"),
        ("labels.ndjson", rows.iter().map(json).collect(), ""),
    ] {
        workdir.write(name, text);
        let run = workdir.run("rv-score").args(["eval", "-m", "dt.json"]);
        let run = run.args(["-d", "records.ndjson", "--labels", name, "--json"]);
        let run = run
            .args(["--missing", "lost,-1"])
            .args(flags.split_whitespace());
        let report = crate::harness::json(run.succeeds().stdout());
        for (count, expected) in [
            ("rows", 2),
            ("unlabelled", 2),
            ("repeated", 1),
            ("leftOut", 0),
        ] {
            assert_eq!(report[count], expected, "{name} {flags}: {count}");
        }
    }
    workdir.write("labels.csv", "messageId,target\nr0,0\nr0,1\n");
    let run = workdir.run("rv-score").args(["eval", "-m", "dt.json"]);
    let finished = run
        .args(["-d", "records.ndjson", "--labels", "labels.csv"])
        .exits(3);
    let said = &finished.stderr;
    assert!(
        said.contains("labels.csv:3: message \"r0\" has two labels, \"0\" and \"1\""),
        "{said}"
    );
}

#[test]
fn a_row_that_the_model_cannot_evaluate_is_reported_and_the_others_count() {
    let workdir = Workdir::new();
    workdir.train("decision-tree", "dt", 1);
    let head = "sepalLength,sepalWidth,petalLength,petalWidth,target\n";
    let rows = "5.1,3.5,1.4,0.2,0\n5.1,wide,1.4,0.2,0\n6.3,3.3,6.0,2.5,2\n";
    workdir.write("rows.csv", format!("{head}{rows}"));
    let run = workdir.run("rv-score").args(["eval", "-m", "dt.json"]);
    let finished = run
        .args(["-d", "rows.csv", "--rejects", "rejects"])
        .exits(1);
    let text = finished.stdout();
    assert!(
        text.contains("accuracy 1.0000 (2 of 2 rows right)"),
        "{text}"
    );
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let reject = json(workdir.read("rejects").trim_end());
    assert_eq!(reject["line"], 3);
    assert!(
        reject["reason"]
            .as_str()
            .unwrap()
            .contains("\"sepalWidth\"")
    );

    let run = workdir.run("rv-score").args(["eval", "-m", "dt.json"]);
    let finished = run.args(["-d", "rows.csv", "--target", "kind"]).exits(2);
    let said = &finished.stderr;
    assert!(said.contains("has no column \"kind\""), "{said}");
}

#[test]
fn inspect_fits_a_terminal() {
    let workdir = Workdir::new();
    for algorithm in ["random-forest", "decision-tree", "logistic-regression"] {
        let model = workdir.train(algorithm, "m", 1);
        let run = workdir.run("rv-score").args(["inspect", &model]);
        let finished = run.succeeds();
        let text = finished.stdout();
        assert!(text.contains("95 % interval of the accuracy"), "{text}");
        assert!(text.contains("data SHA-256 "), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
