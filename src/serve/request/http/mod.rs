//! HTTP calls -> requests, responses -> answers.
//!
//! One thread serves everything. A call appends its request to a buffer and
//! wakes the writer, which lets all calls that are ready append theirs and then
//! writes once; that makes batches under load and adds no delay without. The
//! writer waits for the pipe as one task among others, so that a full pipe never
//! stops the reading of responses.
//!
//! A client can only hold up itself: `connections` knows what each connection
//! waits for, gives it its time, and lets those make room that wait for their
//! clients.

mod admin;
mod call;
mod connections;
mod front;
mod listener;
mod openapi;
mod refusal;
mod request_pipe;
mod response_pipe;
mod sites;
mod token;
mod watched;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep_until, timeout_at};

use crate::serve::request::http::admin::Admin;
use crate::serve::request::http::call::Limits;
use crate::serve::request::http::connections::Connections;
use crate::serve::request::http::front::Front;
use crate::serve::request::http::listener::{accept, address, listen};
use crate::serve::request::http::openapi::{SecondListener, Service};
use crate::serve::request::http::sites::Sites;
use crate::serve::request::http::token::Access;
use crate::serve::request::{RequestArgs, Wrapper};
use crate::stage::{EndedEarly, Stage, usage};
use crate::stream::address::Address;
use crate::stream::input::Input;
use crate::stream::output::Output;

pub use crate::serve::request::http::connections::Times;
pub use crate::serve::request::http::sites::{HostName, Site};

/// Files that a front end has open beside its connections.
const OTHER_FILES: u64 = 64;

/// Serves calls until a signal ends it.
pub fn run(
    stage: &mut Stage,
    args: &RequestArgs,
    listen: &str,
    responses: &Address,
    wrapper: Wrapper,
) -> Result<()> {
    let calls = address("--listen", listen)?;
    let admin = args.http.admin.as_deref();
    let admin = admin.map(|admin| address("--admin", admin)).transpose()?;
    let access = Rc::new(Access::new(args.http.token_file.as_deref())?);
    for (flag, address) in [("--listen", Some(calls)), ("--admin", admin)] {
        if let Some(address) = address
            && !(address.ip().is_loopback() || access.asks() || args.http.allow_anonymous)
        {
            return Err(usage(format!(
                "{flag} {address} can be reached from other machines: ask for a token with \
                 --token-file, or allow everybody with --allow-anonymous"
            )));
        }
    }
    let output = Output::open(&args.output.output)?;
    let responses = response_pipe::open(responses)?;
    let connections_max = allow_files(stage, args.http.max_connections)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let local = LocalSet::new();
    let (outcome, snapshot) = local.block_on(&runtime, async {
        let listeners = Listeners::open(calls, admin)?;
        let service = Service {
            args,
            required: &wrapper.required,
            asks: access.asks(),
        };
        let own = listeners.calls.local_addr()?;
        let limits = Limits::new(args, Rc::clone(&access), own, service.describe(None))?;
        let admin = listeners.admin_of(service)?;
        let front = Front::new(args, wrapper, limits, admin, connections_max);
        let front = Rc::new(front);
        let outcome = serve(stage, args, listeners, Rc::clone(&front), output, responses).await;
        Ok::<_, anyhow::Error>((outcome, front.snapshot()))
    })?;
    // However it ended: the counts say what became of the calls.
    stage.final_stats(&snapshot);
    outcome
}

