//! The flags of `rv-score import`, and their checks.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::import::input_names::InputNames;
use crate::model::bounds::check_name;
use crate::model::file;
use crate::stage::usage;
use crate::stream::address::Address;

/// The libraries whose files can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Library {
    /// The text file that LightGBM's `save_model` writes
    Lightgbm,
    /// The JSON file that XGBoost's `save_model` writes
    Xgboost,
}

impl Library {
    /// The library's name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Library::Lightgbm => "lightgbm",
            Library::Xgboost => "xgboost",
        }
    }
}

/// Turn a LightGBM or XGBoost model into a model file that needs no library
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  rv-score import model.txt --from lightgbm --name fraud --model-version 3 --output fraud.json
  rv-score import model.json --from xgboost --name price --model-version 1 --output price.json")]
pub struct ImportArgs {
    /// The model file of the library
    #[arg(value_name = "FILE")]
    file: String,

    /// The library that wrote FILE
    #[arg(long, value_enum, value_name = "LIBRARY")]
    from: Library,

    /// Write the model to PATH; `-` is standard output. An existing file is
    /// replaced only when the model is complete
    #[arg(short, long, value_name = "PATH")]
    output: Address,

    /// The name of the model in policies and scores: letters, digits, `.`, `-`,
    /// `_`
    #[arg(short, long, value_name = "NAME")]
    name: String,

    /// The version of the model, a whole number
    #[arg(long, value_name = "N")]
    model_version: u64,

    /// The names of the inputs, in the model's order. Default: the names in FILE
    #[arg(short, long, value_name = "NAME,...", value_delimiter = ',')]
    features: Vec<String>,

    /// The labels of the classes, in the model's order. Default: 0, 1, 2, ...
    #[arg(long, value_name = "LABEL,...", value_delimiter = ',')]
    classes: Vec<String>,

    /// A JSON object with the categories of inputs, in the order of their codes, such as
    /// {"colour": ["red", "green"]}. Default: the categories in FILE
    #[arg(long, value_name = "FILE")]
    categories: Option<String>,

    /// The name of what the model predicts, for `rv-score inspect`
    #[arg(short, long, value_name = "NAME", default_value = "label")]
    target: String,
}

/// The checked options of an import.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// The path of the library's file.
    pub file: String,
    /// The library that wrote the file.
    pub library: Library,
    /// The path of the new model file, or `-` for standard output.
    pub output: Address,
    /// The name of the model.
    pub name: String,
    /// The version of the model.
    pub version: u64,
    /// What the model predicts.
    pub target: String,
    /// The labels of the classes; empty for 0, 1, 2 and so on.
    pub classes: Vec<String>,
    /// The names of the inputs and of their categories.
    pub inputs: InputNames,
}

impl ImportArgs {
    /// Checks the flags, and reads the file of categories.
    pub fn check(self) -> Result<ImportOptions> {
        check_name(&self.name).map_err(usage)?;
        let categories = match &self.categories {
            None => BTreeMap::new(),
            Some(path) => {
                let text = file::read_text(path)?;
                let read = serde_json::from_str(&text);
                read.with_context(|| {
                    format!("{path}: is not a JSON object with a list of categories for each input")
                })?
            }
        };
        Ok(ImportOptions {
            file: self.file,
            library: self.from,
            output: self.output,
            name: self.name,
            version: self.model_version,
            target: self.target,
            classes: self.classes,
            inputs: InputNames {
                features: self.features,
                categories,
            },
        })
    }
}
