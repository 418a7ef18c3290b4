//! Tests of both readers, with small models and the answers of their libraries.
//! `scripts/check_import.sh` compares many models with the libraries themselves.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::*;
use crate::import::input_names::InputNames;
use crate::model::damage::fuzz;
use crate::model::prediction::Prediction;

const LIGHTGBM: &str = include_str!("../../fixtures/import/lightgbm.txt");
const XGBOOST: &str = include_str!("../../fixtures/import/xgboost.json");
const ROWS: &str = include_str!("../../fixtures/import/rows.ndjson");

fn options(library: Library) -> ImportOptions {
    ImportOptions {
        file: "m".to_owned(),
        library,
        output: "m.json".into(),
        name: "m".to_owned(),
        version: 1,
        target: "label".to_owned(),
        classes: Vec::new(),
        inputs: InputNames::default(),
    }
}

fn import(text: &str, options: &ImportOptions) -> Result<Model, String> {
    let foreign = match options.library {
        Library::Lightgbm => lightgbm::read(text, &options.inputs),
        Library::Xgboost => xgboost::read(text, &options.inputs),
    }?;
    let import = Import {
        from: options.library.name().to_owned(),
        objective: foreign.objective.clone(),
        sha256: String::new(),
    };
    let written = write(options, foreign, import);
    written
        .map(|(_, model)| model)
        .map_err(|error| format!("{error:#}"))
}

fn read(text: &str, library: Library) -> Result<Model, String> {
    import(text, &options(library))
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow, rename = "modelInput")]
    model_input: &'a RawValue,
    lightgbm: Vec<f64>,
    xgboost: f64,
}

fn predict(model: &Model, model_input: &str) -> (Prediction, Vec<f64>) {
    let (mut row, mut probabilities) = (Vec::new(), Vec::new());
    model.read_input(model_input, &mut row).unwrap();
    (model.predict(&row, &mut probabilities), probabilities)
}

#[test]
fn an_imported_model_answers_like_its_library() {
    let classes = read(LIGHTGBM, Library::Lightgbm).unwrap();
    let numbers = read(XGBOOST, Library::Xgboost).unwrap();
    assert_eq!(classes.description().labels(), ["0", "1", "2"]);
    assert!(numbers.description().labels().is_empty());
    for line in ROWS.lines() {
        let row: Row = serde_json::from_str(line).unwrap();
        let (_, probabilities) = predict(&classes, row.model_input.get());
        for (own, expected) in probabilities.iter().zip(&row.lightgbm) {
            assert!((own - expected).abs() < 1e-8, "{line}: {probabilities:?}");
        }
        let (Prediction::Number(number), _) = predict(&numbers, row.model_input.get()) else {
            panic!("the model predicts numbers");
        };
        assert!((number - row.xgboost).abs() < 1e-6, "{line}: {number}");
    }
}

