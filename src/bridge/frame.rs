//! Payloads of messages as lines.

use crate::bridge::ledger::Id;
use crate::wire::message::Record;
use crate::wire::object::one_line;
use crate::wire::reject::Reject;

/// A payload as a line.
#[derive(Debug, PartialEq, Eq)]
pub struct Framed {
    /// The record on one line, without a newline.
    pub line: Box<[u8]>,
    /// Its `messageId`, if it has a valid one.
    pub id: Option<Id>,
}

/// Makes a line of a payload, which must be one JSON object. A newline at the end is
/// removed, and each newline between two tokens becomes a space. All other bytes stay.
pub fn framed(payload: &[u8], line_bytes_max: usize) -> Result<Framed, Reject> {
    if payload.len() > line_bytes_max {
        return Err(Reject::Oversized);
    }
    if payload.trim_ascii().is_empty() {
        return Err(Reject::Syntax("the message is empty".to_owned()));
    }
    let record = Record::parse(payload.trim_ascii())?;
    let id = id_of(&record);
    let line = one_line(record.text()).as_bytes().into();
    Ok(Framed { line, id })
}

/// The `messageId` of a record, if it has a valid one. Inputs, outputs and rejected
/// records are matched by this.
pub fn id_of(record: &Record) -> Option<Id> {
    record.message_id().ok().map(|id| Id::from(&*id))
}

/// A line with a member that says that it may be a repeat.
pub fn marked_as_repeat(line: &[u8]) -> Vec<u8> {
    let mut marked = line.to_vec();
    if let Some(end) = marked.iter().rposition(|it| *it == b'}') {
        let is_empty = marked[..end].trim_ascii() == b"{";
        marked.truncate(end);
        let member: &[u8] = match is_empty {
            true => b"\"redelivered\":true}",
            false => b",\"redelivered\":true}",
        };
        marked.extend_from_slice(member);
    }
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_becomes_one_line_and_keeps_its_bytes() {
        for (payload, line) in [
            (
                "{\"messageId\":\"a\",\"x\":1.10}",
                "{\"messageId\":\"a\",\"x\":1.10}",
            ),
            ("{\"messageId\":\"a\"}\n", "{\"messageId\":\"a\"}"),
            ("{\"messageId\":\"a\"}\r\n", "{\"messageId\":\"a\"}"),
            ("{\r\n \"messageId\":\n\"a\"}", "{   \"messageId\": \"a\"}"),
        ] {
            let framed = framed(payload.as_bytes(), 1000).unwrap();
            assert_eq!(&*framed.line, line.as_bytes());
            assert_eq!(framed.id.as_deref(), Some("a"));
        }
    }

    #[test]
    fn what_is_no_record_is_rejected() {
        for payload in ["", "\n", "7", "[]", "{} {}", "{\"a\":\"\n\"}", "\u{feff}x"] {
            assert!(framed(payload.as_bytes(), 1000).is_err(), "{payload:?}");
        }
        assert!(framed(b"\xff", 1000).is_err());
        assert_eq!(framed(b"{\"a\":1}", 6), Err(Reject::Oversized));
    }

    #[test]
    fn a_record_without_a_valid_id_has_none() {
        for payload in ["{}", "{\"messageId\":7}", "{\"messageId\":\"\"}"] {
            assert_eq!(
                framed(payload.as_bytes(), 1000).unwrap().id,
                None,
                "{payload}"
            );
        }
    }

    #[test]
    fn a_repeat_is_marked_at_the_end() {
        for (line, marked) in [
            ("{}", "{\"redelivered\":true}"),
            ("{ }", "{ \"redelivered\":true}"),
            ("{\"a\":{}}", "{\"a\":{},\"redelivered\":true}"),
        ] {
            assert_eq!(marked_as_repeat(line.as_bytes()), marked.as_bytes());
        }
    }
}
