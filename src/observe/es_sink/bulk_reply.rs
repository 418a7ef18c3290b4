//! Reads the outcome of each record from the reply to a `_bulk` call (pure).

use serde::Deserialize;
use serde_json::Value;

use crate::observe::es_sink::call_error::{CallError, reason_in, refusal};

/// The longest reason that is kept with a refused record, in characters.
const REASON_CHARS_MAX: usize = 500;

/// The outcome of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkOutcome {
    /// A verdict on each record, in order.
    Items(Vec<Verdict>),
    /// The call must be repeated. If the service has already executed the call, the ids
    /// of the documents prevent duplicates.
    Retry(String),
    /// The service is overloaded. The call must be repeated later.
    Busy(String),
    /// The records must be sent in smaller calls.
    TooLarge,
    /// The service cannot parse the call. One record may be the cause.
    Malformed(String),
    /// No call will work until an operator changes something.
    Fatal(String),
}

impl From<CallError> for BulkOutcome {
    fn from(error: CallError) -> BulkOutcome {
        match error {
            CallError::Retry(reason) => BulkOutcome::Retry(reason),
            CallError::Fatal(reason) => BulkOutcome::Fatal(reason),
        }
    }
}

/// The verdict on one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The record is indexed now.
    Indexed,
    /// The record was already indexed.
    Present,
    /// The record's target is a data stream, which accepts only new documents.
    CreateOnly,
    /// The index has reached its limit of fields, and the record has new fields.
    TooManyFields(String),
    /// The service may accept the record later.
    Retry(String),
    /// The service may accept the record when the load of the service is lower.
    Busy(String),
    /// The service will never accept the record.
    Refused(String),
}

#[derive(Deserialize)]
struct BulkReply {
    #[serde(default)]
    errors: bool,
    items: Vec<ReplyItem>,
}

/// An item has one key, which is the action.
#[derive(Deserialize)]
struct ReplyItem {
    #[serde(alias = "create")]
    index: Option<ItemStatus>,
}

#[derive(Deserialize)]
struct ItemStatus {
    status: u16,
    error: Option<Value>,
}

/// Reads the reply to a call with `count` records.
pub fn read(status: u16, body: &[u8], count: usize) -> BulkOutcome {
    match status {
        200..=299 => read_items(body, count),
        400 => BulkOutcome::Malformed(format!(
            "the service cannot read the call (400); it says {}",
            reason_in(body)
        )),
        413 => BulkOutcome::TooLarge,
        429 => BulkOutcome::Busy("the service is overloaded (429)".to_owned()),
        408 | 500..=599 => BulkOutcome::Retry(format!("the service answers {status}")),
        _ => BulkOutcome::Fatal(refusal(status, body)),
    }
}

fn read_items(body: &[u8], count: usize) -> BulkOutcome {
    let reply: BulkReply = match serde_json::from_slice(body) {
        Ok(reply) => reply,
        Err(error) => return BulkOutcome::Retry(format!("the reply cannot be read: {error}")),
    };
    if reply.items.len() != count {
        let items = reply.items.len();
        return BulkOutcome::Retry(format!("the reply has {items} items for {count} records"));
    }
    let mut verdicts = Vec::with_capacity(count);
    let mut has_errors = false;
    for item in reply.items {
        let Some(item) = item.index else {
            return BulkOutcome::Retry("the reply has an empty item".to_owned());
        };
        has_errors |= item.error.is_some() || item.status >= 300;
        verdicts.push(verdict(item));
    }
    if reply.errors && !has_errors {
        return BulkOutcome::Retry("the reply reports errors and names none".to_owned());
    }
    BulkOutcome::Items(verdicts)
}

fn verdict(item: ItemStatus) -> Verdict {
    let text = |name| match &item.error {
        Some(error) => error[name].as_str().unwrap_or_default(),
        None => "",
    };
    let says =
        |words: &str| (item.error.as_ref()).is_some_and(|error| error.to_string().contains(words));
    match item.status {
        200..=299 if item.error.is_none() => Verdict::Indexed,
        // The index already has this document or a later version of it.
        409 if item.error.is_none() || says("version_conflict") => Verdict::Present,
        400 if text("reason").contains("op_type of create are allowed in data streams") => {
            Verdict::CreateOnly
        }
        400 if says("Limit of total fields") || says("number of nested documents") => {
            Verdict::TooManyFields(reason(400, item.error))
        }
        429 => Verdict::Busy(refused_for_now(429, item.error)),
        // An error takes precedence over a status of success.
        status if status < 400 || status == 409 || status >= 500 => {
            Verdict::Retry(refused_for_now(status, item.error))
        }
        status if is_fault_of_the_index(text("type"), text("reason")) => {
            Verdict::Retry(refused_for_now(status, item.error))
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

fn refused_for_now(status: u16, error: Option<Value>) -> String {
    format!("refused for now: {}", reason(status, error))
}

/// Whether the index or the settings are the cause of a refusal. After they are repaired,
/// the record can be indexed.
fn is_fault_of_the_index(kind: &str, reason: &str) -> bool {
    match kind {
        // The index is read-only or closed, it cannot be created, or the user may not
        // write to it.
        "cluster_block_exception"
        | "index_closed_exception"
        | "index_not_found_exception"
        | "security_exception" => true,
        // The cluster has reached its limit of shards, so it cannot create an
        // index.
        "validation_exception" => reason.contains("shards"),
        "illegal_argument_exception" => reason.starts_with("pipeline with id"),
        _ => false,
    }
}

/// Describes a refusal: `400 document_parsing_exception: failed to parse field [x]`.
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
        let later = |text: &str| Verdict::Retry(format!("refused for now: {text}"));
        let never = |text: &str| Verdict::Refused(format!("refused: {text}"));
        assert_eq!(
            read(200, body, 15),
            BulkOutcome::Items(vec![
                Verdict::Indexed,
                Verdict::Indexed,
                Verdict::Present,
                Verdict::Busy("refused for now: 429 es_rejected: queue".to_owned()),
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
    fn a_reply_without_an_item_for_each_record_is_retried() {
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
            assert!(matches!(outcome, BulkOutcome::Retry(_)), "{outcome:?}");
        }
    }

    #[test]
    fn whole_replies_are_sorted_by_status() {
        for status in [408, 500, 502, 503, 504] {
            assert!(matches!(read(status, b"", 1), BulkOutcome::Retry(_)));
        }
        for status in [301, 307, 401, 403, 404, 405, 406] {
            assert!(matches!(read(status, b"", 1), BulkOutcome::Fatal(_)));
        }
        assert!(matches!(read(429, b"", 1), BulkOutcome::Busy(_)));
        assert!(matches!(read(400, b"", 1), BulkOutcome::Malformed(_)));
        assert_eq!(read(413, b"", 1), BulkOutcome::TooLarge);
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
            let BulkOutcome::Items(verdicts) = read(200, body.as_bytes(), 1) else {
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
