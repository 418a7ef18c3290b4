//! Options that say what `rv-score train` reads, and what it takes the columns for.

use clap::ValueEnum;

use crate::stage::report::escaped;
use crate::stream::address::Address;
use crate::train::source::Format;
use crate::train::syntax_args::RowSyntax;

/// What a model predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// One of some classes.
    Classify,
    /// A number.
    Regress,
}

/// How a missing value of a feature is filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Impute {
    /// With the median of the numbers. A missing category is filled in with the most
    /// frequent one.
    #[default]
    Median,
    /// With the mean of the numbers. A missing category is filled in with the most
    /// frequent one.
    Mean,
    /// With the most frequent value.
    MostFrequent,
    /// With this value.
    Value(String),
}

impl From<&str> for Impute {
    fn from(text: &str) -> Impute {
        match text {
            "median" => Impute::Median,
            "mean" => Impute::Mean,
            "most-frequent" => Impute::MostFrequent,
            value => Impute::Value(value.to_owned()),
        }
    }
}

/// A text as an argument of a flag, for a message that proposes a command.
pub fn argument(text: &str) -> String {
    let is_plain = |one: char| one.is_ascii_alphanumeric() || "_./+:%@-".contains(one);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", escaped(text).replace('\'', "'\\''")),
    }
}

/// The columns to read.
#[derive(Clone, Debug, Default)]
pub struct ColumnNames {
    /// The column to predict.
    pub target: String,
    /// The columns of the features. If `None`, all columns that can be used are
    /// features.
    pub features: Option<Vec<String>>,
    /// Columns that are no features.
    pub drop: Vec<String>,
    /// Columns whose values are categories, whatever they look like.
    pub categorical: Vec<String>,
    /// Columns whose values are numbers.
    pub numeric: Vec<String>,
}

impl ColumnNames {
    /// Whether the flags allow a column of this name to be a feature. Its values must
    /// allow this, too.
    pub fn is_wanted(&self, name: &str) -> bool {
        name != self.target
            && !self.drop.iter().any(|dropped| dropped == name)
            && self
                .features
                .as_ref()
                .is_none_or(|names| names.iter().any(|one| one == name))
    }
}

/// The table to read, and its format.
#[derive(Clone, Debug)]
pub struct TableOptions {
    /// The input of rows: a path, or `-` for standard input.
    pub input: Address,
    /// The columns to read.
    pub columns: ColumnNames,
    /// The format of the rows; detected if `None`.
    pub format: Option<Format>,
    /// Whether a row that cannot be used is left out. Otherwise it ends the training.
    pub skip_bad_rows: bool,
    /// The file of labels, if the rows are recorded requests.
    pub labels: Option<String>,
    /// How rows are cut into fields, and how cells are read.
    pub syntax: RowSyntax,
    /// How missing values are filled in.
    pub impute: Impute,
    /// What the model predicts. If `None`, the values of the target decide.
    pub task: Option<Task>,
}
