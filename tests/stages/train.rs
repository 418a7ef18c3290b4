//! Tests of rv-score train, which makes models from tables of many kinds.

use crate::harness::{Finished, Workdir, json};

/// Trains with these flags on a file in the folder.
fn train(workdir: &Workdir, input: &str, flags: &str) -> Finished {
    workdir
        .run("rv-score")
        .args([
            "train",
            "--input",
            input,
            "--target",
            "y",
            "--algorithm",
            "decision-tree",
        ])
        .args(["--name", "m", "--model-version", "1", "--output", "m.json"])
        .args(flags.split_whitespace())
        .finish()
}

/// The result for one `modelInput`, or the message of the error.
fn result(workdir: &Workdir, input: &str) -> String {
    let request = format!("{{\"messageId\":\"a\",\"timestamp\":1,\"modelInput\":{input}}}");
    let run = workdir.run("rv-score").args(["--model", "m.json"]);
    let score = json(run.input(request).succeeds().lines()[0]);
    match score.get("error") {
        Some(error) => error["message"].as_str().unwrap().to_owned(),
        None => score["result"]["result"].to_string(),
    }
}

fn rows(header: &str, count: usize, row: impl Fn(usize) -> String) -> String {
    let rows: Vec<String> = (0..count).map(row).collect();
    format!("{header}\n{}\n", rows.join("\n"))
}

