//! A model that was loaded from its file and is ready to predict.

use anyhow::{Result, anyhow};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::description::{ClassThreshold, Description};
use crate::model::feature::Feature;
use crate::model::features::{FeatureReader, Observed};
use crate::model::file;
use crate::model::prediction::{Prediction, Predictor};
use crate::wire::sha256::short_hash;

/// A model that is ready to predict.
#[derive(Debug)]
pub struct Model {
    description: Description,
    predictor: Box<dyn Predictor>,
    threshold: Option<ClassThreshold>,
    hash: String,
    features: FeatureReader,
}

impl Model {
    /// Loads and checks a model file. The error names the file and the remedy.
    pub fn load(path: &str) -> Result<Model> {
        let text = file::read_text(path)?;
        Model::from_text(&text).map_err(|fault| anyhow!("{path}: {fault}"))
    }

    /// Makes a model from the text of its file. The error describes the fault and the
    /// remedy.
    pub fn from_text(file: &str) -> Result<Model, String> {
        #[derive(Deserialize)]
        struct WithParameters<'a> {
            #[serde(borrow)]
            parameters: &'a RawValue,
        }
        let (text, _) = file::unwrap(file)?;
        let invalid = |fault: String| format!("is not a valid model: {fault}; train it again");
        let invalid_json = |error: serde_json::Error| invalid(error.to_string());
        let description: Description = serde_json::from_str(text).map_err(invalid_json)?;
        description.check().map_err(invalid)?;
        let raw: WithParameters = serde_json::from_str(text).map_err(invalid_json)?;
        let predictor = { description.algorithm }
            .read_parameters(raw.parameters.get())
            .map_err(invalid_json)?;
        predictor
            .check(&description.features, description.classes.len())
            .map_err(invalid)?;
        Ok(Model {
            threshold: description.class_threshold().map_err(invalid)?,
            features: FeatureReader::new(
                description.features.clone(),
                predictor.is_single_precision(),
            ),
            description,
            predictor,
            hash: short_hash(file),
        })
    }

    /// The name in policies and records.
    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// The version, which distinguishes models of the same name.
    pub fn version(&self) -> u64 {
        self.description.version
    }

    /// The first 16 hexadecimal digits of the SHA-256 of the model file.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The inputs of the model, in the order of a row.
    pub fn features(&self) -> &[Feature] {
        &self.description.features
    }

    /// The description in the model file.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The learned parameters.
    pub fn predictor(&self) -> &dyn Predictor {
        &*self.predictor
    }

    /// Reads the features in the text of a `modelInput` into `row`, in the order of
    /// [`features`](Model::features). Other members are ignored. The error describes
    /// the fault in a few words.
    pub fn read_input(&self, model_input: &str, row: &mut Vec<f64>) -> Result<(), String> {
        self.features.read(model_input, row)
    }

    /// Calls `show` with the index of each feature and what a `modelInput` has for it.
    pub fn observe(&self, model_input: &str, show: impl FnMut(usize, Observed)) {
        self.features.observe(model_input, show);
    }

    /// Predicts for a row that [`read_input`](Model::read_input) has made.
    /// `probabilities` gets one value per class.
    pub fn predict(&self, row: &[f64], probabilities: &mut Vec<f64>) -> Prediction {
        probabilities.resize(self.description.classes.len(), 0.0);
        let prediction = self.predictor.predict(row, probabilities);
        match self.threshold {
            None => prediction,
            Some(threshold) => Prediction::Class(threshold.class(probabilities)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The model file of a tree and of a logistic regression.
    const FILES: [&str; 2] = [
        include_str!("../../fixtures/one_request/0_model.dt.json"),
        include_str!("../../fixtures/one_request/0_model.lr.json"),
    ];

    #[test]
    fn a_file_of_the_first_format_is_read() {
        let text = include_str!("../../fixtures/model_format_1.json");
        assert!(text.contains("\"formatVersion\": 1,"));
        let model = Model::from_text(text).unwrap();
        assert_eq!((model.name(), model.version()), ("dt", 1));
        // This is what `sha256sum` prints for the file.
        assert_eq!(model.hash(), "ad22f04b8238ddc3");
        let mut probabilities = Vec::new();
        let prediction = model.predict(&[5.1, 3.5, 1.4, 0.2], &mut probabilities);
        assert_eq!(prediction, Prediction::Class(0));
    }

    #[test]
    fn a_missing_model_is_named() {
        let error = Model::load("/nonexistent/m.json").unwrap_err();
        assert!(format!("{error:#}").starts_with("/nonexistent/m.json: cannot open"));
        let iris = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/iris.csv");
        let error = Model::load(iris).unwrap_err().to_string();
        assert!(error.contains("iris.csv: is not a model file"), "{error}");
    }

    #[test]
    fn a_file_with_a_wrong_part_is_refused_though_its_hash_is_right() {
        for (file, from, to, reason) in [
            (
                0,
                "\"name\": \"dt\"",
                "\"name\": \"dt@1\"",
                "the name of a model",
            ),
            (0, "\"version\": 1", "\"version\": -1", "invalid value"),
            (0, "decision-tree", "pickle", "unknown variant"),
            (0, "[0,1,2]", "[0]", "fewer than two classes"),
            (0, "[0,1,2]", "[0,1]", "confusion matrix"),
            (
                0,
                "\"heldOutBy\": \"seed\"",
                "\"heldOutBy\": \"luck\"",
                "unknown variant",
            ),
            (
                0,
                "\"quantiles\": [",
                "\"quantiles\": [1e9,",
                "quantiles that are too few",
            ),
            (0, "[0,1,2]", "[0,1,\"2\"]", "not all strings"),
            (0, "[0,1,2]", "[[],[],[]]", "not all strings"),
            (0, "[0,1,2]", "[0,1,1]", "class \"1\" occurs twice"),
            (0, "\"sepalWidth\"", "\"sepalLength\"", "occurs twice"),
            (
                0,
                "\"feature\":2",
                "\"feature\":9",
                "feature that does not exist",
            ),
            (0, "\"nodes\"", "\"knots\"", "unknown field"),
            (0, "decision-tree", "logistic-regression", "unknown field"),
            (1, "\"scales\": [0", "\"scales\": [-0", "out of range"),
            (1, "\"means\": [", "\"means\": [1,", "do not fit"),
            (1, "logistic-regression", "decision-tree", "unknown field"),
        ] {
            let (model, _) = file::unwrap(FILES[file]).unwrap();
            let changed = model.replacen(from, to, 1);
            assert_ne!(changed, model, "{from}");
            let fault = Model::from_text(&file::wrap(&changed)).unwrap_err();
            assert!(
                fault.contains(reason) && fault.contains("train it again"),
                "{fault}"
            );
        }
        let (model, _) = file::unwrap(FILES[0]).unwrap();
        let many = format!("[{}0]", "0,".repeat(100_000));
        let fault =
            Model::from_text(&file::wrap(&model.replacen("[0,1,2]", &many, 1))).unwrap_err();
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
            let whole = FILES[file];
            let text = if keep_hash { whole } else { file::unwrap(whole).unwrap().0 };
            let mut bytes = text.as_bytes().to_vec();
            for (place, byte, kind) in changes {
                if bytes.is_empty() {
                    break;
                }
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
                // A damaged file may be accepted, but then the model must work.
                let mut probabilities = Vec::new();
                let prediction = model.predict(&[5.0, 3.0, 1.0, 0.2], &mut probabilities);
                let Prediction::Class(class) = prediction else {
                    panic!("both models are classifiers");
                };
                prop_assert!(class < probabilities.len());
            }
        }
    }
}
