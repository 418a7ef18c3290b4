//! The types of JSON value that can be a feature or a label.

/// The type of a JSON value that is neither null, an array nor an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarType {
    /// A number.
    Number,
    /// A string.
    String,
    /// `true` or `false`.
    Boolean,
}

impl ScalarType {
    /// The type of a JSON value, by its text; `None` for null, an array or an
    /// object.
    pub fn of_json(raw: &str) -> Option<ScalarType> {
        match raw.as_bytes().first()? {
            b'"' => Some(ScalarType::String),
            b't' | b'f' => Some(ScalarType::Boolean),
            b'-' | b'0'..=b'9' => Some(ScalarType::Number),
            _ => None,
        }
    }
}
