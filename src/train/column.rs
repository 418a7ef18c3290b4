//! One column of a table while it is read: what its cells look like, and their texts as
//! far as they are needed.

use std::collections::HashMap;

use crate::model::bounds::{CLASSES_MAX, LABEL_BYTES_MAX};
use crate::train::cell::{Cell, CellKind};

/// The largest number of categories of a feature, and of classes of a target. If a
/// column has more texts, they are not kept.
pub const TEXTS_MAX: usize = CLASSES_MAX;

/// The largest number of bytes of the texts of one column.
const TEXT_BYTES_MAX: usize = 256 * 1024;

/// The largest number of different spellings of a marker that are kept.
const MARKERS_MAX: usize = 32;

/// A distinct text of a column.
#[derive(Clone, Debug)]
pub struct Text {
    /// The text. For a JSON value that is not a string, its JSON.
    pub text: String,
    /// What the text looks like.
    pub kind: CellKind,
    /// The form in which the text was written.
    pub form: Form,
    /// The number in the text, if the text is a number.
    pub value: f64,
    /// The number of cells with this text.
    pub count: u64,
}

/// The first cell of a kind.
#[derive(Clone, Debug, Default)]
pub struct First {
    /// The number of cells of this kind.
    pub count: u64,
    /// The text of the first such cell.
    pub text: String,
}

/// A column.
#[derive(Debug)]
pub struct Column {
    /// The name of the column or field.
    pub name: String,
    /// The distinct texts, in the order of their first occurrence. If there are too
    /// many, only the first ones.
    pub texts: Vec<Text>,
    /// Whether there are more texts than are kept.
    pub overflowed: bool,
    /// Two maps from a text to its index in `texts`: one for JSON strings and CSV
    /// fields, one for other JSON values. Two maps are needed because the number 5 and
    /// the string "5" differ.
    indices: [HashMap<String, u32>; 2],
    text_bytes: usize,
    /// For each kind, the number of cells and the first text. Absent JSON members are
    /// not counted.
    firsts: [First; CellKind::COUNT],
    /// The spellings of the markers of a missing value. Those that --missing names have
    /// the kind [`Missing`](CellKind::Missing), the others
    /// [`Marker`](CellKind::Marker).
    pub markers: Vec<(CellKind, String)>,
    /// The smallest number. Booleans count as 1 and 0.
    pub min: f64,
    /// The largest number.
    pub max: f64,
    /// Whether all numbers are whole.
    pub is_whole: bool,
    /// Whether each number is the number before plus 1.
    pub counts_up: bool,
    last: f64,
}

/// The form of a cell's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A CSV field, or the decoded text of a JSON string.
    Text,
    /// A JSON value that is not a string.
    Json,
}

impl Column {
    /// A column without cells.
    pub fn new(name: &str) -> Column {
        Column {
            name: name.to_owned(),
            texts: Vec::new(),
            overflowed: false,
            indices: Default::default(),
            text_bytes: 0,
            firsts: Default::default(),
            markers: Vec::new(),
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            is_whole: true,
            counts_up: true,
            last: f64::NAN,
        }
    }

    /// Adds a cell. `text` may be empty if the kind has no text.
    pub fn add(&mut self, kind: CellKind, value: f64, form: Form, text: &str) -> Cell {
        let first = &mut self.firsts[kind as usize];
        first.count += 1;
        if first.count == 1 {
            first.text = text.to_owned();
        }
        match kind {
            CellKind::Number => self.add_number(value),
            CellKind::True => self.add_number(1.0),
            CellKind::False => self.add_number(0.0),
            CellKind::Missing | CellKind::Marker => self.add_marker(kind, text),
            _ => {}
        }
        if !kind.is_text() {
            return Cell::of(kind, None);
        }
        match self.intern(kind, value, form, text) {
            None if kind == CellKind::Number => Cell::number(value),
            index => Cell::of(kind, index),
        }
    }

    fn add_marker(&mut self, kind: CellKind, text: &str) {
        if !text.is_empty()
            && self.markers.len() < MARKERS_MAX
            && !self.markers.iter().any(|(_, marker)| marker == text)
        {
            self.markers.push((kind, text.to_owned()));
        }
    }

    fn add_number(&mut self, value: f64) {
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.is_whole &= value.fract() == 0.0;
        self.counts_up &= self.last.is_nan() || value == self.last + 1.0;
        self.last = value;
    }

    /// The index of a text, unless there are too many.
    fn intern(&mut self, kind: CellKind, value: f64, form: Form, text: &str) -> Option<u32> {
        if self.overflowed {
            return None;
        }
        let indices = &mut self.indices[form as usize];
        if let Some(index) = indices.get(text) {
            self.texts[*index as usize].count += 1;
            return Some(*index);
        }
        self.text_bytes += text.len();
        if self.texts.len() == TEXTS_MAX
            || self.text_bytes > TEXT_BYTES_MAX
            || text.len() > LABEL_BYTES_MAX
        {
            self.overflowed = true;
            self.indices = Default::default();
            return None;
        }
        let index = self.texts.len() as u32;
        indices.insert(text.to_owned(), index);
        self.texts.push(Text {
            text: text.to_owned(),
            kind,
            form,
            value,
            count: 1,
        });
        Some(index)
    }

    /// The number of cells of a kind.
    pub fn count(&self, kind: CellKind) -> u64 {
        self.firsts[kind as usize].count
    }

    /// The text of the first cell of a kind.
    pub fn first_text(&self, kind: CellKind) -> &str {
        &self.firsts[kind as usize].text
    }

    /// The distinct texts that are numbers.
    pub fn number_texts(&self) -> impl Iterator<Item = &Text> {
        self.texts
            .iter()
            .filter(|text| text.kind == CellKind::Number)
    }

    /// The number of booleans.
    pub fn booleans(&self) -> u64 {
        self.count(CellKind::True) + self.count(CellKind::False)
    }

    /// The number of cells that are texts and cannot be read as numbers, booleans or
    /// markers.
    pub fn words(&self) -> u64 {
        self.count(CellKind::Word)
            + self.count(CellKind::Infinite)
            + self.count(CellKind::OtherDecimal)
    }

    /// The number of cells that are texts of any kind, markers included.
    pub fn present(&self) -> u64 {
        self.words() + self.booleans() + self.count(CellKind::Number) + self.count(CellKind::Marker)
    }

    /// Whether there are many cells so far, and most of them are words. If so, the
    /// column will have texts, and a word is no fault of its row. The row then need not
    /// be kept for the file of rejects.
    pub fn is_clearly_text(&self) -> bool {
        self.present() >= 1000 && self.words() * 2 > self.present()
    }

    /// The number of a cell. A boolean is 1 or 0. `None` if the cell has no number.
    pub fn number(&self, cell: Cell) -> Option<f64> {
        match cell.kind() {
            CellKind::Number => cell
                .as_number()
                .or_else(|| Some(self.texts.get(cell.text_index()?)?.value)),
            CellKind::True => Some(1.0),
            CellKind::False => Some(0.0),
            _ => None,
        }
    }

    /// The text of a cell, if it was kept.
    pub fn text(&self, cell: Cell) -> Option<&Text> {
        self.texts.get(cell.text_index()?)
    }
}
