//! The flags of `rv-score train`, and their checks.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::model::bounds::{check_name, first_duplicate};
use crate::model::description::Hyperparameters;
use crate::model::families::Algorithm;
use crate::stage::report::shown;
use crate::stage::usage;
use crate::stream::address::Address;
use crate::train::algorithms::trainer_of;
use crate::train::options::{ColumnNames, Impute, TableOptions, Task};
use crate::train::source::Format;

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

    /// Texts or numbers that stand for a missing value, in all columns. Without this
    /// flag, NA, N/A, NaN, null, None, ? and - do so in CSV columns of numbers
    #[arg(
        long,
        value_name = "MARKER,...",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    missing: Vec<String>,

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

    /// The separator of CSV fields: one character, or `tab`. Default: by the name of
    /// the file (`.tsv`) and by the header
    #[arg(long, value_name = "CHARACTER", value_parser = parse_delimiter)]
    delimiter: Option<u8>,

    /// The decimal separator of numbers in CSV: `.` or `,`
    #[arg(long, value_name = "CHARACTER", default_value = ".", value_parser = [".", ","])]
    decimal: String,

    /// The training algorithm
    #[arg(short, long, value_enum, value_name = "ALGORITHM")]
    algorithm: Algorithm,

    /// The name of the model in policies and scores: letters, digits, `.`, `-`,
    /// `_`
    #[arg(short, long, value_name = "NAME")]
    name: String,

    /// The version of the model, a whole number
    #[arg(long, value_name = "N")]
    model_version: u64,

    /// The seed that selects the held-out rows
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// The share of each class that is held out of training to measure the model.
    /// With 0 the model learns from all rows and is not measured
    #[arg(long, value_name = "FRACTION", default_value_t = 0.2)]
    holdout: f64,

    /// The format of the rows. Default: by the name of the file, or else by its
    /// first byte
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,

    /// For trees: the largest number of splits on a path, from 1 to 128. Default: 32
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=128))]
    max_depth: Option<u32>,

    /// For trees: the smallest number of rows in a leaf. Default: 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    min_leaf: Option<u32>,

    /// For logistic regression: the weight of the L2 penalty, from 0 to 1e9.
    /// Default: 1
    #[arg(long, value_name = "WEIGHT")]
    l2: Option<f64>,

    /// For logistic regression: the largest number of iterations. Default: 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_iterations: Option<u64>,

    /// Skip and report rows that cannot be used. Without this flag, the first such
    /// row ends the training
    #[arg(long)]
    skip_bad_rows: bool,
}

/// The checked options of a training.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// The table to read.
    pub table: TableOptions,
    /// The path of the model file, or `-` for standard output.
    pub output: Address,
    /// The training algorithm.
    pub algorithm: Algorithm,
    /// The settings of the algorithm, the defaults included.
    pub hyperparameters: Hyperparameters,
    /// The name of the model.
    pub name: String,
    /// The version of the model.
    pub version: u64,
    /// The seed that selects the held-out rows.
    pub seed: u64,
    /// The share of each class that is held out, from 0 to below 1.
    pub holdout: f64,
}

impl TrainArgs {
    /// Checks the flags and fills in the defaults.
    pub fn check(self) -> Result<TrainOptions> {
        check_name(&self.name).map_err(usage)?;
        if !(0.0..1.0).contains(&self.holdout) {
            return Err(usage("--holdout must be a number from 0 to below 1"));
        }
        let columns = ColumnNames {
            target: self.target.clone(),
            features: self.features.clone(),
            drop: self.drop.clone(),
            categorical: self.categorical.clone(),
            numeric: self.numeric.clone(),
        };
        check_columns(&columns)?;
        Ok(TrainOptions {
            hyperparameters: self.hyperparameters()?,
            table: TableOptions {
                input: self.input,
                columns,
                format: self.format,
                skip_bad_rows: self.skip_bad_rows,
                labels: self.labels,
                delimiter: self.delimiter,
                decimal_comma: self.decimal == ",",
                missing: self.missing,
                impute: Impute::from(self.impute.as_str()),
                task: self.task,
            },
            output: self.output,
            algorithm: self.algorithm,
            name: self.name,
            version: self.model_version,
            seed: self.seed,
            holdout: self.holdout,
        })
    }

    /// The hyperparameters for the algorithm. Returns an error if the flags set one
    /// that the algorithm does not have.
    fn hyperparameters(&self) -> Result<Hyperparameters> {
        if !self.l2.is_none_or(|l2| (0.0..=1e9).contains(&l2)) {
            return Err(usage("--l2 must be a number from 0 to 1e9"));
        }
        let given = Hyperparameters {
            max_depth: self.max_depth,
            min_leaf: self.min_leaf,
            l2: self.l2,
            max_iterations: self.max_iterations,
        };
        let defaults = trainer_of(self.algorithm).defaults;
        let known = flags(&defaults);
        let unknown = flags(&given).into_iter().find(|flag| !known.contains(flag));
        if let Some(flag) = unknown {
            let others = Algorithm::value_variants().iter();
            let others =
                others.filter(|other| flags(&trainer_of(**other).defaults).contains(&flag));
            let others: Vec<String> = others.map(|other| other.name()).collect();
            return Err(usage(format!(
                "{flag} is for {}, not for {}; leave it out",
                others.join(" and "),
                self.algorithm.name()
            )));
        }
        Ok(Hyperparameters {
            max_depth: given.max_depth.or(defaults.max_depth),
            min_leaf: given.min_leaf.or(defaults.min_leaf),
            l2: given.l2.or(defaults.l2),
            max_iterations: given.max_iterations.or(defaults.max_iterations),
        })
    }
}

/// The flags of the hyperparameters that are set.
fn flags(hyperparameters: &Hyperparameters) -> Vec<&'static str> {
    let Hyperparameters {
        max_depth,
        min_leaf,
        l2,
        max_iterations,
    } = hyperparameters;
    let flags = [
        ("--max-depth", max_depth.is_some()),
        ("--min-leaf", min_leaf.is_some()),
        ("--l2", l2.is_some()),
        ("--max-iterations", max_iterations.is_some()),
    ];
    let set = flags.iter().filter(|(_, is_set)| *is_set);
    set.map(|(flag, _)| *flag).collect()
}

/// Parses the separator of CSV fields.
fn parse_delimiter(text: &str) -> Result<u8, String> {
    match (text, text.as_bytes()) {
        ("tab" | "\\t", _) => Ok(b'\t'),
        (_, [byte]) if byte.is_ascii_graphic() && *byte != b'"' || matches!(byte, b' ' | b'\t') => {
            Ok(*byte)
        }
        _ => Err("must be one ASCII character, such as `;`, or `tab`".to_owned()),
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
                "--l2 is for logistic-regression, not for decision-tree",
            ),
            (
                "--target y --algorithm linfa-tree --max-iterations 1",
                "--max-iterations is for logistic-regression, not for linfa-tree",
            ),
            (
                "--target y --algorithm logistic-regression --max-depth 3",
                "--max-depth is for decision-tree and linfa-tree",
            ),
            (
                "--target y --algorithm logistic-regression --min-leaf 3",
                "--min-leaf is for decision-tree and linfa-tree",
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
