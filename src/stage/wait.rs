//! The one place where a stage waits: for its streams, its signals and the time.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::stage::signals::Signals;
use crate::stage::{EndedEarly, Stage};
use crate::stream::output::Output;

/// Waits until one of `streams` is ready, a signal comes, or it is `until`. Says
/// for each stream whether it is ready; at an end or an error it is, so that the
/// next read or write tells.
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
    let timeout = until.map(|until| {
        let left = until.saturating_duration_since(Instant::now());
        Timespec {
            tv_sec: left.as_secs().min(1 << 30) as i64,
            tv_nsec: left.subsec_nanos().into(),
        }
    });
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

impl Stage {
    /// Writes all of `bytes` and empties it. Waits for the reader as long as it
    /// takes, but after a signal to stop only to the end of the grace.
    pub fn write_all(&mut self, output: &mut Output, bytes: &mut Vec<u8>) -> Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            match output.try_write(&bytes[written..]) {
                Ok(0) => self.wait_for_output(output)?,
                Ok(count) => written += count,
                Err(error) => return Err(output_error(output, error)),
            }
        }
        bytes.clear();
        // One long line must not cost its memory for ever.
        bytes.shrink_to(1 << 20);
        Ok(())
    }

    /// Ends the output: a named pipe has had its reader, a file is on the disk.
    pub fn close(&mut self, output: &mut Output) -> Result<()> {
        // A reader that comes later would wait for ever for a first writer.
        while !output
            .is_open()
            .map_err(|error| output_error(output, error))?
        {
            self.wait_for_output(output)?;
        }
        output.sync().map_err(|error| output_error(output, error))?;
        output.close();
        Ok(())
    }

    /// Waits until a write may bring something, but after a signal to stop only to
    /// the end of the grace.
    pub fn wait_for_output(&mut self, output: &Output) -> Result<()> {
        if let Some(stop) = self.signals.out_of_time() {
            return Err(EndedEarly::Signal(stop).into());
        }
        let until = self.signals.grace_end();
        if let Some(stream) = output.readiness() {
            wait(&[stream], &mut self.signals, until)?;
        }
        Ok(())
    }
}

/// A failed write as an error that names its place; a reader that has gone is no
/// failure.
pub fn output_error(output: &Output, error: std::io::Error) -> anyhow::Error {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        EndedEarly::DownstreamClosed.into()
    } else {
        anyhow::Error::new(error).context(format!("{}: cannot write", output.name()))
    }
}
