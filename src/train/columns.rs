//! A table while it is read: its columns, and the cells of its rows.
//!
//! A cell takes eight bytes. The text of a cell is kept only while its column has few
//! different texts. A column with many different texts can have neither categories nor
//! classes.

use std::collections::HashMap;

use crate::model::bounds::FEATURES_MAX;
use crate::train::cell::{Cell, CellKind, CellSyntax};
use crate::train::column::{Column, Form};
use crate::train::options::TableOptions;
use crate::wire::lines::Line;

/// The largest number of rows in a table. Up to this number, CART compares splits
/// exactly.
pub const ROWS_MAX: usize = 1 << 26;

/// The largest number of values in a table. They take 2 GiB of memory.
const VALUES_MAX: usize = 1 << 28;

/// The number of cells in a chunk of rows.
const CHUNK_CELLS: usize = 1 << 16;

/// The largest number of bytes of rows that are kept for the file of rejects.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where a row is in the data.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The number of the row in the data, counted from 1. Rows that are left out count,
    /// too.
    pub number: u64,
    /// The number of the first line of the row.
    pub line: u64,
    /// The offset of the first byte of the row.
    pub offset: u64,
}

/// Consecutive rows with the same number of cells. A column that was found after these
/// rows is missing in all of them.
#[derive(Debug)]
pub struct Chunk {
    /// The number of cells in a row.
    pub width: usize,
    /// The cells, row after row.
    pub cells: Vec<Cell>,
}

/// A column that is not read, and why.
#[derive(Clone, Debug)]
pub struct Unused {
    /// The name, as messages show it.
    pub name: String,
    /// The reason.
    pub reason: String,
}

/// The words for the parts of a table in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// CSV: rows and columns.
    Csv,
    /// NDJSON: rows and fields.
    Ndjson,
    /// Recorded requests: records and fields. The labels are CSV fields or JSON.
    Joined {
        /// Whether the labels come from CSV.
        csv_labels: bool,
    },
}

impl Origin {
    /// The name of a part of a row.
    pub fn column(self) -> &'static str {
        match self {
            Origin::Csv => "column",
            Origin::Ndjson | Origin::Joined { .. } => "field",
        }
    }

    /// The name of a row.
    pub fn row(self) -> &'static str {
        match self {
            Origin::Csv | Origin::Ndjson => "row",
            Origin::Joined { .. } => "record",
        }
    }

    /// Whether the targets are CSV fields. Unlike a JSON value, a field has no type.
    pub fn has_csv_targets(self) -> bool {
        matches!(self, Origin::Csv | Origin::Joined { csv_labels: true })
    }
}

/// The columns and rows that were read so far. The first column is the target.
#[derive(Debug)]
pub struct Columns {
    /// Where the rows come from.
    pub origin: Origin,
    /// The columns. The target is the first.
    pub columns: Vec<Column>,
    /// The columns that are not read.
    pub unused: Vec<Unused>,
    /// How the texts of the cells are read.
    pub syntax: CellSyntax,
    /// The rows.
    pub chunks: Vec<Chunk>,
    /// The place of each row.
    pub places: Vec<Place>,
    /// The text of rows that may turn out to be bad, by their index in `places`.
    pub kept: HashMap<usize, Vec<u8>>,
    /// The number of rows that were left out.
    pub left_out: u64,
    kept_bytes: usize,
    keep_rows: bool,
}

impl Columns {
    /// A table without rows, which has only the target.
    pub fn new(origin: Origin, options: &TableOptions) -> Columns {
        Columns {
            origin,
            columns: vec![Column::new(&options.columns.target)],
            unused: Vec::new(),
            syntax: options.syntax.cells.clone(),
            chunks: Vec::new(),
            places: Vec::new(),
            kept: HashMap::new(),
            left_out: 0,
            kept_bytes: 0,
            keep_rows: options.skip_bad_rows,
        }
    }

    /// Adds a column, and returns its index.
    pub fn add_column(&mut self, name: &str) -> usize {
        self.columns.push(Column::new(name));
        self.columns.len() - 1
    }

    /// Adds a cell to a column. The caller must then add a row with this cell.
    pub fn add_cell(
        &mut self,
        column: usize,
        (kind, value): (CellKind, f64),
        form: Form,
        text: &str,
    ) -> Cell {
        self.columns[column].add(kind, value, form, text)
    }

    /// Adds a row with one cell for each column. `line` is its text.
    pub fn push(&mut self, number: u64, line: &Line, row: &[Cell]) {
        if self.keep_rows && self.may_be_bad(row) {
            let bytes = line.bytes;
            if self.kept_bytes + bytes.len() <= KEPT_BYTES_MAX {
                self.kept_bytes += bytes.len();
                self.kept.insert(self.places.len(), bytes.to_owned());
            }
        }
        self.places.push(Place {
            number,
            line: line.number,
            offset: line.offset,
        });
        let fits = |chunk: &Chunk| {
            chunk.width == row.len() && chunk.cells.len() + row.len() <= chunk.cells.capacity()
        };
        if !self.chunks.last().is_some_and(fits) {
            // The first chunks are small. A small table, and a table in which new
            // columns keep appearing, then needs little memory.
            let grown = self.chunks.last().map_or(0, |chunk| chunk.cells.len() * 4);
            let capacity = grown.max(row.len() * 16).min(CHUNK_CELLS.max(row.len()));
            self.chunks.push(Chunk {
                width: row.len(),
                cells: Vec::with_capacity(capacity),
            });
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.cells.extend_from_slice(row);
        }
    }

    /// Whether a row has a cell that may be a fault of the row.
    fn may_be_bad(&self, row: &[Cell]) -> bool {
        let mut cells = row.iter().zip(&self.columns).enumerate();
        cells.any(|(index, (cell, column))| match cell.kind() {
            CellKind::Missing | CellKind::Number => false,
            CellKind::True | CellKind::False | CellKind::Marker => index == 0,
            CellKind::Nested | CellKind::NotUnicode | CellKind::Twice => true,
            _ => !column.is_clearly_text(),
        })
    }

    /// The fault of the table as a whole, as far as it has been read.
    pub fn fault(&self) -> Option<String> {
        let is_json = self.origin != Origin::Csv;
        if is_json && self.columns.len() + self.unused.len() > FEATURES_MAX + 1 {
            return Some(format!(
                "there are more than {FEATURES_MAX} {}s; choose some with --features",
                self.origin.column()
            ));
        }
        let values = self.places.len() * self.columns.len();
        (self.places.len() > ROWS_MAX || values > VALUES_MAX).then(|| {
            format!(
                "there are more than {ROWS_MAX} rows or {VALUES_MAX} values; train on a sample, or \
                 choose columns with --features"
            )
        })
    }

    /// The number of rows in which a column has no value.
    pub fn missing(&self, column: &Column) -> u64 {
        let others = [CellKind::Nested, CellKind::NotUnicode, CellKind::Twice];
        let others: u64 = others.iter().map(|kind| column.count(*kind)).sum();
        (self.places.len() as u64).saturating_sub(column.present() + others)
    }
}
