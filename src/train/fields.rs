//! Reads the members of JSON objects as the columns of a table. The columns are all
//! members of all objects, unless --features names some.

use std::borrow::Cow;
use std::collections::HashMap;

use anyhow::Result;

use crate::model::bounds::FEATURES_MAX;
use crate::model::scalar::ScalarType;
use crate::stage::report::shown;
use crate::stage::usage;
use crate::train::cell::{Cell, CellKind, CellSyntax};
use crate::train::column::Form;
use crate::train::columns::{Columns, Unused};
use crate::train::options::ColumnNames;
use crate::wire::object::{Object, at_pointer, decode_string};

/// The kind of a JSON value, its number or NaN, and its text.
pub fn kind_of_json<'r>(raw: &'r str, syntax: &CellSyntax) -> (CellKind, f64, Form, Cow<'r, str>) {
    let json = Cow::Borrowed(raw);
    match ScalarType::of_json(raw) {
        None if raw == "null" => (CellKind::Missing, f64::NAN, Form::Json, Cow::Borrowed("")),
        None => (CellKind::Nested, f64::NAN, Form::Json, json),
        Some(ScalarType::Number) => {
            let (kind, value) = syntax.of_json_number(raw);
            (kind, value, Form::Json, json)
        }
        Some(ScalarType::Boolean) if raw == "true" => (CellKind::True, 1.0, Form::Json, json),
        Some(ScalarType::Boolean) => (CellKind::False, 0.0, Form::Json, json),
        Some(ScalarType::String) => match decode_string(raw) {
            Some(text) => (syntax.of_json_string(&text), f64::NAN, Form::Text, text),
            None => (CellKind::NotUnicode, f64::NAN, Form::Json, json),
        },
    }
}

/// The columns of the features, by the names of their members.
pub struct Fields {
    names: ColumnNames,
    /// For each known member, by its name: its column, or `None` if the member is not a
    /// feature.
    indices: HashMap<String, Option<usize>>,
    /// The features that are JSON pointers, and their columns.
    pointers: Vec<(String, usize)>,
    /// The column of each member of the last object. Most objects have the same
    /// members.
    expected: Vec<(String, Option<usize>)>,
}

impl Fields {
    /// Adds the columns that --features names.
    pub fn new(names: &ColumnNames, columns: &mut Columns) -> Fields {
        let mut fields = Fields {
            names: names.clone(),
            indices: HashMap::new(),
            pointers: Vec::new(),
            expected: Vec::new(),
        };
        for name in names.features.iter().flatten() {
            let column = columns.add_column(name);
            match name.starts_with('/') {
                true => fields.pointers.push((name.clone(), column)),
                false => {
                    fields.indices.insert(name.clone(), Some(column));
                }
            }
        }
        fields
    }

    /// Reads the features of an object into `row`. The first cell of `row` belongs to
    /// the target and is not set.
    pub fn read(
        &mut self,
        object: &Object,
        text: &str,
        row: &mut Vec<Cell>,
        columns: &mut Columns,
    ) {
        // The row has a cell for each column, so all columns are found before the first
        // cell is added.
        let mut found = Vec::with_capacity(object.members.len());
        for (position, member) in object.members.iter().enumerate() {
            let column = match self.expected.get(position) {
                Some((name, column)) if member.is(name) => *column,
                _ => {
                    let name = member.name();
                    let column = self.column(&name, columns);
                    self.expected.truncate(position);
                    self.expected.push((name.into_owned(), column));
                    column
                }
            };
            found.extend(column.map(|column| (column, member.value)));
        }
        for (pointer, column) in &self.pointers {
            let value = at_pointer(text, pointer);
            found.extend(value.map(|value| (*column, value)));
        }
        row.clear();
        row.resize(columns.columns.len(), Cell::MISSING);
        let mut seen = vec![false; columns.columns.len()];
        for (column, raw) in found {
            if std::mem::replace(&mut seen[column], true) {
                let twice = (CellKind::Twice, f64::NAN);
                row[column] = columns.add_cell(column, twice, Form::Json, raw);
                continue;
            }
            let (kind, value, form, text) = kind_of_json(raw, &columns.syntax);
            row[column] = columns.add_cell(column, (kind, value), form, &text);
        }
    }

    /// The column of a member, which is added if it is new.
    fn column(&mut self, name: &str, columns: &mut Columns) -> Option<usize> {
        if let Some(column) = self.indices.get(name) {
            return *column;
        }
        if name == self.names.target || self.names.features.is_some() {
            return None;
        }
        if self.indices.len() > FEATURES_MAX + 1 {
            // The table has too many columns. This fault is reported for the whole
            // input.
            return None;
        }
        let unused = |reason: &str| Unused {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        let column = if !self.names.is_wanted(name) {
            columns.unused.push(unused("--drop names it"));
            None
        } else if name.is_empty() {
            columns.unused.push(unused("has no name"));
            None
        } else if name.starts_with('/') {
            let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            columns.unused.push(unused(&format!(
                "begins with /, as a JSON pointer does; --features {pointer} uses it"
            )));
            None
        } else {
            Some(columns.add_column(name))
        };
        self.indices.insert(name.to_owned(), column);
        column
    }

    /// Checks that the flags name only fields that exist. Call it after the last row.
    pub fn check(&self, input: &str) -> Result<()> {
        for (flag, list) in [
            ("--drop", &self.names.drop),
            ("--categorical", &self.names.categorical),
            ("--numeric", &self.names.numeric),
        ] {
            let is_known = |name: &&String| {
                self.indices.contains_key(*name)
                    || **name == self.names.target
                    || self.pointers.iter().any(|(pointer, _)| pointer == *name)
            };
            if let Some(name) = list.iter().find(|name| !is_known(name)) {
                return Err(usage(format!(
                    "{input}: no row has the field {} that {flag} names",
                    shown(name)
                )));
            }
        }
        Ok(())
    }
}
