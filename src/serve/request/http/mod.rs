//! HTTP calls -> requests, responses -> answers.
//!
//! One thread serves everything. A call appends its request to a buffer and
//! wakes the writer, which lets all calls that are ready append theirs and then
//! writes once; that makes batches under load and adds no delay without. The
//! writer waits for the pipe as one task among others, so that a full pipe never
//! stops the reading of responses.

mod call;
mod front;
mod token;

use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rustix::event::PollFlags;
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, sleep_until, timeout_at};

use crate::serve::request::http::call::Limits;
use crate::serve::request::http::front::Front;
use crate::serve::request::http::token::Token;
use crate::serve::request::{HttpArgs, RequestArgs, Wrapper};
use crate::stage::{EndedEarly, Stage, usage};
use crate::wire::endpoint::{Input, Output, STANDARD};
use crate::wire::lines::Lines;

/// The largest head of a call, in bytes; a larger one gets 431. The buffer of a
/// connection grows to about as much.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Serves calls until a signal ends it.
pub fn run(
    stage: &mut Stage,
    args: &RequestArgs,
    listen: &str,
    responses: &str,
    wrapper: Wrapper,
) -> Result<()> {
    let address = address(listen)?;
    let token = match &args.http.token_file {
        Some(path) => Some(Token::read(path)?),
        None => None,
    };
    if !address.ip().is_loopback() && token.is_none() && !args.http.allow_anonymous {
        return Err(usage(format!(
            "--listen {address} can be reached from other machines: ask for a token with \
             --token-file, or allow everybody with --allow-anonymous"
        )));
    }
    let limits = Limits::new(args, token)?;
    let output = Output::open(&args.output.output)?;
    let responses = open_responses(responses)?;
    let front = Rc::new(Front::new(args, wrapper, limits));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let local = LocalSet::new();
    local.block_on(
        &runtime,
        serve(stage, args, address, Rc::clone(&front), output, responses),
    )?;
    let snapshot = front.snapshot();
    stage.final_stats(&snapshot);
    Ok(())
}

fn open_responses(path: &str) -> Result<Input> {
    // Standard input too is opened by its path: the event loop needs a
    // description that it may make non-blocking.
    let input = match path {
        STANDARD => Input::open("/proc/self/fd/0", false)?,
        path => Input::open(path, false)?,
    };
    if !input.is_pipe() {
        return Err(usage(format!(
            "--responses {path}: is no pipe; name one that `mkfifo` has made"
        )));
    }
    Ok(input)
}

fn address(listen: &str) -> Result<SocketAddr> {
    let mut addresses = listen.to_socket_addrs().map_err(|error| {
        usage(format!(
            "--listen {listen}: {error}; it has the form HOST:PORT, as in 127.0.0.1:8000"
        ))
    })?;
    addresses
        .next()
        .ok_or_else(|| usage(format!("--listen {listen}: no such host")))
}

async fn serve(
    stage: &mut Stage,
    args: &RequestArgs,
    address: SocketAddr,
    front: Rc<Front>,
    mut output: Output,
    responses: Input,
) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen at {address}"))?;
    let local = listener.local_addr()?;
    stage.report.info(&format!("listening at http://{local}"));
    if args.output.resume {
        front.push(b"\n");
    }
    let graceful = Rc::new(GracefulShutdown::new());
    let accepting = spawn_local(accept(
        listener,
        Rc::clone(&front),
        args.http.clone(),
        Rc::clone(&graceful),
    ));
    let mut reading = spawn_local(read_responses(
        Rc::clone(&front),
        responses,
        stage.line_bytes_max,
    ));
    let path = args.output.output.clone();
    let mut writing = spawn_local({
        let front = Rc::clone(&front);
        async move { write_requests(front, &mut output, &path).await }
    });

    let signals = UnixStream::from_std(stage.signals.wake_stream()?)?;
    loop {
        front.report_to(stage)?;
        stage.show_stats(|_| front.snapshot());
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
            () = front.something_to_report() => stage.stats.touch(),
            () = sleep_until_due(due) => {}
            failed = &mut reading => return failed.context("the reader of responses ended")?,
            failed = &mut writing => return failed.context("the writer of requests ended")?,
        }
    }

    // No new calls; those that are open get their answers, within the grace.
    accepting.abort();
    let _ = accepting.await;
    let end = stage.signals.grace_end().unwrap_or_else(Instant::now);
    let finished = match Rc::try_unwrap(graceful) {
        Ok(graceful) => {
            let mut shutdown = pin!(timeout_at(end.into(), graceful.shutdown()));
            loop {
                tokio::select! {
                    finished = &mut shutdown => break finished,
                    // The reader of responses may be waiting for this.
                    () = front.something_to_report() => front.report_to(stage)?,
                }
            }
        }
        Err(_) => Ok(()),
    };
    front.report_to(stage)?;
    reading.abort();
    writing.abort();
    match (finished, stage.signals.stop()) {
        (Err(_), Some(stop)) => Err(EndedEarly::Signal(stop).into()),
        _ => Ok(()),
    }
}

