//! The flags of `rv-score eval`, and their checks.

use anyhow::Result;
use clap::Args;

use crate::stream::address::Address;
use crate::train::source::Format;
use crate::train::syntax_args::{RowSyntax, SyntaxArgs};

/// Measure a model on rows whose labels are known
///
/// Prints accuracy, log loss, precision and recall of each class, the confusion matrix
/// and a calibration table; for numbers the mean absolute error, the root mean squared
/// error, R2 and the quantiles of the errors. A row without a label is not counted. A row
/// that the model cannot evaluate is reported, and makes the exit status 1.
#[derive(Args, Clone, Debug)]
pub struct EvalArgs {
    /// The model file
    #[arg(short, long, value_name = "FILE")]
    model: String,

    /// The rows: CSV with a header line, or NDJSON, also compressed (`.gz`); `-` is
    /// standard input. With --labels: recorded requests, from a file or from a folder
    /// that rv-archive writes
    #[arg(short, long, value_name = "PATH")]
    data: Address,

    /// The column with the true answer. Default: the column that the model was trained
    /// to predict
    #[arg(short, long, value_name = "COLUMN")]
    target: Option<String>,

    /// Evaluate the `modelInput` of recorded requests. FILE contains the label of each
    /// `messageId`: CSV (`.csv`) or NDJSON with the columns `messageId` and the target
    #[arg(long, value_name = "FILE", conflicts_with = "format")]
    labels: Option<String>,

    /// The format of the rows. Default: by the name of the file, or else by its first
    /// byte
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,

    #[command(flatten)]
    syntax: SyntaxArgs,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The checked options.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// The path of the model file.
    pub model: String,
    /// The rows.
    pub data: Address,
    /// The column with the true answer. If `None`, the column that the model was
    /// trained to predict.
    pub target: Option<String>,
    /// The file of labels, if the rows are recorded requests.
    pub labels: Option<String>,
    /// The format of the rows; detected if `None`.
    pub format: Option<Format>,
    /// How rows are cut into fields, and how cells are read.
    pub syntax: RowSyntax,
    /// Whether JSON is printed.
    pub json: bool,
}

impl EvalArgs {
    /// Checks the flags.
    pub fn check(self) -> Result<EvalOptions> {
        Ok(EvalOptions {
            model: self.model,
            data: self.data,
            target: self.target,
            labels: self.labels,
            format: self.format,
            syntax: self.syntax.into(),
            json: self.json,
        })
    }
}
