//! Answers to HTTP calls: JSON bodies, errors, and responses with their headers.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Response, StatusCode};

use crate::wire::message::{self, Field, Record};
use crate::wire::object::ObjectWriter;

/// The answer to a call.
pub type HttpAnswer = Response<Full<Bytes>>;

/// The longest value of a header, in bytes. Clients accept at least 8 KiB of headers.
const HEADER_VALUE_BYTES_MAX: usize = 1024;

const X_RV_MESSAGE_ID: HeaderName = HeaderName::from_static("x-rv-message-id");
const X_RV_MODEL: HeaderName = HeaderName::from_static("x-rv-model");
const X_RV_REASON: HeaderName = HeaderName::from_static("x-rv-reason");

/// An answer with JSON text as its body.
pub fn json(status: StatusCode, body: Bytes) -> HttpAnswer {
    let mut answer = HttpAnswer::new(Full::new(body));
    *answer.status_mut() = status;
    // Reserves space for all headers that may be added later, so that the map grows
    // only once.
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *answer.headers_mut() = headers;
    answer
}

/// The body of an error: an object with the field `error`, and a newline.
pub fn error_body(message: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let mut object = ObjectWriter::new(&mut body);
    object.string("error", message);
    object.end();
    body.push(b'\n');
    body
}

/// The answer to a call that fails.
pub fn error(status: StatusCode, message: &str) -> HttpAnswer {
    json(status, error_body(message).into())
}

/// A 400: the call is invalid.
pub fn bad_request(message: &str) -> Box<HttpAnswer> {
    Box::new(error(StatusCode::BAD_REQUEST, message))
}

/// A 401: the call needs the bearer token.
pub fn unauthorized() -> HttpAnswer {
    let mut answer = error(StatusCode::UNAUTHORIZED, "a bearer token is needed");
    let bearer = HeaderValue::from_static("Bearer");
    answer.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    answer
}

/// A 405: the path takes only `methods`, which are names with commas between them.
pub fn method_not_allowed(methods: &'static str) -> HttpAnswer {
    let message = "this path does not take this method";
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, message);
    let methods = HeaderValue::from_static(methods);
    answer.headers_mut().insert(ALLOW, methods);
    answer
}

/// A 503: the client may try again after a second.
pub fn unavailable(message: &str) -> HttpAnswer {
    let mut answer = error(StatusCode::SERVICE_UNAVAILABLE, message);
    let seconds = HeaderValue::from_static("1");
    answer.headers_mut().insert(RETRY_AFTER, seconds);
    answer
}

/// Closes the connection when the answer is sent.
pub fn close_connection_after(answer: &mut HttpAnswer) {
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(CONNECTION, close);
}

/// The answer for a response: the record without its provenance. Headers summarise the
/// provenance. A response without a result becomes a 504.
pub fn of_response(record: &Record, response: &message::Response) -> HttpAnswer {
    let mut body = Vec::with_capacity(record.text().len());
    record.rewrite(&mut body, &[Field::Provenance]).end();
    body.push(b'\n');
    let status = if response.has_answer {
        StatusCode::OK
    } else {
        StatusCode::GATEWAY_TIMEOUT
    };
    let mut answer = json(status, body.into());
    for (name, value) in [
        (&X_RV_MESSAGE_ID, Some(&*response.message_id)),
        (&X_RV_MODEL, response.model.as_deref()),
        (&X_RV_REASON, response.reason.as_deref()),
    ] {
        // If a header cannot hold a value, the header is left out. The body
        // contains the id and the model, too.
        if let Some(value) = value.and_then(header_value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

/// The value of a header. Returns `None` if it is empty, too long, or has characters that
/// some clients refuse.
fn header_value(text: &str) -> Option<HeaderValue> {
    let is_plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    let fits = (1..=HEADER_VALUE_BYTES_MAX).contains(&text.len());
    let is_value = fits && text.bytes().all(is_plain);
    is_value.then(|| HeaderValue::from_str(text).ok()).flatten()
}
