//! Unmapped members -> fields without objects: `{"size":{"cm":5}}` becomes `size/cm`.

use std::collections::HashMap;

use crate::observe::es_sink::shape::fits::{NAME_BYTES_MAX, has_service_name, is_flat};
use crate::wire::object::{Object, ObjectWriter, array_items};

/// The deepest nesting of a value that is indexed. Values that are nested more deeply
/// are only stored.
const DEPTH_MAX: usize = 32;

/// The largest number of fields of one object. Further fields are stored and not indexed.
pub const FIELDS_MAX: usize = 500;

/// The largest number of values of one object. Further values are stored and not indexed.
pub const VALUES_MAX: usize = 100_000;

/// The unmapped fields of one object, with their values.
#[derive(Debug)]
pub struct FreeFields<'a> {
    fields: Vec<(String, Vec<&'a str>)>,
    /// The index of each name in `fields`.
    indices: HashMap<String, usize>,
    /// The number of values in all fields.
    values: usize,
    /// Whether the fields contain every value that was added.
    is_whole: bool,
}

impl Default for FreeFields<'_> {
    fn default() -> Self {
        FreeFields {
            fields: Vec::new(),
            indices: HashMap::new(),
            values: 0,
            is_whole: true,
        }
    }
}

impl<'a> FreeFields<'a> {
    /// Whether the fields contain every value that was added, under its original
    /// name.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether no value was added.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Adds a member of any name with any value. `is_top` is true for the members of
    /// the record itself, because the service reserves some of their names.
    pub fn take(&mut self, name: &str, value: &'a str, is_top: bool) {
        let mut field = name.replace('.', "/");
        if field.trim().is_empty() || (is_top && has_service_name(&field)) {
            field.insert(0, '/');
        }
        let is_duplicate = self.indices.contains_key(&field);
        self.is_whole &= field == name && is_flat(value) && !is_duplicate;
        self.add(&field, value, 0);
    }

    /// Adds a value to the field `name`. The members of an object become separate
    /// fields.
    fn add(&mut self, name: &str, value: &'a str, depth: usize) {
        if is_flat(value) {
            self.add_flat(name, value);
        } else if depth == DEPTH_MAX {
            self.is_whole = false;
        } else if let Some(items) = array_items(value) {
            for item in items {
                self.add(name, item, depth + 1);
            }
        } else if let Ok(object) = Object::parse(value) {
            for member in object.members {
                let inner = format!("{name}/{}", member.name().replace('.', "/"));
                self.add(&inner, member.value, depth + 1);
            }
        } else {
            self.is_whole = false;
        }
    }

    fn add_flat(&mut self, name: &str, value: &'a str) {
        let index = match self.indices.get(name) {
            Some(index) => *index,
            None if self.fields.len() == FIELDS_MAX || name.len() > NAME_BYTES_MAX => {
                self.is_whole = false;
                return;
            }
            None => {
                self.fields.push((name.to_owned(), Vec::new()));
                self.indices.insert(name.to_owned(), self.fields.len() - 1);
                self.fields.len() - 1
            }
        };
        if self.values == VALUES_MAX {
            self.is_whole = false;
            return;
        }
        self.values += 1;
        self.fields[index].1.push(value);
    }

    /// Writes the fields into a document.
    pub fn write(&self, out: &mut ObjectWriter) {
        for (name, values) in &self.fields {
            match &values[..] {
                [value] => out.raw(name, value),
                values => {
                    let items = values.iter().map(|value| items_of(value));
                    let items: Vec<&str> = items.filter(|items| !items.is_empty()).collect();
                    out.raw(name, &format!("[{}]", items.join(",")))
                }
            };
        }
    }
}

/// A scalar, or the text between the brackets of a list.
fn items_of(flat: &str) -> &str {
    let list = flat
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    list.map_or(flat, str::trim)
}
