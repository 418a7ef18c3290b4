//! Answers the calls of the second listener, which operators use: `/healthz`,
//! `/readyz`, `/metrics` and `/openapi.json`.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde_json::json;

use crate::serve::request::http::answer::{
    HttpAnswer, close_connection_after, error, json, method_not_allowed,
};
use crate::serve::request::http::caller_check::{CallerCheck, HostName};
use crate::serve::request::http::connection::{ClientConnection, Phase};
use crate::serve::request::http::connections::Connections;
use crate::serve::request::http::front_end::FrontEnd;

/// The largest number of connections. A service has few operators.
pub const CONNECTIONS_MAX: usize = 64;

/// Answers the calls of the second listener.
#[derive(Debug)]
pub struct AdminService {
    front_end: Rc<FrontEnd>,
    /// The connections of this listener.
    connections: Rc<Connections>,
    /// Whether `/metrics` and `/openapi.json` need the token.
    needs_token: bool,
    callers: CallerCheck,
    /// The OpenAPI description of both listeners.
    description: Bytes,
}

/// Whether a listener at `address` needs the token of the first listener. Only a
/// listener that other machines can reach needs the token.
pub fn needs_token(address: SocketAddr, calls_need_token: bool) -> bool {
    calls_need_token && !address.ip().is_loopback()
}

impl AdminService {
    /// The service of the listener at `own_address`. The service refuses calls from
    /// pages of other sites.
    pub fn new(
        front_end: Rc<FrontEnd>,
        connections: Rc<Connections>,
        own_address: SocketAddr,
        host_names: &[HostName],
        description: Bytes,
    ) -> AdminService {
        AdminService {
            needs_token: needs_token(own_address, front_end.access.needs_token()),
            front_end,
            connections,
            callers: CallerCheck::new(own_address, host_names, &[], None),
            description,
        }
    }

    /// Answers one call, valid or invalid.
    pub async fn answer(
        self: Rc<Self>,
        connection: Rc<ClientConnection>,
        request: Request<Incoming>,
    ) -> HttpAnswer {
        connection.enter(Phase::Answering, Instant::now());
        let mut answer = match self.callers.check(&request) {
            Ok(_) => self.route(&request),
            Err(refusal) => *refusal,
        };
        if self.connections.takes_close_request() {
            close_connection_after(&mut answer);
        }
        connection.enter(Phase::Idle, Instant::now());
        answer
    }

    fn route(&self, request: &Request<Incoming>) -> HttpAnswer {
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, path) => self.get(path, request),
            (_, "/healthz" | "/readyz" | "/metrics" | "/openapi.json") => {
                method_not_allowed("GET, HEAD")
            }
            _ => no_such_path(),
        }
    }

    fn get(&self, path: &str, request: &Request<Incoming>) -> HttpAnswer {
        match path {
            "/healthz" => json_value(StatusCode::OK, &json!({"alive": true})),
            "/readyz" => match self.front_end.not_ready() {
                None => json_value(StatusCode::OK, &json!({"ready": true})),
                Some(reason) => json_value(
                    StatusCode::SERVICE_UNAVAILABLE,
                    &json!({"ready": false, "reason": reason}),
                ),
            },
            "/metrics" | "/openapi.json" => {
                if self.needs_token
                    && let Err(refusal) = self.front_end.access.check(request.headers())
                {
                    return *refusal;
                }
                if path == "/metrics" {
                    self.metrics()
                } else {
                    json(StatusCode::OK, self.description.clone())
                }
            }
            _ => no_such_path(),
        }
    }

    fn metrics(&self) -> HttpAnswer {
        let mut answer = json(StatusCode::OK, self.front_end.metrics().into());
        let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        answer.headers_mut().insert(CONTENT_TYPE, content_type);
        answer
    }
}

fn no_such_path() -> HttpAnswer {
    error(
        StatusCode::NOT_FOUND,
        "no such path; there are GET /healthz, /readyz, /metrics and /openapi.json",
    )
}

fn json_value(status: StatusCode, value: &serde_json::Value) -> HttpAnswer {
    json(status, format!("{value}\n").into())
}
