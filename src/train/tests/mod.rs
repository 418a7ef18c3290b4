//! Training, file and answers together.

mod refusals;

use clap::Parser;
use proptest::prelude::*;

use super::*;
use crate::model::finite_number;
use crate::stage::Stage;
use crate::stage::cli::RunArgs;
use crate::train::TrainArgs;

const IRIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/iris.csv");

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    train: TrainArgs,
}

/// What one training left behind.
pub struct Outcome {
    pub result: Result<()>,
    /// The model file, where there is one.
    pub text: Option<String>,
    /// The rejected rows.
    pub rejects: String,
}

impl Outcome {
    /// The whole error message.
    pub fn message(&self) -> String {
        match &self.result {
            Ok(()) => String::new(),
            Err(error) => format!("{error:#}"),
        }
    }

    /// How many rows were trained on and how many were left out.
    pub fn rows(&self) -> (u64, u64) {
        let training = self.model().about.training;
        (training.rows, training.left_out)
    }

    fn model(&self) -> Model {
        assert_eq!(self.message(), "");
        Model::from_text(self.text.as_ref().unwrap()).unwrap()
    }
}

/// Trains on a file in a folder of its own, with `flags` separated by blanks.
pub fn train(path: &str, flags: &str) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (output, rejects) = (inside("model.json"), inside("rejects.ndjson"));
    let fixed = format!(
        "rv-score --quiet --rejects {rejects} --input {path} --output {output} --name m --model-version 3 {flags}"
    );
    let line = CommandLine::try_parse_from(fixed.split_whitespace()).unwrap();
    let mut stage = Stage::new("rv-score", &line.run).unwrap();
    let result = run(line.train, &mut stage);
    stage.report.flush().unwrap();
    let leftovers = std::fs::read_dir(folder.path()).unwrap().count();
    let text = std::fs::read_to_string(&output).ok();
    assert_eq!(leftovers, 1 + usize::from(text.is_some()));
    Outcome {
        result,
        text,
        rejects: std::fs::read_to_string(&rejects).unwrap(),
    }
}

/// Trains on `data` in a file called `name`.
pub fn train_on(name: &str, data: &[u8], flags: &str) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, data).unwrap();
    train(path.to_str().unwrap(), flags)
}

fn iris(flags: &str) -> Outcome {
    let flags =
        format!("--target target --features sepalLength,sepalWidth,petalLength,petalWidth {flags}");
    train(IRIS, &flags)
}

#[test]
fn every_algorithm_learns_iris() {
    for algorithm in ["decision-tree", "linfa-tree", "logistic-regression"] {
        let model = iris(&format!("--algorithm {algorithm}")).model();
        assert_eq!((model.name(), model.version()), ("m", 3));
        assert_eq!(model.hash().len(), 16);
        assert_eq!(model.features()[3], "petalWidth");
        let labels: Vec<&str> = (0..model.class_count())
            .map(|class| model.label(class))
            .collect();
        assert_eq!(labels, ["0", "1", "2"]);
        let metrics = model.about.metrics.held_out.as_ref().unwrap();
        assert_eq!(metrics.rows, 30);
        assert!(metrics.accuracy > 0.85, "{algorithm}: {}", metrics.accuracy);

        let mut row = Vec::new();
        let input = r#"{"petalWidth":0.2,"sepalLength":5.1,"other":[1],"sepalWidth":3.5,"petalLength":1.4}"#;
        model.read_input(input, &mut row).unwrap();
        assert_eq!(row, [5.1, 3.5, 1.4, 0.2]);
        let mut probabilities = vec![7.0; 9];
        assert_eq!(model.evaluate(&row, &mut probabilities), 0);
        assert_eq!(probabilities.len(), 3);
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(probabilities[0] > 0.9);
    }
}

#[test]
fn the_same_rows_and_seed_give_the_same_bytes() {
    for algorithm in [
        "decision-tree --max-depth 4",
        "logistic-regression --l2 0.5",
    ] {
        let flags = format!("--algorithm {algorithm} --seed 7");
        let first = iris(&flags).text.unwrap();
        assert_eq!(iris(&flags).text.unwrap(), first);
        assert_ne!(iris(&flags.replace("7", "8")).text.unwrap(), first);
    }
}

#[test]
fn without_held_out_rows_there_are_no_metrics() {
    let model = iris("--algorithm decision-tree --holdout 0").model();
    assert!(model.about.metrics.held_out.is_none());
    assert_eq!(model.about.training.rows, 150);
    assert_eq!(model.about.profile.features[0].count, 150);
}

