//! The values of the model inputs, by field, in bounded memory.

use std::collections::BTreeMap;

use crate::wire::answer::{canonical, number};
use crate::wire::object::{at_pointer, each_member};

/// The largest number of fields. Further fields are ignored.
const FIELDS_MAX: usize = 300;

/// The largest number of values of one field that are kept. When there are more, every
/// second one is dropped, and from then on only every second one is kept.
const VALUES_MAX: usize = 20_000;

/// The largest number of categories of one field. Further ones count together.
const CATEGORIES_MAX: usize = 200;

/// The longest text of a category, in bytes. Longer ones count together.
const CATEGORY_BYTES_MAX: usize = 100;

/// The name under which further categories count.
const OTHERS: &str = "(others)";

/// Evenly spaced members of a sequence of numbers, in their order.
#[derive(Clone, Debug)]
pub struct Sample {
    values: Vec<f64>,
    step: u64,
    seen: u64,
}

impl Default for Sample {
    fn default() -> Sample {
        Sample {
            values: Vec::new(),
            step: 1,
            seen: 0,
        }
    }
}

impl Sample {
    fn add(&mut self, value: f64) {
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
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The number of all values.
    pub fn seen(&self) -> u64 {
        self.seen
    }
}

/// The values of one field.
#[derive(Clone, Debug, Default)]
pub struct FieldValues {
    /// The numbers.
    pub numbers: Sample,
    /// Other values, as the numbers of their categories.
    pub categories: Sample,
    /// The number of each category, by its canonical text.
    pub category_numbers: BTreeMap<String, usize>,
    /// The number of records in which the field has a value.
    pub present: u64,
}

impl FieldValues {
    fn add(&mut self, value: &str) {
        self.present += 1;
        if let Some(number) = number(value).filter(|it| it.is_finite()) {
            self.numbers.add(number);
            return;
        }
        let category = canonical(value);
        let is_known = self.category_numbers.contains_key(&*category);
        let is_kept =
            category.len() <= CATEGORY_BYTES_MAX && self.category_numbers.len() < CATEGORIES_MAX;
        let category = match is_known || is_kept {
            true => category.into_owned(),
            false => OTHERS.to_owned(),
        };
        let next = self.category_numbers.len();
        let number = *self.category_numbers.entry(category).or_insert(next);
        self.categories.add(number as f64);
    }

    /// Whether most values are numbers.
    pub fn is_numeric(&self) -> bool {
        2 * self.numbers.seen() > self.present
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
    /// Adds a model input, which is JSON text: the members of an object, or the items
    /// of an array by their index. Null counts as missing.
    pub fn add(&mut self, model_input: &str) {
        self.records += 1;
        if model_input.starts_with('{') {
            each_member(model_input, |member| {
                self.add_value(&member.name(), member.value);
            });
        } else if model_input.starts_with('[') {
            for index in 0..FIELDS_MAX {
                let name = index.to_string();
                let Some(value) = at_pointer(model_input, &format!("/{name}")) else {
                    break;
                };
                self.add_value(&name, value);
            }
        } else {
            self.add_value("(the input)", model_input);
        }
    }

    fn add_value(&mut self, name: &str, value: &str) {
        if value == "null" {
            return;
        }
        if let Some(values) = self.fields.get_mut(name) {
            values.add(value);
        } else if self.fields.len() < FIELDS_MAX {
            let mut values = FieldValues::default();
            values.add(value);
            self.fields.insert(name.to_owned(), values);
        }
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
        assert_eq!(inputs.fields["c"].categories.values(), [0.0, 0.0]);
        assert_eq!(inputs.fields["c"].category_numbers["\"a\""], 0);
        assert_eq!(inputs.fields["0"].numbers.values(), [3.0]);
        assert!(!inputs.fields.contains_key("n"));
        for number in 0..1000 {
            inputs.add(&format!(r#"{{"c":"{number}","f{number}":1}}"#));
        }
        assert!(inputs.fields.len() <= FIELDS_MAX);
        assert_eq!(
            inputs.fields["c"].category_numbers.len(),
            CATEGORIES_MAX + 1
        );
    }
}
