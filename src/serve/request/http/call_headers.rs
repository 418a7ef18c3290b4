//! What the headers of a call say about its request: the id, the deadline, the trace.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use crate::serve::request::http::answer::{HttpAnswer, bad_request};
use crate::wire::message::MESSAGE_ID_BYTES_MAX;
use crate::wire::trace::{TRACEPARENT, TRACESTATE, TraceContext};

/// The header with which a call lowers its deadline.
pub const X_RV_DEADLINE_MS: HeaderName = HeaderName::from_static("x-rv-deadline-ms");

/// Reads the headers of calls.
#[derive(Clone, Debug)]
pub struct CallHeaders {
    /// The header that holds the message id, if there is one.
    pub id: Option<HeaderName>,
    /// The longest time from a request to its response.
    pub answer_timeout: Duration,
    /// Whether a call without a trace begins one.
    pub begins_trace: bool,
}

impl CallHeaders {
    /// The message id in the header, if `--id-header` is given and the call has the
    /// header.
    pub fn id_of(&self, headers: &HeaderMap) -> Result<Option<String>, Box<HttpAnswer>> {
        let Some(name) = &self.id else {
            return Ok(None);
        };
        let Some(value) = headers.get(name) else {
            return Ok(None);
        };
        match value.to_str() {
            Ok(id) if (1..=MESSAGE_ID_BYTES_MAX).contains(&id.len()) => Ok(Some(id.to_owned())),
            _ => Err(bad_request(&format!(
                "header {name} must have 1 to {MESSAGE_ID_BYTES_MAX} printable characters"
            ))),
        }
    }

    /// The time within which the call must be answered. A header can lower the time that
    /// holds for all calls, and cannot raise it.
    pub fn timeout_of(&self, headers: &HeaderMap) -> Result<Duration, Box<HttpAnswer>> {
        let Some(value) = headers.get(X_RV_DEADLINE_MS) else {
            return Ok(self.answer_timeout);
        };
        let is_digits = !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
        let milliseconds = value.to_str().ok().filter(|_| is_digits);
        // Digits that are no u64 are a very long time.
        let milliseconds = milliseconds.map(|digits| digits.parse().unwrap_or(u64::MAX));
        match milliseconds {
            None | Some(0) => Err(bad_request(&format!(
                "header {X_RV_DEADLINE_MS} must be a whole number of milliseconds, 1 or more"
            ))),
            Some(milliseconds) => Ok(Duration::from_millis(milliseconds).min(self.answer_timeout)),
        }
    }

    /// The trace of the call. A trace that is not valid counts as none, as the standard
    /// demands.
    pub fn trace_of(&self, headers: &HeaderMap) -> Option<TraceContext> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = match (parents.next(), parents.next()) {
            (Some(parent), None) => parent.to_str().ok(),
            _ => None,
        };
        let states = headers.get_all(TRACESTATE).iter();
        let states: Vec<&str> = states.filter_map(|state| state.to_str().ok()).collect();
        let states = states.join(",");
        let given = parent.and_then(|parent| TraceContext::new(parent, Some(&states)));
        given.or_else(|| {
            let ids = || uuid::Uuid::new_v4().as_u128();
            self.begins_trace
                .then(|| TraceContext::begin(ids(), ids() as u64))
        })
    }
}

/// Gives a call its trace back.
pub fn give_back(trace: &TraceContext, answer: &mut HttpAnswer) {
    let state = trace.state.as_deref();
    for (name, value) in [(TRACEPARENT, Some(&*trace.parent)), (TRACESTATE, state)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            answer.headers_mut().insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn of(headers: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn call_headers(begins_trace: bool) -> CallHeaders {
        CallHeaders {
            id: None,
            answer_timeout: Duration::from_secs(10),
            begins_trace,
        }
    }

    #[test]
    fn a_deadline_can_only_be_lowered() {
        for (given, expected) in [
            ("50", Some(50)),
            ("10000", Some(10_000)),
            ("60000", Some(10_000)),
            ("99999999999999999999999", Some(10_000)),
            ("0", None),
            ("-1", None),
            ("1.5", None),
            ("1s", None),
            ("", None),
        ] {
            let timeout = call_headers(false).timeout_of(&of(&[("x-rv-deadline-ms", given)]));
            let timeout = timeout.ok().map(|it| it.as_millis());
            assert_eq!(timeout, expected, "{given}");
        }
        let timeout = call_headers(false).timeout_of(&of(&[]));
        assert_eq!(timeout.unwrap(), Duration::from_secs(10));
    }

    #[test]
    fn a_trace_is_kept_and_begun_only_on_demand() {
        let given = of(&[
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
            ("tracestate", "b=2"),
        ]);
        for begins_trace in [false, true] {
            let trace = call_headers(begins_trace).trace_of(&given).unwrap();
            assert_eq!(trace.parent, PARENT);
            assert_eq!(trace.state.as_deref(), Some("a=1,b=2"));
        }
        let twice = of(&[("traceparent", PARENT), ("traceparent", PARENT)]);
        for none in [of(&[]), of(&[("traceparent", "x")]), twice] {
            assert_eq!(call_headers(false).trace_of(&none), None);
            let begun = call_headers(true).trace_of(&none).unwrap();
            assert_ne!(begun.parent, PARENT);
        }
    }
}
