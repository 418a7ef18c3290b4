//! Reads a table from a file, a pipe or an archive. Chooses the format and the reader.

use anyhow::{Result, bail};

use crate::stage::Stage;
use crate::stream::address::Address;
use crate::train::joined_rows::{self, LabelsById};
use crate::train::source::{Format, Source};
use crate::train::table::{ColumnNames, Table, TableBuilder};
use crate::train::{csv_rows, ndjson_rows};

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
}

/// Reads the whole input into a table, which has at least one row.
pub fn read_table(stage: &mut Stage, options: &TableOptions) -> Result<Table> {
    if let Some(labels) = &options.labels {
        return read_joined(stage, labels, options);
    }
    let mut source = Source::open(stage, &options.input, options.skip_bad_rows)?;
    let format = match options
        .format
        .or_else(|| Format::of_path(options.input.as_str()))
    {
        Some(format) => format,
        None => source.format()?,
    };
    let mut builder = TableBuilder::new(&options.columns.target);
    match format {
        Format::Csv => csv_rows::read(&mut source, &options.columns, &mut builder)?,
        Format::Ndjson => ndjson_rows::read(&mut source, &options.columns, &mut builder)?,
    }
    finish(source.name(), source.sha256(), builder)
}

/// Joins recorded requests with a file of labels into a table.
fn read_joined(stage: &mut Stage, labels: &str, options: &TableOptions) -> Result<Table> {
    let mut labels = LabelsById::read(stage, labels, &options.columns.target)?;
    let mut source = Source::open(stage, &options.input, options.skip_bad_rows)?;
    let mut builder = TableBuilder::new(&options.columns.target);
    let summary = joined_rows::read(&mut source, &options.columns, &mut labels, &mut builder)?;
    let name = source.name().to_owned();
    let sha256 = source.sha256();
    drop(source);
    stage.report.info(&format!("{name}: {summary}"));
    finish(&name, sha256, builder)
}

/// The table, unless it has no row.
fn finish(name: &str, sha256: String, builder: TableBuilder) -> Result<Table> {
    let mut table = builder.finish();
    table.sha256 = Some(sha256);
    if table.rows.is_empty() {
        match table.left_out {
            0 => bail!("{name}: has no row of data"),
            left_out => bail!("{name}: none of its {left_out} rows can be used"),
        }
    }
    Ok(table)
}