#[test]
fn each_class_is_held_out_alike() {
    let model = iris("--algorithm decision-tree --holdout 0.3").model();
    let confusion = &model.about.metrics.held_out.as_ref().unwrap().confusion;
    let rows: Vec<u64> = confusion.iter().map(|line| line.iter().sum()).collect();
    assert_eq!(rows, [15, 15, 15]);
}

#[test]
fn labels_may_be_words_and_rows_may_be_json() {
    let model = train(
        IRIS,
        "--target species --features petalLength,petalWidth --algorithm decision-tree",
    )
    .model();
    assert_eq!(model.label(2), "\"virginica\"");

    let rows: String = (0..20)
        .map(|row| format!("{{\"b\":{row},\"kind\":{},\"a\":1.5e0}}\n", row > 9))
        .collect();
    for (name, bom) in [
        ("rows.ndjson", ""),
        ("rows", "\u{feff}"),
        ("rows", "\n\n  "),
    ] {
        let data = format!("{bom}{rows}");
        let model = train_on(
            name,
            data.as_bytes(),
            "--target kind --algorithm decision-tree",
        );
        let model = model.model();
        assert_eq!(model.features(), ["b", "a"]);
        assert_eq!(model.label(1), "true");
    }
}

#[test]
fn csv_comes_in_many_forms() {
    let plain = "a,b,y\n1,2,no\n2,2,no\n8,3,yes\n9,4,yes\n1,1,no\n7,7,yes\n";
    let flags = "--target y --algorithm decision-tree --holdout 0";
    let expected = train_on("plain.csv", plain.as_bytes(), flags).text.unwrap();
    for (form, data) in [
        ("CRLF", plain.replace('\n', "\r\n")),
        ("BOM", format!("\u{feff}{plain}")),
        ("no last newline", plain.trim_end().to_owned()),
        ("blank lines", plain.replace('\n', "\n\n\r\n")),
        ("spaces", plain.replace(',', " , ")),
        (
            "quotes",
            plain
                .replace("no", "\"no\"")
                .replace("1,", "\"1\",")
                .replace("a,", "\"a\","),
        ),
    ] {
        let outcome = train_on("form.csv", data.as_bytes(), flags);
        assert_eq!(outcome.message(), "", "{form}");
        assert_eq!(outcome.text.unwrap(), expected, "{form}");
    }
    // A label may hold anything that a quoted field can.
    let data = plain.replace("yes", "\"y,\n\"\"es\"");
    let model = train_on("quoted.csv", data.as_bytes(), flags).model();
    assert_eq!(model.label(1), r#""y,\n\"es""#);
}

#[test]
fn compressed_rows_are_read() {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&std::fs::read(IRIS).unwrap()).unwrap();
    let flags = "--target species --features petalLength,petalWidth --algorithm decision-tree";
    let compressed = train_on("iris.csv.gz", &gzip.finish().unwrap(), flags);
    assert_eq!(compressed.text, train(IRIS, flags).text);
}

#[test]
fn lines_are_counted_from_the_first_though_it_is_blank() {
    let data = b"\n \r\na,y\n\n1,no\nx,no\n";
    let message = train_on("rows", data, "--target y --algorithm decision-tree").message();
    assert!(message.contains("rows:6: row 2: column \"a\""), "{message}");
    let message = train_on("rows", b"\n\n1,2\n", "--target y --algorithm decision-tree").message();
    assert!(
        message.contains("rows:3: the first line holds numbers"),
        "{message}"
    );
}

proptest! {
    #[test]
    fn a_number_is_what_the_standard_library_makes_of_it(
        text in "-?(0|[1-9][0-9]{0,18})(\\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?",
    ) {
        let expected = text.parse::<f64>().unwrap();
        let expected = expected.is_finite().then_some(expected.to_bits());
        prop_assert_eq!(finite_number(&text).map(f64::to_bits), expected, "{}", text);
    }
}

#[test]
fn a_bad_input_is_told_in_a_few_words() {
    let model = iris("--algorithm decision-tree").model();
    let mut row = vec![1.0; 40];
    let good = r#"{"sepalLength":5.1,"sepalWidth":3.5,"petalLength":1.4,"petalWidth":0.2}"#;
    for (from, to, reason) in [
        (good, "[1]", "modelInput is not an object"),
        (good, "null", "modelInput is not an object"),
        (
            ",\"petalWidth\":0.2",
            "",
            "feature \"petalWidth\" is missing",
        ),
        ("0.2", "\"0.2\"", "feature \"petalWidth\" is not a number"),
        ("0.2", "null", "feature \"petalWidth\" is not a number"),
        ("0.2", "1e400", "feature \"petalWidth\" is out of range"),
        ("0.2", "-1e400", "feature \"petalWidth\" is out of range"),
        (
            "sepalWidth",
            "petalWidth",
            "feature \"petalWidth\" stands there twice",
        ),
    ] {
        let input = good.replacen(from, to, 1);
        assert_eq!(model.read_input(&input, &mut row), Err(reason.to_owned()));
    }
    for input in [
        good.to_owned(),
        good.replace("petalWidth", "petal\\u0057idth"),
        good.replace("0.2", "12345678901234567890123"),
        good.replace("0.2", "1e-400"),
        format!(" {good} "),
    ] {
        assert_eq!(model.read_input(&input, &mut row), Ok(()), "{input}");
        assert_eq!(row.len(), 4);
    }
}

