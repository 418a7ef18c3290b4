//! Names the inputs of an imported model and their categories.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::bounds::FEATURES_MAX;
use crate::model::feature::{Domain, Feature, Missing, Unseen};
use crate::stage::report::shown;

/// The names that the user has given.
#[derive(Clone, Debug, Default)]
pub struct InputNames {
    /// The names of the inputs, in the order of a row. If empty, the names in the file
    /// are used.
    pub features: Vec<String>,
    /// The categories of some inputs, in the order of their codes, by the name of the
    /// input.
    pub categories: BTreeMap<String, Vec<Value>>,
}

impl InputNames {
    /// The inputs of a model. `in_file` are the names in its file. `categories` are the
    /// categories in its file, by the index of the input. A missing value is passed to
    /// the trees. The error describes the fault and the remedy.
    pub fn features(
        &self,
        in_file: Vec<String>,
        mut categories: BTreeMap<usize, Vec<Value>>,
        unseen: Unseen,
    ) -> Result<Vec<Feature>, String> {
        if in_file.len() > FEATURES_MAX {
            return Err(format!("has more than {FEATURES_MAX} inputs"));
        }
        let names = match self.features.len() {
            0 => in_file,
            count if count == in_file.len() => self.features.clone(),
            count => {
                return Err(format!(
                    "has {} inputs, but --features names {count}",
                    in_file.len()
                ));
            }
        };
        for (name, values) in &self.categories {
            let index = names.iter().position(|one| one == name);
            let index = index
                .ok_or_else(|| format!("--categories names {}, which is no input", shown(name)))?;
            categories.insert(index, values.clone());
        }
        let features = names.into_iter().enumerate().map(|(index, name)| {
            let domain = match categories.remove(&index) {
                None => Domain::Numbers,
                Some(values) => Domain::Categories {
                    categories: values.iter().map(category_text).collect::<Result<_, _>>()?,
                    unseen,
                },
            };
            Ok(Feature {
                domain,
                missing: Missing::Pass,
                ..Feature::number(name)
            })
        });
        features.collect()
    }
}

/// The text of a category that is a string, a number or a boolean.
fn category_text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) => Ok(value.to_string()),
        // The shortest form of a number. Scoring looks up a number in this form.
        Value::Number(number) => Ok(match number.as_i64() {
            Some(integer) => integer.to_string(),
            None => number.as_f64().unwrap_or(f64::NAN).to_string(),
        }),
        _ => Err("has a category that is no string, number or boolean".to_owned()),
    }
}
