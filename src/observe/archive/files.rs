//! Work on many files of an archive by several threads, its outcomes in order.

use std::time::Duration;

use anyhow::Result;

use crate::stage::worker_pool::WorkerPool;
use crate::stage::{EndedEarly, Stage};
use crate::stream::archives::RecordedFile;

/// How soon a signal is seen while no file is done.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Has `work` done on each of `files`, and shows what came of it to `take`, in
/// their order, until that says that it has enough.
pub fn each_in_order<D: Send + 'static>(
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
        // A disk may take as long as it likes: a signal does not wait for it.
        let Some(outcome) = pool.wait_up_to(LOOK_EVERY)? else {
            stage.report.flush()?;
            continue;
        };
        if !take(stage, outcome)? {
            return Ok(());
        }
    }
}
