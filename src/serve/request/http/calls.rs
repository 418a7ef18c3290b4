//! Answers the calls of clients.

use std::net::SocketAddr;
use std::rc::Rc;

use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode};

use crate::serve::request::http::answer::{
    HttpAnswer, close_connection_after, error, json, method_not_allowed, unavailable,
};
use crate::serve::request::http::asking::Asking;
use crate::serve::request::http::caller_check::{Caller, CallerCheck};
use crate::serve::request::http::connection::ClientConnection;
use crate::serve::request::http::front_end::FrontEnd;
use crate::serve::request::http::open_table::Table;
use crate::serve::request::http::routes::{Route, Routes};
use crate::serve::request::http::served_model;
use crate::serve::request::http_args::HttpOptions;
use crate::stage::cli::VERSION;

/// Answers the calls of the first listener.
#[derive(Debug)]
pub struct CallService {
    front_end: Rc<FrontEnd>,
    asking: Asking,
    table: Rc<Table>,
    routes: Routes,
    callers: CallerCheck,
    /// The OpenAPI description of the service.
    description: Bytes,
}

impl CallService {
    /// The service of the listener at `own_address`. `columns` are the names of a
    /// tensor's columns, if they are known.
    pub fn new(
        front_end: Rc<FrontEnd>,
        options: &HttpOptions,
        own_address: SocketAddr,
        columns: Option<Vec<String>>,
        description: Bytes,
    ) -> CallService {
        let id_header = options.id_header.as_ref().map(|it| &it.name);
        let table = Rc::new(Table::new(&front_end.open_calls, options, columns));
        CallService {
            asking: Asking::new(Rc::clone(&front_end), options, Rc::clone(&table)),
            front_end,
            callers: CallerCheck::new(
                own_address,
                &options.host_names,
                &options.origins,
                id_header,
            )
            .with_default_port(options.default_port()),
            routes: Routes {
                plain: options.plain.clone(),
                served_name: table.served_name.clone(),
            },
            table,
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
        let path = request.uri().path();
        let Some(route) = self.routes.find(path) else {
            return error(StatusCode::NOT_FOUND, &self.routes.unknown(path));
        };
        if !route.accepts(request.method()) {
            return method_not_allowed(route.methods());
        }
        match route {
            Route::Ping => ping(),
            Route::Version => version(),
            Route::Live => json(StatusCode::OK, "{\"live\":true}\n".into()),
            Route::Ready => match self.front_end.not_ready() {
                None => json(StatusCode::OK, "{\"ready\":true}\n".into()),
                Some(reason) => unavailable(&format!("not ready: {reason}")),
            },
            Route::ModelReady => match self.front_end.not_ready() {
                None => json(StatusCode::OK, served_model::ready(&self.table)),
                Some(reason) => unavailable(&format!("not ready: {reason}")),
            },
            Route::Answer(surface) => self.asking.answer(connection, request, surface).await,
            Route::OpenApi | Route::Server | Route::Model => {
                match self.front_end.access.check(request.headers()) {
                    Ok(()) => json(StatusCode::OK, self.describe(route)),
                    Err(refusal) => *refusal,
                }
            }
        }
    }

    fn describe(&self, route: Route) -> Bytes {
        match route {
            Route::Server => served_model::server(),
            Route::Model => served_model::model(&self.table),
            _ => self.description.clone(),
        }
    }
}

/// The answer of an MLflow server to `/version` is text.
fn version() -> HttpAnswer {
    let mut answer = json(StatusCode::OK, VERSION.into());
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, text);
    answer
}

fn ping() -> HttpAnswer {
    json(StatusCode::OK, Bytes::from_static(b"{\"ping\":\"pong\"}\n"))
}