async fn sleep_until_due(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Accepts connections, as many as there is room for. The others wait in the
/// kernel's queue.
async fn accept(
    listener: TcpListener,
    front: Rc<Front>,
    args: HttpArgs,
    graceful: Rc<GracefulShutdown>,
) {
    let room = Arc::new(Semaphore::new(args.max_connections as usize));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a client that has gone already. Trying
                // again at once would use up the processor.
                front.warn("accept", format!("cannot accept a connection: {error}"));
                sleep(std::time::Duration::from_millis(20)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let service_front = Rc::clone(&front);
        let service = service_fn(move |request| {
            let front = Rc::clone(&service_front);
            async move { Ok::<_, std::convert::Infallible>(call::answer(front, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(args.header_timeout)
            // `max_buf_size` alone lets a head pass that is whole in the buffer.
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        spawn_local(async move {
            // A client that goes away or sends no HTTP is its own affair.
            let _ = connection.await;
            drop(permit);
        });
    }
}

/// Hands each response to the call that waits for it.
async fn read_responses(front: Rc<Front>, mut input: Input, line_bytes_max: usize) -> Result<()> {
    let name = input.name().to_owned();
    loop {
        let mut lines = Lines::new(line_bytes_max);
        let fd = input
            .readiness()
            .with_context(|| format!("{name}: has become a file, and must be a pipe"))?;
        let pipe = pipe::Receiver::from_owned_fd(fd.try_clone_to_owned()?)
            .with_context(|| format!("{name}: is no pipe"))?;
        loop {
            pipe.readable().await?;
            match lines.fill(|room| pipe.try_read(room)) {
                Ok(0) => break,
                Ok(_) => {
                    front.pipeline_lives();
                    while let Some(line) = lines.next_line() {
                        front.arrive(&name, &line);
                        front.room_for_rejects().await;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).with_context(|| format!("{name}: cannot read")),
            }
        }
        if let Some(line) = lines.last_line() {
            front.arrive(&name, &line);
        }
        front.responses_ended();
        if name.starts_with("/proc/") || name.starts_with("/dev/") {
            // An inherited pipe has no second writer to come.
            return std::future::pending().await;
        }
        // Opened anew, the pipe waits for its next writer. A new descriptor is
        // needed in any case: to the old one the end stays the end.
        input = Input::open(&name, false)?;
    }
}

/// Writes what the calls have gathered, once for all that were ready.
async fn write_requests(front: Rc<Front>, output: &mut Output, path: &str) -> Result<()> {
    loop {
        // A reader is awaited before there is anything to write, so that calls
        // learn at once whether there is one.
        while !output.is_open()? {
            front.set_connected(false);
            output_ready(output).await?;
        }
        front.set_connected(true);
        let batch = front.take_pending().await;
        let mut written = 0;
        while written < batch.len() {
            match output.try_write(&batch[written..]) {
                Ok(0) => output_ready(output).await?,
                Ok(count) => written += count,
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                    front.requests_broken();
                    if output.name() != path {
                        // An inherited pipe has no second reader to come.
                        return std::future::pending().await;
                    }
                    *output = Output::open(path)?;
                    // What the dead reader left in the pipe may end inside a line.
                    front.push(b"\n");
                    break;
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("{path}: cannot write"));
                }
            }
        }
        front.written(batch);
    }
}

/// Waits until a write may bring something. The descriptor is registered for
/// this one wait: it is rare, and what is registered anew has no past.
async fn output_ready(output: &Output) -> Result<()> {
    let Some((fd, flags)) = output.readiness() else {
        return Ok(());
    };
    let fd = fd.try_clone_to_owned()?;
    if flags.contains(PollFlags::OUT) {
        pipe::Sender::from_owned_fd_unchecked(fd)?
            .writable()
            .await?;
    } else {
        pipe::Receiver::from_owned_fd_unchecked(fd)?
            .readable()
            .await?;
    }
    Ok(())
}
