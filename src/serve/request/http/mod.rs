//! The HTTP front end: calls -> requests, responses -> answers.
//!
//! All tasks run on one thread. `listeners` binds the addresses, and `listener` accepts
//! connections, through `tls` if HTTPS is served. `connections` limits them by time-outs,
//! eviction and shutdown. `calls`
//! answers a call: it checks the caller (`caller_check`, `token`), reads the body
//! (`bodies`), and sends a request into the `pipeline`. The pipeline appends the request
//! to the `request_buffer` and wakes the writer of `request_pipe`. The writer first lets
//! all other ready calls append their requests, and then writes once. So calls under load
//! share a write, and a single call does not wait.
//!
//! The writer waits for the pipe in a separate task. So `response_pipe` reads responses,
//! and passes each to its call, even if the pipe of requests is full.
//!
//! `admin` answers the calls of the second listener. `openapi` describes the service.
//! Only the main task, in this file, prints. The other tasks give their messages to
//! `reports`.

mod admin;
mod answer;
mod asking;
pub mod bodies;
mod call_headers;
pub mod caller_check;
mod calls;
mod client_stream;
pub mod connection;
mod connections;
mod counts;
mod encoding;
mod front_end;
mod json_body;
mod listener;
mod listeners;
mod mlflow;
mod open_calls;
mod open_files;
mod open_inference;
mod open_table;
mod openapi;
mod parse_error;
mod remembered_answers;
mod reports;
mod request_buffer;
mod request_pipe;
mod response_pipe;
mod routes;
mod served_model;
mod socket;
mod table;
pub mod tls;
mod token;
mod transport;

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::net::UnixStream;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{sleep_until, timeout_at};

use crate::serve::request::http::front_end::FrontEnd;
use crate::serve::request::http::listeners::{AcceptTask, Listeners};
use crate::serve::request::http::tls::Tls;
use crate::serve::request::http::token::Access;
use crate::serve::request::http_args::HttpOptions;
use crate::serve::request::request_writer::RequestWriter;
use crate::stage::{EndedEarly, Stage};
use crate::stream::input::Input;
use crate::stream::output::Output;

/// Serves calls until a signal ends the program.
pub fn run(stage: &mut Stage, options: &HttpOptions, writer: RequestWriter) -> Result<()> {
    let access = Access::new(options.token_file.as_deref())?;
    let tls = load_tls(stage, options)?;
    let requests = Output::open(&options.output.output)?;
    let responses = response_pipe::open(&options.responses)?;
    let connections_max = open_files::allow_connections(stage, options.connections_max)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let local = LocalSet::new();
    let (outcome, snapshot) = local.block_on(&runtime, async {
        let listeners = Listeners::bind(options, writer.required(), access.needs_token())?;
        let program = stage.report.program();
        let front_end = FrontEnd::new(program, options, writer, access, tls, connections_max);
        let outcome = serve(stage, options, &front_end, listeners, requests, responses).await;
        Ok::<_, anyhow::Error>((outcome, front_end.snapshot()))
    })?;
    // The counts are printed after a failure, too.
    stage.final_stats(&snapshot);
    outcome
}

async fn serve(
    stage: &mut Stage,
    options: &HttpOptions,
    front_end: &Rc<FrontEnd>,
    listeners: Listeners,
    requests: Output,
    responses: Input,
) -> Result<()> {
    let accepting = listeners.start(stage, options, front_end);
    let pipe_tasks = PipeTasks::start(stage, options, front_end, requests, responses);
    serve_until_signal(stage, front_end, pipe_tasks).await?;
    finish_calls(stage, front_end, accepting).await
}

/// The tasks of the two pipes. The tasks keep running when this value is dropped.
struct PipeTasks {
    reading: JoinHandle<Result<()>>,
    writing: JoinHandle<Result<()>>,
}

impl PipeTasks {
    fn start(
        stage: &Stage,
        options: &HttpOptions,
        front_end: &FrontEnd,
        requests: Output,
        responses: Input,
    ) -> PipeTasks {
        let open_calls = &front_end.open_calls;
        let reports = &front_end.reports;
        if options.output.resume {
            open_calls.requests.append_newline();
        }
        PipeTasks {
            reading: spawn_local(response_pipe::read(
                Rc::clone(open_calls),
                Rc::clone(reports),
                responses,
                stage.line_bytes_max,
            )),
            writing: spawn_local(request_pipe::write(
                Rc::clone(open_calls),
                Rc::clone(reports),
                requests,
                options.output.output.clone(),
            )),
        }
    }
}

