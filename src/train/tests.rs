//! Whole trainings, from the rows to the model. The unit tests of this folder use
//! the helpers here.

use clap::Parser;

use super::*;
use crate::model::damage::fuzz;
use crate::model::feature::{Domain, Feature, Unseen};
use crate::model::file;
use crate::model::metrics::{ClassMetrics, Metrics};
use crate::model::prediction::Prediction;
use crate::model::profile::Values;
use crate::stage::Stage;
use crate::stage::cli::RunArgs;
use crate::train::TrainArgs;
use crate::train::table::Rows;
use crate::train::trainer::TrainingData;

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

/// The text of a model file without the hashes, which depend on every byte of the data.
pub fn without_hashes(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.contains("ha256\": \""));
    lines.collect::<Vec<_>>().join("\n")
}

/// Rows of numbers, for the unit tests of the algorithms.
pub fn numbers_data(features: &[Feature], values: Vec<f64>, targets: Vec<f64>) -> TrainingData<'_> {
    data_of(
        features,
        0,
        Rows {
            width: features.len(),
            values,
            targets,
            ..Rows::default()
        },
    )
}

/// Rows with classes, for the unit tests of the algorithms.
pub fn classes_data(
    features: &[Feature],
    values: Vec<f64>,
    class_of: Vec<u32>,
) -> TrainingData<'_> {
    let class_count = class_of.iter().max().map_or(0, |last| *last as usize + 1);
    data_of(
        features,
        class_count,
        Rows {
            width: features.len(),
            values,
            class_of,
            ..Rows::default()
        },
    )
}

fn data_of(features: &[Feature], class_count: usize, training: Rows) -> TrainingData<'_> {
    TrainingData {
        features,
        class_count,
        held_out: Rows {
            width: features.len(),
            ..Rows::default()
        },
        training,
        class_weights: Vec::new(),
        seed: 0,
        threads: None,
    }
}

/// A feature with categories.
pub fn category(name: &str, categories: &[&str]) -> Feature {
    Feature {
        domain: Domain::Categories {
            categories: categories.iter().map(|one| (*one).to_owned()).collect(),
            unseen: Unseen::Other,
        },
        ..Feature::number(name)
    }
}

/// The held-out metrics of a classifier.
fn class_metrics(model: &Model) -> ClassMetrics {
    match model.description().metrics.held_out.clone() {
        Some(Metrics::Classes(metrics)) => metrics,
        other => panic!("{other:?}"),
    }
}

fn iris(flags: &str) -> Outcome {
    let flags =
        format!("--target target --features sepalLength,sepalWidth,petalLength,petalWidth {flags}");
    train(IRIS, &flags)
}

