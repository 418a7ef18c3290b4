use clap::Parser;
use proptest::prelude::*;

use super::*;
use crate::model::feature::Missing;
use crate::model::features::FeatureReader;
use crate::stage::cli::RunArgs;
use crate::train::answers::Truth;
use crate::train::eval::labelled_rows::RowCounts;
use crate::train::syntax_args::RowSyntax;
use crate::train::table_tests::{options, table};
use crate::train::tests::train_on;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    eval: EvalArgs,
}

/// A stage that prints nothing.
fn stage() -> Stage {
    let line = ["rv-score", "--quiet", "--model", "m", "--data", "d"];
    let line = CommandLine::try_parse_from(line).unwrap();
    assert!(!line.eval.check().unwrap().json);
    Stage::new("rv-score", &line.run).unwrap()
}

/// Measures a model on the rows of a file.
fn report(model: &Model, name: &str, data: &[u8]) -> (serde_json::Value, RowCounts) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, data).unwrap();
    let mut stage = stage();
    let truths = Truths::new(&model.description().labels());
    let rows = LabelledRows {
        features: model.features(),
        target: "y",
        truths: &truths,
        format: None,
        labels: None,
        skip_bad_rows: true,
        syntax: &RowSyntax::default(),
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

/// What eval reads from the rows of a file: the values of each row that it can use, and
/// its truth.
fn read_rows(
    name: &str,
    data: &[u8],
    table: &crate::train::table::Table,
    flags: &str,
) -> (Vec<Vec<f64>>, Vec<Truth>, RowCounts) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, data).unwrap();
    let (_, options) = options(path.to_str().unwrap(), flags).unwrap();
    let labels: Vec<&str> = table.classes.iter().map(String::as_str).collect();
    let truths = Truths::new(&labels);
    let mut features = table.features.clone();
    // A missing value stays one, so that it can be compared.
    features
        .iter_mut()
        .for_each(|feature| feature.missing = Missing::Pass);
    let reader = FeatureReader::new(features.clone(), false);
    let rows = LabelledRows {
        features: &features,
        target: "y",
        truths: &truths,
        format: options.format,
        labels: None,
        skip_bad_rows: true,
        syntax: &options.syntax,
    };
    let (mut row, mut values, mut found) = (Vec::new(), Vec::new(), Vec::new());
    let address = Address::from(path.to_str().unwrap());
    let visit = |input: &str, truth| {
        reader.read(input, &mut row)?;
        values.push(row.clone());
        found.push(truth);
        Ok(())
    };
    let counts = rows.read(&mut stage(), &address, visit).unwrap();
    (values, found, counts)
}

/// The rows of a table in the form of [`read_rows`].
fn trained_rows(table: &crate::train::table::Table) -> (Vec<Vec<f64>>, Vec<Truth>) {
    let rows = &table.rows;
    let values = (0..rows.len()).map(|row| rows.row(row).to_vec());
    let classes = rows.class_of.iter();
    let classes = classes.map(|class| Truth::Class(*class as usize));
    let numbers = rows.targets.iter().map(|number| Truth::Number(*number));
    (values.collect(), classes.chain(numbers).collect())
}

/// Whether two lists of rows have the same values. A missing value equals another one.
fn are_same(one: &[Vec<f64>], other: &[Vec<f64>]) -> bool {
    let bits = |rows: &[Vec<f64>]| -> Vec<Vec<Option<u64>>> {
        let bits = |value: &f64| (!value.is_nan()).then(|| (value + 0.0).to_bits());
        let row = |row: &Vec<f64>| row.iter().map(bits).collect();
        rows.iter().map(row).collect()
    };
    bits(one) == bits(other)
}