/// Prints the messages of the tasks, and handles signals, until a signal ends the
/// program. Fails if the task of a pipe fails.
async fn serve_until_signal(
    stage: &mut Stage,
    front_end: &FrontEnd,
    mut pipe_tasks: PipeTasks,
) -> Result<()> {
    let reports = &front_end.reports;
    let signals = UnixStream::from_std(stage.signals.wake_stream()?)?;
    loop {
        reports.report_to(stage)?;
        if reports.has_counted() {
            stage.stats.touch();
        }
        stage.show_stats(|_| {
            reports.counts_shown();
            front_end.snapshot()
        });
        if stage.signals.take_hangup() {
            reload_token(stage, &front_end.access);
            reload_tls(stage, front_end.tls.as_deref());
        }
        if stage.signals.stop().is_some() {
            return Ok(());
        }
        let stats_due = stage.stats.due();
        tokio::select! {
            ready = signals.readable() => {
                ready?;
                // tokio waits for the next signal only after a read that returned
                // no more bytes.
                let mut bytes = [0; 64];
                while signals.try_read(&mut bytes).is_ok_and(|count| count > 0) {}
            }
            () = reports.something_to_do() => {}
            () = sleep_until_some(stats_due) => {}
            ended = &mut pipe_tasks.reading => {
                return ended.context("the reader of responses ended")?;
            }
            ended = &mut pipe_tasks.writing => {
                return ended.context("the writer of requests ended")?;
            }
        }
    }
}

/// Stops accepting connections, and answers the calls of the open ones, within --grace.
async fn finish_calls(
    stage: &mut Stage,
    front_end: &FrontEnd,
    accepting: AcceptTask,
) -> Result<()> {
    front_end.stopping.set(true);
    let grace_end = stage.signals.grace_end().unwrap_or_else(Instant::now);
    let finish = async {
        accepting.stop().await;
        front_end.connections.shut_down().await;
    };
    let mut finish = Box::pin(timeout_at(grace_end.into(), finish));
    let finished = loop {
        tokio::select! {
            finished = &mut finish => break finished,
            // The reader of responses may be waiting until its invalid responses
            // are reported.
            () = front_end.reports.something_to_do() => front_end.reports.report_to(stage)?,
        }
    };
    front_end.reports.report_to(stage)?;
    match (finished, stage.signals.stop()) {
        (Err(_), Some(stop)) => Err(EndedEarly::Signal(stop).into()),
        _ => Ok(()),
    }
}

/// Reads the token file again. If that fails, the old token stays valid.
fn reload_token(stage: &Stage, access: &Access) {
    match access.reload() {
        Ok(Some(path)) => stage.report.info(&format!("{path}: read again")),
        Ok(None) => {}
        Err(error) => {
            let message = format!("{error:#}; the old token stays valid");
            stage.report.warn(&message);
        }
    }
}

/// Reads the certificate and the key, if HTTPS is to be served.
fn load_tls(stage: &Stage, options: &HttpOptions) -> Result<Option<Rc<Tls>>> {
    let Some(files) = &options.tls else {
        return Ok(None);
    };
    let (tls, warnings) = Tls::load(files)?;
    for warning in warnings {
        stage.report.warn(&warning);
    }
    Ok(Some(Rc::new(tls)))
}

/// Reads the certificate and the key again. If that fails, the old ones stay. Open
/// connections keep theirs.
fn reload_tls(stage: &Stage, tls: Option<&Tls>) {
    let Some(tls) = tls else {
        return;
    };
    match tls.reload() {
        Ok(warnings) => {
            let files = tls.files();
            let message = format!("{} and {}: read again", files.cert, files.key);
            stage.report.info(&message);
            for warning in warnings {
                stage.report.warn(&warning);
            }
        }
        Err(error) => {
            let message = format!("{error:#}; the old certificate and key stay in use");
            stage.report.warn(&message);
        }
    }
}

/// Sleeps until `time`, or forever if it is `None`.
async fn sleep_until_some(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
