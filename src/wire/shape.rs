//! Recognises JSON that is not one object per line, and names a command that converts
//! such JSON.

use serde_json::Deserializer;
use serde_json::value::RawValue;

/// A form of JSON other than one object per line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An array, on one line or on several.
    Array,
    /// An object that continues on the next line.
    Object,
    /// Several values on one line.
    Several,
    /// A value that is followed by a comma, as between the items of an array.
    Comma,
    /// A value that starts with the character RS (RFC 7464).
    Sequence,
}

impl Shape {
    /// The form of a rejected line; `None` if the line is simply invalid. A torn line
    /// is simply invalid too: it rarely ends where a formatter breaks lines.
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

    /// Like [`of`](Shape::of), for the first bytes of an oversized line.
    pub fn of_head(head: &[u8]) -> Option<Shape> {
        head.trim_ascii_start()
            .starts_with(b"[")
            .then_some(Shape::Array)
    }

    /// The expected form, and a command that converts the input to this form.
    pub fn remedy(self) -> &'static str {
        match self {
            Shape::Array => {
                "this is a JSON array, but each line must be one JSON object; convert it with \
                 `jq -c '.[]'`"
            }
            Shape::Object => {
                "this is JSON over several lines, but each line must be one JSON object; convert it \
                 with `jq -c .`"
            }
            Shape::Several => {
                "these are several JSON values, but each line must be one JSON object; convert them \
                 with `jq -c .`"
            }
            Shape::Comma => {
                "a comma follows the JSON object, but each line must be the object alone; remove the \
                 commas with `sed 's/,[[:space:]]*$//'`"
            }
            Shape::Sequence => {
                "this is a JSON text sequence, but each line must be one JSON object; convert it with \
                 `tr -d '\\036' | jq -c .`"
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

/// Whether a line is only a fragment of a JSON value: by itself it is not JSON.
pub fn is_fragment(line: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(line).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_another_form_is_distinguished_from_invalid_lines() {
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
            // Torn, or simply invalid.
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
