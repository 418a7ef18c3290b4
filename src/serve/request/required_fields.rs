//! Checks that a model input has the fields that it needs.

use std::fmt;

use anyhow::Result;

use crate::model::Model;
use crate::model::feature::{Feature, Missing};
use crate::wire::object::Object;

/// The fields that a model input needs.
pub enum RequiredFields {
    /// The fields of these names, which must be numbers. If there are no names, any
    /// input is accepted.
    Named(Vec<String>),
    /// The features of this model.
    OfModel {
        /// The model, which reads its features from an input.
        model: Box<Model>,
        /// The features of the last input. The memory is used again for each
        /// input.
        row: Vec<f64>,
    },
}

/// A field of a model input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name.
    pub name: &'a str,
    /// Whether the value is a number; if not, it is a text.
    pub is_number: bool,
    /// Whether an input without the field is refused.
    pub is_required: bool,
}

impl<'a> From<&'a Feature> for Field<'a> {
    fn from(feature: &'a Feature) -> Field<'a> {
        Field {
            name: &feature.name,
            is_number: feature.categories().is_none(),
            is_required: feature.missing == Missing::Error,
        }
    }
}

impl RequiredFields {
    /// The fields of these names.
    pub fn named(names: Vec<String>) -> RequiredFields {
        RequiredFields::Named(names)
    }

    /// The features of the model in the file `path`. Fails if the file is not a model.
    pub fn of_model(path: &str) -> Result<RequiredFields> {
        Ok(RequiredFields::OfModel {
            model: Box::new(Model::load(path)?),
            row: Vec::new(),
        })
    }

    /// The fields, for a description of the service. A feature with a JSON pointer is
    /// not a field of the input, so it is left out.
    pub fn fields(&self) -> Vec<Field<'_>> {
        match self {
            RequiredFields::Named(names) => {
                let number = |name| Field {
                    name,
                    is_number: true,
                    is_required: true,
                };
                names.iter().map(|name| number(name)).collect()
            }
            RequiredFields::OfModel { model, .. } => {
                let features = model.features().iter();
                let features = features.filter(|feature| !feature.name.starts_with('/'));
                let field = |feature| Field::from(feature);
                features.map(field).collect()
            }
        }
    }

    /// The names of the model's features, in their order. `None` if there is no model, or
    /// if a feature has a JSON pointer, which no member of an input can replace.
    pub fn features(&self) -> Option<Vec<String>> {
        let RequiredFields::OfModel { model, .. } = self else {
            return None;
        };
        let names = model.features().iter().map(|feature| feature.name.clone());
        let names: Vec<String> = names.collect();
        let has_pointer = names.iter().any(|name| name.starts_with('/'));
        (!has_pointer).then_some(names)
    }

    /// Checks `model_input`, which is JSON text. The error names the fault.
    pub fn check(&mut self, model_input: &str) -> Result<(), String> {
        match self {
            RequiredFields::Named(names) if names.is_empty() => Ok(()),
            RequiredFields::Named(names) => {
                let input = Object::parse(model_input).map_err(|_| "the input is not an object")?;
                for name in names {
                    match input.get(name) {
                        Some(value) if is_number(value) => {}
                        Some(_) => return Err(format!("field \"{name}\" is not a number")),
                        None => return Err(format!("field \"{name}\" is missing")),
                    }
                }
                Ok(())
            }
            RequiredFields::OfModel { model, row } => model.read_input(model_input, row),
        }
    }
}

impl fmt::Debug for RequiredFields {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            RequiredFields::Named(names) => write!(formatter, "fields {names:?}"),
            RequiredFields::OfModel { model, .. } => {
                write!(formatter, "fields of {}@{}", model.name(), model.version())
            }
        }
    }
}

/// Whether JSON text is a number that fits a float.
fn is_number(value: &str) -> bool {
    value.parse().is_ok_and(f64::is_finite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_of_an_input_is_named() {
        let mut fields = RequiredFields::named(vec!["a".into(), "b".into()]);
        assert_eq!(fields.check(r#"{"b":-1.5e3,"a":0,"c":"x"}"#), Ok(()));
        for (input, reason) in [
            ("[1]", "the input is not an object"),
            (r#"{"a":1}"#, "field \"b\" is missing"),
            (r#"{"a":"1","b":1}"#, "field \"a\" is not a number"),
            (r#"{"a":1,"b":1e999}"#, "field \"b\" is not a number"),
            (r#"{"a":1,"b":null}"#, "field \"b\" is not a number"),
        ] {
            assert_eq!(fields.check(input).unwrap_err(), reason, "{input}");
        }
        assert_eq!(RequiredFields::named(Vec::new()).check("[1]"), Ok(()));
    }
}
