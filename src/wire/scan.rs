//! A quick look through JSON text: where the members of an object stand.
//!
//! Finding the members is most of what a stage does with a record, and this does
//! it in one pass. It accepts nothing that is no JSON; what it does not accept is
//! left to `serde_json`, which has the last word and the message.

use std::ops::Range;

/// Deeper nesting is left to `serde_json`, whose scanner does not recurse.
const DEPTH_MAX: usize = 64;

/// Shows the key, in its quotes, and the value of each member of the object that is
/// all of `text`. `None` means that the text is no object, or that this scanner cannot
/// tell; then the caller forgets what was shown.
pub fn each_member<'a>(text: &'a str, mut show: impl FnMut(&'a str, &'a str)) -> Option<()> {
    whole_object(text, |key, at| {
        let ends = value(text, at)?;
        show(key, text.get(at..ends)?);
        Some(ends)
    })
}

/// Walks through the object that is all of `text`, as [`object`] does.
pub fn whole_object<'a>(
    text: &'a str,
    member: impl FnMut(&'a str, usize) -> Option<usize>,
) -> Option<()> {
    let bytes = text.as_bytes();
    let ends = object(text, white_space(bytes, 0), member)?;
    (white_space(bytes, ends) == bytes.len()).then_some(())
}

/// Walks through the object that begins at `at`, and returns where it ends.
/// `member` is shown the key of each member, in its quotes, and where its value
/// begins; it returns where that ends. What was shown counts only where the
/// answer is not `None`.
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

/// The end of the value that begins at `at`.
pub fn value(text: &str, at: usize) -> Option<usize> {
    any_value(text.as_bytes(), at, 0)
}

/// Whether a string stands for itself in JSON, without escapes.
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

/// The end of the value that begins at `at`.
fn any_value(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    match *bytes.get(at)? {
        b'"' => string(bytes, at),
        b'{' | b'[' if depth >= DEPTH_MAX => None,
        b'{' => walk(bytes, at, |_, value| any_value(bytes, value, depth + 1)),
        b'[' => array(bytes, at, depth),
        b't' => literal(bytes, at, b"true"),
        b'f' => literal(bytes, at, b"false"),
        b'n' => literal(bytes, at, b"null"),
        _ => number(bytes, at),
    }
}

/// [`object`], where its brace is known to stand.
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

fn array(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    let mut at = white_space(bytes, at + 1);
    if *bytes.get(at)? == b']' {
        return Some(at + 1);
    }
    loop {
        at = white_space(bytes, any_value(bytes, at, depth + 1)?);
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

/// The end of the digits at `at`, of which there is one at least.
fn digits(bytes: &[u8], at: usize) -> Option<usize> {
    let count = bytes[at..]
        .iter()
        .take_while(|it| it.is_ascii_digit())
        .count();
    (count > 0).then_some(at + count)
}

/// The end of the string at `at`, behind its closing quote.
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

/// Where the first byte from `at` on stands that is a quote, a backslash or a
/// control character; eight bytes are looked at together.
fn plain(bytes: &[u8], at: usize) -> usize {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let (words, tail) = rest.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // A quote and the control characters become all that is below 0x21.
        let quote_or_control = (word ^ each(0x02)).wrapping_sub(each(0x21));
        let backslash = (word ^ each(b'\\')).wrapping_sub(each(1));
        // A high bit that was not there came from going below zero. That borrows from
        // the next byte up, so the lowest one found is right.
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

    /// Pieces of JSON and of what nearly is.
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
        fn it_accepts_what_serde_json_accepts(text in any_text()) {
            let accepted = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(members(&text).is_some(), accepted);
        }

        #[test]
        fn every_value_it_finds_is_one(text in any_text()) {
            for (key, value) in members(&text).unwrap_or_default() {
                prop_assert_eq!(parse_value(key), Ok(key));
                prop_assert_eq!(parse_value(value), Ok(value));
            }
        }

        #[test]
        fn a_string_ends_where_it_ends(text in "[ -~äß€😀]{0,40}") {
            let json = serde_json::to_string(&text).unwrap();
            let whole = format!("{{{json}:{json}}}");
            let found = members(&whole).unwrap();
            prop_assert_eq!(found[0], (&*json, &*json));
        }
    }

    #[test]
    fn what_is_too_deep_is_left_to_others() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(members(&nested(DEPTH_MAX)).is_some());
        assert!(members(&nested(DEPTH_MAX + 1)).is_none());
    }
}
