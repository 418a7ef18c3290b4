//! Flags of a program, as the file gives them.

use toml::de::DeValue;

/// A flag of a program, by its name.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The name without the leading hyphens, such as `max-body`.
    pub name: String,
    /// The value.
    pub value: FlagValue,
    /// The line in the file, from 1.
    pub line: usize,
}

/// The value of a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlagValue {
    /// A flag without a value: given, or not given.
    Switch(bool),
    /// One value, or one for each repetition of the flag.
    Values(Vec<String>),
}

impl Flag {
    /// The arguments of the command line. The value is part of the same argument, so it
    /// may begin with a hyphen.
    pub fn arguments(&self) -> Vec<String> {
        match &self.value {
            FlagValue::Switch(true) => vec![format!("--{}", self.name)],
            FlagValue::Switch(false) => Vec::new(),
            FlagValue::Values(values) => {
                let values = values.iter();
                values
                    .map(|value| format!("--{}={value}", self.name))
                    .collect()
            }
        }
    }

    /// Whether the flag is given.
    pub fn is_on(&self) -> bool {
        self.value != FlagValue::Switch(false)
    }
}

/// Reads the value of a flag. The error says which values a flag may have.
pub fn read_value(value: &DeValue) -> Result<FlagValue, String> {
    if let DeValue::Boolean(on) = value {
        return Ok(FlagValue::Switch(*on));
    }
    if let Some(text) = scalar(value) {
        return Ok(FlagValue::Values(vec![text]));
    }
    let items = value.as_array().map(|items| {
        let items = items.iter();
        items.map(|item| scalar(item.get_ref())).collect()
    });
    match items {
        Some(Some(values)) => Ok(FlagValue::Values(values)),
        _ => Err(
            "must be a text, a number, true or false, or a list of texts and numbers".to_owned(),
        ),
    }
}

/// The text of a single value; `None` for anything else. A number keeps its digits.
fn scalar(value: &DeValue) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.as_ref().to_owned()),
        DeValue::Integer(number) if number.radix() == 10 => {
            Some(number.as_str().trim_start_matches('+').to_owned())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}
