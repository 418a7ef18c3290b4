//! One call: from its bytes to a request, from a response to its answer.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::time::timeout;

use crate::serve::request::RequestArgs;
use crate::serve::request::http::front::{Answer, Front, Refusal};
use crate::serve::request::http::token::Token;
use crate::stage::usage;
use crate::wire::message::{self, Field, MESSAGE_ID_BYTES_MAX, Record};
use crate::wire::object::{ObjectWriter, parse_value};

/// What a call may take, and has to bring.
#[derive(Debug)]
pub struct Limits {
    pub body_bytes_max: usize,
    body_timeout: Duration,
    answer_timeout: Duration,
    id_header: Option<HeaderName>,
    token: Option<Token>,
}

impl Limits {
    pub fn new(args: &RequestArgs, token: Option<Token>) -> Result<Limits> {
        let id_header =
            match &args.http.id_header {
                Some(name) => Some(HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                    usage(format!("--id-header {name:?}: not the name of a header"))
                })?),
                None => None,
            };
        Ok(Limits {
            body_bytes_max: usize::try_from(args.http.max_body.as_u64()).unwrap_or(usize::MAX),
            body_timeout: args.http.body_timeout,
            answer_timeout: args.timeout,
            id_header,
            token,
        })
    }
}

/// Answers one call, whatever it is.
pub async fn answer(front: Rc<Front>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let begun = front.begin();
    let answer = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/ping") => ping(),
        (&Method::POST, "/predict") => match predict(&front, request).await {
            Ok(answer) | Err(answer) => answer,
        },
        (_, "/ping") => not_allowed("GET, HEAD"),
        (_, "/predict") => not_allowed("POST"),
        _ => failure(
            StatusCode::NOT_FOUND,
            "no such path; there are GET /ping and POST /predict",
        ),
    };
    begun.answered(answer.status);
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().extend(answer.headers);
    response
}

/// `Err` holds the answer to a call that is refused.
async fn predict(front: &Rc<Front>, request: Request<Incoming>) -> Result<Answer, Answer> {
    let limits = &front.limits;
    let authorization = request.headers().get(AUTHORIZATION);
    let authorization = authorization.map(HeaderValue::as_bytes);
    if limits
        .token
        .as_ref()
        .is_some_and(|token| !token.is_in(authorization))
    {
        let mut refused = failure(StatusCode::UNAUTHORIZED, "a bearer token is needed");
        let bearer = HeaderValue::from_static("Bearer");
        refused.headers.push((WWW_AUTHENTICATE, bearer));
        return Err(refused);
    }
    let id = id_of(limits, request.headers())?;
    let body = body_of(limits, request.into_body()).await?;
    let text = model_input(&body)?;
    front
        .check(&text)
        .map_err(|reason| failure(StatusCode::UNPROCESSABLE_ENTITY, &reason))?;
    let mut call = front.send(id, &text).map_err(refusal)?;
    match timeout(limits.answer_timeout, call.answer()).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(refusal(Refusal::PipelineGone)),
        Err(_) => Err(failure(
            StatusCode::GATEWAY_TIMEOUT,
            "no response came in time",
        )),
    }
}

fn id_of(limits: &Limits, headers: &HeaderMap) -> Result<Option<String>, Answer> {
    let Some(name) = &limits.id_header else {
        return Ok(None);
    };
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(id) if (1..=MESSAGE_ID_BYTES_MAX).contains(&id.len()) => Ok(Some(id.to_owned())),
        _ => Err(failure(
            StatusCode::BAD_REQUEST,
            &format!("header {name} is no id of 1 to {MESSAGE_ID_BYTES_MAX} printable characters"),
        )),
    }
}

async fn body_of(limits: &Limits, body: Incoming) -> Result<Bytes, Answer> {
    let too_large = || {
        let mut refused = failure(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("the body is longer than {} bytes", limits.body_bytes_max),
        );
        // What is left of the body is not read.
        let close = HeaderValue::from_static("close");
        refused.headers.push((CONNECTION, close));
        refused
    };
    if body.size_hint().lower() > limits.body_bytes_max as u64 {
        return Err(too_large());
    }
    let body = Limited::new(body, limits.body_bytes_max);
    match timeout(limits.body_timeout, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(failure(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err(failure(
            StatusCode::REQUEST_TIMEOUT,
            "the body took too long",
        )),
    }
}

/// The body as JSON on one line. Between its tokens a newline is white space,
/// and inside a string there is none, so a space can take its place.
fn model_input(body: &[u8]) -> Result<String, Answer> {
    let refused = |reason: String| failure(StatusCode::BAD_REQUEST, &reason);
    let text = std::str::from_utf8(body)
        .map_err(|error| refused(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
    let value = parse_value(text).map_err(refused)?;
    Ok(value.replace(['\n', '\r'], " "))
}

/// What a client gets of a response: the record without its provenance, which
/// the headers sum up.
pub fn answer_of(record: &Record, response: &message::Response) -> Answer {
    let mut body = Vec::new();
    record.rewrite(&mut body, &[Field::Provenance]).end();
    let status = if response.has_answer {
        StatusCode::OK
    } else {
        StatusCode::GATEWAY_TIMEOUT
    };
    let mut answer = json(status, body);
    for (name, value) in [
        ("x-rv-message-id", Some(&*response.message_id)),
        ("x-rv-model", response.model.as_deref()),
        ("x-rv-reason", response.reason.as_deref()),
    ] {
        // A name that no header can carry is in the body all the same.
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            answer.headers.push((HeaderName::from_static(name), value));
        }
    }
    answer
}

fn refusal(refusal: Refusal) -> Answer {
    match refusal {
        Refusal::IdInUse => failure(StatusCode::CONFLICT, "a call with this id is open"),
        Refusal::Full => unavailable("too many calls are open"),
        Refusal::PipelineGone => unavailable("the pipeline behind this front end is gone"),
    }
}

fn unavailable(message: &str) -> Answer {
    let mut answer = failure(StatusCode::SERVICE_UNAVAILABLE, message);
    let seconds = HeaderValue::from_static("1");
    answer.headers.push((RETRY_AFTER, seconds));
    answer
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = failure(StatusCode::METHOD_NOT_ALLOWED, "not with this method");
    answer
        .headers
        .push((ALLOW, HeaderValue::from_static(methods)));
    answer
}

fn ping() -> Answer {
    json(StatusCode::OK, br#"{"ping":"pong"}"#.to_vec())
}

fn failure(status: StatusCode, message: &str) -> Answer {
    let mut body = Vec::new();
    let mut object = ObjectWriter::new(&mut body);
    object.string("error", message);
    object.end();
    json(status, body)
}

fn json(status: StatusCode, mut body: Vec<u8>) -> Answer {
    body.push(b'\n');
    let content_type = HeaderValue::from_static("application/json");
    Answer {
        status,
        headers: vec![(CONTENT_TYPE, content_type)],
        body: Bytes::from(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_several_lines_becomes_one_and_keeps_its_values() {
        let body = b" {\r\n  \"a\": 1.10,\n  \"b\": \"x\\ny\"\n}\n";
        assert_eq!(
            model_input(body).unwrap(),
            "{    \"a\": 1.10,   \"b\": \"x\\ny\" }"
        );
    }

    #[test]
    fn what_is_no_json_is_a_bad_request() {
        for body in [&b""[..], b"{", b"{} x", b"\xff", b"nan", b"\"a\nb\""] {
            assert_eq!(
                model_input(body).unwrap_err().status,
                StatusCode::BAD_REQUEST
            );
        }
    }
}