/// The fields of a generated CSV row: a number, two categories, and the target.
fn fields(comma: bool) -> impl Strategy<Value = [String; 4]> {
    let point = if comma { "," } else { "." };
    let number = move || {
        prop_oneof![
            6 => (-50i32..50).prop_map(|one| one.to_string()),
            4 => (-50i32..50, 0u32..100).prop_map(move |(one, part)| format!("{one}{point}{part}")),
            1 => prop_oneof![
                Just("+7"), Just("007"), Just("1e2"), Just("-0"), Just(""), Just("NA"), Just("?"),
                Just("lost"), Just("LOST"), Just("-999"), Just("TRUE"), Just("false"), Just("1e999"),
                Just("inf"), Just("oops"), Just("1,5"), Just("1.5"), Just("12345678901234567890"),
            ]
            .prop_map(str::to_owned),
        ]
    };
    let code = prop_oneof![
        6 => (0u32..4).prop_map(|one| one.to_string()),
        3 => (0u32..4).prop_map(move |one| format!("{one}{point}0")),
        1 => prop_oneof![Just(""), Just("lost"), Just("-999")].prop_map(str::to_owned),
    ];
    let flag = prop_oneof![
        Just("TRUE"),
        Just("true"),
        Just("False"),
        Just("false"),
        Just(""),
        Just("Lost"),
    ];
    let target = prop_oneof![
        8 => (0u32..3).prop_map(|one| one.to_string()),
        4 => (0u32..3).prop_map(move |one| format!("{one}{point}0")),
        1 => prop_oneof![Just(""), Just("LOST"), Just("-999"), Just("NA"), Just("oops")]
            .prop_map(str::to_owned),
    ];
    (number(), code, flag, target)
        .prop_map(|(number, code, flag, target)| [number, code, flag.to_owned(), target])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However the cells are written, evaluation reads the rows that training reads, and
    /// reads the same values from them.
    #[test]
    fn a_row_is_read_in_evaluation_as_in_training(
        (comma, rows) in proptest::bool::ANY.prop_flat_map(|comma| {
            (Just(comma), proptest::collection::vec(fields(comma), 30..80))
        }),
        task in prop_oneof![Just("classify"), Just("regress")],
    ) {
        let lines: Vec<String> = rows.iter().map(|row| row.join(";") + "\n").collect();
        let data = "x;code;flag;y\n".to_owned() + &lines.concat();
        let flags = format!(
            "--skip-bad-rows --missing lost,-999 --numeric x --categorical code,flag \
             --features x,code,flag --task {task} --delimiter ; --decimal {}",
            if comma { ',' } else { '.' },
        );
        let trained = table("rows.csv", &data, &flags);
        prop_assume!(trained.is_ok());
        let trained = trained.unwrap();
        let (values, truths, counts) = read_rows("rows.csv", data.as_bytes(), &trained, &flags);
        let (expected, expected_truths) = trained_rows(&trained);
        prop_assert_eq!(truths, expected_truths);
        prop_assert!(are_same(&values, &expected), "{:?}\n{:?}", values, expected);
        prop_assert_eq!(counts.rows, rows.len() as u64);
        prop_assert_eq!(counts.unlabelled + counts.left_out, trained.left_out);
    }
}

#[test]
fn tables_that_training_accepts_are_accepted() {
    let plain: String = (0..20)
        .map(|row| format!("{row},{},{}\n", row % 5, ["no", "yes"][row % 2]))
        .collect();
    let with = |header: &str, end: &[u8]| {
        let mut bytes = format!("{header}\n").into_bytes();
        for line in plain.lines() {
            bytes.extend_from_slice(line.as_bytes());
            bytes.extend_from_slice(end);
            bytes.push(b'\n');
        }
        bytes
    };
    for (data, flags) in [
        (with("a,b,y", b""), ""),
        // Spreadsheets write separators behind the table, or only in the header.
        (with("a,b,y", b",,"), ""),
        (with("a,b,y,,", b""), ""),
        // Columns that are not used may be in another encoding or occur twice.
        (with("a,b,y,n", b",J\xfcrgen"), "--features a,b"),
        (with("a,b,y,n,n", b",1,2"), "--features a,b"),
        (
            [b"a,b,y,gr\xf6".to_vec(), with("", b",1")].concat(),
            "--features a,b",
        ),
    ] {
        let flags = format!("--skip-bad-rows {flags}");
        let trained = table("rows.csv", &data, &flags).unwrap();
        assert_eq!(trained.rows.len(), 20);
        let (values, truths, counts) = read_rows("rows.csv", &data, &trained, &flags);
        let (expected, expected_truths) = trained_rows(&trained);
        assert_eq!((values, truths), (expected, expected_truths));
        assert_eq!((counts.rows, counts.left_out), (20, 0));
    }
    let trained = table("rows.csv", with("a,b,y", b""), "").unwrap();
    let wide = with("a,b,y", b"")
        .into_iter()
        .chain(*b"1,2,no,4\n1\n3,3,yes\n")
        .collect::<Vec<u8>>();
    let (values, _, counts) = read_rows("rows.csv", &wide, &trained, "");
    assert_eq!((values.len(), counts.rows, counts.left_out), (21, 23, 2));
}

#[test]
fn markers_count_in_json_rows_and_their_labels() {
    let row = |x: &str, y: &str| format!("{{\"x\":{x},\"in\":{{\"z\":{x}}},\"y\":{y}}}\n");
    let data: String = (0..30)
        .map(|one| row(&one.to_string(), &format!("{one}.5")))
        .collect();
    let flags = "--features x,/in/z --missing -999,lost --skip-bad-rows";
    let trained = table("rows.ndjson", &data, flags).unwrap();
    let other = row("5", "1.5")
        + &row("-999.0", "2.5")
        + &row("\"Lost\"", "3")
        + &row("1", "-999")
        + &row("1", "\"lost\"")
        + "{\"x\":1}\n"
        + &row("1", "\"4\"")
        + &row("1", "1e200");
    let (values, truths, counts) = read_rows("rows.ndjson", other.as_bytes(), &trained, flags);
    assert_eq!(truths, [1.5, 2.5, 3.0].map(Truth::Number));
    let gap = f64::NAN;
    assert!(
        are_same(&values, &[vec![5.0, 5.0], vec![gap, gap], vec![gap, gap]]),
        "{values:?}"
    );
    // A string is no number, and a number whose square overflows cannot be measured.
    assert_eq!((counts.rows, counts.unlabelled, counts.left_out), (8, 3, 2));
}
