use clap::Parser;

use super::*;
use crate::stage::cli::RunArgs;
use crate::train::eval::labelled_rows::RowCounts;
use crate::train::tests::train_on;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    eval: EvalArgs,
}

/// Measures a model on the rows of a file.
fn report(model: &Model, name: &str, data: &[u8]) -> (serde_json::Value, RowCounts) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, data).unwrap();
    let line = ["rv-score", "--quiet", "--model", "m", "--data", "d"];
    let line = CommandLine::try_parse_from(line).unwrap();
    assert!(!line.eval.check().unwrap().json);
    let mut stage = Stage::new("rv-score", &line.run).unwrap();
    let truths = Truths::new(&model.description().labels());
    let rows = LabelledRows {
        features: model.features(),
        target: "y",
        truths: &truths,
        format: None,
        labels: None,
        skip_bad_rows: true,
        delimiter: None,
        decimal_comma: false,
    };
    let mut answers = Answers::new(model.description().classes.len());
    let (mut row, mut probabilities) = (Vec::new(), Vec::new());
    let address = Address::from(path.to_str().unwrap());
    let counts = rows
        .read(&mut stage, &address, |input, truth| {
            model.read_input(input, &mut row)?;
            let prediction = model.predict(&row, &mut probabilities);
            answers.push(truth, prediction, &probabilities).unwrap();
            Ok(())
        })
        .unwrap();
    let report = Report::new(model, &answers, &counts);
    assert!(!report.text(&model.description().labels()).is_empty());
    (serde_json::to_value(&report).unwrap(), counts)
}

/// A tree that says `yes` above 5.
fn model() -> Model {
    let rows: String = (0..20)
        .map(|row| format!("{row},{}\n", if row > 5 { "yes" } else { "no" }))
        .collect();
    let data = format!("x,y\n{rows}");
    train_on(
        "rows.csv",
        data.as_bytes(),
        "--target y --algorithm decision-tree --holdout 0",
    )
    .model()
}

#[test]
fn figures_are_as_by_hand() {
    // In these rows, three `no` and two `yes` are predicted right, one `yes` is
    // predicted as `no`, and two `no` are predicted as `yes`. There is also a row
    // without a label, a row with an unknown label, and a row that the model cannot
    // read.
    let data = "y,other,x\nno,a,1\nno,a,2\nno,a,3\nyes,a,4\nyes,a,7\nyes,a,8\nno,a,9\nno,a,10\n\
                ,a,1\nmaybe,a,1\nyes,a,word\n";
    let (report, counts) = report(&model(), "rows.csv", data.as_bytes());
    assert_eq!(
        (counts.rows, counts.unlabelled, counts.left_out),
        (11, 1, 2)
    );
    assert_eq!(report["rows"], 8);
    assert_eq!(report["accuracy"], 0.625);
    assert_eq!(report["confusion"], serde_json::json!([[3, 2], [1, 2]]));
    let no = &report["classes"]["perClass"][0];
    assert_eq!(
        (&no["label"], &no["rows"], &no["predicted"]),
        (&"no".into(), &5.into(), &4.into())
    );
    assert_eq!(
        (&no["precision"], &no["recall"]),
        (&0.75.into(), &0.6.into())
    );
    assert!((no["f1"].as_f64().unwrap() - 6.0 / 9.0).abs() < 1e-12);
    // Of 3 * 5 pairs, 2 * 3 are in order, and 1 * 3 + 2 * 2 are equal.
    let auc = report["classes"]["rocAuc"].as_f64().unwrap();
    assert!((auc - (6.0 + 3.5) / 15.0).abs() < 1e-12, "{auc}");
    let calibration = report["classes"]["calibration"].as_array().unwrap();
    assert_eq!(calibration.len(), 2);
    assert_eq!(
        (&calibration[0]["rows"], &calibration[0]["share"]),
        (&4.into(), &0.25.into())
    );
    assert_eq!(
        (&calibration[1]["rows"], &calibration[1]["share"]),
        (&4.into(), &0.5.into())
    );
    let error = report["classes"]["calibrationError"].as_f64().unwrap();
    assert!((error - (0.25 * 4.0 + 0.5 * 4.0) / 8.0).abs() < 1e-12);
    assert!(report["logLoss"].as_f64().unwrap() > 10.0);
}

#[test]
fn csv_and_ndjson_give_the_same_figures() {
    let csv = "x,y\n1,no\n7,yes\n8,no\n";
    let ndjson =
        "{\"x\":1,\"y\":\"no\"}\n{\"y\":\"yes\",\"x\":7.0}\n{\"x\":8,\"y\":\"no\",\"z\":[]}\n";
    let tabs = csv.replace(',', "\t");
    let model = model();
    let (expected, _) = report(&model, "rows.csv", csv.as_bytes());
    assert_eq!(expected["rows"], 3);
    for (name, data) in [
        ("rows.ndjson", ndjson),
        ("rows", ndjson),
        ("rows.tsv", &tabs),
        ("rows", &tabs),
    ] {
        assert_eq!(report(&model, name, data.as_bytes()).0, expected, "{name}");
    }
}
