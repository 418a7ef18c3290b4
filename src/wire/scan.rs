//! A fast scanner that finds the members of a JSON object.
//!
//! Finding the members is most of a stage's work on a record, and this scanner does it
//! in one pass. The scanner accepts only valid JSON. If it does not accept a text,
//! `serde_json` decides and gives the error message.

use std::ops::Range;

/// Deeper nesting is left to `serde_json`, whose scanner does not recurse.
const DEPTH_MAX: usize = 64;

/// `text` must be one JSON object. Calls `show` once per member, with the key (still
/// quoted) and the value. If the result is `None`, the text is not an object or the
/// scanner cannot decide. The caller must then discard the members that `show` received.
pub fn each_member<'a>(text: &'a str, mut show: impl FnMut(&'a str, &'a str)) -> Option<()> {
    whole_object(text, |key, at| {
        let ends = value(text, at)?;
        show(key, text.get(at..ends)?);
        Some(ends)
    })
}

/// `text` must be one JSON object, possibly with white space around it. Scans it like
/// [`object`].
pub fn whole_object<'a>(
    text: &'a str,
    member: impl FnMut(&'a str, usize) -> Option<usize>,
) -> Option<()> {
    let bytes = text.as_bytes();
    let ends = object(text, white_space(bytes, 0), member)?;
    (white_space(bytes, ends) == bytes.len()).then_some(())
}

/// Scans the object that begins at `at`, and returns the index after it. Calls `member`
/// once per member, with the key (still quoted) and the index of the value; `member`
/// returns the index after the value. If the result is `None`, the caller must discard
/// the members that `member` received.
pub fn object<'a>(
    text: &'a str,
    at: usize,
    mut member: impl FnMut(&'a str, usize) -> Option<usize>,
) -> Option<usize> {
    let bytes = text.as_bytes();
    match *bytes.get(at)? {
        b'{' => walk(bytes, at, |key, value| member(text.get(key)?, value)),
        _ => None,
    }
}

/// Scans the array that begins at `at`, and returns the index after it. Calls `item` with
/// the index of each item; `item` returns the index after the item. If the result is
/// `None`, the caller must discard what `item` has found.
pub fn array(text: &str, at: usize, mut item: impl FnMut(usize) -> Option<usize>) -> Option<usize> {
    let bytes = text.as_bytes();
    if *bytes.get(at)? != b'[' {
        return None;
    }
    items(bytes, at, &mut item)
}

/// The index after the value that begins at `at`.
pub fn value(text: &str, at: usize) -> Option<usize> {
    any_value(text.as_bytes(), at, 0)
}

/// Whether `text` needs no escapes in a JSON string.
pub fn is_plain(text: &str) -> bool {
    plain(text.as_bytes(), 0) == text.len()
}

#[inline]
fn white_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

/// The index after the value that begins at `at`.
fn any_value(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    match *bytes.get(at)? {
        b'"' => string(bytes, at),
        b'{' | b'[' if depth >= DEPTH_MAX => None,
        b'{' => walk(bytes, at, |_, value| any_value(bytes, value, depth + 1)),
        b'[' => items(bytes, at, |item| any_value(bytes, item, depth + 1)),
        b't' => literal(bytes, at, b"true"),
        b'f' => literal(bytes, at, b"false"),
        b'n' => literal(bytes, at, b"null"),
        _ => number(bytes, at),
    }
}

/// Like [`object`], but the brace at `at` has already been checked.
#[inline]
fn walk(
    bytes: &[u8],
    at: usize,
    mut member: impl FnMut(Range<usize>, usize) -> Option<usize>,
) -> Option<usize> {
    let mut at = white_space(bytes, at + 1);
    if *bytes.get(at)? == b'}' {
        return Some(at + 1);
    }
    loop {
        let key_ends = string(bytes, at)?;
        let colon = white_space(bytes, key_ends);
        if *bytes.get(colon)? != b':' {
            return None;
        }
        let value = white_space(bytes, colon + 1);
        at = white_space(bytes, member(at..key_ends, value)?);
        match *bytes.get(at)? {
            b',' => at = white_space(bytes, at + 1),
            b'}' => return Some(at + 1),
            _ => return None,
        }
    }
}

/// Like [`array()`], but the bracket at `at` has already been checked.
#[inline]
fn items(bytes: &[u8], at: usize, mut item: impl FnMut(usize) -> Option<usize>) -> Option<usize> {
    let mut at = white_space(bytes, at + 1);
    if *bytes.get(at)? == b']' {
        return Some(at + 1);
    }
    loop {
        at = white_space(bytes, item(at)?);
        match *bytes.get(at)? {
            b',' => at = white_space(bytes, at + 1),
            b']' => return Some(at + 1),
            _ => return None,
        }
    }
}

