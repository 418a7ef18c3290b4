//! Whole trainings, from the rows to the model. The unit tests of this folder use
//! the helpers here.

use clap::Parser;

use super::*;
use crate::model::feature::Feature;
use crate::model::prediction::Prediction;
use crate::stage::Stage;
use crate::stage::cli::RunArgs;
use crate::train::TrainArgs;

/// Rows of two classes that can be trained on, without a header.
pub const ROWS: &str = "1,2,no\n2,2,no\n8,3,yes\n9,4,yes\n1,1,no\n7,7,yes\n";

/// Trains a tree on all rows.
pub const TREE: &str = "--target y --algorithm decision-tree --holdout 0";

const IRIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/iris.csv");

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    train: TrainArgs,
}

/// The outcome of a training.
pub struct Outcome {
    pub result: Result<()>,
    /// The model file, if there is one.
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

    /// The numbers of rows that were trained on and left out.
    pub fn rows(&self) -> (u64, u64) {
        let model = self.model();
        let training = model.description().training.as_ref().unwrap();
        (training.rows, training.left_out)
    }

    /// The model. Panics if the training failed.
    pub fn model(&self) -> Model {
        assert_eq!(self.message(), "");
        Model::from_text(self.text.as_ref().unwrap()).unwrap()
    }
}

/// Trains on a file in its own folder, with `flags` separated by spaces.
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
        assert_eq!(model.features()[3].name, "petalWidth");
        assert_eq!(model.description().labels(), ["0", "1", "2"]);
        let metrics = model.description().metrics.held_out.as_ref().unwrap();
        assert_eq!(metrics.rows, 30);
        assert!(metrics.accuracy > 0.85, "{algorithm}: {}", metrics.accuracy);

        let mut row = Vec::new();
        let input = r#"{"petalWidth":0.2,"sepalLength":5.1,"other":[1],"sepalWidth":3.5,"petalLength":1.4}"#;
        model.read_input(input, &mut row).unwrap();
        assert_eq!(row, [5.1, 3.5, 1.4, 0.2]);
        let mut probabilities = vec![7.0; 9];
        assert_eq!(
            model.predict(&row, &mut probabilities),
            Prediction::Class(0)
        );
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
    assert!(model.description().metrics.held_out.is_none());
    assert_eq!(model.description().training.as_ref().unwrap().rows, 150);
    assert_eq!(
        model.description().profile.as_ref().unwrap().features[0].count,
        150
    );
}

#[test]
fn each_class_is_held_out_alike() {
    let model = iris("--algorithm decision-tree --holdout 0.3").model();
    let confusion = &model
        .description()
        .metrics
        .held_out
        .as_ref()
        .unwrap()
        .confusion;
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
    assert_eq!(model.description().labels()[2], "\"virginica\"");

    let rows: String = (0..20)
        .map(|row| {
            format!(
                "{{\"b\":{row},\"kind\":{},\"a\":{}.5e0}}\n",
                row > 9,
                row % 3
            )
        })
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
        assert_eq!(model.features(), ["b", "a"].map(Feature::number));
        assert_eq!(model.description().labels()[1], "true");
    }
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
