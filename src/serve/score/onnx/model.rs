//! An ONNX model that is ready to answer: its file, its session in onnxruntime, and the
//! plans of its inputs and outputs.

use anyhow::{Result, anyhow};
use ort::session::Session;

use crate::model::bounds::check_name;
use crate::serve::score::answer::{Answer, ModelError};
use crate::serve::score::identity::Identity;
use crate::serve::score::onnx::args::{OnnxOptions, list_fault};
use crate::serve::score::onnx::checked_file::{CheckedFile, Facts};
use crate::serve::score::onnx::class_labels::ClassLabels;
use crate::serve::score::onnx::inputs::{InputPlan, Rows};
use crate::serve::score::onnx::output_values::{OutputValues, output_fault};
use crate::serve::score::onnx::outputs::OutputPlan;
use crate::serve::score::onnx::runtime::{Runtime, one_line};
use crate::stage::usage;
use crate::wire::object::{array_items, decode_string};

/// The keys of `metadata_props` that rv reads.
const NAME_KEY: &str = "rv.name";
const VERSION_KEY: &str = "rv.version";
const FEATURES_KEY: &str = "rv.features";
const CLASSES_KEY: &str = "rv.classes";

/// An ONNX model that is ready to answer.
#[derive(Debug)]
pub struct OnnxModel {
    identity: Identity,
    session: Session,
    inputs: InputPlan,
    outputs: OutputPlan,
}

/// A model file that has passed all checks for which onnxruntime is not needed.
#[derive(Debug)]
pub struct UnloadedModel {
    bytes: Vec<u8>,
    identity: Identity,
    /// The names of the features, if they are given; otherwise empty.
    features: Vec<String>,
    labels: ClassLabels,
}

impl UnloadedModel {
    /// Reads and checks a model file. The error names the file and the remedy.
    pub fn read(options: &OnnxOptions) -> Result<UnloadedModel> {
        let path = &options.path;
        let file = CheckedFile::read(path)?;
        let in_file = |fault: String| anyhow!("{path}: {fault}");
        let features = match options.features.is_empty() {
            true => list(&file.facts, FEATURES_KEY).map_err(in_file)?,
            false => Some(options.features.clone()),
        };
        Ok(UnloadedModel {
            identity: identity(options, &file)?,
            features: features.unwrap_or_default(),
            labels: labels(options, &file.facts).map_err(in_file)?,
            bytes: file.bytes,
        })
    }

    /// Loads the model with onnxruntime. The error names the file and the remedy.
    pub fn load(
        self,
        runtime: &Runtime,
        options: &OnnxOptions,
        with_probabilities: bool,
    ) -> Result<OnnxModel> {
        let path = &options.path;
        let in_file = |fault: String| anyhow!("{path}: {fault}");
        let session = runtime.session(&self.bytes, options.threads);
        let session = session.map_err(|fault| {
            anyhow!(
                "{path}: onnxruntime does not load this model: {fault}; update onnxruntime, or export the \
                 model again"
            )
        })?;
        let inputs = InputPlan::new(session.inputs(), &self.features, options.missing_is_nan);
        let outputs = OutputPlan::new(
            session.outputs(),
            options.label_output.as_deref(),
            &options.probability_output,
            self.labels,
        );
        Ok(OnnxModel {
            identity: self.identity,
            inputs: inputs.map_err(in_file)?,
            outputs: outputs
                .map_err(in_file)?
                .with_probabilities(with_probabilities),
            session,
        })
    }
}

impl OnnxModel {
    /// The name in the scores.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The plan of the inputs, which reads requests into rows.
    pub fn inputs(&self) -> &InputPlan {
        &self.inputs
    }

    /// Whether only one row can be evaluated at a time.
    pub fn is_single_row(&self) -> bool {
        self.inputs.is_single_row || self.outputs.is_single_row
    }

