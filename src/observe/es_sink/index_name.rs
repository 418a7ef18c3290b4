//! The name of an index: text from the command line, and digits of a date. No other part
//! of a record is used.

use std::fmt::Write as _;

use anyhow::Result;
use chrono::{DateTime, Datelike, Utc};

use crate::stage::usage;

/// The longest name that the service accepts, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// A name that may contain parts of a date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexName(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Year,
    Month,
    Day,
}

impl IndexName {
    /// Parses the value of `--index`. The error is a usage error.
    pub fn of_flag(text: &str) -> Result<IndexName> {
        IndexName::parse(text).map_err(|reason| usage(format!("--index {text:?}: {reason}")))
    }

    /// Parses a name such as `scores-%Y.%m.%d`. The error names the fault.
    pub fn parse(pattern: &str) -> Result<IndexName, String> {
        if pattern.starts_with(['-', '_', '+']) {
            return Err("the name of an index may not begin with - _ or +".to_owned());
        }
        if pattern.is_empty() || pattern == "." || pattern == ".." {
            return Err("this cannot be the name of an index".to_owned());
        }
        let mut pieces = Vec::new();
        let mut rest = pattern;
        while let Some((text, after)) = rest.split_once('%') {
            pieces.push(Piece::Text(checked(text)?));
            pieces.push(match after.chars().next() {
                Some('Y') => Piece::Year,
                Some('m') => Piece::Month,
                Some('d') => Piece::Day,
                _ => return Err("only %Y, %m and %d can be filled in".to_owned()),
            });
            rest = &after[1..];
        }
        pieces.push(Piece::Text(checked(rest)?));
        let name = IndexName(pieces);
        let length = name.fill(DateTime::UNIX_EPOCH).len();
        if length > NAME_BYTES_MAX {
            return Err(format!("{length} bytes, more than {NAME_BYTES_MAX}"));
        }
        Ok(name)
    }

    /// Whether the name contains parts of a date.
    pub fn needs_date(&self) -> bool {
        self.0.iter().any(|piece| !matches!(piece, Piece::Text(_)))
    }

    /// The pattern of an index template that matches the name of every date.
    pub fn wildcard(&self) -> String {
        let mut pattern = String::new();
        let mut in_date = false;
        for (index, piece) in self.0.iter().enumerate() {
            match piece {
                Piece::Text(text) => {
                    // A dot or a dash between two parts of a date belongs to the date.
                    let within = in_date && index + 1 < self.0.len() && text.len() <= 1;
                    if !within {
                        pattern.push_str(text);
                        in_date &= text.is_empty();
                    }
                }
                _ if in_date => {}
                _ => {
                    pattern.push('*');
                    in_date = true;
                }
            }
        }
        pattern
    }

    /// Inserts a date whose year has four digits.
    pub fn fill(&self, date: DateTime<Utc>) -> String {
        let mut name = String::new();
        for piece in &self.0 {
            let _ = match piece {
                Piece::Text(text) => name.write_str(text),
                Piece::Year => write!(name, "{:04}", date.year()),
                Piece::Month => write!(name, "{:02}", date.month()),
                Piece::Day => write!(name, "{:02}", date.day()),
            };
        }
        name
    }
}

/// Returns the text if the service accepts it in a name. The error names the fault.
fn checked(text: &str) -> Result<String, String> {
    let wrong = |character: &char| {
        character.is_control()
            || character.is_whitespace()
            || character.is_uppercase()
            || "\\/*?\"<>|,#:".contains(*character)
    };
    match text.chars().find(wrong) {
        Some(wrong) => Err(format!(
            "{wrong:?} is not allowed in the name of an index (use lowercase letters, and none of \\ / * ? \" < > | , # : or space)"
        )),
        None => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_filled_in() {
        let date = DateTime::from_timestamp_micros(1_644_370_787_021_771).unwrap();
        for (pattern, name, needs_date) in [
            ("scores", "scores", false),
            ("scores-%Y.%m.%d", "scores-2022.02.09", true),
            ("%Y-scores", "2022-scores", true),
            ("s-%d%d", "s-0909", true),
            (".kept", ".kept", false),
        ] {
            let parsed = IndexName::parse(pattern).unwrap();
            assert_eq!(parsed.fill(date), name);
            assert_eq!(parsed.needs_date(), needs_date, "{pattern}");
        }
    }

    #[test]
    fn a_template_matches_every_date() {
        for (pattern, wildcard) in [
            ("scores", "scores"),
            ("scores-%Y.%m.%d", "scores-*"),
            ("%Y-scores", "*-scores"),
            ("s-%d%d", "s-*"),
            ("s-%Y-x-%m", "s-*-x-*"),
            ("s%Y.%m-x", "s*-x"),
        ] {
            assert_eq!(IndexName::parse(pattern).unwrap().wildcard(), wildcard);
        }
    }

    #[test]
    fn what_the_service_would_refuse_is_refused_first() {
        let long = "x".repeat(256);
        for wrong in [
            "", ".", "..", "-a", "_a", "+a", "A", "aÄ", "Yes", "a b", "a/b", "a\\b", "a*", "a?",
            "a\"", "a<", "a>", "a|", "a,b", "a#", "a:b", "a\n", "a%", "a%H", "a%%", "a%-d", "a%ä",
            &long,
        ] {
            assert!(IndexName::parse(wrong).is_err(), "{wrong}");
        }
    }
}