#[test]
fn a_missing_model_is_named() {
    let error = Model::load("/nonexistent/m.json").unwrap_err();
    assert!(format!("{error:#}").starts_with("/nonexistent/m.json: cannot open"));
    let error = Model::load(IRIS).unwrap_err().to_string();
    assert!(error.contains("iris.csv: is not a model file"), "{error}");
}

/// The model file of a small tree and of a small regression, as written.
fn small_files() -> Vec<String> {
    ["decision-tree --max-depth 2", "logistic-regression"]
        .iter()
        .map(|algorithm| iris(&format!("--algorithm {algorithm}")).text.unwrap())
        .collect()
}

#[test]
fn a_file_with_a_wrong_part_is_refused_though_its_hash_is_right() {
    let files = small_files();
    for (file, from, to, reason) in [
        (
            0,
            "\"name\": \"m\"",
            "\"name\": \"m@1\"",
            "the name of a model",
        ),
        (0, "\"version\": 3", "\"version\": -3", "invalid value"),
        (0, "decision-tree", "pickle", "unknown variant"),
        (0, "[0,1,2]", "[0]", "fewer than two classes"),
        (0, "[0,1,2]", "[0,1]", "confusion matrix"),
        (0, "[0,1,2]", "[0,1,\"2\"]", "not all strings"),
        (0, "[0,1,2]", "[[],[],[]]", "not all strings"),
        (0, "[0,1,2]", "[0,1,1]", "class \"1\" stands there twice"),
        (0, "\"sepalWidth\"", "\"sepalLength\"", "stands there twice"),
        (
            0,
            "\"feature\":2",
            "\"feature\":9",
            "feature that is not there",
        ),
        (0, "\"nodes\"", "\"knots\"", "unknown field"),
        (0, "decision-tree", "logistic-regression", "unknown field"),
        (1, "\"scales\": [0", "\"scales\": [-0", "out of range"),
        (1, "\"means\": [", "\"means\": [1,", "do not fit"),
        (1, "logistic-regression", "decision-tree", "unknown field"),
    ] {
        let (model, _) = file::unwrap(&files[file]).unwrap();
        let changed = model.replacen(from, to, 1);
        assert_ne!(changed, model, "{from}");
        let fault = Model::from_text(&file::wrap(&changed)).unwrap_err();
        assert!(
            fault.contains(reason) && fault.contains("train it again"),
            "{fault}"
        );
    }
    let (model, _) = file::unwrap(&files[0]).unwrap();
    let many = format!("[{}0]", "0,".repeat(100_000));
    let fault = Model::from_text(&file::wrap(&model.replacen("[0,1,2]", &many, 1))).unwrap_err();
    assert!(fault.contains("longer than 1000"), "{fault}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_damaged_file_is_an_error_and_never_a_panic(
        file in 0usize..2,
        changes in proptest::collection::vec((0.0..1.0f64, any::<u8>(), 0usize..4), 1..4),
        keep_hash in any::<bool>(),
    ) {
        use std::sync::LazyLock;
        static FILES: LazyLock<Vec<String>> = LazyLock::new(small_files);
        let whole = FILES[file].as_str();
        let text = if keep_hash { whole } else { file::unwrap(whole).unwrap().0 };
        let mut bytes = text.as_bytes().to_vec();
        for (place, byte, kind) in changes {
            let at = (place * bytes.len() as f64) as usize;
            match kind {
                0 => bytes[at] = byte,
                1 => bytes[at] = b"0123456789-.e[]{},:\""[usize::from(byte) % 20],
                2 => { bytes.remove(at); }
                _ => bytes.truncate(at.max(1)),
            }
        }
        let damaged = String::from_utf8_lossy(&bytes).into_owned();
        let outcome = if keep_hash {
            Model::from_text(&damaged)
        } else {
            Model::from_text(&file::wrap(&damaged))
        };
        if let Ok(model) = outcome {
            // Then it has to work.
            let mut probabilities = Vec::new();
            let class = model.evaluate(&[5.0, 3.0, 1.0, 0.2], &mut probabilities);
            prop_assert!(!model.label(class).is_empty());
        }
    }
}