fn literal(bytes: &[u8], at: usize, literal: &[u8]) -> Option<usize> {
    bytes[at..]
        .starts_with(literal)
        .then_some(at + literal.len())
}

fn number(bytes: &[u8], mut at: usize) -> Option<usize> {
    if bytes[at] == b'-' {
        at += 1;
    }
    at = match *bytes.get(at)? {
        b'0' => at + 1,
        b'1'..=b'9' => digits(bytes, at)?,
        _ => return None,
    };
    if bytes.get(at) == Some(&b'.') {
        at = digits(bytes, at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = bytes.get(at) {
            at += 1;
        }
        at = digits(bytes, at)?;
    }
    Some(at)
}

/// The index after the digits at `at`; `None` if there is no digit.
fn digits(bytes: &[u8], at: usize) -> Option<usize> {
    let count = bytes[at..]
        .iter()
        .take_while(|it| it.is_ascii_digit())
        .count();
    (count > 0).then_some(at + count)
}

/// The index after the closing quote of the string at `at`.
fn string(bytes: &[u8], at: usize) -> Option<usize> {
    if *bytes.get(at)? != b'"' {
        return None;
    }
    let mut at = at + 1;
    loop {
        at = plain(bytes, at);
        match *bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => match *bytes.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                b'u' if bytes.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => at += 6,
                _ => return None,
            },
            // A control character.
            _ => return None,
        }
    }
}

/// The index of the first quote, backslash or control character from `at` on. Compares
/// eight bytes at a time.
fn plain(bytes: &[u8], at: usize) -> usize {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let (words, tail) = rest.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The XOR maps a quote and the control characters to the values below 0x21.
        let quote_or_control = (word ^ each(0x02)).wrapping_sub(each(0x21));
        let backslash = (word ^ each(b'\\')).wrapping_sub(each(1));
        // A subtraction below zero sets the high bit of a byte. Its borrow can falsify
        // only higher bytes, so the lowest byte found is right.
        let found = (quote_or_control | backslash) & !word & each(0x80);
        if found != 0 {
            return at + 8 * index + found.trailing_zeros() as usize / 8;
        }
    }
    let is_special = |byte: &u8| matches!(*byte, b'"' | b'\\' | 0..0x20);
    let in_tail = tail.iter().position(is_special).unwrap_or(tail.len());
    at + 8 * words.len() + in_tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::object::parse_value;

    fn members(text: &str) -> Option<Vec<(&str, &str)>> {
        let mut members = Vec::new();
        each_member(text, |key, value| members.push((key, value)))?;
        Some(members)
    }

    use proptest::prelude::*;

    /// Fragments of valid and of invalid JSON.
    fn any_text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("{"),
            Just("}"),
            Just("["),
            Just("]"),
            Just(":"),
            Just(","),
            Just("\""),
            Just("\\"),
            Just("\\u00e9"),
            Just("\\ud800"),
            Just("\\x"),
            Just("\"key\":"),
            Just("\"text, long enough\""),
            Just(" "),
            Just("\n"),
            Just("\t"),
            Just("0"),
            Just("-"),
            Just("12"),
            Just("1.10"),
            Just("01"),
            Just("1."),
            Just(".5"),
            Just("1e400"),
            Just("E+"),
            Just("true"),
            Just("false"),
            Just("null"),
            Just("nul"),
            Just("ä€😀"),
            Just("\u{0}"),
            Just("\u{1f}"),
            Just("\u{7f}"),
            Just("{\"a\":1}"),
            Just("[1,2]"),
            Just("\"\""),
        ];
        proptest::collection::vec(piece, 0..14)
            .prop_map(|pieces| format!("{{\"k\":{}}}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
        #[test]
        fn it_accepts_the_same_texts_as_serde_json(text in any_text()) {
            let accepted = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(members(&text).is_some(), accepted);
        }

        #[test]
        fn every_value_it_finds_is_valid_json(text in any_text()) {
            for (key, value) in members(&text).unwrap_or_default() {
                prop_assert_eq!(parse_value(key), Ok(key));
                prop_assert_eq!(parse_value(value), Ok(value));
            }
        }

        #[test]
        fn the_end_of_every_string_is_found(text in "[ -~äß€😀]{0,40}") {
            let json = serde_json::to_string(&text).unwrap();
            let whole = format!("{{{json}:{json}}}");
            let found = members(&whole).unwrap();
            prop_assert_eq!(found[0], (&*json, &*json));
        }
    }

    #[test]
    fn deep_nesting_is_left_to_serde_json() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(members(&nested(DEPTH_MAX)).is_some());
        assert!(members(&nested(DEPTH_MAX + 1)).is_none());
    }
}
