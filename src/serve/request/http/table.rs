//! What the protocols for tables have in common: rows of model inputs as JSON texts, and
//! the faults of a table (pure).

use std::collections::HashSet;

use crate::wire::object::write_string;

/// Why a table is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableFault {
    /// The table is not valid (400).
    Invalid(String),
    /// The table has more rows, or takes more memory, than the front end accepts (413).
    TooLarge(String),
    /// The table has a form that the front end does not accept (415).
    Unsupported(String),
}

/// The limits of a table.
#[derive(Clone, Copy, Debug)]
pub struct TableLimits {
    /// The largest number of rows.
    pub rows_max: usize,
    /// The largest memory of all model inputs together, in bytes. A model input repeats
    /// the names of the columns, so the inputs can be much longer than the body.
    pub bytes_max: usize,
}

/// The model inputs of a table, one for each row.
#[derive(Debug)]
pub struct Rows {
    limits: TableLimits,
    rows: Vec<String>,
    bytes: usize,
}

/// An invalid table.
pub fn invalid<T>(fault: impl Into<String>) -> Result<T, TableFault> {
    Err(TableFault::Invalid(fault.into()))
}

impl Rows {
    /// No rows yet, of the `count` that the table has. Fails if the table has no row or
    /// too many.
    pub fn new(count: usize, limits: TableLimits) -> Result<Rows, TableFault> {
        match count {
            0 => invalid("the call has no row"),
            count if count > limits.rows_max => Err(TableFault::TooLarge(format!(
                "the call has {count} rows, more than the {} calls that may be open at a time \
                 (--max-in-flight)",
                limits.rows_max
            ))),
            count => Ok(Rows {
                limits,
                rows: Vec::with_capacity(count),
                bytes: 0,
            }),
        }
    }

    /// Adds a row.
    pub fn push(&mut self, row: String) -> Result<(), TableFault> {
        self.bytes += row.len();
        if self.bytes > self.limits.bytes_max {
            return Err(TableFault::TooLarge(format!(
                "the rows of the call take more than {} bytes together",
                self.limits.bytes_max
            )));
        }
        self.rows.push(row);
        Ok(())
    }

    /// The model inputs, in the order of the rows.
    pub fn into_inputs(self) -> Vec<String> {
        self.rows
    }
}

/// Columns with their names as JSON texts, which make objects of rows.
#[derive(Debug)]
pub struct Columns(Vec<String>);

impl Columns {
    /// Columns with these names. Fails if a name occurs twice.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>) -> Result<Columns, TableFault> {
        let mut seen = HashSet::new();
        let mut columns = Vec::new();
        for name in names {
            if !seen.insert(name) {
                return invalid(format!("column {name:?} occurs twice"));
            }
            let mut text = Vec::new();
            write_string(&mut text, name);
            let text = String::from_utf8(text);
            columns.push(text.or_else(|_| invalid("the name of a column is not UTF-8"))?);
        }
        Ok(Columns(columns))
    }

    /// The number of columns.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The object with these values, which are JSON texts in the order of the columns.
    pub fn object<'a>(&self, values: impl Iterator<Item = &'a str>) -> String {
        let mut object = String::from("{");
        for (index, (name, value)) in self.0.iter().zip(values).enumerate() {
            if index > 0 {
                object.push(',');
            }
            object.push_str(name);
            object.push(':');
            object.push_str(value);
        }
        object.push('}');
        object
    }
}

/// The array of these values, which are JSON texts.
pub fn array<'a>(values: impl Iterator<Item = &'a str>) -> String {
    let mut array = String::from("[");
    for (index, value) in values.enumerate() {
        if index > 0 {
            array.push(',');
        }
        array.push_str(value);
    }
    array.push(']');
    array
}
