//! The flags of `rv-score train`, and their checks.

use anyhow::Result;
use clap::Args;

use crate::model::bounds::{check_name, first_duplicate};
use crate::stage::report::shown;
use crate::stage::usage;
use crate::stream::address::Address;
use crate::train::fit_args::{FitArgs, FitOptions};
use crate::train::options::{ColumnNames, Impute, TableOptions, Task};
use crate::train::source::Format;
use crate::train::syntax_args::SyntaxArgs;

/// Train a model on a table
#[derive(Args, Clone, Debug)]
pub struct TrainArgs {
    /// Read the rows from PATH: CSV with a header line, or NDJSON, also compressed
    /// (`.gz`); `-` is standard input. What each column is taken for is printed. With --labels: recorded requests, from a file or
    /// from a folder that rv-archive writes
    #[arg(short, long, value_name = "PATH", default_value_t = Address::Standard)]
    input: Address,

    /// Write the model to PATH; `-` is standard output. An existing file is
    /// replaced only when the model is complete
    #[arg(short, long, value_name = "PATH")]
    output: Address,

    /// The column to predict: numbers, or up to 1000 different texts
    #[arg(short, long, value_name = "COLUMN")]
    target: String,

    /// What to predict. Default: a number, if the target has fractions or more than
    /// 20 different whole numbers; else one of its values
    #[arg(long, value_enum, value_name = "TASK")]
    task: Option<Task>,

    /// Train on the `modelInput` of recorded requests. FILE contains the label of
    /// each `messageId`: CSV (`.csv`) or NDJSON with the columns `messageId` and the
    /// target. Requests without a label are skipped
    #[arg(long, value_name = "FILE", conflicts_with = "format")]
    labels: Option<String>,

    /// The columns of the features. In NDJSON, a name that begins with `/` is a JSON
    /// pointer. Default: all columns that can be used, except the target
    #[arg(short, long, value_name = "COLUMN,...", value_delimiter = ',')]
    features: Option<Vec<String>>,

    /// Columns that are no features
    #[arg(
        long,
        value_name = "COLUMN,...",
        value_delimiter = ',',
        conflicts_with = "features"
    )]
    drop: Vec<String>,

    /// Columns that are categories, whatever their values look like
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    categorical: Vec<String>,

    /// Columns that are numbers; a row with another value cannot be used
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    numeric: Vec<String>,

    #[command(flatten)]
    syntax: SyntaxArgs,

    /// How a missing feature is filled in, in training and at scoring: `median`,
    /// `mean`, `most-frequent`, or a value. A missing category is filled in with the
    /// most frequent one or with the value
    #[arg(
        long,
        value_name = "FILL",
        default_value = "median",
        allow_hyphen_values = true
    )]
    impute: String,

    /// The name of the model in policies and scores: letters, digits, `.`, `-`,
    /// `_`
    #[arg(short, long, value_name = "NAME")]
    name: String,

    /// The version of the model, a whole number
    #[arg(long, value_name = "N")]
    model_version: u64,

    /// The format of the rows. Default: by the name of the file, or else by its
    /// first byte
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,

    /// Skip and report rows that cannot be used. Without this flag, the first such
    /// row ends the training
    #[arg(long)]
    skip_bad_rows: bool,

    #[command(flatten)]
    fit: FitArgs,
}

/// The checked options of a training.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// The table to read.
    pub table: TableOptions,
    /// The path of the model file, or `-` for standard output.
    pub output: Address,
    /// The algorithm, its settings and the held-out rows.
    pub fit: FitOptions,
    /// The name of the model.
    pub name: String,
    /// The version of the model.
    pub version: u64,
}

impl TrainArgs {
    /// Checks the flags and fills in the defaults.
    pub fn check(self) -> Result<TrainOptions> {
        check_name(&self.name).map_err(usage)?;
        let columns = ColumnNames {
            target: self.target.clone(),
            features: self.features.clone(),
            drop: self.drop.clone(),
            categorical: self.categorical.clone(),
            numeric: self.numeric.clone(),
        };
        check_columns(&columns)?;
        let fit = self.fit.check()?;
        Ok(TrainOptions {
            table: TableOptions {
                input: self.input,
                columns,
                format: self.format,
                skip_bad_rows: self.skip_bad_rows,
                labels: self.labels,
                syntax: self.syntax.into(),
                impute: Impute::from(self.impute.as_str()),
                task: self.task.or(fit.only_task()),
            },
            fit,
            output: self.output,
            name: self.name,
            version: self.model_version,
        })
    }
}

