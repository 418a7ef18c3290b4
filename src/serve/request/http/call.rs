//! One call: from its bytes to a request, from a response to its answer.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Request, StatusCode};
use tokio::time::timeout;

use crate::serve::request::RequestArgs;
use crate::serve::request::http::connections::{Connection, Connections, Phase};
use crate::serve::request::http::front::{Answer, BodyRoom, Front, Refusal};
use crate::serve::request::http::sites::{Sites, Visit};
use crate::serve::request::http::token::Access;
use crate::stage::cli::bytes;
use crate::stage::usage;
use crate::wire::message::{self, Field, MESSAGE_ID_BYTES_MAX, Record};
use crate::wire::object::{ObjectWriter, parse_value};
use crate::wire::reject::Reject;

/// What a call may take, and has to bring.
#[derive(Debug)]
pub struct Limits {
    pub body_bytes_max: usize,
    body_timeout: Duration,
    answer_timeout: Duration,
    id_header: Option<HeaderName>,
    pub access: Rc<Access>,
    /// Who may call.
    sites: Sites,
    /// The service in the words of OpenAPI.
    description: Bytes,
}

impl Limits {
    /// Those of the calls that come to `own`.
    pub fn new(
        args: &RequestArgs,
        access: Rc<Access>,
        own: SocketAddr,
        description: Bytes,
    ) -> Result<Limits> {
        let id_header =
            match &args.http.id_header {
                Some(name) => Some(HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                    usage(format!("--id-header {name:?}: not the name of a header"))
                })?),
                None => None,
            };
        Ok(Limits {
            sites: Sites::new(own, &args.http.host, &args.http.cors, id_header.as_ref()),
            body_bytes_max: body_bytes_max(args),
            body_timeout: args.http.body_timeout,
            answer_timeout: args.timeout,
            id_header,
            access,
            description,
        })
    }

    fn check_token(&self, request: &Request<Incoming>) -> Result<(), Refused> {
        check_token(&self.access, request)
    }
}

/// The answer to a call that is refused.
pub type Refused = Box<Answer>;

/// The longest body, in bytes.
pub fn body_bytes_max(args: &RequestArgs) -> usize {
    bytes(args.http.max_body)
}

/// The answer to a call without the token, where one is asked for.
pub fn check_token(access: &Access, request: &Request<Incoming>) -> Result<(), Refused> {
    let authorization = request.headers().get(AUTHORIZATION);
    if access.allows(authorization.map(HeaderValue::as_bytes)) {
        return Ok(());
    }
    let mut refused = failure(StatusCode::UNAUTHORIZED, "a bearer token is needed");
    let bearer = HeaderValue::from_static("Bearer");
    refused.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    Err(refused.into())
}

/// Answers one call, whatever it is.
pub async fn answer(
    front: Rc<Front>,
    connections: Rc<Connections>,
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Answer {
    let begun = front.begin(Rc::clone(&connection));
    let mut answer = match front.limits.sites.admit(&request) {
        Ok(visit) => answer_to(&front, &connection, visit, request).await,
        Err(refused) => *refused,
    };
    if connections.is_last_call() {
        close_after(&mut answer);
    }
    begun.answered(answer.status());
    answer
}

/// Answers a call that may be made.
async fn answer_to(
    front: &Rc<Front>,
    connection: &Connection,
    visit: Visit,
    request: Request<Incoming>,
) -> Answer {
    if let Some(mut answer) = visit.preflight(&front.limits.sites, &request) {
        visit.allow_reading(&mut answer);
        return answer;
    }
    let mut answer = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/ping") => ping(),
        (&Method::POST, "/predict") => predict(front, connection, request)
            .await
            .unwrap_or_else(|refused| *refused),
        (&Method::GET | &Method::HEAD, "/openapi.json") => {
            match front.limits.check_token(&request) {
                Ok(()) => json(StatusCode::OK, front.limits.description.clone()),
                Err(refused) => *refused,
            }
        }
        (_, "/ping" | "/openapi.json") => not_allowed("GET, HEAD"),
        (_, "/predict") => not_allowed("POST"),
        _ => failure(
            StatusCode::NOT_FOUND,
            "no such path; there are GET /ping, POST /predict and GET /openapi.json",
        ),
    };
    visit.allow_reading(&mut answer);
    answer
}

