//! Recognises the service and its version from the reply to `GET /`.

use serde_json::Value;

use crate::observe::es_sink::call_error::{CallError, refusal};

/// The oldest Elasticsearch whose `_bulk` accepts documents without a type.
const ELASTICSEARCH_MIN: u64 = 7;

/// The name of the service, for messages only. The sink recognises differences between
/// services by their replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceVersion {
    /// `Elasticsearch 8.19.21`.
    Named(String),
    /// The service does not tell this user its name.
    Unnamed,
}

/// Reads the reply to `GET /`. Returns an error if the sink cannot use this service, or
/// cannot use it yet.
pub fn read(status: u16, body: &[u8]) -> Result<ServiceVersion, CallError> {
    match status {
        200..=299 => {}
        429 | 408 | 500..=599 => {
            return Err(CallError::Retry(format!("the service answers {status}")));
        }
        401 | 300..=399 => return Err(CallError::Fatal(refusal(status, body))),
        // The user may only write, or a proxy allows only writes.
        _ => return Ok(ServiceVersion::Unnamed),
    }
    let about: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(number) = about["version"]["number"].as_str() else {
        return Ok(ServiceVersion::Unnamed);
    };
    let name = match about["version"]["distribution"].as_str() {
        Some("opensearch") => "OpenSearch",
        _ => "Elasticsearch",
    };
    let major: Option<u64> = number.split('.').next().and_then(|text| text.parse().ok());
    if name == "Elasticsearch" && major.is_some_and(|major| major < ELASTICSEARCH_MIN) {
        return Err(CallError::Fatal(format!(
            "this is Elasticsearch {number}, and its documents have types; version {ELASTICSEARCH_MIN} or later is needed"
        )));
    }
    Ok(ServiceVersion::Named(format!("{name} {number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_known_by_what_it_says() {
        let named = |text: &str| Ok(ServiceVersion::Named(text.to_owned()));
        for (status, body, expected) in [
            (
                200,
                r#"{"version":{"number":"7.17.29"}}"#,
                named("Elasticsearch 7.17.29"),
            ),
            (
                200,
                r#"{"version":{"number":"9.0.0"}}"#,
                named("Elasticsearch 9.0.0"),
            ),
            (
                200,
                r#"{"version":{"distribution":"opensearch","number":"2.19.6"}}"#,
                named("OpenSearch 2.19.6"),
            ),
            (200, "<html>", Ok(ServiceVersion::Unnamed)),
            (403, "{}", Ok(ServiceVersion::Unnamed)),
            (404, "", Ok(ServiceVersion::Unnamed)),
        ] {
            assert_eq!(read(status, body.as_bytes()), expected, "{body}");
        }
        for status in [401, 302] {
            assert!(matches!(read(status, b""), Err(CallError::Fatal(_))));
        }
        assert!(matches!(read(503, b""), Err(CallError::Retry(_))));
        let old = read(200, br#"{"version":{"number":"6.8.23"}}"#);
        assert!(matches!(old, Err(CallError::Fatal(_))));
    }
}
