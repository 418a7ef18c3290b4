//! What a reply of `_bulk` means for each record of the call.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::stage::report::shown;

/// The longest reason that is kept with a refused record, in characters.
const REASON_CHARS_MAX: usize = 500;

/// What is to be done after one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A verdict on each record, in their order.
    Items(Vec<Verdict>),
    /// The same call again; ids make it harmless where it had worked.
    Retry(String),
    /// The same records in smaller calls.
    TooLarge,
    /// No call will ever work.
    Fatal(String),
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is there.
    Indexed,
    /// It may be taken another time.
    Retry(String),
    /// It will never be taken.
    Refused(String),
}

#[derive(Deserialize)]
struct Reply {
    items: Vec<BTreeMap<String, ItemReply>>,
}

#[derive(Deserialize)]
struct ItemReply {
    status: u16,
    error: Option<Value>,
}

/// Reads a reply to a call with `count` records.
pub fn read(status: u16, body: &[u8], count: usize) -> Outcome {
    match status {
        200..=299 => read_items(body, count),
        413 => Outcome::TooLarge,
        408 | 429 | 500..=599 => Outcome::Retry(format!("the service answers {status}")),
        401 => Outcome::Fatal(
            "the service wants other credentials (401); give --user with RV_ES_PASSWORD or --password-file, or --api-key-file"
                .to_owned(),
        ),
        403 => Outcome::Fatal(
            "the service does not let this user write (403); give the user or the API key the right to write to the index"
                .to_owned(),
        ),
        300..=399 => Outcome::Fatal(format!(
            "the service redirects ({status}), and redirects are not followed; give the final address as --url"
        )),
        _ => Outcome::Fatal(format!(
            "the service refuses the call ({status}); is --url that of Elasticsearch or OpenSearch? It says {}",
            shown(&String::from_utf8_lossy(body))
        )),
    }
}

fn read_items(body: &[u8], count: usize) -> Outcome {
    let reply: Reply = match serde_json::from_slice(body) {
        Ok(reply) => reply,
        Err(error) => return Outcome::Retry(format!("the reply cannot be read: {error}")),
    };
    if reply.items.len() != count {
        let items = reply.items.len();
        return Outcome::Retry(format!("the reply has {items} items for {count} records"));
    }
    let mut verdicts = Vec::with_capacity(count);
    for item in reply.items {
        // The one key is the action.
        let Some(item) = item.into_values().next() else {
            return Outcome::Retry("the reply has an empty item".to_owned());
        };
        verdicts.push(verdict(item));
    }
    Outcome::Items(verdicts)
}

fn verdict(item: ItemReply) -> Verdict {
    match item.status {
        // 409: the same or a later version is there already.
        200..=299 | 409 => Verdict::Indexed,
        status @ (429 | 500..=599) => {
            let reason = reason(status, item.error);
            Verdict::Retry(format!("records are put off: {reason}"))
        }
        status => Verdict::Refused(format!("refused: {}", reason(status, item.error))),
    }
}

/// `400 document_parsing_exception: failed to parse field [x]`.
fn reason(status: u16, error: Option<Value>) -> String {
    let text = match error {
        Some(Value::Object(error)) => {
            let text = |name| error.get(name).and_then(Value::as_str).unwrap_or("?");
            format!("{}: {}", text("type"), text("reason"))
        }
        Some(Value::String(error)) => error,
        Some(_) | None => "no reason given".to_owned(),
    };
    let mut reason: String = text.chars().take(REASON_CHARS_MAX).collect();
    if reason.len() < text.len() {
        reason.push_str("...");
    }
    format!("{status} {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_read_however_it_is_spaced() {
        let body = br#"{ "errors" : true , "took":1, "items" : [
            {"index":{"_type":"_doc","status":201}},
            {"index":{"status":200}},
            {"index":{"status":409,"error":{"type":"version_conflict_engine_exception"}}},
            {"index":{"status":429,"error":{"type":"es_rejected","reason":"queue"}}},
            {"index":{"status":503,"error":"unavailable"}},
            {"index":{"status":400,"error":{"type":"document_parsing_exception","reason":"field [x]"}}},
            {"index":{"status":403}} ] }"#;
        let later = |text: &str| Verdict::Retry(format!("records are put off: {text}"));
        let never = |text: &str| Verdict::Refused(format!("refused: {text}"));
        assert_eq!(
            read(200, body, 7),
            Outcome::Items(vec![
                Verdict::Indexed,
                Verdict::Indexed,
                Verdict::Indexed,
                later("429 es_rejected: queue"),
                later("503 unavailable"),
                never("400 document_parsing_exception: field [x]"),
                never("403 no reason given"),
            ])
        );
    }

    #[test]
    fn a_reply_that_says_nothing_about_each_record_is_no_reply() {
        for body in [
            &b""[..],
            b"OK",
            b"{}",
            br#"{"items":[]}"#,
            br#"{"items":[{}]}"#,
            br#"{"items":[{"index":{}}]}"#,
            br#"{"items":[{"index":{"status":201}},{"index":{"status":201}}]}"#,
            br#"{"errors":false,"items":[{"index":{"status":2"#,
        ] {
            let outcome = read(200, body, 1);
            assert!(matches!(outcome, Outcome::Retry(_)), "{outcome:?}");
        }
    }

    #[test]
    fn whole_replies_are_sorted_by_status() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(matches!(read(status, b"", 1), Outcome::Retry(_)));
        }
        for status in [301, 307, 400, 401, 403, 404, 405, 406] {
            assert!(matches!(read(status, b"", 1), Outcome::Fatal(_)));
        }
        assert_eq!(read(413, b"", 1), Outcome::TooLarge);
    }

    #[test]
    fn a_long_reason_is_cut() {
        let error = Value::String("x".repeat(10_000));
        assert!(reason(400, Some(error)).len() < 600);
    }
}
