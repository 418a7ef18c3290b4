//! Answers the calls of clients.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use tokio::task::spawn_local;
use tokio::time::timeout_at;

use crate::serve::request::http::answer::{
    Form, HttpAnswer, bad_request, close_connection_after, error, json, method_not_allowed,
    unavailable,
};
use crate::serve::request::http::bodies::Bodies;
use crate::serve::request::http::call_headers::{CallHeaders, give_back};
use crate::serve::request::http::caller_check::{Caller, CallerCheck};
use crate::serve::request::http::connection::ClientConnection;
use crate::serve::request::http::front_end::FrontEnd;
use crate::serve::request::http::json_body;
use crate::serve::request::http::open_calls::{OpenCall, SendError};
use crate::serve::request::http::remembered_answers::{Fingerprint, Known, RememberedAnswers};
use crate::serve::request::http::routes::{Route, Routes, Surface};
use crate::serve::request::http_args::HttpOptions;
use crate::wire::trace::TraceContext;

/// Answers the calls of the first listener.
#[derive(Debug)]
pub struct CallService {
    front_end: Rc<FrontEnd>,
    bodies: Rc<Bodies>,
    headers: CallHeaders,
    routes: Routes,
    /// The answers to the last calls that brought an id.
    remembered: Rc<RefCell<RememberedAnswers>>,
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
        let (answer_bytes_max, ids_min) = options.remembered;
        let remembered = RememberedAnswers::new(answer_bytes_max, ids_min);
        CallService {
            front_end,
            bodies: Bodies::new(options.bodies),
            routes: Routes {
                plain: options.plain.clone(),
            },
            remembered: Rc::new(RefCell::new(remembered)),
            callers: CallerCheck::new(
                own_address,
                &options.host_names,
                &options.origins,
                id_header.as_ref(),
            ),
            headers: CallHeaders {
                id: id_header,
                answer_timeout: options.answer_timeout,
                begins_trace: options.begins_trace,
            },
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
        let Some(route) = self.routes.find(request.uri().path()) else {
            return error(StatusCode::NOT_FOUND, &self.routes.unknown());
        };
        if !route.accepts(request.method()) {
            return method_not_allowed(route.methods());
        }
        match route {
            Route::Ping => ping(),
            Route::OpenApi => match self.front_end.access.check(request.headers()) {
                Ok(()) => json(StatusCode::OK, self.description.clone()),
                Err(refusal) => *refusal,
            },
            Route::Answer(surface) => self.ask(connection, request, surface).await,
        }
    }

    /// Answers a call with the pipeline, and gives the call its trace back.
    async fn ask(
        &self,
        connection: &ClientConnection,
        request: Request<Incoming>,
        surface: Surface,
    ) -> HttpAnswer {
        let begun = Instant::now();
        let trace = self.headers.trace_of(request.headers());
        let (parts, body) = request.into_parts();
        let mut answer = match self
            .begin(connection, &parts, body, surface, trace.as_ref())
            .await
        {
            Ok(Begun::Answered(answer)) => *answer,
            Ok(Begun::Asked(asked)) => self.finish(begun, asked).await,
            Err(refusal) => *refusal,
        };
        if let Some(trace) = &trace {
            give_back(trace, &mut answer);
        }
        answer
    }

    /// Sends the model input of a call into the pipeline. The error is the answer to a
    /// call that is refused.
    async fn begin(
        &self,
        connection: &ClientConnection,
        parts: &Parts,
        body: Incoming,
        surface: Surface,
        trace: Option<&TraceContext>,
    ) -> Result<Begun, Box<HttpAnswer>> {
        let headers = &parts.headers;
        self.front_end.access.check(headers)?;
        let id = self.headers.id_of(headers)?;
        let timeout = self.headers.timeout_of(headers)?;
        // The memory of the body is released before the wait for the response.
        let (body, _reservation) = self.bodies.read(connection, headers, body).await?;
        let model_input = json_body::one_line(&body).map_err(|fault| match surface {
            Surface::Predict => bad_request(&fault),
            Surface::Plain => Box::new(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, &fault)),
        })?;
        let open_calls = &self.front_end.open_calls;
        open_calls
            .check(&model_input)
            .map_err(|reason| Box::new(error(StatusCode::UNPROCESSABLE_ENTITY, &reason)))?;
        let repeatable = match id {
            None => None,
            Some(id) => {
                let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
                let authorization = authorization.unwrap_or_default();
                let body = model_input.as_bytes();
                let fingerprint = Fingerprint::new(parts.uri.path(), authorization, body);
                match self.remembered.borrow().find(&id, fingerprint) {
                    Known::New => Some((id, fingerprint)),
                    Known::Answered(answer) => return Ok(Begun::Answered(answer)),
                    Known::Used => return Err(id_is_used()),
                }
            }
        };
        let form = match surface {
            Surface::Predict => Form::Record,
            Surface::Plain => Form::Result,
        };
        let message_id = match &repeatable {
            Some((id, _)) => id.clone(),
            None => open_calls.next_id(),
        };
        let call = open_calls.send(message_id, &model_input, trace, form);
        Ok(Begun::Asked(Asked {
            call: call.map_err(send_error)?,
            timeout,
            repeatable,
        }))
    }

    /// Waits for the response to a call. A call with an id goes on if its client leaves,
    /// because the client may repeat the call, and gets the answer then.
    async fn finish(&self, begun: Instant, asked: Asked) -> HttpAnswer {
        let end = begun + asked.timeout;
        let mut call = asked.call;
        let Some((id, fingerprint)) = asked.repeatable else {
            return answer_before(end, &mut call).await.unwrap_or_else(|it| *it);
        };
        let remembered = Rc::clone(&self.remembered);
        let task = spawn_local(async move {
            let answer = answer_before(end, &mut call).await;
            let mut remembered = remembered.borrow_mut();
            match answer {
                Ok(answer) => {
                    remembered.insert(&id, fingerprint, &answer);
                    answer
                }
                Err(failure) => {
                    // After the pipeline was lost, the client may try again.
                    if failure.status() != StatusCode::SERVICE_UNAVAILABLE {
                        remembered.insert_id(&id);
                    }
                    *failure
                }
            }
        });
        let gone = |_| unavailable("the front end has ended the call");
        task.await.unwrap_or_else(gone)
    }
}

/// A call whose request was sent, or which is answered already.
#[derive(Debug)]
enum Begun {
    Answered(Box<HttpAnswer>),
    Asked(Asked),
}

/// A call whose request was sent.
#[derive(Debug)]
struct Asked {
    call: OpenCall,
    /// The longest time from the headers of the call to the answer.
    timeout: Duration,
    /// The id that the client gave, and the fingerprint of the call.
    repeatable: Option<(String, Fingerprint)>,
}

/// Waits for the response until `end`. The error is the answer to a call that gets no
/// response.
async fn answer_before(end: Instant, call: &mut OpenCall) -> Result<HttpAnswer, Box<HttpAnswer>> {
    match timeout_at(end.into(), call.answer()).await {
        Ok(Some(answer)) => Ok(answer.into_http()),
        Ok(None) => Err(Box::new(unavailable(
            "the pipeline of this front end has lost a reader or a writer",
        ))),
        Err(_) => Err(Box::new(error(
            StatusCode::GATEWAY_TIMEOUT,
            "no response arrived in time",
        ))),
    }
}

fn id_is_used() -> Box<HttpAnswer> {
    Box::new(error(
        StatusCode::CONFLICT,
        "an earlier call had this id, and it was another call or its answer is forgotten; \
         every call needs an id of its own",
    ))
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
