//! The values of a reference, by field, in bounded memory.

use std::collections::BTreeMap;

use crate::compare::bounded_names::BoundedNames;
use crate::wire::answer::{canonical, number};
use crate::wire::object::{Object, array_items, each_member};

/// The largest number of fields. Further fields are ignored.
pub const FIELDS_MAX: usize = 300;

/// The longest name of a field, in bytes. Fields with longer names are ignored.
const FIELD_BYTES_MAX: usize = 200;

/// The largest number of values of one field that are kept. When there are more, every
/// second one is dropped, and from then on only every second one is kept.
const VALUES_MAX: usize = 20_000;

/// The largest number of categories of one field. Further ones count together.
const CATEGORIES_MAX: usize = 200;

/// The longest text of a category, in bytes. Longer ones count together.
const CATEGORY_BYTES_MAX: usize = 100;

/// Evenly spaced members of a sequence, in their order.
#[derive(Clone, Debug)]
pub struct Sample<T> {
    values: Vec<T>,
    step: u64,
    seen: u64,
}

impl<T> Default for Sample<T> {
    fn default() -> Sample<T> {
        Sample {
            values: Vec::new(),
            step: 1,
            seen: 0,
        }
    }
}

impl<T> Sample<T> {
    /// Adds the next member.
    pub fn add(&mut self, value: T) {
        if self.seen.is_multiple_of(self.step) {
            if self.values.len() >= VALUES_MAX {
                let mut place = 0;
                self.values.retain(|_| {
                    place += 1;
                    place % 2 == 1
                });
                self.step *= 2;
            }
            if self.seen.is_multiple_of(self.step) {
                self.values.push(value);
            }
        }
        self.seen += 1;
    }

    /// The kept values, in the order of the records.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// The number of all values.
    pub fn seen(&self) -> u64 {
        self.seen
    }
}

/// A value of a reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// A number.
    Number(f64),
    /// Another value, by the number of its category.
    Category(usize),
    /// One of the values that have no category of their own.
    Other,
}

/// The values of one field.
#[derive(Clone, Debug)]
pub struct FieldValues {
    /// The values, in the order of the records.
    pub cells: Sample<Cell>,
    /// The categories, as canonical JSON.
    pub categories: BoundedNames,
    /// The number of values that are numbers.
    pub numbers: u64,
}

impl Default for FieldValues {
    fn default() -> FieldValues {
        FieldValues {
            cells: Sample::default(),
            categories: BoundedNames::new(CATEGORIES_MAX, CATEGORY_BYTES_MAX),
            numbers: 0,
        }
    }
}

impl FieldValues {
    /// Adds a value, which is JSON text.
    pub fn add(&mut self, value: &str) {
        let cell = match number(value) {
            Some(number) => {
                self.numbers += 1;
                Cell::Number(number)
            }
            None => match self.categories.number(&canonical(value)) {
                Some(category) => Cell::Category(category),
                None => Cell::Other,
            },
        };
        self.cells.add(cell);
    }

    /// The number of records in which the field has a value.
    pub fn present(&self) -> u64 {
        self.cells.seen()
    }

    /// Whether most values are numbers.
    pub fn is_numeric(&self) -> bool {
        2 * self.numbers > self.present()
    }
}

/// The values of all fields.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The number of records.
    pub records: u64,
    /// The values by the name of the field.
    pub fields: BTreeMap<String, FieldValues>,
}

impl Inputs {
    /// Adds the values of one model input.
    pub fn add(&mut self, model_input: &str) {
        self.records += 1;
        each_field(model_input, |name, value| self.add_value(name, value));
    }

    /// Adds the value of a field. The caller counts the record.
    pub fn add_value(&mut self, name: &str, value: &str) {
        if let Some(values) = self.fields.get_mut(name) {
            values.add(value);
        } else if self.fields.len() < FIELDS_MAX && name.len() <= FIELD_BYTES_MAX {
            let mut values = FieldValues::default();
            values.add(value);
            self.fields.insert(name.to_owned(), values);
        }
    }
}

/// Calls `show` with the name and the value of each field of a model input, which is JSON
/// text: the members of an object, or the items of an array by their index. Null counts
/// as missing and is not shown.
pub fn each_field(model_input: &str, mut show: impl FnMut(&str, &str)) {
    let mut show = |name: &str, value: &str| {
        if value != "null" {
            show(name, value);
        }
    };
    if model_input.starts_with('{') {
        // The quick scanner does not read deep nesting, and may notice that late.
        let mut members = Vec::with_capacity(16);
        let seen = each_member(model_input, |member| members.push(member));
        if seen.is_none() {
            members = Object::parse(model_input).map_or_else(|_| Vec::new(), |it| it.members);
        }
        for member in members {
            show(&member.name(), member.value);
        }
    } else if model_input.starts_with('[') {
        let items = array_items(model_input).unwrap_or_default();
        for (index, item) in items.into_iter().take(FIELDS_MAX).enumerate() {
            show(&index.to_string(), item);
        }
    } else {
        show("(the input)", model_input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_bounded_and_evenly_spaced() {
        let mut sample = Sample::default();
        for number in 0..100_000 {
            sample.add(f64::from(number));
        }
        let values = sample.values();
        assert!(values.len() <= VALUES_MAX && values.len() > VALUES_MAX / 2 - 2);
        assert!(values.windows(2).all(|pair| pair[1] - pair[0] == 8.0));
        assert_eq!(sample.seen(), 100_000);
    }

    #[test]
    fn fields_are_numbers_or_categories_or_missing() {
        let mut inputs = Inputs::default();
        inputs.add(r#"{"x":1,"c":"a","n":null}"#);
        inputs.add(r#"{"x":2.5,"c":"\u0061"}"#);
        inputs.add("[3,true]");
        inputs.add("7");
        assert_eq!(inputs.records, 4);
        assert!(inputs.fields["x"].is_numeric() && !inputs.fields["c"].is_numeric());
        let cells = |name: &str| inputs.fields[name].cells.values().to_vec();
        assert_eq!(cells("c"), [Cell::Category(0), Cell::Category(0)]);
        assert_eq!(cells("0"), [Cell::Number(3.0)]);
        assert_eq!(inputs.fields["c"].categories.names(), ["\"a\""]);
        assert!(!inputs.fields.contains_key("n"));
        for number in 0..1000 {
            inputs.add(&format!(r#"{{"c":"{number}","f{number}":1}}"#));
        }
        inputs.add(&format!(r#"{{"{}":1}}"#, "x".repeat(1 << 20)));
        assert!(inputs.fields.len() <= FIELDS_MAX);
        assert_eq!(inputs.fields["c"].categories.names().len(), CATEGORIES_MAX);
        assert_eq!(inputs.fields["c"].cells.values().last(), Some(&Cell::Other));
    }

    #[test]
    fn a_large_array_is_read_in_one_pass() {
        let items = vec!["1"; 200_000].join(",");
        let mut count = 0;
        each_field(&format!("[{items}]"), |_, _| count += 1);
        assert_eq!(count, FIELDS_MAX);
    }
}