/// Raises the limit of open files as far as connections need it. Returns how many
/// connections there may be.
fn allow_files(stage: &Stage, connections: u32) -> Result<usize> {
    let wanted = u64::from(connections) + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    // None is no limit.
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
    if enough(limit.current) {
        return Ok(connections as usize);
    }
    let allowed = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = Rlimit {
        current: Some(allowed),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")?;
    let connections = allowed.saturating_sub(OTHER_FILES).max(1);
    if allowed < wanted {
        stage.report.warn(&format!(
            "only {connections} connections at a time: `ulimit -Hn` allows {allowed} open files"
        ));
    }
    Ok(connections as usize)
}

/// What the front end listens to.
struct Listeners {
    calls: TcpListener,
    admin: Option<TcpListener>,
}

impl Listeners {
    fn open(calls: SocketAddr, admin: Option<SocketAddr>) -> Result<Listeners> {
        Ok(Listeners {
            calls: listen(calls)?,
            admin: admin.map(listen).transpose()?,
        })
    }

    /// What the second listener answers; `None` where there is none.
    fn admin_of(&self, service: Service) -> Result<Option<Admin>> {
        let Some(admin) = &self.admin else {
            return Ok(None);
        };
        let (calls, own) = (self.calls.local_addr()?, admin.local_addr()?);
        let asks = Admin::asks(own, service.asks);
        Ok(Some(Admin {
            asks,
            description: service.describe(Some(SecondListener { calls, asks })),
            sites: Sites::new(own, &service.args.http.host, &[], None),
        }))
    }
}

async fn serve(
    stage: &mut Stage,
    args: &RequestArgs,
    listeners: Listeners,
    front: Rc<Front>,
    output: Output,
    responses: Input,
) -> Result<()> {
    let local = listeners.calls.local_addr()?;
    stage.report.info(&format!("listening at http://{local}"));
    if args.output.resume {
        front.push(b"\n");
    }
    let stop = Rc::new(Notify::new());
    let accepting = spawn_local(accept(
        listeners.calls,
        Rc::clone(&front),
        Rc::clone(&front.connections),
        Rc::clone(&stop),
        call::answer,
    ));
    spawn_local(Rc::clone(&front.connections).sweep());
    if let Some(admin) = listeners.admin {
        let local = admin.local_addr()?;
        stage.report.info(&format!("admin at http://{local}"));
        let connections = Connections::new(admin::CONNECTIONS_MAX, args.http.times());
        spawn_local(Rc::clone(&connections).sweep());
        // To the end: it says that the program is ending.
        let never = Rc::new(Notify::new());
        spawn_local(accept(
            admin,
            Rc::clone(&front),
            connections,
            never,
            admin::answer,
        ));
    }
    let mut reading = spawn_local(response_pipe::read(
        Rc::clone(&front),
        responses,
        stage.line_bytes_max,
    ));
    let path = args.output.output.clone();
    let mut writing = spawn_local({
        let front = Rc::clone(&front);
        async move { request_pipe::write(front, output, &path).await }
    });

    let signals = UnixStream::from_std(stage.signals.wake_stream()?)?;
    loop {
        front.report_to(stage)?;
        if front.has_counted() {
            stage.stats.touch();
        }
        stage.show_stats(|_| front.show());
        if stage.signals.take_hangup() {
            read_token_again(stage, &front);
        }
        if stage.signals.stop().is_some() {
            break;
        }
        let due = stage.stats.due();
        tokio::select! {
            ready = signals.readable() => {
                ready?;
                // By its own means, so that it knows when there is no more.
                let mut bytes = [0; 64];
                while signals.try_read(&mut bytes).is_ok_and(|count| count > 0) {}
            }
            () = front.something_to_report() => {}
            () = sleep_until_due(due) => {}
            failed = &mut reading => return failed.context("the reader of responses ended")?,
            failed = &mut writing => return failed.context("the writer of requests ended")?,
        }
    }

    // No new connections; the calls of those that are there get their answers,
    // within the grace.
    front.stop();
    stop.notify_one();
    let end = stage.signals.grace_end().unwrap_or_else(Instant::now);
    let finish = async {
        let _ = accepting.await;
        front.connections.finish().await;
    };
    let mut finish = Box::pin(timeout_at(end.into(), finish));
    let finished = loop {
        tokio::select! {
            finished = &mut finish => break finished,
            // The reader of responses may be waiting for this.
            () = front.something_to_report() => front.report_to(stage)?,
        }
    };
    front.report_to(stage)?;
    match (finished, stage.signals.stop()) {
        (Err(_), Some(stop)) => Err(EndedEarly::Signal(stop).into()),
        _ => Ok(()),
    }
}

/// The old token stays where the file holds none.
fn read_token_again(stage: &Stage, front: &Front) {
    match front.limits.access.reload() {
        Ok(Some(path)) => stage.report.info(&format!("{path}: read again")),
        Ok(None) => {}
        Err(error) => {
            let message = format!("{error:#}; the token stays what it was");
            stage.report.warn(&message);
        }
    }
}

async fn sleep_until_due(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