#[test]
fn every_algorithm_learns_iris() {
    for algorithm in [
        "random-forest",
        "decision-tree",
        "linfa-tree",
        "logistic-regression",
    ] {
        let model = iris(&format!("--algorithm {algorithm}")).model();
        assert_eq!((model.name(), model.version()), ("m", 3));
        assert_eq!(model.hash().len(), 16);
        assert_eq!(model.features()[3].name, "petalWidth");
        assert_eq!(model.description().labels(), ["0", "1", "2"]);
        let metrics = class_metrics(&model);
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
    let confusion = class_metrics(&model).confusion;
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

/// Rows whose class is `rare` for few of the large numbers.
fn unbalanced() -> String {
    let row = |row: u32| {
        let label = if row % 10 > 7 && row.is_multiple_of(3) {
            "rare"
        } else {
            "usual"
        };
        format!("{},{label}\n", row % 10)
    };
    "x,y\n".to_owned() + &(0..300).map(row).collect::<String>()
}

#[test]
fn the_default_is_a_forest_whose_bytes_do_not_depend_on_the_threads() {
    let data = unbalanced();
    let flags = "--target y --trees 8 --seed 3";
    let first = train_on("rows.csv", data.as_bytes(), flags);
    let run = first.model().description().training.clone().unwrap();
    assert_eq!(
        first.model().description().algorithm.name(),
        "random-forest"
    );
    assert_eq!((run.seed, run.parameters.trees), (3, Some(8)));
    for threads in ["1", "3"] {
        let flags = format!("{flags} --threads {threads}");
        assert_eq!(
            train_on("rows.csv", data.as_bytes(), &flags).text,
            first.text
        );
    }
}

#[test]
fn a_threshold_is_stored_and_applied() {
    let data = unbalanced();
    let model = |flags: &str| {
        let flags = format!("--target y --algorithm decision-tree {flags}");
        train_on("rows.csv", data.as_bytes(), &flags).model()
    };
    let mut probabilities = Vec::new();
    let plain = model("");
    assert_eq!(
        plain.predict(&[9.0], &mut probabilities),
        Prediction::Class(1)
    );
    let share = probabilities[0];
    assert!((0.2..0.5).contains(&share), "{share}");
    // The held-out metrics are measured with the rule, too.
    assert_eq!(class_metrics(&plain).confusion[0][0], 0);
    let eager = model("--threshold rare=0.1");
    assert_eq!(
        eager.predict(&[9.0], &mut probabilities),
        Prediction::Class(0)
    );
    assert_eq!(probabilities[0], share);
    assert!(class_metrics(&eager).confusion[0][0] > 0);
    assert_eq!(
        eager.predict(&[1.0], &mut probabilities),
        Prediction::Class(1)
    );
    // A rule may also name the label of the other class. It then predicts that class
    // only if its probability is at least 0.9.
    let other = model("--threshold usual=0.9");
    assert_eq!(
        other.predict(&[9.0], &mut probabilities),
        Prediction::Class(0)
    );
}

#[test]
fn balanced_classes_change_the_model_and_not_the_counts() {
    let data = unbalanced();
    for algorithm in [
        "decision-tree",
        "random-forest --trees 9",
        "logistic-regression",
    ] {
        let model = |flags: &str| {
            let flags = format!("--target y --algorithm {algorithm} {flags}");
            train_on("rows.csv", data.as_bytes(), &flags).model()
        };
        let (plain, balanced) = (model(""), model("--class-weight balanced"));
        let rare = |model: &Model| {
            let mut probabilities = Vec::new();
            model.predict(&[9.0], &mut probabilities);
            probabilities[0]
        };
        assert!(rare(&balanced) > rare(&plain) + 0.2, "{algorithm}");
        let rows = |model: &Model| class_metrics(model).confusion[0].iter().sum::<u64>();
        assert_eq!(rows(&balanced), rows(&plain));
    }
}

#[test]
fn rows_are_held_out_at_the_end_or_from_another_file() {
    let row = |row: u32| format!("{row},{}\n", if row % 4 > 1 { "a" } else { "b" });
    let header = "x,y\n".to_owned();
    let data = header.clone() + &(0..40).map(row).collect::<String>();
    let flags = "--target y --algorithm decision-tree";
    let last = train_on(
        "rows.csv",
        data.as_bytes(),
        &format!("{flags} --holdout-last 25%"),
    )
    .model();
    let run = last.description().training.clone().unwrap();
    assert_eq!((run.rows, run.held_out), (30, 10));
    let profile = last.description().profile.clone().unwrap();
    // The last training row has the largest number in training.
    let Values::Numbers { quantiles } = &profile.features[0].values else {
        panic!("numbers");
    };
    assert_eq!(quantiles.at(100), Some(29.0));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.csv");
    std::fs::write(&path, "y,x\na,2\nb,1\nb,2\n").unwrap();
    let with_file = format!("{flags} --holdout-file {}", path.display());
    let model = train_on("rows.csv", data.as_bytes(), &with_file).model();
    let run = model.description().training.clone().unwrap();
    assert_eq!((run.rows, run.held_out), (40, 3));
    assert_eq!(run.holdout_sha256.unwrap().len(), 64);
    let metrics = class_metrics(&model);
    assert_eq!((metrics.rows, metrics.correct), (3, 2));

    std::fs::write(&path, "y,x\nc,2\n").unwrap();
    let message = train_on("rows.csv", data.as_bytes(), &with_file).message();
    assert!(message.contains("none of the model's classes"), "{message}");
}

#[test]
fn a_held_out_file_is_read_as_the_rows_of_training() {
    let row = |row: u32| {
        let code = ["1.0", "2", "3.00"][row as usize % 3];
        let flag = ["TRUE", "False"][row as usize % 2];
        let label = row % 3 * 2 + row % 2;
        format!("{code},{flag},{label}\n")
    };
    let data = "code,flag,y\n".to_owned() + &(0..60).map(row).collect::<String>();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.csv");
    let with_file = format!(
        "--target y --algorithm decision-tree --categorical code,flag --missing lost,-9 \
         --holdout-file {}",
        path.display()
    );
    // The same categories in other spellings, and two rows without a label.
    let others = "code,flag,y\n1,true,0\n2.0,FALSE,3\n3,TRUE,4\n1.00,false,1\n\
                  1,true,Lost\n1,true,-9.0\n";
    std::fs::write(&path, others).unwrap();
    let model = train_on("rows.csv", data.as_bytes(), &with_file).model();
    let metrics = class_metrics(&model);
    assert_eq!((metrics.rows, metrics.correct), (4, 4), "{metrics:?}");
}

#[test]
fn a_held_out_target_that_is_too_large_is_named() {
    let data = "x,y\n".to_owned()
        + &(0..40)
            .map(|row| format!("{row},{row}.5\n"))
            .collect::<String>();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.csv");
    std::fs::write(&path, "x,y\n1,1.5\n2,-1e71\n").unwrap();
    let flags = format!(
        "--target y --algorithm linear-regression --holdout-file {}",
        path.display()
    );
    let message = train_on("rows.csv", data.as_bytes(), &flags).message();
    let fault = "other.csv:3: row 2: the label \"-1e71\" is too large; scale the target down";
    assert!(message.contains(fault), "{message}");
    let large = data.clone() + "3,1e71\n";
    let flags_alone = "--target y --algorithm linear-regression";
    let message = train_on("rows.csv", large.as_bytes(), flags_alone).message();
    assert!(
        message.contains("column \"y\" has values beyond 1e70"),
        "{message}"
    );
    // The largest target can be measured.
    std::fs::write(&path, "x,y\n1,1.5\n2,-1e70\n").unwrap();
    let model = train_on("rows.csv", data.as_bytes(), &flags).model();
    let Some(Metrics::Numbers(metrics)) = &model.description().metrics.held_out else {
        panic!("metrics of numbers");
    };
    assert!(
        metrics.rmse.is_finite() && metrics.rmse > 1e69,
        "{metrics:?}"
    );
    // A prediction can be too large, too.
    std::fs::write(&path, "x,y\n1e200,1.5\n").unwrap();
    let message = train_on("rows.csv", data.as_bytes(), &flags).message();
    assert!(message.contains("is too large to be measured"), "{message}");
}

#[test]
fn the_file_names_the_hash_of_its_data() {
    let outcome = train_on(
        "rows.csv",
        b"abc,y\n1,no\n2,no\n3,yes\n4,yes\n",
        "--target y --holdout 0",
    );
    let run = outcome.model().description().training.clone().unwrap();
    // The output of sha256sum for these bytes.
    assert_eq!(
        run.data_sha256.unwrap(),
        crate::wire::sha256::sha256_hex("abc,y\n1,no\n2,no\n3,yes\n4,yes\n")
    );
    assert!(run.tool.unwrap().starts_with("rv-tools "));
    // The hash of the model is the hash of its whole file.
    let text = outcome.text.as_ref().unwrap();
    assert_eq!(
        outcome.model().hash(),
        crate::wire::sha256::short_hash(text)
    );
}

#[test]
fn a_target_of_measurements_is_predicted_as_a_number() {
    let number = |row: u32| 2.5 * f64::from(row % 50) + [0.0, 30.0, 90.5][row as usize % 3];
    let row = |row: u32| {
        let kind = ["red", "green", "blue"][row as usize % 3];
        let gap = ["", "7", "8", "7", "9"][row as usize % 5];
        format!("{kind},{},{gap},{}\n", row % 50, number(row))
    };
    let data = "kind,x,gap,y\n".to_owned() + &(0..400).map(row).collect::<String>();
    for algorithm in [
        "random-forest --trees 40",
        "decision-tree",
        "linear-regression",
    ] {
        let flags = format!("--target y --features kind,x,gap --algorithm {algorithm}");
        let model = train_on("rows.csv", data.as_bytes(), &flags).model();
        let Some(Metrics::Numbers(metrics)) = &model.description().metrics.held_out else {
            panic!("metrics of numbers");
        };
        assert_eq!(metrics.rows, 80);
        assert!(metrics.r2.unwrap() > 0.95, "{algorithm}: {metrics:?}");
        let mut row = Vec::new();
        // The third feature was missing in some rows, so it may be missing here.
        model
            .read_input(r#"{"x":20,"kind":"blue"}"#, &mut row)
            .unwrap();
        let Prediction::Number(found) = model.predict(&row, &mut Vec::new()) else {
            panic!("a number");
        };
        assert!((found - 140.5).abs() < 15.0, "{algorithm}: {found}");
        assert!(model.read_input(r#"{"kind":"blue"}"#, &mut row).is_err());
    }
    let flags = "--target y --task regress --algorithm logistic-regression";
    let message = train_on("rows.csv", data.as_bytes(), flags).message();
    assert!(
        message.contains("logistic-regression cannot predict the numbers of column \"y\""),
        "{message}"
    );
    let message = train_on(
        "rows.csv",
        data.as_bytes(),
        "--target y --class-weight balanced",
    );
    assert!(message.message().contains("are for classes"));
}

/// The text of a small model of each family, without the wrapping of its file.
fn small_models() -> Vec<String> {
    let row = |row: u32| {
        let kind = ["red", "green", "blue"][row as usize % 3];
        let gap = if row.is_multiple_of(7) { "" } else { "1.5" };
        format!(
            "{kind},{},{gap},{}.5,{}\n",
            row % 11,
            row * 37 % 101,
            row.is_multiple_of(2)
        )
    };
    let data = "kind,x,gap,number,class\n".to_owned() + &(0..60).map(row).collect::<String>();
    let train = |flags: &str| {
        let outcome = train_on("rows.csv", data.as_bytes(), flags);
        assert_eq!(outcome.message(), "", "{flags}");
        let text = outcome.text.unwrap();
        file::unwrap(&text).unwrap().0.to_owned()
    };
    let numbers = "--target number --task regress --features kind,x,gap";
    vec![
        train("--target class --features kind,x,gap --trees 2"),
        train("--target class --features kind,x,gap --algorithm logistic-regression"),
        train(&format!("{numbers} --trees 2")),
        train(&format!("{numbers} --algorithm linear-regression")),
        train(&format!("{numbers} --algorithm decision-tree")),
    ]
}

#[test]
fn a_damaged_file_of_any_family_is_an_error_and_never_a_panic() {
    for whole in small_models() {
        fuzz(&whole, |damaged| {
            // The hash is computed over the damaged text, so that the checks behind the
            // hash see the damage.
            let Ok(model) = Model::from_text(&file::wrap(damaged)) else {
                return;
            };
            // A damaged file may be accepted, but then the model must work.
            let mut row = Vec::new();
            let mut probabilities = Vec::new();
            for input in [
                r#"{"kind":"red","x":5,"gap":1.5}"#,
                r#"{"kind":"pink","x":-1e300,"gap":1e300}"#,
                r#"{"kind":"blue","x":0}"#,
            ] {
                if model.read_input(input, &mut row).is_err() {
                    continue;
                }
                match model.predict(&row, &mut probabilities) {
                    Prediction::Class(class) => assert!(class < probabilities.len()),
                    Prediction::Number(number) => assert!(number.is_finite()),
                }
            }
            assert!(!crate::model::inspect::lines(&model, 6).is_empty());
        });
    }
}
