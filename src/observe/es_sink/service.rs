//! What the service says of itself before it is sent anything.

use serde_json::Value;

use crate::observe::es_sink::reply::{self, Outcome};

/// The oldest Elasticsearch whose `_bulk` takes documents without a type.
const ELASTICSEARCH_MIN: u64 = 7;

/// Which service it is. Nothing depends on it but messages: where services differ,
/// they are told apart by what they answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// `Elasticsearch 8.19.21`.
    Named(String),
    /// It does not say, or not to this user.
    Unnamed,
}

/// Reads the reply to `GET /`. The error says what is to be done instead.
pub fn read(status: u16, body: &[u8]) -> Result<Service, Outcome> {
    match status {
        200..=299 => {}
        429 | 408 | 500..=599 => {
            return Err(Outcome::Retry(format!("the service answers {status}")));
        }
        401 | 300..=399 => return Err(Outcome::Fatal(reply::refusal(status, body))),
        // A user who may do no more than write, or a proxy that lets nothing else
        // through.
        _ => return Ok(Service::Unnamed),
    }
    let about: Value = serde_json::from_slice(body).unwrap_or_default();
    let Some(number) = about["version"]["number"].as_str() else {
        return Ok(Service::Unnamed);
    };
    let name = match about["version"]["distribution"].as_str() {
        Some("opensearch") => "OpenSearch",
        _ => "Elasticsearch",
    };
    let major: Option<u64> = number.split('.').next().and_then(|text| text.parse().ok());
    if name == "Elasticsearch" && major.is_some_and(|major| major < ELASTICSEARCH_MIN) {
        return Err(Outcome::Fatal(format!(
            "this is Elasticsearch {number}, and its documents have types; {ELASTICSEARCH_MIN} or later is needed"
        )));
    }
    Ok(Service::Named(format!("{name} {number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_known_by_what_it_says() {
        let named = |text: &str| Ok(Service::Named(text.to_owned()));
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
            (200, "<html>", Ok(Service::Unnamed)),
            (403, "{}", Ok(Service::Unnamed)),
            (404, "", Ok(Service::Unnamed)),
        ] {
            assert_eq!(read(status, body.as_bytes()), expected, "{body}");
        }
        for status in [401, 302] {
            assert!(matches!(read(status, b""), Err(Outcome::Fatal(_))));
        }
        assert!(matches!(read(503, b""), Err(Outcome::Retry(_))));
        let old = read(200, br#"{"version":{"number":"6.8.23"}}"#);
        assert!(matches!(old, Err(Outcome::Fatal(_))));
    }
}
