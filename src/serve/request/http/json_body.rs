//! The text of a JSON body: a byte order mark is skipped, and several lines become one
//! (pure).

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::wire::object;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The body as JSON on one line. The error describes the fault and its place: the line
/// and the byte of the body, both counted from 1.
pub fn one_line(body: &[u8]) -> Result<Cow<'_, str>, String> {
    let content = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let skipped = body.len() - content.len();
    let text = std::str::from_utf8(content).map_err(|error| {
        let at = error.valid_up_to();
        let line = 1 + memchr::memchr_iter(b'\n', &content[..at]).count();
        format!("not UTF-8 at line {line}, byte {}", skipped + at + 1)
    })?;
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => Ok(object::one_line(value.get())),
        Err(error) => Err(fault(&error, text, skipped)),
    }
}

/// The message for a text that is not JSON. serde_json counts bytes within the line.
fn fault(error: &serde_json::Error, text: &str, skipped: usize) -> String {
    let message = error.to_string();
    let reason = message.split(" at line ").next().unwrap_or_default();
    let line = error.line();
    let mut ends = memchr::memchr_iter(b'\n', text.as_bytes());
    let before = match line.checked_sub(2) {
        Some(index) => ends.nth(index).map_or(0, |end| end + 1),
        None => 0,
    };
    let byte = skipped + before + error.column();
    format!("not JSON: {reason} at line {line}, byte {byte}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_of_several_lines_becomes_one_and_keeps_its_values() {
        let body = b" {\r\n  \"a\": 1.10,\n  \"b\": \"x\\ny\"\n}\n";
        assert_eq!(
            one_line(body).unwrap(),
            "{    \"a\": 1.10,   \"b\": \"x\\ny\" }"
        );
        assert_eq!(one_line(b"\xef\xbb\xbf[1]").unwrap(), "[1]");
    }

    #[test]
    fn a_fault_has_its_line_and_its_byte() {
        for (body, place) in [
            (&b"{\n  \"a\": 1,\n}\n"[..], "line 3, byte 13"),
            (b"{\"a\":1,}", "line 1, byte 8"),
            (b"\xef\xbb\xbf{\"a\":1,}", "line 1, byte 11"),
            (b"[1]\n\nx", "line 3, byte 6"),
            (b"\"a\nb\"", "line 1, byte 2"),
            (b"[\n\"\xff\"]", "line 2, byte 4"),
            (b"", "line 1, byte 0"),
            (b"\xef\xbb\xbf\xef\xbb\xbf1", "line 1, byte 4"),
            (b"{", "line 1, byte 1"),
            (b"nan", "line 1, byte 2"),
        ] {
            let error = one_line(body).unwrap_err();
            assert!(error.ends_with(place), "{body:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_body_gives_one_line_of_json_or_a_place_inside_it(
            body in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..60),
                "[\\[\\]{}\",:0-9a \n\r]{0,40}".prop_map(String::into_bytes),
            ],
        ) {
            match one_line(&body) {
                Ok(line) => {
                    prop_assert!(!line.contains(['\n', '\r']));
                    let before: serde_json::Value =
                        serde_json::from_slice(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&body)).unwrap();
                    prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), before);
                }
                Err(fault) => {
                    let byte: usize = fault.rsplit(' ').next().unwrap().parse().unwrap();
                    prop_assert!(byte <= body.len() + 1, "{}", fault);
                }
            }
        }
    }
}
