//! What a model says of a request: a result, a refusal or a failure.

use crate::wire::object::Object;

/// The outcome of an evaluation, as JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The object under `result`.
    Result(&'a str),
    /// The object under `error`.
    Error(&'a str),
}

/// What an outcome means to the rules of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeKind {
    /// The model has a result.
    Result,
    /// The model's server refused the request. The request itself is at fault, so the
    /// refusal may be the answer.
    Refusal,
    /// The model failed. Another model may still have a result.
    Failure,
}

impl<'a> Outcome<'a> {
    /// The object under `result` or `error`, as JSON text.
    pub fn text(self) -> &'a str {
        match self {
            Outcome::Result(text) | Outcome::Error(text) => text,
        }
    }

    /// What the outcome means to the rules of a policy. An error is a refusal if its
    /// `status` is an integer from 400 to 499, but not 401, 403, 407, 408, 425 or 429.
    pub fn kind(self) -> OutcomeKind {
        let Outcome::Error(error) = self else {
            return OutcomeKind::Result;
        };
        let status = Object::parse(error).ok().and_then(|it| it.get("status"));
        match status.and_then(|raw| raw.parse().ok()) {
            Some(status) if is_refusal_status(status) => OutcomeKind::Refusal,
            _ => OutcomeKind::Failure,
        }
    }
}

/// Whether a reply with this HTTP status refuses the request itself. The other statuses
/// of 400 to 499 concern the credentials, a proxy, the time or the load, so the same
/// request may succeed elsewhere or later.
fn is_refusal_status(status: u16) -> bool {
    matches!(status, 400..=499) && !matches!(status, 401 | 403 | 407 | 408 | 425 | 429)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_an_error_tells_a_refusal_from_a_failure() {
        let kind = |status: &str| {
            let error = format!(r#"{{"modelName":"m","status":{status},"body":{{"status":1}}}}"#);
            Outcome::Error(&error).kind()
        };
        let refusals: Vec<u16> = (0..=u16::MAX)
            .filter(|status| kind(&status.to_string()) == OutcomeKind::Refusal)
            .collect();
        let failures = [401, 403, 407, 408, 425, 429];
        let expected = (400..500).filter(|status| !failures.contains(status));
        assert_eq!(refusals, expected.collect::<Vec<u16>>());
        for status in [
            "\"422\"", "422.0", "-422", "4.22e2", "null", "65958", "[422]",
        ] {
            assert_eq!(kind(status), OutcomeKind::Failure, "{status}");
        }
    }

    #[test]
    fn only_the_errors_own_status_counts() {
        for error in [
            r#"{"modelName":"m","message":"status 422"}"#,
            r#"{"modelName":"m","body":{"status":422}}"#,
        ] {
            assert_eq!(Outcome::Error(error).kind(), OutcomeKind::Failure);
        }
        let escaped = Outcome::Error(r#"{"st\u0061tus":422}"#);
        assert_eq!(escaped.kind(), OutcomeKind::Refusal);
        // A result may have any members.
        let result = Outcome::Result(r#"{"modelName":"m","status":422}"#);
        assert_eq!(result.kind(), OutcomeKind::Result);
    }
}
