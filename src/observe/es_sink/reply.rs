//! What a reply of `_bulk` means for each record of the call.

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
    /// The same call again, and later: the service is well but has too much to do.
    Busy(String),
    /// The same records in smaller calls.
    TooLarge,
    /// The call cannot be read. It may be for the sake of one record.
    Malformed(String),
    /// No call will work until somebody has changed something.
    Fatal(String),
}

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is there now.
    Indexed,
    /// It was there before, and is not looked at again.
    Present,
    /// Its target is a data stream, which only takes new documents.
    CreateOnly,
    /// Its index has no room for the fields that it would be the first to have.
    TooManyFields(String),
    /// It may be taken another time.
    Retry(String),
    /// The same, when the service has less to do.
    Busy(String),
    /// It will never be taken.
    Refused(String),
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    errors: bool,
    items: Vec<Item>,
}

/// One key, which is the action.
#[derive(Deserialize)]
struct Item {
    #[serde(alias = "create")]
    index: Option<ItemReply>,
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
        400 => Outcome::Malformed(format!(
            "the service cannot read the call (400); it says {}",
            said(body)
        )),
        413 => Outcome::TooLarge,
        429 => Outcome::Busy("the service has too much to do (429)".to_owned()),
        408 | 500..=599 => Outcome::Retry(format!("the service answers {status}")),
        _ => Outcome::Fatal(refusal(status, body)),
    }
}

/// What a status means that says no to everything, and what to do about it.
pub fn refusal(status: u16, body: &[u8]) -> String {
    match status {
        401 => "the service wants other credentials (401); give --user with RV_ES_PASSWORD or --password-file, or --api-key-file"
            .to_owned(),
        403 => format!(
            "the service does not let this user do this (403); give the user or the API key the right to. It says {}",
            said(body)
        ),
        300..=399 => format!(
            "the service redirects ({status}), and redirects are not followed; give the final address as --url"
        ),
        _ => format!(
            "the service refuses the call ({status}); is --url that of Elasticsearch or OpenSearch? It says {}",
            said(body)
        ),
    }
}

