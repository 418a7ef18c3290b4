//! The second listener: for those who run the service, not for its clients.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde_json::json;

use crate::serve::request::http::call::{check_token, close_after, failure, json, not_allowed};
use crate::serve::request::http::connections::{Connection, Connections, Phase};
use crate::serve::request::http::front::{Answer, Front};
use crate::serve::request::http::sites::Sites;

/// How many connections there may be: those who run a service are few.
pub const CONNECTIONS_MAX: usize = 64;

/// What the answers of the second listener need beside the front end's state.
#[derive(Debug)]
pub struct Admin {
    /// Whether `/metrics` and `/openapi.json` ask for the token.
    pub asks: bool,
    /// The service in the words of OpenAPI, these paths included.
    pub description: Bytes,
    /// Who may call: no pages of other sites.
    pub sites: Sites,
}

impl Admin {
    /// Where others reach the address, its answers need the token that calls need.
    pub fn asks(address: SocketAddr, has_token: bool) -> bool {
        has_token && !address.ip().is_loopback()
    }
}

/// Answers one call, whatever it is.
pub async fn answer(
    front: Rc<Front>,
    connections: Rc<Connections>,
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Answer {
    connection.enter(Phase::Call, Instant::now());
    let mut answer = match &front.admin {
        Some(admin) => match admin.sites.admit(&request) {
            Ok(_) => answer_to(&front, admin, &request),
            Err(refused) => *refused,
        },
        None => no_such_path(),
    };
    if connections.is_last_call() {
        close_after(&mut answer);
    }
    connection.enter(Phase::Idle, Instant::now());
    answer
}

fn answer_to(front: &Front, admin: &Admin, request: &Request<Incoming>) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, path) => get(front, admin, path, request),
        (_, "/healthz" | "/readyz" | "/metrics" | "/openapi.json") => not_allowed("GET, HEAD"),
        _ => no_such_path(),
    }
}

fn get(front: &Front, admin: &Admin, path: &str, request: &Request<Incoming>) -> Answer {
    match path {
        "/healthz" => value(StatusCode::OK, &json!({"alive": true})),
        "/readyz" => match front.not_ready() {
            None => value(StatusCode::OK, &json!({"ready": true})),
            Some(reason) => value(
                StatusCode::SERVICE_UNAVAILABLE,
                &json!({"ready": false, "reason": reason}),
            ),
        },
        "/metrics" | "/openapi.json" => {
            if admin.asks
                && let Err(refused) = check_token(&front.limits.access, request)
            {
                return *refused;
            }
            if path == "/metrics" {
                metrics(front)
            } else {
                json(StatusCode::OK, admin.description.clone())
            }
        }
        _ => no_such_path(),
    }
}

fn no_such_path() -> Answer {
    failure(
        StatusCode::NOT_FOUND,
        "no such path; there are GET /healthz, /readyz, /metrics and /openapi.json",
    )
}

fn metrics(front: &Front) -> Answer {
    let mut answer = json(StatusCode::OK, front.metrics().into());
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

fn value(status: StatusCode, value: &serde_json::Value) -> Answer {
    json(status, format!("{value}\n").into())
}
