//! The categories of a column of texts.

use std::collections::HashMap;

use crate::train::cell::{Cell, CellKind, CellSyntax};
use crate::train::column::{Column, Form, Text};
use crate::train::options::Impute;

/// The texts that occur in the rows that can be used.
#[derive(Debug)]
pub struct Categories {
    /// For each text, by its index: whether a row has this text.
    is_used: Vec<bool>,
    has_missing: bool,
}

impl Categories {
    /// The categories of a column, before any row.
    pub fn of(column: &Column) -> Categories {
        Categories {
            is_used: vec![false; column.texts.len()],
            has_missing: false,
        }
    }

    /// Adds the cell of a row.
    pub fn take(&mut self, cell: Cell) {
        match cell.text_index() {
            Some(index) => self.is_used[index] = true,
            None => self.has_missing = true,
        }
    }

    /// Returns the categories in the order of their bytes, and for each text, by its
    /// index, the index of its category. Several texts can be one category. If a value
    /// is missing, the fill value is a category, too.
    pub fn finish(
        &self,
        column: &Column,
        impute: &Impute,
        syntax: &CellSyntax,
    ) -> (Vec<String>, Vec<f64>) {
        let used = || {
            column
                .texts
                .iter()
                .zip(&self.is_used)
                .filter(|(_, is_used)| **is_used)
        };
        let names = Names {
            are_numbers: used().all(|(text, _)| is_json_number(text, syntax)),
            are_booleans: used()
                .all(|(text, _)| matches!(text.kind, CellKind::True | CellKind::False)),
        };
        let mut categories: Vec<String> = used().map(|(text, _)| names.name(text)).collect();
        if let Impute::Value(fill) = impute
            && self.has_missing
        {
            categories.push(fill.clone());
        }
        categories.sort_unstable();
        categories.dedup();
        let indices: HashMap<&str, f64> = categories
            .iter()
            .enumerate()
            .map(|(index, name)| (name.as_str(), index as f64))
            .collect();
        let value = |text: &Text| indices.get(names.name(text).as_str()).copied();
        let values = column
            .texts
            .iter()
            .map(|text| value(text).unwrap_or(f64::NAN))
            .collect();
        (categories, values)
    }
}

/// How texts become the names of categories. A request may write the same value in
/// another way: `1` for `1.0`, and `true` for `True`.
struct Names {
    /// All texts are numbers in the form of JSON.
    are_numbers: bool,
    /// All texts are booleans.
    are_booleans: bool,
}

impl Names {
    fn name(&self, text: &Text) -> String {
        // The number in a request is compared in its shortest form.
        const EXACT_MAX: f64 = (1u64 << 53) as f64;
        let is_number = self.are_numbers || text.form == Form::Json;
        if text.kind == CellKind::Number && is_number && text.value.abs() < EXACT_MAX {
            text.value.to_string()
        } else if self.are_booleans {
            text.text.to_ascii_lowercase()
        } else {
            text.text.clone()
        }
    }
}

/// Whether JSON can write the text as a number. `01` is not a number in JSON.
fn is_json_number(text: &Text, syntax: &CellSyntax) -> bool {
    text.kind == CellKind::Number
        && (text.form == Form::Json || syntax.json_number(&text.text).is_some())
}
