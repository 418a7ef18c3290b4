//! responses -> the calls that wait for them.

use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe;
use tokio::time::sleep;

use crate::serve::request::http::front::Front;
use crate::stage::usage;
use crate::stream::address::Address;
use crate::stream::input::Input;
use crate::wire::lines::Lines;

/// How often a pipe that nobody writes is looked for under its name, where another
/// may have been put.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Opens the responses.
pub fn open(address: &Address) -> Result<Input> {
    // Standard input too is opened by its path: the event loop needs a
    // description that it may make non-blocking.
    let input = match address {
        Address::Standard => Input::open(&Address::from("/proc/self/fd/0"), false)?,
        address => Input::open(address, false)?,
    };
    if !input.is_pipe() {
        return Err(usage(format!(
            "--responses {address}: is no pipe; name one that `mkfifo` has made"
        )));
    }
    Ok(marked_without_writer(input))
}

fn marked_without_writer(input: Input) -> Input {
    // If the program may not write to the pipe, a pipe without a writer looks as if it
    // had one: calls wait until their time-out instead of being refused.
    let _ = input.mark_without_writer();
    input
}

/// Hands each response to the call that waits for it.
pub async fn read(front: Rc<Front>, mut input: Input, line_bytes_max: usize) -> Result<()> {
    let name = input.name().to_owned();
    // An inherited pipe has no second writer to come.
    let is_inherited = matches!(Address::from(name.as_str()), Address::Inherited(_));
    if is_inherited && !input.has_writer() {
        front.responses_end();
        return pending().await;
    }
    loop {
        input = await_writer(&name, input).await?;
        front.responses_begin();
        read_to_end(&front, &input, &name, line_bytes_max).await?;
        front.responses_end();
        if is_inherited {
            return pending().await;
        }
        // Where nothing bears the name now, a pipe may come.
        if let Some(next) = open_again(&name)? {
            input = next;
        }
    }
}

/// Resolves when the pipe has a writer, or had one that left something to read.
async fn await_writer(name: &str, mut input: Input) -> Result<Input> {
    loop {
        // Watched first, so that no opening is missed.
        let opened = watch(name);
        if input.has_writer() {
            return Ok(input);
        }
        tokio::select! {
            () = next_event(opened) => {}
            () = sleep(LOOK_EVERY) => {}
        }
        if input.is_replaced() {
            input = open_again(name)?.unwrap_or(input);
        }
    }
}

/// What bears the name now; `None` where nothing does.
fn open_again(name: &str) -> Result<Option<Input>> {
    match Input::open(&Address::from(name), false) {
        Ok(next) if next.is_pipe() => Ok(Some(marked_without_writer(next))),
        Ok(_) => bail!("{name}: has become a file, and must be a pipe"),
        Err(_) => Ok(None),
    }
}

/// Tells when a pipe is opened; `None` where the kernel cannot.
fn watch(path: &str) -> Option<pipe::Receiver> {
    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    inotify::add_watch(&events, path, WatchFlags::OPEN).ok()?;
    // Events are read as from a pipe.
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

/// Reads until the last writer has closed.
async fn read_to_end(
    front: &Front,
    input: &Input,
    name: &str,
    line_bytes_max: usize,
) -> Result<()> {
    let mut lines = Lines::new(line_bytes_max);
    let fd = input
        .readiness()
        .with_context(|| format!("{name}: is no pipe"))?;
    // A descriptor of its own for each writer: to the old one the end stays the end.
    let pipe = pipe::Receiver::from_owned_fd(fd.try_clone_to_owned()?)
        .with_context(|| format!("{name}: is no pipe"))?;
    loop {
        pipe.readable().await?;
        match lines.fill(|room| pipe.try_read(room)) {
            Ok(0) => break,
            Ok(_) => {
                while let Some(line) = lines.next_line() {
                    front.arrive(name, &line);
                    front.room_for_rejects().await;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).with_context(|| format!("{name}: cannot read")),
        }
    }
    if let Some(line) = lines.last_line() {
        front.arrive(name, &line);
    }
    Ok(())
}
