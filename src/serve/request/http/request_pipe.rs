//! The requests of all calls -> the pipeline.

use std::future::pending;
use std::rc::Rc;

use anyhow::{Context, Result};
use rustix::event::PollFlags;
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::time::sleep;

use crate::serve::request::http::front::Front;
use crate::serve::request::http::response_pipe::LOOK_EVERY;
use crate::stream::address::Address;
use crate::stream::output::Output;

/// Writes what the calls have gathered, once for all that were ready.
pub async fn write(front: Rc<Front>, mut output: Output, path: &Address) -> Result<()> {
    // An inherited pipe has no second reader to come.
    let has_successors = output.is_named_pipe();
    loop {
        await_reader(&front, &mut output, path).await?;
        front.requests_begin();
        write_to_end(&front, &mut output)
            .await
            .with_context(|| format!("{path}: cannot write"))?;
        front.requests_end();
        if !has_successors {
            return pending().await;
        }
        output = reopen(path).await?;
        // What the dead reader left in the pipe may end inside a line.
        front.push(b"\n");
    }
}

/// A reader is awaited before there is anything to write, so that calls learn at
/// once whether there is one.
async fn await_reader(front: &Front, output: &mut Output, path: &Address) -> Result<()> {
    while !output.is_open()? {
        tokio::select! {
            ready = output_ready(output) => ready?,
            () = sleep(LOOK_EVERY) => {}
        }
        if output.is_replaced() {
            // Readers come to the new pipe of the name, never to the old one.
            front.warn("replaced", format!("{path}: is another pipe now"));
            let old = std::mem::replace(output, reopen(path).await?);
            old.give_up_opening();
        }
    }
    Ok(())
}

/// Opens the pipe anew, as soon as there is one of the name.
async fn reopen(path: &Address) -> Result<Output> {
    loop {
        match Output::open_pipe(path.as_str())? {
            Some(output) => return Ok(output),
            None => sleep(LOOK_EVERY).await,
        }
    }
}

/// Writes until the last reader has closed.
async fn write_to_end(front: &Front, output: &mut Output) -> Result<()> {
    let watch = watch(output);
    loop {
        let batch = tokio::select! {
            batch = front.take_pending() => batch,
            () = reader_gone(watch.as_ref()) => return Ok(()),
        };
        let mut written = 0;
        while written < batch.len() {
            match output.try_write(&batch[written..]) {
                Ok(0) => output_ready(output).await?,
                Ok(count) => written += count,
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                    front.written(batch);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        front.written(batch);
    }
}

/// Shows when the reader goes, also while there is nothing to write; `None` where
/// only a write tells.
fn watch(output: &Output) -> Option<pipe::Receiver> {
    let (fd, _) = output.readiness()?;
    let fd = fd.try_clone_to_owned().ok()?;
    // A writing end is never readable, so this wakes for errors alone, which are
    // always shown.
    pipe::Receiver::from_owned_fd_unchecked(fd).ok()
}

async fn reader_gone(watch: Option<&pipe::Receiver>) {
    let Some(watch) = watch else {
        return pending().await;
    };
    // An error of the wait itself: the next write tells.
    if watch.ready(Interest::ERROR).await.is_err() {
        pending().await
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
