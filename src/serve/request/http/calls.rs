//! Answers the calls of clients: `/ping`, `/predict` and `/openapi.json`.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderName;
use hyper::{HeaderMap, Method, Request, StatusCode};
use tokio::time::timeout;

use crate::serve::request::args::HttpOptions;
use crate::serve::request::http::answer::{
    HttpAnswer, bad_request, close_connection_after, error, json, method_not_allowed, unavailable,
};
use crate::serve::request::http::bodies::Bodies;
use crate::serve::request::http::caller_check::{Caller, CallerCheck};
use crate::serve::request::http::connection::ClientConnection;
use crate::serve::request::http::front_end::FrontEnd;
use crate::serve::request::http::open_calls::SendError;
use crate::wire::message::MESSAGE_ID_BYTES_MAX;
use crate::wire::object::parse_value;
use crate::wire::reject::Reject;

/// Answers the calls of the first listener.
#[derive(Debug)]
pub struct CallService {
    front_end: Rc<FrontEnd>,
    bodies: Rc<Bodies>,
    answer_timeout: Duration,
    id_header: Option<HeaderName>,
    callers: CallerCheck,
    /// The OpenAPI description of the service.
    description: Bytes,
}

impl CallService {
    /// The service of the listener at `own_address`.
    pub fn new(
        front_end: Rc<FrontEnd>,
        options: &HttpOptions,
        own_address: SocketAddr,
        description: Bytes,
    ) -> CallService {
        let id_header = options.id_header.as_ref().map(|it| it.name.clone());
        CallService {
            front_end,
            bodies: Bodies::new(options.bodies),
            answer_timeout: options.answer_timeout,
            callers: CallerCheck::new(
                own_address,
                &options.host_names,
                &options.origins,
                id_header.as_ref(),
            ),
            id_header,
            description,
        }
    }

    /// Answers one call, valid or invalid.
    pub async fn answer(
        self: Rc<Self>,
        connection: Rc<ClientConnection>,
        request: Request<Incoming>,
    ) -> HttpAnswer {
        let counted = self.front_end.counts.begin_call(Rc::clone(&connection));
        let mut answer = match self.callers.check(&request) {
            Ok(caller) => self.answer_caller(&connection, caller, request).await,
            Err(refusal) => *refusal,
        };
        if self.front_end.connections.takes_close_request() {
            close_connection_after(&mut answer);
        }
        counted.answered(answer.status());
        answer
    }

    async fn answer_caller(
        &self,
        connection: &ClientConnection,
        caller: Caller,
        request: Request<Incoming>,
    ) -> HttpAnswer {
        let mut answer = match self.callers.preflight_answer(&caller, &request) {
            Some(answer) => answer,
            None => self.route(connection, request).await,
        };
        caller.allow_reading(&mut answer);
        answer
    }

    async fn route(&self, connection: &ClientConnection, request: Request<Incoming>) -> HttpAnswer {
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/ping") => ping(),
            (&Method::POST, "/predict") => self
                .predict(connection, request)
                .await
                .unwrap_or_else(|refusal| *refusal),
            (&Method::GET | &Method::HEAD, "/openapi.json") => {
                match self.front_end.access.check(request.headers()) {
                    Ok(()) => json(StatusCode::OK, self.description.clone()),
                    Err(refusal) => *refusal,
                }
            }
            (_, "/ping" | "/openapi.json") => method_not_allowed("GET, HEAD"),
            (_, "/predict") => method_not_allowed("POST"),
            _ => error(
                StatusCode::NOT_FOUND,
                "no such path; there are GET /ping, POST /predict and GET /openapi.json",
            ),
        }
    }

    /// Sends the model input of a call into the pipeline, and waits for the response.
    /// The error is the answer to a call that is refused or gets no response.
    async fn predict(
        &self,
        connection: &ClientConnection,
        request: Request<Incoming>,
    ) -> Result<HttpAnswer, Box<HttpAnswer>> {
        self.front_end.access.check(request.headers())?;
        let id = self.id_of(request.headers())?;
        let mut call = {
            // The memory of the body is released before the wait for the
            // response.
            let (body, _reservation) = self.bodies.read(connection, request.into_body()).await?;
            let model_input = model_input(&body)?;
            let open_calls = &self.front_end.open_calls;
            open_calls
                .check(&model_input)
                .map_err(|reason| Box::new(error(StatusCode::UNPROCESSABLE_ENTITY, &reason)))?;
            open_calls.send(id, &model_input).map_err(send_error)?
        };
        match timeout(self.answer_timeout, call.answer()).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Box::new(unavailable(
                "the pipeline of this front end has lost a reader or a writer",
            ))),
            Err(_) => Err(Box::new(error(
                StatusCode::GATEWAY_TIMEOUT,
                "no response arrived in time",
            ))),
        }
    }

    /// The message id in the header, if `--id-header` is given and the call has the
    /// header.
    fn id_of(&self, headers: &HeaderMap) -> Result<Option<String>, Box<HttpAnswer>> {
        let Some(name) = &self.id_header else {
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
}

/// The body as JSON on one line. Outside a string, JSON allows newlines as white space,
/// so a space can replace each. Inside a string, JSON does not allow newlines.
fn model_input(body: &[u8]) -> Result<Cow<'_, str>, Box<HttpAnswer>> {
    let text = std::str::from_utf8(body)
        .map_err(|error| bad_request(&Reject::not_utf8(error).to_string()))?;
    let value = parse_value(text).map_err(|reason| bad_request(&reason))?;
    if memchr::memchr2(b'\n', b'\r', value.as_bytes()).is_none() {
        return Ok(value.into());
    }
    Ok(value.replace(['\n', '\r'], " ").into())
}

/// The answer to a call whose request cannot be sent.
fn send_error(send_error: SendError) -> Box<HttpAnswer> {
    Box::new(match send_error {
        SendError::IdInUse => error(StatusCode::CONFLICT, "a call with this id is open"),
        SendError::Full => unavailable("too many calls are open"),
        SendError::PipelineGone(why) => {
            unavailable(&format!("the pipeline of this front end is gone: {why}"))
        }
    })
}

fn ping() -> HttpAnswer {
    json(StatusCode::OK, Bytes::from_static(b"{\"ping\":\"pong\"}\n"))
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
    fn a_body_that_is_not_json_is_refused() {
        for body in [&b""[..], b"{", b"{} x", b"\xff", b"nan", b"\"a\nb\""] {
            assert_eq!(
                model_input(body).unwrap_err().status(),
                StatusCode::BAD_REQUEST
            );
        }
    }
}