#[test]
fn an_unknown_category_is_treated_as_in_the_library() {
    // In a pandas table, an unknown category is a missing value.
    let classes = read(LIGHTGBM, Library::Lightgbm).unwrap();
    let unknown = predict(&classes, r#"{"a":1,"b":0,"c":"new","d":7}"#);
    assert_eq!(unknown, predict(&classes, r#"{"a":1,"b":0,"d":7}"#));
    // XGBoost refuses an unknown category.
    let numbers = read(XGBOOST, Library::Xgboost).unwrap();
    let fault = numbers.read_input(r#"{"a":1,"c":"new"}"#, &mut Vec::new());
    assert_eq!(
        fault.unwrap_err(),
        "feature \"c\" has the unknown category \"new\""
    );
}

#[test]
fn names_labels_and_categories_can_be_given() {
    let mut given = options(Library::Lightgbm);
    given.classes = ["low", "mid", "high"].map(str::to_owned).to_vec();
    given.inputs.features = ["p", "q", "/r/s", "t"].map(str::to_owned).to_vec();
    let colours = ["red", "green", "blue"].map(|name| serde_json::json!(name));
    given
        .inputs
        .categories
        .insert("/r/s".to_owned(), colours.to_vec());
    let model = import(LIGHTGBM, &given).unwrap();
    assert_eq!(model.description().labels()[2], "\"high\"");
    let renamed = predict(&model, r#"{"p":1,"q":0,"r":{"s":"green"},"t":7}"#);
    let original = read(LIGHTGBM, Library::Lightgbm).unwrap();
    assert_eq!(
        renamed,
        predict(&original, r#"{"a":1,"b":0,"c":"y","d":7}"#)
    );

    given.classes.pop();
    let fault = import(LIGHTGBM, &given).unwrap_err();
    assert!(fault.contains("2 labels, but the model has 3"), "{fault}");
    given.inputs.features.pop();
    let fault = import(LIGHTGBM, &given).unwrap_err();
    assert!(
        fault.contains("4 inputs, but --features names 3"),
        "{fault}"
    );
}

#[test]
fn a_file_that_cannot_be_imported_is_refused_with_the_reason() {
    use Library::{Lightgbm, Xgboost};
    let cut = |text: &str, share: f64| text[..(text.len() as f64 * share) as usize].to_owned();
    let replaced = |text: &str, from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        changed
    };
    for (library, text, reason) in [
        (Lightgbm, String::new(), "is not a model file of LightGBM"),
        (
            Lightgbm,
            XGBOOST.to_owned(),
            "is not a model file of LightGBM",
        ),
        (Lightgbm, cut(LIGHTGBM, 0.5), "cut off"),
        (Lightgbm, cut(LIGHTGBM, 0.9), "cut off"),
        (
            Lightgbm,
            replaced(LIGHTGBM, "objective=multiclass", "objective=mystery"),
            "objective mystery, which rv-score does not know",
        ),
        (
            Lightgbm,
            replaced(LIGHTGBM, "is_linear=0", "is_linear=1"),
            "linear_tree",
        ),
        (
            Lightgbm,
            replaced(LIGHTGBM, "num_leaves=4", "num_leaves=1000000000"),
            "different lengths",
        ),
        (
            Lightgbm,
            replaced(LIGHTGBM, "left_child=", "left_child=0 "),
            "different lengths",
        ),
        (
            Lightgbm,
            replaced(LIGHTGBM, "left_child=1", "left_child=0"),
            "on two paths",
        ),
        (
            Lightgbm,
            replaced(LIGHTGBM, "left_child=1", "left_child=9"),
            "does not exist",
        ),
        (
            Lightgbm,
            replaced(LIGHTGBM, "split_feature=0", "split_feature=4"),
            "does not exist",
        ),
        (
            Lightgbm,
            replaced(LIGHTGBM, "leaf_value=", "leaf_value=nan "),
            "different lengths",
        ),
        (
            Lightgbm,
            replaced(
                LIGHTGBM,
                "num_tree_per_iteration=3",
                "num_tree_per_iteration=9999999999",
            ),
            "outputs",
        ),
        (
            Lightgbm,
            replaced(
                LIGHTGBM,
                "pandas_categorical:[",
                "pandas_categorical:[[\"q\"],",
            ),
            "--categories",
        ),
        (
            Lightgbm,
            replaced(
                LIGHTGBM,
                "leaf_value=-0.77202765751342162",
                "leaf_value=1e300",
            ),
            "a leaf is not between -1e100 and 1e100",
        ),
        (
            Xgboost,
            replaced(XGBOOST, "3.65E-1,-3.1516665E-1", "3.65E-1,1E31"),
            "a leaf is not between -1e30 and 1e30",
        ),
        (
            Lightgbm,
            replaced(LIGHTGBM, "split_feature=0", "split_feature=4294967295"),
            "names feature 4294967295",
        ),
        (
            Lightgbm,
            replaced(LIGHTGBM, "cat_boundaries=0 1", "cat_boundaries=0 1 0"),
            "sets of categories that overlap",
        ),
        (
            Lightgbm,
            replaced(
                &replaced(LIGHTGBM, "decision_type=10 8 9", "decision_type=10 9 9"),
                " -0.36349999999999993 0",
                " 0 0",
            ),
            "names a set of categories twice",
        ),
        (
            Xgboost,
            replaced(
                XGBOOST,
                "\"categories_sizes\":[1]",
                "\"categories_sizes\":[2]",
            ),
            "sets of categories that overlap",
        ),
        (Xgboost, String::new(), "is not a model file of XGBoost"),
        (Xgboost, cut(XGBOOST, 0.5), "is not a model file of XGBoost"),
        (
            Xgboost,
            LIGHTGBM.to_owned(),
            "is not a model file of XGBoost",
        ),
        (
            Xgboost,
            replaced(XGBOOST, "reg:gamma", "reg:mystery"),
            "does not know",
        ),
        (
            Xgboost,
            replaced(XGBOOST, "\"gbtree\"", "\"gblinear\""),
            "no trees",
        ),
        (
            Xgboost,
            replaced(XGBOOST, "\"left_children\":[1", "\"left_children\":[0"),
            "on two paths",
        ),
        (
            Xgboost,
            replaced(
                XGBOOST,
                "\"left_children\":[1",
                "\"left_children\":[1000000000",
            ),
            "does not exist",
        ),
        (
            Xgboost,
            replaced(XGBOOST, "\"num_class\":\"0\"", "\"num_class\":\"7\""),
            "7 outputs with the objective",
        ),
        (
            Xgboost,
            replaced(
                XGBOOST,
                "\"num_feature\":\"4\",\"num_target\"",
                "\"num_feature\":\"5\",\"num_target\"",
            ),
            "5 inputs, but 4 names",
        ),
        (
            Xgboost,
            replaced(XGBOOST, "\"values\":[120", "\"values\":[-61"),
            "damaged categories of \"c\"",
        ),
    ] {
        let fault = read(&text, library).map(|_| reason).unwrap_err();
        assert!(fault.contains(reason), "{reason}: {fault}");
    }
}

#[test]
fn a_dart_booster_needs_one_weight_for_each_tree() {
    let mut file: serde_json::Value = serde_json::from_str(XGBOOST).unwrap();
    let booster = &mut file["learner"]["gradient_booster"];
    let trees = booster.take();
    let count = trees["model"]["trees"].as_array().unwrap().len();
    for (weights, is_right) in [(count - 1, false), (count, true), (count + 1, false)] {
        let weights = vec![1.0; weights];
        file["learner"]["gradient_booster"] =
            serde_json::json!({"name": "dart", "gbtree": trees, "weight_drop": weights});
        match read(&file.to_string(), Library::Xgboost) {
            Ok(_) => assert!(is_right),
            Err(fault) => assert!(!is_right && fault.contains("weight_drop"), "{fault}"),
        }
    }
}

/// Imports a damaged file. The file may be accepted, but then the model must work.
fn import_damaged(text: &str, library: Library) {
    let Ok(model) = read(text, library) else {
        return;
    };
    let (mut row, mut probabilities) = (Vec::new(), Vec::new());
    for input in [r#"{"a":1,"b":0,"c":"x","d":7}"#, "{}"] {
        if model.read_input(input, &mut row).is_ok() {
            match model.predict(&row, &mut probabilities) {
                Prediction::Class(class) => {
                    assert!(class < probabilities.len());
                    let are_right = probabilities.iter().all(|one| (0.0..=1.0).contains(one));
                    assert!(are_right, "{probabilities:?}");
                }
                Prediction::Number(number) => assert!(number.is_finite()),
            }
        }
    }
}

#[test]
fn a_damaged_lightgbm_file_is_an_error_and_never_a_panic() {
    fuzz(LIGHTGBM, |text| import_damaged(text, Library::Lightgbm));
}

#[test]
fn a_damaged_xgboost_file_is_an_error_and_never_a_panic() {
    fuzz(XGBOOST, |text| import_damaged(text, Library::Xgboost));
}
