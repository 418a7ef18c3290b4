//! The second listener, for operators: `/healthz`, `/readyz`, `/metrics`, `/status.json`
//! and the page.

use std::convert::Infallible;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName,
    HeaderValue, WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};

use crate::stage::http::secret::secret;
use crate::up::metrics::merge;
use crate::up::published::Published;
use crate::up::run_folder::RunFolder;

/// The largest number of connections. A service has few operators.
const CONNECTIONS_MAX: usize = 64;

/// How long a client may take to send the head of a call.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection may last. So a client that does not read makes room.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(300);

/// The wait after a connection could not be accepted.
const WAIT_AFTER_ERROR: Duration = Duration::from_millis(20);

/// The page. It asks for `/status.json` each second.
const PAGE: &str = include_str!("page.html");

/// The page may load nothing, and speak to this listener only.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src \
    'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// What all calls need.
struct Service {
    run: RunFolder,
    published: Arc<Published>,
    token: Option<String>,
    /// Whether only this machine can reach the listener.
    is_loopback: bool,
}

type Answer = Response<Full<Bytes>>;

/// Starts the listener in a thread. Fails if the token cannot be read.
pub fn start(
    socket: std::net::TcpListener,
    token_file: Option<&str>,
    run: &RunFolder,
    published: Arc<Published>,
) -> Result<()> {
    let token = match token_file {
        Some(path) => secret(Some(Path::new(path)), "")?,
        None => None,
    };
    let is_loopback = socket.local_addr()?.ip().is_loopback();
    let run = run.clone();
    socket.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let serve = move || {
        let service = Rc::new(Service {
            run,
            published,
            token,
            is_loopback,
        });
        let local = LocalSet::new();
        local.block_on(&runtime, accept(socket, service));
    };
    std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(serve)
        .context("cannot start a thread")?;
    Ok(())
}

async fn accept(socket: std::net::TcpListener, service: Rc<Service>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(socket) else {
        return;
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(WAIT_AFTER_ERROR).await;
            continue;
        };
        let service = Rc::clone(&service);
        spawn_local(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let answer = service.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let http = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_PATIENCE)
                .serve_connection(TokioIo::new(stream), answer);
            // A client that has gone is no fault.
            let _ = tokio::time::timeout(CONNECTION_TIME_MAX, http).await;
            drop(place);
        });
    }
}

impl Service {
    fn answer(&self, request: &Request<Incoming>) -> Answer {
        if !self.is_meant(request) {
            return error(
                StatusCode::MISDIRECTED_REQUEST,
                "the Host header names another site; use the address of this machine",
            );
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return error(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD");
        }
        match request.uri().path() {
            "/healthz" => json(StatusCode::OK, &serde_json::json!({"alive": true})),
            "/readyz" => {
                let report = self.published.report();
                let status = match report.ready {
                    true => StatusCode::OK,
                    false => StatusCode::SERVICE_UNAVAILABLE,
                };
                json(status, &report.readyz())
            }
            // The page holds no data. It asks for the token itself.
            "/" => page(),
            "/metrics" | "/status.json" if !self.is_allowed(request) => {
                let mut answer = error(StatusCode::UNAUTHORIZED, "the bearer token is missing");
                let bearer = HeaderValue::from_static("Bearer");
                answer.headers_mut().insert(WWW_AUTHENTICATE, bearer);
                answer
            }
            "/metrics" => self.metrics(),
            "/status.json" => match serde_json::to_value(&*self.published.report()) {
                Ok(value) => json(StatusCode::OK, &value),
                Err(fault) => error(StatusCode::INTERNAL_SERVER_ERROR, &fault.to_string()),
            },
            _ => error(
                StatusCode::NOT_FOUND,
                "no such path; there are GET /, /healthz, /readyz, /metrics and /status.json",
            ),
        }
    }

    /// Whether the call is meant for this listener. A web page of another site can make a
    /// browser call a loopback address, but only by a name.
    fn is_meant(&self, request: &Request<Incoming>) -> bool {
        let host = request
            .headers()
            .get(HOST)
            .and_then(|host| host.to_str().ok());
        !self.is_loopback || host.is_none_or(is_own_host)
    }

    fn is_allowed(&self, request: &Request<Incoming>) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let given = request.headers().get(AUTHORIZATION);
        let given = given.map_or(&b""[..], HeaderValue::as_bytes);
        let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
        given.ct_eq(token.as_bytes()).into()
    }

    fn metrics(&self) -> Answer {
        let report = self.published.report();
        let stages = report.stages.iter().map(|stage| {
            let path = self.run.path(&format!("stats/{}.prom", stage.name));
            (
                stage.name.clone(),
                fs::read_to_string(path).unwrap_or_default(),
            )
        });
        let text = merge(&stages.collect::<Vec<_>>(), &report);
        with_type(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            text,
        )
    }
}

/// Whether a `Host` header names this machine by a loopback name or by an address.
fn is_own_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|it| it.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn page() -> Answer {
    let mut answer = with_type(StatusCode::OK, "text/html; charset=utf-8", PAGE.to_owned());
    let policy = HeaderValue::from_static(PAGE_POLICY);
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    answer
}

fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    with_type(status, "application/json", format!("{value}\n"))
}

fn error(status: StatusCode, message: &str) -> Answer {
    json(status, &serde_json::json!({"error": message}))
}

fn with_type(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let nosniff = HeaderName::from_static("x-content-type-options");
    headers.insert(nosniff, HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_localhost() {
        for own in [
            "127.0.0.1:80",
            "localhost",
            "LOCALHOST:8001",
            "[::1]:1",
            "10.0.0.9",
        ] {
            assert!(is_own_host(own), "{own}");
        }
        for other in [
            "evil.example",
            "localhost.evil.example:80",
            "",
            "127.0.0.1.evil:1",
        ] {
            assert!(!is_own_host(other), "{other}");
        }
    }

    #[test]
    fn the_page_is_small_and_asks_no_other_site() {
        assert!(PAGE.len() < 60 << 10);
        assert!(!PAGE.contains("http://") && !PAGE.contains("https://"));
    }
}
