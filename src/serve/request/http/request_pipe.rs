//! Writes the requests of all calls to their pipe, and notices when readers open or close
//! it.

use std::future::pending;
use std::rc::Rc;

use anyhow::{Context, Result};
use rustix::event::PollFlags;
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::time::sleep;

use crate::serve::request::http::open_calls::{OpenCalls, PIPE_CHECK_INTERVAL};
use crate::serve::request::http::reports::Reports;
use crate::stream::address::Address;
use crate::stream::output::Output;

/// Writes requests forever. After the last reader has closed the pipe, waits for the next
/// reader. Fails if the pipe cannot be written or opened.
pub async fn write(
    open_calls: Rc<OpenCalls>,
    reports: Rc<Reports>,
    mut output: Output,
    address: Address,
) -> Result<()> {
    // An inherited pipe gets no reader after the last one has closed.
    let may_have_next_reader = output.is_named_pipe();
    loop {
        await_reader(&reports, &mut output, &address).await?;
        open_calls.requests_opened();
        write_until_closed(&open_calls, &mut output)
            .await
            .with_context(|| format!("{address}: cannot write"))?;
        open_calls.requests_closed();
        if !may_have_next_reader {
            return pending().await;
        }
        output = reopen(&address).await?;
        // The last reader may have left a torn line in the pipe.
        open_calls.requests.append_newline();
    }
}

/// Waits for a reader even if there is no request. So each call knows at once whether the
/// requests have a reader.
async fn await_reader(reports: &Reports, output: &mut Output, address: &Address) -> Result<()> {
    while !output.is_open()? {
        tokio::select! {
            ready = output_ready(output) => ready?,
            () = sleep(PIPE_CHECK_INTERVAL) => {}
        }
        if output.is_replaced() {
            // Readers open the new pipe with this name, never the old one.
            reports.warn("replaced", format!("{address}: is another pipe now"));
            let old = std::mem::replace(output, reopen(address).await?);
            old.give_up_opening();
        }
    }
    Ok(())
}

/// Opens the pipe again, as soon as a pipe with this name exists.
async fn reopen(address: &Address) -> Result<Output> {
    loop {
        match Output::open_pipe(address.as_str())? {
            Some(output) => return Ok(output),
            None => sleep(PIPE_CHECK_INTERVAL).await,
        }
    }
}

/// Writes until the last reader has closed the pipe.
async fn write_until_closed(open_calls: &OpenCalls, output: &mut Output) -> Result<()> {
    let error_watch = error_watch(output);
    loop {
        let batch = tokio::select! {
            batch = open_calls.requests.take_batch() => batch,
            () = reader_closed(error_watch.as_ref()) => return Ok(()),
        };
        let mut written = 0;
        while written < batch.len() {
            match output.try_write(&batch[written..]) {
                Ok(0) => output_ready(output).await?,
                Ok(count) => written += count,
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                    open_calls.requests.finish_batch(batch);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        open_calls.requests.finish_batch(batch);
    }
}

/// Watches the pipe for an error, even while nothing is written. Poll reports this
/// error when the last reader closes the pipe. Returns `None` if only a write can
/// detect this.
fn error_watch(output: &Output) -> Option<pipe::Receiver> {
    let (fd, _) = output.readiness()?;
    let fd = fd.try_clone_to_owned().ok()?;
    // This is the writing end, which is never readable, and poll always reports errors.
    // So only an error can wake a receiver that watches this end.
    pipe::Receiver::from_owned_fd_unchecked(fd).ok()
}

async fn reader_closed(error_watch: Option<&pipe::Receiver>) {
    let Some(error_watch) = error_watch else {
        return pending().await;
    };
    // If the watch itself fails, the next write detects whether there is a reader.
    if error_watch.ready(Interest::ERROR).await.is_err() {
        pending().await
    }
}

/// Waits until a write may succeed. The descriptor is registered only for this wait:
/// waits are rare, and a new registration has no stale readiness.
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