/// Has the connection closed behind an answer.
pub fn close_after(answer: &mut Answer) {
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(CONNECTION, close);
}

/// `Err` holds the answer to a call that is refused.
async fn predict(
    front: &Rc<Front>,
    connection: &Connection,
    request: Request<Incoming>,
) -> Result<Answer, Refused> {
    let limits = &front.limits;
    limits.check_token(&request)?;
    let id = id_of(limits, request.headers())?;
    let mut call = {
        // The body is let go before the wait.
        let (body, _room) = body_of(front, connection, request.into_body()).await?;
        let text = model_input(&body)?;
        front
            .check(&text)
            .map_err(|reason| refused(StatusCode::UNPROCESSABLE_ENTITY, &reason))?;
        front.send(id, &text).map_err(refusal)?
    };
    match timeout(limits.answer_timeout, call.answer()).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(unavailable("the pipeline behind this front end has gone").into()),
        Err(_) => Err(refused(
            StatusCode::GATEWAY_TIMEOUT,
            "no response came in time",
        )),
    }
}

fn id_of(limits: &Limits, headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let Some(name) = &limits.id_header else {
        return Ok(None);
    };
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(id) if (1..=MESSAGE_ID_BYTES_MAX).contains(&id.len()) => Ok(Some(id.to_owned())),
        _ => Err(refused(
            StatusCode::BAD_REQUEST,
            &format!("header {name} is no id of 1 to {MESSAGE_ID_BYTES_MAX} printable characters"),
        )),
    }
}

/// The whole body, and the room that it takes.
async fn body_of(
    front: &Rc<Front>,
    connection: &Connection,
    body: Incoming,
) -> Result<(Bytes, BodyRoom), Refused> {
    // What is left of the body is not read, so nothing can come behind it.
    let at_its_end = |mut answer: Refused| {
        close_after(&mut answer);
        answer
    };
    let limits = &front.limits;
    let announced = body.size_hint().lower();
    let announced = usize::try_from(announced).unwrap_or(usize::MAX);
    if announced > limits.body_bytes_max {
        return Err(at_its_end(too_large(limits)));
    }
    let Some(mut room) = front.room_for_body(announced) else {
        return Err(at_its_end(
            unavailable("too many bodies are being read").into(),
        ));
    };
    connection.enter(Phase::Body, Instant::now());
    let whole = match timeout(
        limits.body_timeout,
        collect(limits, body, announced, &mut room),
    )
    .await
    {
        Ok(whole) => whole.map_err(at_its_end)?,
        Err(_) => {
            let late = refused(StatusCode::REQUEST_TIMEOUT, "the body took too long");
            return Err(at_its_end(late));
        }
    };
    connection.enter(Phase::Call, Instant::now());
    Ok((whole, room))
}

