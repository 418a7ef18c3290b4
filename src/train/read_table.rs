//! Reads a table from a file, a pipe or an archive. Chooses the format and the reader.

use anyhow::Result;

use crate::stage::Stage;
use crate::train::assemble::assemble;
use crate::train::joined_rows;
use crate::train::label_file::LabelsById;
use crate::train::options::TableOptions;
use crate::train::source::{Format, Source};
use crate::train::table::Table;
use crate::train::{csv_rows, ndjson_rows};

/// Reads the whole input into a table, which has at least one row and one feature.
pub fn read_table(stage: &mut Stage, options: &TableOptions) -> Result<Table> {
    if let Some(labels) = &options.labels {
        return read_joined(stage, labels, options);
    }
    let mut source = Source::open(stage, &options.input, options.skip_bad_rows)?;
    source.check_encoding()?;
    let format = source.format(options.format, options.input.as_str())?;
    let columns = match format {
        Format::Csv => csv_rows::read(&mut source, options)?,
        Format::Ndjson => ndjson_rows::read(&mut source, options)?,
    };
    let mut table = assemble(columns, &mut source, options)?;
    table.sha256 = Some(source.sha256());
    Ok(table)
}

/// Joins recorded requests with a file of labels into a table.
fn read_joined(stage: &mut Stage, labels: &str, options: &TableOptions) -> Result<Table> {
    let target = &options.columns.target;
    let mut labels = LabelsById::read(stage, labels, target, &options.syntax)?;
    let mut source = Source::open(stage, &options.input, options.skip_bad_rows)?;
    let (columns, summary) = joined_rows::read(&mut source, options, &mut labels)?;
    source.info(&format!("{}: {summary}", source.name()));
    drop(labels);
    let mut table = assemble(columns, &mut source, options)?;
    table.sha256 = Some(source.sha256());
    Ok(table)
}
