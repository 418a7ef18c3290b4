//! Answers to HTTP calls: JSON bodies, errors, and responses with their headers.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Response, StatusCode};

use crate::wire::message::{self, Field, Record};
use crate::wire::object::{Object, ObjectWriter, decode_string, parse_value, value_of};

/// The answer to a call.
pub type HttpAnswer = Response<Full<Bytes>>;

/// The longest value of a header, in bytes. Clients accept at least 8 KiB of headers.
const HEADER_VALUE_BYTES_MAX: usize = 1024;

const X_RV_MESSAGE_ID: HeaderName = HeaderName::from_static("x-rv-message-id");
const X_RV_MODEL: HeaderName = HeaderName::from_static("x-rv-model");
const X_RV_REASON: HeaderName = HeaderName::from_static("x-rv-reason");

/// An answer with JSON text as its body.
pub fn json(status: StatusCode, body: Bytes) -> HttpAnswer {
    with_headers(status, body, json_headers())
}

/// The headers of an answer with JSON text as its body.
fn json_headers() -> HeaderMap {
    // Reserves space for all headers that may be added later, so that the map grows
    // only once.
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}

fn with_headers(status: StatusCode, body: Bytes, headers: HeaderMap) -> HttpAnswer {
    let mut answer = HttpAnswer::new(Full::new(body));
    *answer.status_mut() = status;
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

/// The form of the answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The record of the response without its provenance.
    Record,
    /// The result alone, as the model gave it.
    Result,
}

/// What the pipeline says about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is a result.
    Result,
    /// The model has refused the request.
    Refused,
    /// The policy has no answer.
    Nothing,
}

/// The answer of the pipeline to one request.
#[derive(Debug)]
pub struct PipelineAnswer {
    /// The kind of answer.
    pub verdict: Verdict,
    /// The status for the client.
    pub status: StatusCode,
    /// The body for the client.
    pub body: Bytes,
    /// The headers for the client.
    pub headers: HeaderMap,
}

impl PipelineAnswer {
    /// Reads the answer to a call from its response. Headers summarise the provenance. A
    /// response without an answer becomes a 504. A refusal has the status and the body
    /// that the model gave it.
    pub fn new(record: &Record, response: &message::Response, form: Form) -> PipelineAnswer {
        let refusal = response.refusal.filter(|_| !response.has_answer);
        let refusal = refusal.and_then(|error| Object::parse(error).ok());
        let mut answer = match (refusal, form) {
            (Some(error), _) => of_refusal(&error),
            (None, Form::Record) => of_record(record, response.has_answer),
            (None, Form::Result) => of_result(record, response.has_answer),
        };
        for (name, value) in [
            (&X_RV_MESSAGE_ID, Some(&*response.message_id)),
            (&X_RV_MODEL, response.model.as_deref()),
            (&X_RV_REASON, response.reason.as_deref()),
        ] {
            // If a header cannot hold a value, the header is left out.
            if let Some(value) = value.and_then(header_value) {
                answer.headers.insert(name, value);
            }
        }
        answer
    }

    fn of_json(verdict: Verdict, status: StatusCode, body: Bytes) -> PipelineAnswer {
        PipelineAnswer {
            verdict,
            status,
            body,
            headers: json_headers(),
        }
    }

    /// The answer to the call.
    pub fn into_http(self) -> HttpAnswer {
        with_headers(self.status, self.body, self.headers)
    }
}

fn of_record(record: &Record, has_answer: bool) -> PipelineAnswer {
    let mut body = Vec::with_capacity(record.text().len());
    record.rewrite(&mut body, &[Field::Provenance]).end();
    body.push(b'\n');
    let (verdict, status) = match has_answer {
        true => (Verdict::Result, StatusCode::OK),
        false => (Verdict::Nothing, StatusCode::GATEWAY_TIMEOUT),
    };
    PipelineAnswer::of_json(verdict, status, body.into())
}

fn of_result(record: &Record, has_answer: bool) -> PipelineAnswer {
    let winner = record.get(Field::ModelResult).filter(|_| has_answer);
    match winner {
        Some(winner) => {
            // A policy's default may be any JSON.
            let result = value_of(winner, "result").unwrap_or(winner);
            let body = Bytes::copy_from_slice(result.as_bytes());
            PipelineAnswer::of_json(Verdict::Result, StatusCode::OK, body)
        }
        None => PipelineAnswer::of_json(
            Verdict::Nothing,
            StatusCode::GATEWAY_TIMEOUT,
            error_body("no model answered in time, and the policy has no default").into(),
        ),
    }
}

