//! Waits of a stage for a time or for work in a thread. During a wait the stage handles
//! signals and updates its stats.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use rustix::event::PollFlags;

use crate::stage::context::Stage;
use crate::stage::exit::EndedEarly;
use crate::stage::filter::Filter;
use crate::stage::wait::wait;

/// Work in a thread.
#[derive(Debug)]
pub struct Task<T> {
    work: JoinHandle<T>,
    /// The thread holds the other end, which is closed when the work ends or panics.
    done: UnixStream,
}

impl<T: Send + 'static> Task<T> {
    /// Starts `work`.
    pub fn spawn(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<Task<T>> {
        let (done, held) = UnixStream::pair().context("cannot start a thread")?;
        done.set_nonblocking(true)
            .context("cannot start a thread")?;
        let work = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _held = held;
                work()
            })
            .context("cannot start a thread")?;
        Ok(Task { work, done })
    }

    /// Whether [`join`](Task::join) would return without a wait.
    pub fn is_done(&self) -> bool {
        // The stream is closed shortly before the thread counts as finished.
        self.work.is_finished() || matches!((&self.done).read(&mut [0]), Ok(0))
    }

    /// A descriptor that becomes readable when the work is done.
    pub fn done(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }

    /// Waits until the work ends, and returns its outcome. Returns an error if the work
    /// panicked.
    pub fn join(self) -> Result<T> {
        self.work.join().map_err(|_| anyhow!("a thread panicked"))
    }

    /// Waits until the work is done. After a signal to stop, it waits only until the
    /// grace period ends; the thread then ends with the process.
    pub fn wait(&self, stage: &mut Stage, filter: &impl Filter) -> Result<()> {
        while !self.is_done() {
            wait_once(stage, filter, &[self.done()], None)?;
        }
        Ok(())
    }
}

/// Waits until `until`. Returns an error if the grace period ends first.
pub fn pause(stage: &mut Stage, filter: &impl Filter, until: Instant) -> Result<()> {
    while Instant::now() < until {
        wait_once(stage, filter, &[], Some(until))?;
    }
    Ok(())
}

/// Waits for the first of: a readable stream, `until`, a signal, an update of the stats.
/// Returns an error if the grace period is over.
pub fn wait_once(
    stage: &mut Stage,
    filter: &impl Filter,
    streams: &[BorrowedFd<'_>],
    until: Option<Instant>,
) -> Result<()> {
    if let Some(stop) = stage.signals.out_of_time() {
        return Err(EndedEarly::Signal(stop).into());
    }
    stage.report.flush()?;
    stage.show_stats(|stage| filter.snapshot(stage));
    let times = [until, stage.stats.due(), stage.signals.grace_end()];
    let first = times.into_iter().flatten().min();
    let streams: Vec<_> = streams.iter().map(|fd| (*fd, PollFlags::IN)).collect();
    wait(&streams, &mut stage.signals, first)?;
    Ok(())
}
