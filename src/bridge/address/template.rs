//! Topics that a field of the record completes, such as `to-{returnAddress}`.

use std::fmt;

use crate::bridge::address::pattern::Pattern;
use crate::wire::object::{decode_string, value_of};

/// The longest text that a field may add to a topic, in bytes.
const FIELD_BYTES_MAX: usize = 128;

/// A topic with `{FIELD}`s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(String),
}

impl Template {
    /// Parses a topic.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((field, after)) = after.split_once('}') else {
                return Err(format!("in {text}, a `{{` has no `}}`"));
            };
            if field.is_empty() {
                return Err(format!("in {text}, `{{}}` names no field"));
            }
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Field(field.to_owned()));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Template { pieces })
    }

    /// Whether the topic depends on the record.
    pub fn has_fields(&self) -> bool {
        self.pieces.len() > 1
    }

    /// The topic for a record. A field that the record lacks is taken from `origin`, the
    /// input that the record came of. The error says what is wrong with the field.
    pub fn fill(
        &self,
        record: &str,
        origin: Option<&str>,
        allow: Option<&Pattern>,
    ) -> Result<String, String> {
        let mut topic = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => topic += text,
                Piece::Field(field) => {
                    let value = value_of(record, field)
                        .or_else(|| value_of(origin?, field))
                        .ok_or_else(|| {
                            format!("field {field:?}, which names the topic, is missing")
                        })?;
                    let value = decode_string(value)
                        .ok_or_else(|| format!("field {field:?} is not a string"))?;
                    check_value(field, &value, allow)?;
                    topic += &value;
                }
            }
        }
        Ok(topic)
    }
}

fn check_value(field: &str, value: &str, allow: Option<&Pattern>) -> Result<(), String> {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
    let is_name = !value.is_empty()
        && value.len() <= FIELD_BYTES_MAX
        && value.chars().all(is_plain)
        && value.split('.').all(|token| !token.is_empty());
    if !is_name {
        return Err(format!(
            "field {field:?} may contain only letters, digits, `-`, `_` and `.`"
        ));
    }
    match allow {
        Some(pattern) if !pattern.matches(value) => Err(format!(
            "field {field:?} names a topic that allow= does not allow"
        )),
        _ => Ok(()),
    }
}

impl fmt::Display for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => formatter.write_str(text)?,
                Piece::Field(field) => write!(formatter, "{{{field}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_comes_from_the_record_or_else_from_its_input() {
        let topic = Template::parse("to.{returnAddress}").unwrap();
        let fill = |record, origin| topic.fill(record, origin, Some(&Pattern::new("front-*")));
        let named = r#"{"returnAddress":"front-1"}"#;
        assert_eq!(fill(named, None).unwrap(), "to.front-1");
        assert_eq!(fill("{}", Some(named)).unwrap(), "to.front-1");
        for (record, fault) in [
            ("{}", "is missing"),
            (r#"{"returnAddress":7}"#, "is not a string"),
            (r#"{"returnAddress":"front-/../x"}"#, "may contain only"),
            (r#"{"returnAddress":"front-a..b"}"#, "may contain only"),
            (r#"{"returnAddress":"decisions"}"#, "does not allow"),
        ] {
            let refused = fill(record, None).unwrap_err();
            assert!(refused.contains(fault), "{record}: {refused}");
        }
        assert_eq!(topic.to_string(), "to.{returnAddress}");
    }
}