/// The answer to a request that a model has refused with this `modelError`. A JSON string
/// as the `body` holds the text of the reply: text that is not JSON, or a JSON string.
fn of_refusal(error: &Object) -> PipelineAnswer {
    let status = error.get("status").and_then(|raw| raw.parse().ok());
    let status = status.filter(|status| (400..500).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let text = |name| error.get(name).and_then(decode_string);
    let (body, is_json) = match (error.get("body"), text("body")) {
        (_, Some(text)) => {
            let is_json = parse_value(&text).is_ok();
            (text.into_owned().into(), is_json)
        }
        (Some(json), None) => (Bytes::copy_from_slice(json.as_bytes()), true),
        (None, None) => {
            let message = text("message").unwrap_or("the model refused the request".into());
            (error_body(&message).into(), true)
        }
    };
    let status = status.unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
    let mut answer = PipelineAnswer::of_json(Verdict::Refused, status, body);
    if !is_json {
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        answer.headers.insert(CONTENT_TYPE, text);
    }
    answer
}

/// Adds the headers of a call with several rows: the id of the call, and the model and
/// the reason if they are the same for all rows.
pub fn summary_of_rows(id: &str, rows: &[PipelineAnswer], headers: &mut HeaderMap) {
    if let Some(id) = header_value(id) {
        headers.insert(X_RV_MESSAGE_ID, id);
    }
    let Some((first, rest)) = rows.split_first() else {
        return;
    };
    for name in [X_RV_MODEL, X_RV_REASON] {
        let value = first.headers.get(&name);
        if let Some(value) = value
            && rest.iter().all(|row| row.headers.get(&name) == Some(value))
        {
            headers.insert(name, value.clone());
        }
    }
}

/// The value of a header. Returns `None` if it is empty, too long, or has characters that
/// some clients refuse.
fn header_value(text: &str) -> Option<HeaderValue> {
    let is_plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    let fits = (1..=HEADER_VALUE_BYTES_MAX).contains(&text.len());
    let is_value = fits && text.bytes().all(is_plain);
    is_value.then(|| HeaderValue::from_str(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(line: &str, form: Form) -> PipelineAnswer {
        let record = Record::parse(line.as_bytes()).unwrap();
        let response = message::Response::read(&record).unwrap();
        PipelineAnswer::new(&record, &response, form)
    }

    #[test]
    fn a_result_alone_keeps_its_bytes() {
        for result in [
            "{\"a\": 1.10,  \"b\":[1e400]}",
            "\"x\"",
            "null",
            "12345678901234567890123",
        ] {
            let line = format!(
                r#"{{"messageId":"a","modelResult":{{"modelName":"m","confidence":0.5,"result":{result}}},"provenance":{{"rendezvous":{{"modelVersion":2,"reason":"preferred"}}}}}}"#
            );
            let answer = answer(&line, Form::Result);
            assert_eq!(
                (answer.status, &answer.body[..]),
                (StatusCode::OK, result.as_bytes())
            );
            assert_eq!(answer.headers["x-rv-model"], "m@2");
        }
        let nothing = answer(r#"{"messageId":"a","modelResult":null}"#, Form::Result);
        assert_eq!(nothing.status, StatusCode::GATEWAY_TIMEOUT);
        let default = answer(r#"{"messageId":"a","modelResult":[1]}"#, Form::Result);
        assert_eq!(&default.body[..], b"[1]");
    }

    #[test]
    fn a_refusal_has_the_status_and_the_body_of_the_model() {
        for (error, status, content_type, body) in [
            (
                r#"{"modelName":"m","status":422,"body":{"detail": [1.0]}}"#,
                422,
                "application/json",
                r#"{"detail": [1.0]}"#,
            ),
            (
                r#"{"modelName":"m","status":404,"body":"<p>caf\u00e9\n"}"#,
                404,
                "text/plain; charset=utf-8",
                "<p>caf\u{e9}\n",
            ),
            (
                r#"{"modelName":"m","status":400,"body":""}"#,
                400,
                "text/plain; charset=utf-8",
                "",
            ),
            (
                r#"{"modelName":"m","status":400,"body":"\"no such user\"\n"}"#,
                400,
                "application/json",
                "\"no such user\"\n",
            ),
            (
                r#"{"modelName":"m","message":"no"}"#,
                422,
                "application/json",
                "{\"error\":\"no\"}\n",
            ),
            (
                r#"{"modelName":"m","message":"no","status":200,"body":7}"#,
                422,
                "application/json",
                "7",
            ),
        ] {
            let line = format!(
                r#"{{"messageId":"a","modelResult":null,"modelError":{error},"provenance":{{"rendezvous":{{"modelVersion":1,"reason":"refused"}}}}}}"#
            );
            for form in [Form::Record, Form::Result] {
                let answer = answer(&line, form);
                assert_eq!(answer.verdict, Verdict::Refused);
                assert_eq!(answer.status.as_u16(), status);
                assert_eq!(answer.headers["content-type"], content_type);
                assert_eq!(answer.headers["x-rv-model"], "m@1");
                assert_eq!(answer.headers["x-rv-reason"], "refused");
                assert_eq!(&answer.body[..], body.as_bytes());
            }
        }
    }
}