/// Reads a body that takes `announced` bytes of `room` already.
async fn collect(
    limits: &Limits,
    mut body: Incoming,
    announced: usize,
    room: &mut BodyRoom,
) -> Result<Bytes, Refused> {
    let mut first = Bytes::new();
    let mut whole = Vec::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let broken = |_| refused(StatusCode::BAD_REQUEST, "the body broke off");
        // Trailers are nobody's business here.
        let Ok(piece) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        let before = length.max(announced);
        length += piece.len();
        if length > limits.body_bytes_max {
            return Err(too_large(limits));
        }
        if !room.grow(length.max(announced) - before) {
            return Err(unavailable("too many bodies are being read").into());
        }
        // Most bodies come in one piece, which needs no copy.
        if length == piece.len() {
            first = piece;
            continue;
        }
        if whole.is_empty() {
            whole.reserve_exact(announced);
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(if whole.is_empty() {
        first
    } else {
        whole.into()
    })
}

fn too_large(limits: &Limits) -> Refused {
    let max = limits.body_bytes_max;
    refused(
        StatusCode::PAYLOAD_TOO_LARGE,
        &format!("the body is longer than {max} bytes"),
    )
}

/// The body as JSON on one line. Between its tokens a newline is white space,
/// and inside a string there is none, so a space can take its place.
fn model_input(body: &[u8]) -> Result<Cow<'_, str>, Refused> {
    let refused = |reason: String| refused(StatusCode::BAD_REQUEST, &reason);
    let text =
        std::str::from_utf8(body).map_err(|error| refused(Reject::not_utf8(error).to_string()))?;
    let value = parse_value(text).map_err(refused)?;
    if memchr::memchr2(b'\n', b'\r', value.as_bytes()).is_none() {
        return Ok(value.into());
    }
    Ok(value.replace(['\n', '\r'], " ").into())
}

/// What a client gets of a response: the record without its provenance, which
/// the headers sum up.
pub fn answer_of(record: &Record, response: &message::Response) -> Answer {
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
        // What no header can carry is in the body all the same.
        if let Some(value) = value.and_then(header_value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

/// The value of a header; `None` where it is so long, or of such characters, that a
/// client would not take it.
fn header_value(text: &str) -> Option<HeaderValue> {
    let is_plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    let fits = (1..=HEADER_VALUE_BYTES_MAX).contains(&text.len());
    let is_value = fits && text.bytes().all(is_plain);
    is_value.then(|| HeaderValue::from_str(text).ok()).flatten()
}

/// The longest value of a header. Clients take heads of 8 KiB and more.
const HEADER_VALUE_BYTES_MAX: usize = 1024;

const X_RV_MESSAGE_ID: HeaderName = HeaderName::from_static("x-rv-message-id");
const X_RV_MODEL: HeaderName = HeaderName::from_static("x-rv-model");
const X_RV_REASON: HeaderName = HeaderName::from_static("x-rv-reason");

fn refusal(refusal: Refusal) -> Refused {
    let answer = match refusal {
        Refusal::IdInUse => failure(StatusCode::CONFLICT, "a call with this id is open"),
        Refusal::Full => unavailable("too many calls are open"),
        Refusal::NoPipeline(why) => unavailable(&format!(
            "the pipeline behind this front end is gone: {why}"
        )),
    };
    answer.into()
}

fn unavailable(message: &str) -> Answer {
    let mut answer = failure(StatusCode::SERVICE_UNAVAILABLE, message);
    let seconds = HeaderValue::from_static("1");
    answer.headers_mut().insert(RETRY_AFTER, seconds);
    answer
}

/// The answer to a method that a path does not take.
pub fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = failure(StatusCode::METHOD_NOT_ALLOWED, "not with this method");
    let methods = HeaderValue::from_static(methods);
    answer.headers_mut().insert(ALLOW, methods);
    answer
}

fn ping() -> Answer {
    json(StatusCode::OK, Bytes::from_static(b"{\"ping\":\"pong\"}\n"))
}

/// The answer to a call that is refused: JSON with an `error`.
pub fn refused(status: StatusCode, message: &str) -> Refused {
    failure(status, message).into()
}

/// The answer to a call that fails: JSON with an `error`.
pub fn failure(status: StatusCode, message: &str) -> Answer {
    let mut body = Vec::new();
    let mut object = ObjectWriter::new(&mut body);
    object.string("error", message);
    object.end();
    body.push(b'\n');
    json(status, body.into())
}

/// An answer of JSON text.
pub fn json(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Answer::new(Full::new(body));
    *answer.status_mut() = status;
    // Room for all headers that may follow, so that they move once.
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *answer.headers_mut() = headers;
    answer
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
                model_input(body).unwrap_err().status(),
                StatusCode::BAD_REQUEST
            );
        }
    }
}
