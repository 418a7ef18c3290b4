//! What a line is part of that is no record: JSON in another form than one object
//! a line, and how to bring it into that form.

use serde_json::Deserializer;
use serde_json::value::RawValue;

/// JSON in another form than one object a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An array that is to be taken apart, on one line or on several.
    Array,
    /// An object that goes on in the next line.
    Object,
    /// Several values on one line.
    Several,
    /// A comma behind the value, as between the items of an array.
    Comma,
    /// Each value begins with the character RS (RFC 7464).
    Sequence,
}

impl Shape {
    /// What a line that is no record is part of; `None` where it is just wrong. A
    /// line that was torn is: it rarely ends where a printer breaks lines.
    pub fn of(line: &[u8]) -> Option<Shape> {
        let text = std::str::from_utf8(line).ok()?.trim();
        if text.starts_with('\u{1e}') {
            return Some(Shape::Sequence);
        }
        let opens_array = text.starts_with('[');
        if !opens_array && !text.starts_with('{') {
            return None;
        }
        let mut values = Deserializer::from_str(text).into_iter::<&RawValue>();
        match values.next()? {
            Ok(_) => {}
            Err(error)
                if error.is_eof()
                    && text.ends_with(['{', '[', ',', ':'])
                    && !ends_inside_string(text) =>
            {
                return Some(if opens_array {
                    Shape::Array
                } else {
                    Shape::Object
                });
            }
            Err(_) => return None,
        }
        let rest = text.get(values.byte_offset()..)?.trim_start();
        match rest.chars().next() {
            None if opens_array => Some(Shape::Array),
            Some('{' | '[') => Some(Shape::Several),
            Some(',') if rest.len() == 1 => Some(Shape::Comma),
            _ => None,
        }
    }

    /// The same of the first bytes of a line that is too long.
    pub fn of_head(head: &[u8]) -> Option<Shape> {
        head.trim_ascii_start()
            .starts_with(b"[")
            .then_some(Shape::Array)
    }

    /// What is wanted, and a command that makes it so.
    pub fn remedy(self) -> &'static str {
        match self {
            Shape::Array => {
                "this is a JSON array, and each line has to be one JSON object: `jq -c '.[]'` \
                 writes its items so"
            }
            Shape::Object => {
                "this is JSON over several lines, and each line has to be one JSON object: \
                 `jq -c .` writes it so"
            }
            Shape::Several => {
                "these are several JSON values, and each line has to be one JSON object: \
                 `jq -c .` writes them so"
            }
            Shape::Comma => {
                "a comma follows the JSON object, and each line has to be the object alone: \
                 `sed 's/,[[:space:]]*$//'` takes the commas away"
            }
            Shape::Sequence => {
                "this is a JSON text sequence, and each line has to be one JSON object: \
                 `tr -d '\\036' | jq -c .` writes it so"
            }
        }
    }
}

fn ends_inside_string(text: &str) -> bool {
    let (mut inside, mut escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if std::mem::take(&mut escaped) => {}
            b'\\' => escaped = inside,
            b'"' => inside = !inside,
            _ => {}
        }
    }
    inside
}

/// Whether a line is no JSON value by itself, as most pieces of a longer one.
pub fn is_fragment(line: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(line).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_another_form_is_told_from_what_is_wrong() {
        for (line, shape) in [
            ("[", Some(Shape::Array)),
            ("[{\"a\": 1, \"y\": 0},", Some(Shape::Array)),
            (" [ { ", Some(Shape::Array)),
            ("[{\"a\":1},{\"a\":2}]", Some(Shape::Array)),
            ("{", Some(Shape::Object)),
            ("{\"a\": {", Some(Shape::Object)),
            ("{\"a\":", Some(Shape::Object)),
            ("{ \"a\": [1,2],", Some(Shape::Object)),
            ("{\"a\":1}{\"a\":2}", Some(Shape::Several)),
            ("{\"a\":1} {\"a\":2} ", Some(Shape::Several)),
            ("{\"a\":1},", Some(Shape::Comma)),
            ("{\"a\":1} , ", Some(Shape::Comma)),
            ("\u{1e}{\"a\":1}", Some(Shape::Sequence)),
            // Torn, or just wrong.
            ("{\"messageId\":\"a\",\"timest", None),
            ("{\"messageId\":\"a\",\"timestamp\":17", None),
            ("{\"messageId\":\"a, {", None),
            ("{\"messageId\":\"a\\\", {", None),
            ("{\"messageId\":\"a\\\\\", ", Some(Shape::Object)),
            ("{\"a\":1},{", None),
            ("{\"a\":1} x", None),
            ("{a", None),
            ("{\"a\":1}", None),
            ("\"a\": 1,", None),
            ("plain text,", None),
            ("3", None),
            ("", None),
            ("{\"a\":nul{", None),
        ] {
            assert_eq!(Shape::of(line.as_bytes()), shape, "{line}");
        }
        assert_eq!(Shape::of(b"\xff["), None);
        assert_eq!(Shape::of_head(b"  [{\"a\":"), Some(Shape::Array));
        assert_eq!(Shape::of_head(b"{\"a\":["), None);
    }

    #[test]
    fn the_lines_of_a_longer_value_are_fragments() {
        for line in ["{", "  \"a\": 1,", "}", "},", "]", "{\"a\":1},", "\u{1e}{}"] {
            assert!(is_fragment(line.as_bytes()), "{line}");
        }
        for line in ["{\"a\":1}", " 3 ", "[1]"] {
            assert!(!is_fragment(line.as_bytes()), "{line}");
        }
    }
}
