//! Reads the responses from their pipe, notices when writers open or close it, and passes
//! each response to its call.

use std::future::pending;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe;
use tokio::time::sleep;

use crate::serve::request::http::open_calls::{OpenCalls, PIPE_CHECK_INTERVAL};
use crate::serve::request::http::reports::Reports;
use crate::stage::usage;
use crate::stream::address::Address;
use crate::stream::input::Input;
use crate::wire::lines::Lines;

/// Opens the pipe of the responses. Fails if `address` is not a pipe.
pub fn open(address: &Address) -> Result<Input> {
    // Standard input is also opened by its path: the event loop sets O_NONBLOCK, so
    // it must not share the open description with other programs.
    let input = match address {
        Address::Standard => Input::open(&Address::from("/proc/self/fd/0"), false)?,
        address => Input::open(address, false)?,
    };
    if !input.is_pipe() {
        return Err(usage(format!(
            "--responses {address}: is not a pipe; make one with `mkfifo`"
        )));
    }
    Ok(marked_without_writer(input))
}

fn marked_without_writer(input: Input) -> Input {
    // This call fails if the program may not write to the pipe. A pipe that has had no
    // writer then counts as a pipe with a writer, so calls get 504 after their time-out
    // instead of 503.
    let _ = input.mark_without_writer();
    input
}

/// Reads responses forever. After the last writer has closed the pipe, waits for the next
/// writer. Fails if the pipe cannot be read, or becomes a file.
pub async fn read(
    open_calls: Rc<OpenCalls>,
    reports: Rc<Reports>,
    mut input: Input,
    line_bytes_max: usize,
) -> Result<()> {
    let name = input.name().to_owned();
    // An inherited pipe gets no writer after the last one has closed.
    let is_inherited = matches!(Address::from(name.as_str()), Address::Inherited(_));
    if is_inherited && !input.has_writer() {
        open_calls.responses_closed();
        return pending().await;
    }
    loop {
        input = await_writer(&name, input).await?;
        open_calls.responses_opened();
        read_until_closed(&open_calls, &reports, &input, line_bytes_max).await?;
        open_calls.responses_closed();
        if is_inherited {
            return pending().await;
        }
        // If no pipe has this name, `await_writer` looks for a new pipe.
        if let Some(next) = reopen(&name)? {
            input = next;
        }
    }
}

/// Waits until the pipe has a writer, or contains bytes of an earlier writer.
async fn await_writer(name: &str, mut input: Input) -> Result<Input> {
    loop {
        // The watch begins before the check. So no writer can open the pipe unnoticed
        // between the two.
        let open_events = open_events(name);
        if input.has_writer() {
            return Ok(input);
        }
        tokio::select! {
            () = next_event(open_events) => {}
            () = sleep(PIPE_CHECK_INTERVAL) => {}
        }
        if input.is_replaced() {
            input = reopen(name)?.unwrap_or(input);
        }
    }
}

/// Opens the pipe that has this name now; returns `None` if there is no such pipe.
fn reopen(name: &str) -> Result<Option<Input>> {
    match Input::open(&Address::from(name), false) {
        Ok(next) if next.is_pipe() => Ok(Some(marked_without_writer(next))),
        Ok(_) => bail!("{name}: is a file now, and must be a pipe"),
        Err(_) => Ok(None),
    }
}

/// The open events of a pipe; `None` if the kernel has no inotify.
fn open_events(path: &str) -> Option<pipe::Receiver> {
    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    inotify::add_watch(&events, path, WatchFlags::OPEN).ok()?;
    // inotify events can be read like the bytes of a pipe.
    pipe::Receiver::from_owned_fd_unchecked(events).ok()
}

async fn next_event(events: Option<pipe::Receiver>) {
    match events {
        Some(events) => {
            let _ = events.readable().await;
        }
        None => pending().await,
    }
}

/// Reads until the last writer has closed the pipe.
async fn read_until_closed(
    open_calls: &OpenCalls,
    reports: &Reports,
    input: &Input,
    line_bytes_max: usize,
) -> Result<()> {
    let name = input.name();
    let mut lines = Lines::new(line_bytes_max);
    let not_a_pipe = || format!("{name}: is not a pipe");
    let fd = input.readiness().with_context(not_a_pipe)?;
    // Each writer gets a new receiver: after a receiver has reported the end, it
    // reports no further event.
    let pipe = pipe::Receiver::from_owned_fd(fd.try_clone_to_owned()?).with_context(not_a_pipe)?;
    loop {
        pipe.readable().await?;
        match lines.fill(|room| pipe.try_read(room)) {
            Ok(0) => lines.end_input(),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).with_context(|| format!("{name}: cannot read")),
        }
        while let Some(line) = lines.next_line() {
            open_calls.take_response(name, &line);
            reports.room_for_rejects().await;
        }
        if lines.has_ended() {
            return Ok(());
        }
    }
}
