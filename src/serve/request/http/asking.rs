//! Asks the pipeline for the answer to a call, in the form of each surface.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, StatusCode};
use tokio::task::spawn_local;
use tokio::time::timeout_at;

use crate::serve::request::http::answer::{
    Form, HttpAnswer, PipelineAnswer, bad_request, error, unavailable,
};
use crate::serve::request::http::bodies::Bodies;
use crate::serve::request::http::call_headers::{CallHeaders, give_back};
use crate::serve::request::http::connection::ClientConnection;
use crate::serve::request::http::front_end::FrontEnd;
use crate::serve::request::http::open_calls::{OpenCall, SendError};
use crate::serve::request::http::open_inference::InferCall;
use crate::serve::request::http::open_table::{OpenTable, Table, TableAnswer};
use crate::serve::request::http::remembered_answers::{
    CallIds, Ended, Fingerprint, Known, RememberedAnswers,
};
use crate::serve::request::http::routes::Surface;
use crate::serve::request::http::table::TableFault;
use crate::serve::request::http::{json_body, mlflow};
use crate::serve::request::http_args::HttpOptions;
use crate::wire::message::MESSAGE_ID_BYTES_MAX;
use crate::wire::trace::TraceContext;

/// With this header, the body of a call of the Open Inference Protocol has binary data.
const INFERENCE_HEADER: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Asks the pipeline.
#[derive(Debug)]
pub struct Asking {
    front_end: Rc<FrontEnd>,
    bodies: Rc<Bodies>,
    headers: CallHeaders,
    table: Rc<Table>,
    /// The answers to the last calls that brought an id.
    remembered: Rc<RefCell<RememberedAnswers>>,
}

impl Asking {
    /// Asks the pipeline of `front_end`. `table` says how tables are read.
    pub fn new(front_end: Rc<FrontEnd>, options: &HttpOptions, table: Rc<Table>) -> Asking {
        let (answer_bytes_max, ids_min) = options.remembered;
        let remembered = RememberedAnswers::new(answer_bytes_max, ids_min);
        Asking {
            front_end,
            bodies: Bodies::new(options.bodies),
            headers: CallHeaders {
                id: options.id_header.as_ref().map(|it| it.name.clone()),
                answer_timeout: options.answer_timeout,
                begins_trace: options.begins_trace,
            },
            table,
            remembered: Rc::new(RefCell::new(remembered)),
        }
    }