    /// The answers for all rows, in order. If a batch fails, its rows are evaluated one
    /// by one, so that only the bad rows get errors.
    pub fn evaluate(&mut self, rows: &Rows) -> Vec<Result<Answer, ModelError>> {
        let count = rows.len();
        if count > 1
            && !self.is_single_row()
            && let Ok(answers) = self.run(rows, 0, count)
        {
            return answers;
        }
        let mut answers = Vec::with_capacity(count);
        for row in 0..count {
            match self.run(rows, row, row + 1) {
                Ok(single) => answers.extend(single),
                Err(fault) => answers.push(Err(ModelError::new(fault))),
            }
        }
        answers
    }

    /// Runs the rows from `begin` to `end` as one batch. An error concerns all of them.
    fn run(
        &mut self,
        rows: &Rows,
        begin: usize,
        end: usize,
    ) -> Result<Vec<Result<Answer, ModelError>>, String> {
        let failed = |error: &ort::Error| format!("onnxruntime: {}", one_line(error));
        let values = self
            .inputs
            .values(rows, begin..end)
            .map_err(|error| failed(&error))?;
        let outputs = self.session.run(values).map_err(|error| failed(&error))?;
        let mut taken = Vec::with_capacity(outputs.len());
        for (index, name) in outputs.keys().enumerate() {
            let view = match self.outputs.uses(index) {
                true => Some(OutputValues::of(&outputs[index])),
                false => None,
            };
            taken.push(
                view.transpose()
                    .map_err(|fault| output_fault(name, &fault))?,
            );
        }
        self.outputs.answers(&taken, end - begin)
    }
}

/// The name and version of a model. The flags give them, or else the file does.
fn identity(options: &OnnxOptions, file: &CheckedFile) -> Result<Identity> {
    let path = &options.path;
    let metadata = |key| file.facts.metadata.get(key);
    let missing = |flag, key| {
        usage(format!(
            "{path}: the file does not name the model's {flag}; give it with --{flag}, or store it in the \
             file's metadata as {key}"
        ))
    };
    let name = options.name.as_ref().or(metadata(NAME_KEY));
    let name = name.ok_or_else(|| missing("name", NAME_KEY))?;
    check_name(name).map_err(|fault| anyhow!("{path}: {fault}"))?;
    let version = match (options.version, metadata(VERSION_KEY)) {
        (Some(version), _) => version,
        (None, Some(text)) => text.parse().map_err(|_| {
            anyhow!("{path}: {VERSION_KEY} in its metadata is not an integer; correct the file, or give --model-version")
        })?,
        (None, None) => return Err(missing("model-version", VERSION_KEY)),
    };
    Ok(Identity {
        name: name.clone(),
        version,
        hash: Some(file.hash.clone()),
    })
}

/// A list of names in the metadata: a JSON array of strings or integers. The error
/// describes the fault and the remedy.
fn list(facts: &Facts, key: &str) -> Result<Option<Vec<String>>, String> {
    let Some(text) = facts.metadata.get(key) else {
        return Ok(None);
    };
    let names = array_items(text).map(|items| {
        let names = items.into_iter().map(|item| match item.starts_with('"') {
            true => decode_string(item).map(String::from),
            false => item.parse::<i64>().ok().map(|number| number.to_string()),
        });
        names.collect::<Option<Vec<_>>>()
    });
    let names = names.flatten().ok_or_else(|| {
        format!("{key} in its metadata is not a JSON array of strings; correct the file")
    })?;
    match list_fault(&names) {
        Some(fault) => Err(format!("{key} in its metadata: {fault}; correct the file")),
        None => Ok(Some(names)),
    }
}

/// The class labels that the flags or the file give.
fn labels(options: &OnnxOptions, facts: &Facts) -> Result<ClassLabels, String> {
    let given = match options.classes.is_empty() {
        true => list(facts, CLASSES_KEY)?,
        false => Some(options.classes.clone()),
    };
    Ok(match given {
        Some(labels) => ClassLabels::Given(labels),
        None => ClassLabels::Found(facts.label_lists.clone()),
    })
}
