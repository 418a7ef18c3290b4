//! Errors that concern a whole call, and the reasons that the service gives for them.

use serde_json::Value;

use crate::stage::report::shown;

/// The reason why a call has no usable reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The call may work later.
    Retry(String),
    /// No call will work until an operator changes something.
    Fatal(String),
}

impl CallError {
    /// The reason, for messages.
    pub fn into_reason(self) -> String {
        match self {
            CallError::Retry(reason) | CallError::Fatal(reason) => reason,
        }
    }
}

/// The meaning of a status with which the service refuses every call, and the remedy.
pub fn refusal(status: u16, body: &[u8]) -> String {
    match status {
        401 => "the service wants other credentials (401); give --user with RV_ES_PASSWORD or --password-file, or --api-key-file"
            .to_owned(),
        403 => format!(
            "the service does not let this user do this (403); give the user or the API key the right to. It says {}",
            reason_in(body)
        ),
        300..=399 => format!(
            "the service redirects ({status}), and redirects are not followed; give the final address as --url"
        ),
        _ => format!(
            "the service refuses the call ({status}); is --url that of Elasticsearch or OpenSearch? It says {}",
            reason_in(body)
        ),
    }
}

/// The reason in a reply, with its cause. If the reply has no reason, returns the reply
/// itself, shortened.
pub fn reason_in(body: &[u8]) -> String {
    let reply: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &reply["error"];
    match (&error["reason"], &error["caused_by"]["reason"]) {
        (Value::String(reason), Value::String(cause)) => shown(&format!("{reason}: {cause}")),
        (Value::String(reason), _) => shown(reason),
        _ => shown(&String::from_utf8_lossy(body)),
    }
}