    /// Answers a call with the pipeline, and gives the call its trace back.
    pub async fn answer(
        &self,
        connection: &ClientConnection,
        request: Request<Incoming>,
        surface: Surface,
    ) -> HttpAnswer {
        let trace = self.headers.trace_of(request.headers());
        let (parts, body) = request.into_parts();
        let mut answer = match self
            .begin(connection, &parts, body, surface, trace.as_ref())
            .await
        {
            Ok(Begun::Answered(answer)) => *answer,
            Ok(Begun::Asked(asked)) => self.finish(asked).await,
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
        surface.check_headers(headers)?;
        // The memory of the body is released before the wait for the response.
        let (body, _reservation) = self.bodies.read(connection, headers, body).await?;
        let text = json_body::one_line(&body).map_err(|fault| surface.refuse_body(&fault))?;
        let question = self.read(surface, &text)?;
        let fingerprint = id.is_some().then(|| {
            let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
            let authorization = authorization.unwrap_or_default();
            Fingerprint::new(parts.uri.path(), authorization, text.as_bytes())
        });
        let id = id.unwrap_or_else(|| self.front_end.open_calls.next_id());
        let ids = CallIds::new(id, question.row_count());
        if ids
            .rows
            .last()
            .is_some_and(|id| id.len() > MESSAGE_ID_BYTES_MAX)
        {
            return Err(bad_request("the id is too long for the ids of the rows"));
        }
        let repeatable = match fingerprint {
            None => None,
            Some(fingerprint) => match self.remembered.borrow().find(&ids, fingerprint) {
                Known::New => Some((ids.clone(), fingerprint)),
                Known::Open => return Err(id_is_open()),
                Known::Answered(answer) => return Ok(Begun::Answered(answer)),
                Known::Used => return Err(id_is_used()),
            },
        };
        let open = self.send(question, ids, trace)?;
        if let Some((ids, _)) = &repeatable {
            self.remembered.borrow_mut().begin(ids);
        }
        Ok(Begun::Asked(Asked {
            open,
            end: Instant::now() + timeout,
            repeatable,
        }))
    }

    /// Reads the model inputs of a call, and checks that they have the fields that they
    /// need.
    fn read<'t>(&self, surface: Surface, text: &'t str) -> Result<Question<'t>, Box<HttpAnswer>> {
        let open_calls = &self.front_end.open_calls;
        let unprocessable =
            |reason: String| Box::new(error(StatusCode::UNPROCESSABLE_ENTITY, &reason));
        let (rows, answer) = match surface {
            Surface::Predict | Surface::Plain => {
                open_calls.check(text).map_err(unprocessable)?;
                let form = match surface {
                    Surface::Predict => Form::Record,
                    _ => Form::Result,
                };
                return Ok(Question::One(text, form));
            }
            Surface::Infer => {
                let columns = self.table.columns.as_deref();
                let call = InferCall::read(text, columns, self.table.limits);
                let call = call.map_err(refuse_table)?;
                (call.rows, TableAnswer::Infer(call.echo))
            }
            Surface::Invocations => {
                let rows = mlflow::rows(text, self.table.limits).map_err(refuse_table)?;
                (rows, TableAnswer::Invocations)
            }
        };
        for (number, row) in rows.iter().enumerate() {
            let checked = open_calls.check(row);
            checked.map_err(|reason| unprocessable(format!("row {number}: {reason}")))?;
        }
        Ok(Question::Rows(rows, answer))
    }

    /// Sends the requests of a call.
    fn send(
        &self,
        question: Question,
        ids: CallIds,
        trace: Option<&TraceContext>,
    ) -> Result<Open, Box<HttpAnswer>> {
        let open_calls = &self.front_end.open_calls;
        Ok(match question {
            Question::One(input, form) => {
                let call = open_calls.send(ids.call, input, trace, form);
                Open::One(call.map_err(send_error)?)
            }
            Question::Rows(rows, answer) => {
                let calls = open_calls.send_all(ids.rows, &rows, trace);
                Open::Rows(OpenTable {
                    id: ids.call,
                    calls: calls.map_err(send_error)?,
                    answer,
                    table: Rc::clone(&self.table),
                })
            }
        })
    }

    /// Waits for the response to a call. A call with an id goes on if its client leaves,
    /// because the client may repeat the call, and gets the answer then.
    async fn finish(&self, asked: Asked) -> HttpAnswer {
        let (end, mut open) = (asked.end, asked.open);
        let Some((ids, fingerprint)) = asked.repeatable else {
            return answer_before(end, &mut open).await.unwrap_or_else(|it| *it);
        };
        let remembered = Rc::clone(&self.remembered);
        let task = spawn_local(async move {
            let answer = answer_before(end, &mut open).await;
            let ended = match &answer {
                Ok(answer) => Ended::Answered(fingerprint, answer),
                Err(failure) if failure.status() == StatusCode::SERVICE_UNAVAILABLE => Ended::Lost,
                Err(_) => Ended::Unanswered,
            };
            remembered.borrow_mut().end(&ids, ended);
            answer.unwrap_or_else(|it| *it)
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
    open: Open,
    /// The time by which the response must arrive. The upload of the body, which has a
    /// time-out of its own, does not count.
    end: Instant,
    /// If the client gave an id: the ids, and the fingerprint of the call.
    repeatable: Option<(CallIds, Fingerprint)>,
}

/// The model inputs of a call.
enum Question<'t> {
    /// One input.
    One(&'t str, Form),
    /// An input for each row of a table.
    Rows(Vec<String>, TableAnswer),
}

impl Question<'_> {
    /// The number of rows of a table; 0 for one input.
    fn row_count(&self) -> usize {
        match self {
            Question::One(..) => 0,
            Question::Rows(rows, _) => rows.len(),
        }
    }
}

/// The open requests of a call.
#[derive(Debug)]
enum Open {
    One(OpenCall),
    Rows(OpenTable),
}

/// Waits for the responses until `end`. The error is the answer to a call that gets no
/// response.
async fn answer_before(end: Instant, open: &mut Open) -> Result<HttpAnswer, Box<HttpAnswer>> {
    let answering = async {
        match open {
            Open::One(call) => call.answer().await.map(PipelineAnswer::into_http),
            Open::Rows(table) => table.answer().await,
        }
    };
    match timeout_at(end.into(), answering).await {
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

fn id_is_open() -> Box<HttpAnswer> {
    let reason = "a call with this id is open";
    Box::new(error(StatusCode::CONFLICT, reason))
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
    match send_error {
        SendError::IdInUse => id_is_open(),
        SendError::Full => Box::new(unavailable("too many calls are open")),
        SendError::PipelineGone(why) => Box::new(unavailable(&format!(
            "the pipeline of this front end is gone: {why}"
        ))),
    }
}

/// The answer to a call with a table that is refused.
fn refuse_table(fault: TableFault) -> Box<HttpAnswer> {
    let (status, reason) = match fault {
        TableFault::Invalid(reason) => (StatusCode::BAD_REQUEST, reason),
        TableFault::TooLarge(reason) => (StatusCode::PAYLOAD_TOO_LARGE, reason),
        TableFault::Unsupported(reason) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, reason),
    };
    Box::new(error(status, &reason))
}

impl Surface {
    /// Refuses a call whose headers announce a body that the surface does not take.
    fn check_headers(self, headers: &HeaderMap) -> Result<(), Box<HttpAnswer>> {
        match self {
            Surface::Predict | Surface::Plain => Ok(()),
            Surface::Infer if headers.contains_key(INFERENCE_HEADER) => Err(bad_request(
                "binary tensor data is not supported; send the tensors as JSON \
                 (binary_data=False)",
            )),
            Surface::Infer => Ok(()),
            Surface::Invocations => {
                let given = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
                let given = given.unwrap_or(b"application/json").to_ascii_lowercase();
                let kind = given.split(|byte| *byte == b';').next().unwrap_or_default();
                // curl sends the second one if it is told nothing.
                let accepted = [
                    &b"application/json"[..],
                    b"application/x-www-form-urlencoded",
                ];
                match accepted.contains(&kind.trim_ascii()) {
                    true => Ok(()),
                    false => Err(Box::new(error(
                        StatusCode::UNSUPPORTED_MEDIA_TYPE,
                        "only application/json is supported; CSV is not",
                    ))),
                }
            }
        }
    }

    /// The answer to a call whose body is not JSON.
    fn refuse_body(self, fault: &str) -> Box<HttpAnswer> {
        match self {
            Surface::Plain => Box::new(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, fault)),
            _ => bad_request(fault),
        }
    }
}
