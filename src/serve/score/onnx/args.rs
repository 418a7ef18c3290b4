//! The flags for ONNX models, and their checks.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::stage::usage;

/// The flags for ONNX models.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "ONNX models (--model FILE.onnx)")]
pub struct OnnxArgs {
    /// The labels of the columns of the probability output, in order. Default:
    /// `rv.classes` in the file's metadata, then the labels in the model's graph
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    classes: Vec<String>,

    /// How a missing feature is passed on: `error` writes an error score, `nan` passes
    /// NaN to inputs of floating-point numbers
    #[arg(long, value_name = "HOW")]
    missing: Option<Missing>,

    /// The output with the label. Default: found by its name and type
    #[arg(long, value_name = "NAME")]
    label_output: Option<String>,

    /// The output with the probabilities, or `none`. Default: found by its name and type
    #[arg(long, value_name = "NAME")]
    probability_output: Option<String>,

    /// The library of onnxruntime (1.17 or newer), or the folder that holds it. Default:
    /// `ORT_DYLIB_PATH`, then the system's, then the one in the active Python
    /// environment
    #[arg(long, value_name = "PATH")]
    onnxruntime: Option<String>,
}

/// How a missing feature is passed on.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The request gets an error score.
    Error,
    /// The model gets NaN.
    Nan,
}

/// The checked options for an ONNX model.
#[derive(Clone, Debug)]
pub struct OnnxOptions {
    /// The path of the model file.
    pub path: String,
    /// The name of the model, if it is given.
    pub name: Option<String>,
    /// The version of the model, if it is given.
    pub version: Option<u64>,
    /// The names of the features; empty if the file names them.
    pub features: Vec<String>,
    /// The class labels; empty if the file names them.
    pub classes: Vec<String>,
    /// Whether a missing feature becomes NaN.
    pub missing_is_nan: bool,
    /// The name of the output with the label, if it is given.
    pub label_output: Option<String>,
    /// The output with the probabilities.
    pub probability_output: ProbabilityOutput,
    /// The path of the library of onnxruntime, if it is given.
    pub onnxruntime: Option<String>,
    /// The number of threads that onnxruntime uses for one batch.
    pub threads: usize,
    /// Whether a reload may change the name or version.
    pub allow_new_version: bool,
}

/// Which output holds the probabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbabilityOutput {
    /// The output that is found by its name and type.
    Found,
    /// No output. Results have no confidence.
    None,
    /// The output of this name.
    Named(String),
}

impl OnnxArgs {
    /// Whether `path` names an ONNX model.
    pub fn is_onnx(path: &str) -> bool {
        let extension = std::path::Path::new(path).extension();
        extension.is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
    }

    /// Checks, for a model of another kind, that no flag for ONNX models is given.
    pub fn refuse(&self) -> Result<()> {
        let given = [
            ("--classes", !self.classes.is_empty()),
            ("--missing", self.missing.is_some()),
            ("--label-output", self.label_output.is_some()),
            ("--probability-output", self.probability_output.is_some()),
            ("--onnxruntime", self.onnxruntime.is_some()),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((flag, _)) => Err(usage(format!(
                "{flag} is for ONNX models: name one with --model FILE.onnx, or leave {flag} out"
            ))),
            None => Ok(()),
        }
    }

    /// Checks the flags for the model file `path`.
    pub fn check(self, path: String) -> Result<OnnxOptions> {
        if let Some(fault) = list_fault(&self.classes) {
            return Err(usage(format!("--classes: {fault}")));
        }
        Ok(OnnxOptions {
            path,
            name: None,
            version: None,
            features: Vec::new(),
            classes: self.classes,
            missing_is_nan: self.missing == Some(Missing::Nan),
            label_output: self.label_output,
            probability_output: match self.probability_output.as_deref() {
                None => ProbabilityOutput::Found,
                Some("none") => ProbabilityOutput::None,
                Some(name) => ProbabilityOutput::Named(name.to_owned()),
            },
            onnxruntime: self.onnxruntime,
            threads: 1,
            allow_new_version: false,
        })
    }
}

/// Returns the fault of a list of names, if it has one.
pub fn list_fault(names: &[String]) -> Option<String> {
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Some(format!("the name at position {} is empty", index + 1));
        }
        if names[..index].contains(name) {
            return Some(format!("{name:?} occurs twice"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_an_onnx_model_by_its_extension() {
        for path in ["m.onnx", "/a/b.ONNX"] {
            assert!(OnnxArgs::is_onnx(path));
        }
        for path in ["m.json", "onnx", "/dev/stdin", ".onnx", "m.onnx.json"] {
            assert!(!OnnxArgs::is_onnx(path));
        }
    }

    #[test]
    fn a_list_of_names_has_no_empty_and_no_doubled_name() {
        let fault = |names: [&str; 2]| list_fault(&names.map(str::to_owned));
        assert_eq!(fault(["a", "b"]), None);
        assert_eq!(
            fault(["a", ""]).as_deref(),
            Some("the name at position 2 is empty")
        );
        assert_eq!(fault(["a", "a"]).as_deref(), Some("\"a\" occurs twice"));
    }
}
