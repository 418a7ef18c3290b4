//! The engine that evaluates with several threads, for large inputs. The scores keep
//! the order of the requests.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use anyhow::Result;

use crate::serve::score::engine::{Engine, Finished};
use crate::serve::score::evaluator::{Buffers, Evaluator};
use crate::serve::score::model_file::ModelFile;
use crate::stage::worker_pool::WorkerPool;
use crate::wire::lines::Line;

/// The number of bytes of lines in a job. A job is smaller if no further request is
/// ready.
const JOB_BYTES: usize = 256 * 1024;

/// Evaluates requests with several threads, a job of many lines at a time.
#[derive(Debug)]
pub struct Threads {
    model: ModelFile,
    pool: WorkerPool<Job, Job>,
    /// The lines for the next job.
    held: Lines,
    /// The buffers of finished jobs, for reuse.
    spare: Vec<(Lines, Finished)>,
}

/// The lines that one thread evaluates, and after that their scores.
#[derive(Debug)]
struct Job {
    evaluator: Arc<Evaluator>,
    lines: Lines,
    finished: Finished,
}

/// Some lines of the input.
#[derive(Debug, Default)]
struct Lines {
    /// The lines, one after the other, without their newlines.
    bytes: Vec<u8>,
    positions: Vec<LinePosition>,
}

/// The end of a line in its job, and the line's position in the input.
#[derive(Clone, Copy, Debug)]
struct LinePosition {
    end: usize,
    number: u64,
    offset: u64,
}

impl Threads {
    /// Starts the threads.
    pub fn start(model: ModelFile, threads: usize) -> Result<Threads> {
        let worker = || {
            let mut buffers = Buffers::default();
            move |job: Job| work(job, &mut buffers)
        };
        Ok(Threads {
            model,
            pool: WorkerPool::start("scoring", threads, worker)?,
            held: Lines::default(),
            spare: Vec::new(),
        })
    }

    fn is_job_full(&self) -> bool {
        self.held.bytes.len() >= JOB_BYTES
    }

    fn submit_held(&mut self) -> Result<()> {
        let (lines, finished) = self.spare.pop().unwrap_or_default();
        self.pool.submit(Job {
            evaluator: Arc::clone(self.model.evaluator()),
            lines: std::mem::replace(&mut self.held, lines),
            finished,
        })
    }
}

impl Engine for Threads {
    fn has_room(&self) -> bool {
        !self.is_job_full()
    }

    fn submit(&mut self, _record: &[u8], line: &Line, _finished: &mut Finished) -> Result<()> {
        self.held.bytes.extend_from_slice(line.bytes);
        self.held.positions.push(LinePosition {
            end: self.held.bytes.len(),
            number: line.number,
            offset: line.offset,
        });
        match self.is_job_full() {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self.held.positions.is_empty() || self.pool.is_full() {
            true => Ok(()),
            false => self.submit_held(),
        }
    }

    fn collect(&mut self, finished: &mut Finished) -> Result<bool> {
        let Some(mut job) = self.pool.next_if_done()? else {
            return Ok(false);
        };
        finished.append(&mut job.finished);
        // Buffers that a long line has made large are freed and not reused.
        let is_large = job.lines.bytes.capacity() > 4 * JOB_BYTES
            || job.finished.scores.capacity() > 16 * JOB_BYTES;
        if !is_large {
            job.lines.bytes.clear();
            job.lines.positions.clear();
            self.spare.push((job.lines, job.finished));
        }
        if self.is_job_full() {
            self.flush()?;
        }
        Ok(true)
    }

    fn is_idle(&self) -> bool {
        self.held.positions.is_empty() && self.pool.is_idle()
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.pool.readiness()]
    }

    fn reload(&mut self) -> Result<String> {
        self.model.reload()
    }
}

/// Scores the lines of a job.
fn work(mut job: Job, buffers: &mut Buffers) -> Job {
    let mut start = 0;
    for position in &job.lines.positions {
        let line = Line {
            bytes: &job.lines.bytes[start..position.end],
            number: position.number,
            offset: position.offset,
            oversized: None,
        };
        start = position.end;
        let record = line.head();
        let scores = &mut job.finished.scores;
        let outcome = job.evaluator.score(buffers, record, scores);
        job.finished.count(&line, outcome);
    }
    job
}
