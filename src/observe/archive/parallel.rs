//! Work on many files of an archive in several threads. The outcomes are returned in the
//! order of the files.

use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::Result;

use crate::stage::worker_pool::WorkerPool;
use crate::stage::{EndedEarly, Stage};
use crate::stream::archives::RecordedFile;

/// While no file is done, signals are checked at this interval.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// The number of threads to use: the given number, or the number of processors.
pub fn thread_count(given: Option<NonZeroU16>) -> usize {
    match given {
        Some(threads) => threads.get().into(),
        None => std::thread::available_parallelism().map_or(1, |processors| processors.get()),
    }
}

/// Runs `work` on each of `files`, and calls `take` with the outcomes in the files' order
/// until `take` returns false. A signal to stop is an error.
pub fn for_each_file<D: Send + 'static>(
    stage: &mut Stage,
    files: Vec<RecordedFile>,
    threads: usize,
    work: impl Fn(RecordedFile) -> D + Clone + Send + 'static,
    mut take: impl FnMut(&mut Stage, D) -> Result<bool>,
) -> Result<()> {
    let mut pool = WorkerPool::start("reading", threads.min(files.len()).max(1), || work.clone())?;
    let mut files = files.into_iter();
    loop {
        if let Some(stop) = stage.signals.stop() {
            return Err(EndedEarly::Signal(stop).into());
        }
        while !pool.is_full()
            && let Some(file) = files.next()
        {
            pool.submit(file)?;
        }
        if pool.is_idle() {
            return Ok(());
        }
        // A read may block for long, and the reaction to a signal must not wait
        // for it.
        let Some(outcome) = pool.wait_up_to(CHECK_EVERY)? else {
            stage.report.flush()?;
            continue;
        };
        if !take(stage, outcome)? {
            return Ok(());
        }
    }
}