/// Checks the names of columns in the flags against each other.
fn check_columns(names: &ColumnNames) -> Result<()> {
    let ColumnNames {
        target,
        features,
        drop,
        categorical,
        numeric,
    } = names;
    let none = Vec::new();
    for (flag, list) in [
        ("--features", features.as_ref().unwrap_or(&none)),
        ("--drop", drop),
        ("--categorical", categorical),
        ("--numeric", numeric),
    ] {
        if let Some(name) = first_duplicate(list.iter().map(String::as_str)) {
            return Err(usage(format!("{flag} names column {} twice", shown(name))));
        }
        if list.iter().any(String::is_empty) {
            return Err(usage(format!("{flag} names a column without a name")));
        }
    }
    if features.iter().flatten().any(|name| name == target) {
        return Err(usage(format!(
            "column {} is both --target and among the --features; the model would only repeat its \
             input",
            shown(target)
        )));
    }
    let both = categorical.iter().find(|name| numeric.contains(name));
    let dropped = categorical.iter().chain(numeric).find(|name| {
        drop.contains(name)
            || features.as_ref().is_some_and(|all| !all.contains(name)) && *name != target
    });
    if let Some(name) = both.or_else(|| numeric.iter().find(|name| *name == target)) {
        let name = shown(name);
        return Err(usage(match both {
            Some(_) => format!("column {name} is both --categorical and --numeric"),
            None => format!("column {name} is the target; --task regress predicts a number"),
        }));
    }
    match dropped {
        Some(name) => Err(usage(format!(
            "column {} is --categorical or --numeric, but it is not among the features",
            shown(name)
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::stage::EndedEarly;
    use crate::train::tests::{ROWS, train_on};

    #[test]
    fn flags_that_make_no_sense_are_errors_of_usage() {
        let data = format!("a,b,y\n{ROWS}");
        for (flags, reason) in [
            (
                "--target z --algorithm decision-tree",
                "has no column \"z\" for --target; its columns are a, b, y",
            ),
            (
                "--target y --features a,c --algorithm decision-tree",
                "has no column \"c\" for --features",
            ),
            (
                "--target y --features a,y --algorithm decision-tree",
                "both --target and among",
            ),
            (
                "--target y --features a,a --algorithm decision-tree",
                "names column \"a\" twice",
            ),
            (
                "--target y --features a, --algorithm decision-tree",
                "without a name",
            ),
            (
                "--target y --algorithm decision-tree --holdout 1",
                "from 0 to below 1",
            ),
            (
                "--target y --algorithm decision-tree --holdout=-0.1",
                "from 0 to below 1",
            ),
            (
                "--target y --algorithm decision-tree --holdout NaN",
                "from 0 to below 1",
            ),
            (
                "--target y --algorithm decision-tree --l2 1",
                "--l2 is for logistic-regression and linear-regression, not for decision-tree",
            ),
            (
                "--target y --algorithm linfa-tree --max-iterations 1",
                "--max-iterations is for logistic-regression, not for linfa-tree",
            ),
            (
                "--target y --algorithm logistic-regression --max-depth 3",
                "--max-depth is for random-forest and decision-tree and linfa-tree",
            ),
            (
                "--target y --algorithm logistic-regression --min-leaf 3",
                "--min-leaf is for random-forest and decision-tree and linfa-tree",
            ),
            (
                "--target y --algorithm decision-tree --trees 3",
                "--trees is for random-forest, not for decision-tree",
            ),
            ("--target y --l2 1", "not for random-forest"),
            (
                "--target y --algorithm linear-regression",
                "column \"y\" has texts, such as \"no\", where a regression needs numbers",
            ),
            (
                "--target y --threshold maybe=0.5 --holdout 0",
                "has no label \"maybe\"; its labels are \"no\", \"yes\"",
            ),
            (
                "--target y --algorithm linfa-tree --class-weight balanced",
                "--class-weight is not for linfa-tree",
            ),
            (
                "--target y --algorithm logistic-regression --l2 NaN",
                "--l2 must be a number",
            ),
        ] {
            let outcome = train_on("rows.csv", data.as_bytes(), flags);
            let message = outcome.message();
            assert!(message.contains(reason), "{message}");
            let error = outcome.result.unwrap_err();
            assert!(
                matches!(error.downcast_ref(), Some(EndedEarly::Usage(_))),
                "{error}"
            );
        }
        let message = train_on(
            "rows.csv",
            data.as_bytes(),
            "--target y --algorithm decision-tree --holdout 0.9",
        )
        .message();
        assert!(
            message.contains("hold out less with --holdout"),
            "{message}"
        );
    }
}