#[test]
fn one_table_says_what_each_column_is_taken_for() {
    let workdir = Workdir::new();
    let table = rows("id,load,kind,\u{1b}[2Jname,,y", 40, |row| {
        let kind = ["pump", "fan"][row % 2];
        format!(
            "r{row},{}.5,{kind},same,{row},{}",
            row % 7,
            ["runs", "trips"][row % 2]
        )
    });
    workdir.write("rows.csv", table);
    let finished = train(&workdir, "rows.csv", "");
    finished.assert_status(0);
    let expected = "\
rv-score: rows.csv: 40 rows, 0 left out; the columns are taken for:
rv-score:   y              target: 2 classes  runs 20, trips 20
rv-score:   load           numbers            0.5 .. 6.5
rv-score:   kind           2 categories       fan 20, pump 20
rv-score:   (column 5)     not used           has no name
rv-score:   id             not used           has 40 different texts in 40 rows, like an id or free text; --categorical uses it
rv-score:   \\u{1b}[2Jname  not used           has only one value, \"same\"
";
    assert!(finished.stderr.starts_with(expected), "{finished}");
    let quiet = train(&workdir, "rows.csv", "--quiet");
    assert_eq!(quiet.stderr, "", "{quiet}");
}

#[test]
fn a_row_that_turns_out_to_be_bad_is_set_aside_as_it_was_written() {
    let workdir = Workdir::new();
    let table = rows("a,b,y", 60, |row| match row {
        9 => "9,\"oops, no number\", 1".to_owned(),
        20 => "20,3,NA".to_owned(),
        _ => format!("{row},{},{}", row % 5, row % 2),
    });
    workdir.write("rows.csv", &table);
    let finished = train(&workdir, "rows.csv", "");
    finished.assert_status(3);
    let place = "rows.csv:11: row 10: column \"b\": \"oops, no number\" is not a number";
    assert!(finished.stderr.contains(place), "{finished}");
    let finished = train(
        &workdir,
        "rows.csv",
        "--skip-bad-rows --rejects rejects.ndjson",
    );
    finished.assert_status(1);
    let rejects = workdir.read("rejects.ndjson");
    let rejects: Vec<_> = rejects.lines().map(json).collect();
    assert_eq!(rejects.len(), 2);
    for (reject, raw) in rejects.iter().zip(["9,\"oops, no number\", 1", "20,3,NA"]) {
        assert_eq!(reject["raw"], raw);
        assert_eq!(reject["offset"], table.find(raw).unwrap());
    }
    assert!(
        finished.stderr.contains("rows.csv: 60 rows, 2 left out"),
        "{finished}"
    );
}

#[test]
fn a_missing_target_is_refused_or_set_aside() {
    let workdir = Workdir::new();
    for marker in ["NA", "NaN", "null", "?", "inf"] {
        let table = rows("a,y", 40, |row| match row % 13 {
            3 => format!("{row},{marker}"),
            _ => format!("{row},{}", row % 2),
        });
        workdir.write("rows.csv", table);
        let finished = train(&workdir, "rows.csv", "");
        finished.assert_status(3);
        assert!(
            finished
                .stderr
                .contains("rows.csv:5: row 4: column \"y\", the target"),
            "{finished}"
        );
        let finished = train(&workdir, "rows.csv", "--skip-bad-rows");
        finished.assert_status(1);
        assert!(finished.stderr.contains("target: 2 classes"), "{finished}");
        // The marker is no class, so only its row is lost.
        let description = workdir
            .run("rv-score")
            .args(["inspect", "--json", "m.json"])
            .succeeds();
        let description = json(description.stdout());
        assert_eq!(description["classes"], serde_json::json!([0, 1]));
        assert_eq!(description["training"]["leftOut"], 3);
        assert_eq!(result(&workdir, "{\"a\":2}"), "0");
    }
}

#[test]
fn a_value_inside_of_an_object_is_a_feature() {
    let workdir = Workdir::new();
    let input = |row: usize| {
        format!(
            "{{\"at\":{{\"s\":[{},{}]}},\"b\":{}}}",
            row % 5,
            row % 2,
            row % 3
        )
    };
    let line = |row: usize| {
        let input = input(row);
        format!("{},\"y\":{}}}\n", &input[..input.len() - 1], row % 2)
    };
    workdir.write("rows.ndjson", (0..40).map(line).collect::<String>());
    let finished = train(&workdir, "rows.ndjson", "");
    assert!(
        finished
            .stderr
            .contains("has objects or arrays; name a value inside"),
        "{finished}"
    );
    let flags = "--features /at/s/1,b";
    train(&workdir, "rows.ndjson", flags).assert_status(0);
    assert_eq!(result(&workdir, &input(1)), "1");
    assert_eq!(result(&workdir, &input(2)), "0");
    assert_eq!(
        result(&workdir, "{\"b\":1}"),
        "feature \"/at/s/1\" is missing"
    );
    // Training on recorded requests and a file of labels gives the same. The file of
    // labels may have tabs as separators.
    let request = |row: usize| {
        format!(
            "{{\"messageId\":\"{row}\",\"timestamp\":1,\"modelInput\":{}}}\n",
            input(row)
        )
    };
    workdir.write("requests.ndjson", (0..40).map(request).collect::<String>());
    workdir.write(
        "labels.tsv",
        rows("messageId\ty", 40, |row| format!("{row}\t{}", row % 2)),
    );
    let finished = train(
        &workdir,
        "requests.ndjson",
        &format!("{flags} --labels labels.tsv"),
    );
    finished.assert_status(0);
    assert_eq!(result(&workdir, &input(1)), "1");
}

#[test]
fn flags_that_name_nothing_are_errors_of_usage() {
    let workdir = Workdir::new();
    workdir.write(
        "rows.csv",
        rows("a,b,y", 20, |row| format!("{row},{},{}", row % 3, row % 2)),
    );
    for (flags, reason) in [
        ("--drop c", "has no column \"c\" for --drop"),
        ("--categorical c", "has no column \"c\" for --categorical"),
        ("--numeric c", "has no column \"c\" for --numeric"),
        ("--drop a --features b", "cannot be used with"),
        (
            "--categorical a --numeric a",
            "both --categorical and --numeric",
        ),
        ("--drop a --numeric a", "not among the features"),
        ("--numeric y", "--task regress"),
        ("--delimiter ::", "one ASCII character"),
        ("--decimal ;", "possible values"),
        ("--task guess", "possible values"),
    ] {
        let finished = train(&workdir, "rows.csv", flags);
        finished.assert_status(2);
        assert!(finished.stderr.contains(reason), "{finished}");
    }
}

#[test]
fn missing_values_and_categories_of_training_are_known_at_scoring() {
    let workdir = Workdir::new();
    let table = rows("mass,island,y", 60, |row| {
        let mass = match row {
            5 => "NA".to_owned(),
            6 => String::new(),
            _ => (row % 2 * 100 + row % 7).to_string(),
        };
        let island = if row == 8 {
            ""
        } else {
            ["Dream", "Biscoe"][row % 2]
        };
        format!("{mass},{island},{}", ["chick", "adult"][row % 2])
    });
    workdir.write("rows.csv", table);
    let finished = train(&workdir, "rows.csv", "");
    finished.assert_status(0);
    assert!(finished.stderr.contains("2 missing"), "{finished}");
    // The island alone decides, unless it is unknown.
    let described = workdir
        .run("rv-score")
        .args(["inspect", "--json", "m.json"])
        .succeeds();
    let features = json(described.stdout())["features"].clone();
    assert_eq!(features[0]["markers"], serde_json::json!(["NA"]));
    assert_eq!(
        features[1]["categories"],
        serde_json::json!(["Biscoe", "Dream"])
    );
    let fill = features[0]["fill"].as_f64().unwrap();
    for (input, same) in [
        (r#"{"mass":103,"island":"Biscoe"}"#, r#""adult""#),
        (r#"{"mass":3,"island":"Dream"}"#, r#""chick""#),
    ] {
        assert_eq!(result(&workdir, input), same, "{input}");
    }
    // A missing mass is the fill value, and a missing island is the most frequent one.
    for missing in [
        r#"{"mass":"NA","island":"Biscoe"}"#,
        r#"{"mass":null,"island":"Biscoe"}"#,
        r#"{"island":"Biscoe"}"#,
        r#"{}"#,
    ] {
        let filled = format!(r#"{{"mass":{fill},"island":"Biscoe"}}"#);
        assert_eq!(
            result(&workdir, missing),
            result(&workdir, &filled),
            "{missing}"
        );
    }
    let nowhere = result(&workdir, r#"{"mass":103,"island":"Nowhere"}"#);
    assert!(nowhere.starts_with('"'), "{nowhere}");
    assert_eq!(
        result(&workdir, r#"{"mass":"heavy"}"#),
        "feature \"mass\" is not a number"
    );
    assert!(result(&workdir, r#"{"mass":1,"island":[]}"#).contains("island"));
}