/// The reason in a reply and what caused it, or as much of the reply as can be
/// shown.
pub fn said(body: &[u8]) -> String {
    let reply: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &reply["error"];
    match (&error["reason"], &error["caused_by"]["reason"]) {
        (Value::String(reason), Value::String(cause)) => shown(&format!("{reason}: {cause}")),
        (Value::String(reason), _) => shown(reason),
        _ => shown(&String::from_utf8_lossy(body)),
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
    let mut has_errors = false;
    for item in reply.items {
        let Some(item) = item.index else {
            return Outcome::Retry("the reply has an empty item".to_owned());
        };
        has_errors |= item.error.is_some() || item.status >= 300;
        verdicts.push(verdict(item));
    }
    if reply.errors && !has_errors {
        return Outcome::Retry("the reply speaks of errors and names none".to_owned());
    }
    Outcome::Items(verdicts)
}

fn verdict(item: ItemReply) -> Verdict {
    let text = |name| match &item.error {
        Some(error) => error[name].as_str().unwrap_or_default(),
        None => "",
    };
    let says =
        |words: &str| (item.error.as_ref()).is_some_and(|error| error.to_string().contains(words));
    match item.status {
        200..=299 if item.error.is_none() => Verdict::Indexed,
        // The same or a later version is there already.
        409 if item.error.is_none() || says("version_conflict") => Verdict::Present,
        400 if text("reason").contains("op_type of create are allowed in data streams") => {
            Verdict::CreateOnly
        }
        400 if says("Limit of total fields") || says("number of nested documents") => {
            Verdict::TooManyFields(reason(400, item.error))
        }
        429 => Verdict::Busy(put_off(429, item.error)),
        // An error with a status that says all is well is believed, too.
        status if status < 400 || status == 409 || status >= 500 => {
            Verdict::Retry(put_off(status, item.error))
        }
        status if is_of_the_index(text("type"), text("reason")) => {
            Verdict::Retry(put_off(status, item.error))
        }
        status => {
            let hint = if says("nanosecond resolution") || says("nano-second resolution") {
                "; is field \"timestamp\" in seconds since 1970? The index takes dates from 1970 to 2262"
            } else {
                ""
            };
            Verdict::Refused(format!("refused: {}{hint}", reason(status, item.error)))
        }
    }
}

fn put_off(status: u16, error: Option<Value>) -> String {
    format!("records are put off: {}", reason(status, error))
}

/// Whether a refusal is the fault of the index or of the settings, and not of the
/// record: whoever mends those wants the record to be there.
fn is_of_the_index(kind: &str, reason: &str) -> bool {
    match kind {
        // Read-only, closed, not there and not to be made, not to be written by
        // this user.
        "cluster_block_exception"
        | "index_closed_exception"
        | "index_not_found_exception"
        | "security_exception" => true,
        // Tomorrow's index would be one too many.
        "validation_exception" => reason.contains("shards"),
        "illegal_argument_exception" => reason.starts_with("pipeline with id"),
        _ => false,
    }
}

/// `400 document_parsing_exception: failed to parse field [x]`.
fn reason(status: u16, error: Option<Value>) -> String {
    let text = match error {
        Some(Value::Object(error)) => {
            let text = |name| error.get(name).and_then(Value::as_str).unwrap_or("?");
            let cause = error
                .get("caused_by")
                .and_then(|cause| cause["reason"].as_str());
            let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
            format!("{}: {}{cause}", text("type"), text("reason"))
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
            {"create":{"status":409,"error":{"type":"version_conflict_engine_exception"}}},
            {"index":{"status":429,"error":{"type":"es_rejected","reason":"queue"}}},
            {"index":{"status":503,"error":"unavailable"}},
            {"index":{"status":400,"error":{"type":"document_parsing_exception","reason":"field [x]"}}},
            {"index":{"status":403}},
            {"index":{"status":201,"error":{"type":"t","reason":"not so"}}},
            {"index":{"status":200,"error":"unavailable"}},
            {"index":{"status":409,"error":{"type":"t","reason":"locked"}}},
            {"index":{"status":302}},
            {"index":{"status":201,"error":null}},
            {"index":{"status":400,"error":{"type":"illegal_argument_exception","reason":"Limit of total fields [1000] has been exceeded"}}},
            {"index":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"failed","caused_by":{"reason":"date is after 2262 and cannot be stored in nanosecond resolution"}}}},
            {"index":{"status":400,"error":{"type":"illegal_argument_exception","reason":"only write ops with an op_type of create are allowed in data streams"}}} ] }"#;
        let later = |text: &str| Verdict::Retry(format!("records are put off: {text}"));
        let never = |text: &str| Verdict::Refused(format!("refused: {text}"));
        assert_eq!(
            read(200, body, 15),
            Outcome::Items(vec![
                Verdict::Indexed,
                Verdict::Indexed,
                Verdict::Present,
                Verdict::Busy("records are put off: 429 es_rejected: queue".to_owned()),
                later("503 unavailable"),
                never("400 document_parsing_exception: field [x]"),
                never("403 no reason given"),
                later("201 t: not so"),
                later("200 unavailable"),
                later("409 t: locked"),
                later("302 no reason given"),
                Verdict::Indexed,
                Verdict::TooManyFields("400 illegal_argument_exception: Limit of total fields [1000] has been exceeded".to_owned()),
                never("400 mapper_parsing_exception: failed: date is after 2262 and cannot be stored in nanosecond resolution; is field \"timestamp\" in seconds since 1970? The index takes dates from 1970 to 2262"),
                Verdict::CreateOnly,
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
            br#"{"errors":true,"items":[{"index":{"status":201}}]}"#,
        ] {
            let outcome = read(200, body, 1);
            assert!(matches!(outcome, Outcome::Retry(_)), "{outcome:?}");
        }
    }

    #[test]
    fn whole_replies_are_sorted_by_status() {
        for status in [408, 500, 502, 503, 504] {
            assert!(matches!(read(status, b"", 1), Outcome::Retry(_)));
        }
        for status in [301, 307, 401, 403, 404, 405, 406] {
            assert!(matches!(read(status, b"", 1), Outcome::Fatal(_)));
        }
        assert!(matches!(read(429, b"", 1), Outcome::Busy(_)));
        assert!(matches!(read(400, b"", 1), Outcome::Malformed(_)));
        assert_eq!(read(413, b"", 1), Outcome::TooLarge);
    }

    #[test]
    fn what_is_wrong_with_an_index_is_not_the_fault_of_the_record() {
        for (status, kind, reason) in [
            (
                403,
                "cluster_block_exception",
                "index [i] blocked by: [FORBIDDEN/8/index write (api)];",
            ),
            (
                403,
                "security_exception",
                "action [indices:data/write/bulk[s]] is unauthorized",
            ),
            (404, "index_not_found_exception", "no such index [i]"),
            (400, "index_closed_exception", "closed"),
            (
                400,
                "validation_exception",
                "this action would add [2] shards, but this cluster has [1000]/[1000]",
            ),
            (
                400,
                "illegal_argument_exception",
                "pipeline with id [p] does not exist",
            ),
        ] {
            let body = format!(
                r#"{{"items":[{{"index":{{"status":{status},"error":{{"type":"{kind}","reason":"{reason}"}}}}}}]}}"#
            );
            let Outcome::Items(verdicts) = read(200, body.as_bytes(), 1) else {
                panic!("{body}");
            };
            assert!(matches!(verdicts[0], Verdict::Retry(_)), "{verdicts:?}");
        }
    }

    #[test]
    fn a_long_reason_is_cut() {
        let error = Value::String("x".repeat(10_000));
        assert!(reason(400, Some(error)).len() < 600);
    }
}
