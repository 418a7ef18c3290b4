//! The only function in which a stage waits for its streams, its signals and the time.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::stage::clock::time_left;
use crate::stage::exit::EndedEarly;
use crate::stage::signals::Signals;
use crate::stream::output::Output;

/// Waits until one of `streams` is ready, a signal arrives, or the time is `until`.
/// Returns for each stream whether it is ready. A stream that has ended or failed is
/// ready, too: the next read or write returns the end or the error.
pub fn wait(
    streams: &[(BorrowedFd<'_>, PollFlags)],
    signals: &mut Signals,
    until: Option<Instant>,
) -> Result<Vec<bool>> {
    let mut fds: Vec<PollFd> = Vec::with_capacity(streams.len() + 1);
    for (fd, flags) in streams {
        fds.push(PollFd::from_borrowed_fd(*fd, *flags));
    }
    let wake = signals.readiness();
    fds.push(PollFd::from_borrowed_fd(wake, PollFlags::IN));
    let timeout = until.map(time_left);
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno).context("cannot wait for input"),
    }
    let ready = fds[..streams.len()]
        .iter()
        .map(|fd| !fd.revents().is_empty())
        .collect();
    if !fds[streams.len()].revents().is_empty() {
        signals.acknowledge();
    }
    Ok(ready)
}

/// The error for a failed write, with the name of the output. A closed reader is
/// [`EndedEarly::DownstreamClosed`].
pub fn output_error(output: &Output, error: std::io::Error) -> anyhow::Error {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        EndedEarly::DownstreamClosed.into()
    } else {
        anyhow::Error::new(error).context(format!("{}: cannot write", output.name()))
    }
}
