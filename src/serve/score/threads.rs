//! requests -> scores by several threads, in the order of the requests.

use std::sync::Arc;

use anyhow::Result;

use crate::serve::score::evaluator::{Evaluator, Scratch};
use crate::stage::worker_pool::WorkerPool;
use crate::wire::lines::{KeptLine, Line};
use crate::wire::micros::Micros;

/// How many bytes of lines make a job, unless the input has no more to give.
const JOB_BYTES: usize = 256 * 1024;

/// Lines for one thread.
#[derive(Debug)]
struct Job {
    evaluator: Arc<Evaluator>,
    /// All lines, one behind the other.
    text: Vec<u8>,
    lines: Vec<Place>,
    /// Empty, and as long as its last use has made it.
    out: Vec<u8>,
}

/// A line of a job.
#[derive(Clone, Copy, Debug)]
struct Place {
    end: usize,
    number: u64,
    offset: u64,
}

/// What came of a job.
#[derive(Debug, Default)]
pub struct Done {
    /// The scores.
    pub out: Vec<u8>,
    /// How many are results.
    pub scored: u64,
    /// How many are errors.
    pub errors: u64,
    /// How long each evaluation took.
    pub evaluations: Vec<Micros>,
    /// The lines that are no requests, and why.
    pub rejects: Vec<(KeptLine, String)>,
    text: Vec<u8>,
    lines: Vec<Place>,
}

/// Threads that score.
#[derive(Debug)]
pub struct Crowd {
    crew: WorkerPool<Job, Done>,
    text: Vec<u8>,
    lines: Vec<Place>,
    /// What finished jobs have left, to be used again.
    spare: Vec<Done>,
}

impl Crowd {
    /// Starts so many threads.
    pub fn start(threads: usize) -> Result<Crowd> {
        let worker = || {
            let mut scratch = Scratch::default();
            move |job: Job| work(job, &mut scratch)
        };
        Ok(Crowd {
            crew: WorkerPool::start("scoring", threads, worker)?,
            text: Vec::new(),
            lines: Vec::new(),
            spare: Vec::new(),
        })
    }

    /// Takes a line, as a parser wants it. Where a job is to be waited for first,
    /// its outcome comes back.
    pub fn take(
        &mut self,
        evaluator: &Arc<Evaluator>,
        record: &[u8],
        line: &Line,
    ) -> Result<Option<Done>> {
        self.text.extend_from_slice(record);
        self.lines.push(Place {
            end: self.text.len(),
            number: line.number,
            offset: line.offset,
        });
        if self.text.len() < JOB_BYTES {
            return Ok(None);
        }
        let done = match self.crew.is_full() {
            true => self.crew.wait_for_next()?,
            false => None,
        };
        self.submit(evaluator)?;
        Ok(done)
    }

    /// Hands over the lines that were taken, though they are few.
    pub fn submit(&mut self, evaluator: &Arc<Evaluator>) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let spare = self.spare.pop().unwrap_or_default();
        self.crew.submit(Job {
            evaluator: Arc::clone(evaluator),
            text: std::mem::replace(&mut self.text, spare.text),
            lines: std::mem::replace(&mut self.lines, spare.lines),
            out: spare.out,
        })
    }

    /// What came of the oldest job, for which this waits; `None` where nothing is
    /// at work.
    pub fn wait_for_next(&mut self) -> Result<Option<Done>> {
        self.crew.wait_for_next()
    }

    /// What came of the oldest job, if it is done.
    pub fn next_if_done(&mut self) -> Result<Option<Done>> {
        self.crew.next_if_done()
    }

    /// Takes back what was made use of.
    pub fn give_back(&mut self, mut done: Done) {
        // One long line must not cost its memory for ever.
        if done.text.capacity() > 4 * JOB_BYTES || done.out.capacity() > 16 * JOB_BYTES {
            return;
        }
        done.text.clear();
        done.lines.clear();
        done.out.clear();
        self.spare.push(done);
    }
}

fn work(job: Job, scratch: &mut Scratch) -> Done {
    let mut done = Done {
        out: job.out,
        ..Done::default()
    };
    let mut start = 0;
    for place in &job.lines {
        let record = &job.text[start..place.end];
        start = place.end;
        match job.evaluator.score(scratch, record, &mut done.out) {
            Ok(scored) => {
                done.errors += u64::from(scored.failed);
                done.scored += u64::from(!scored.failed);
                done.evaluations.push(scored.evaluation);
            }
            Err(reason) => {
                let line = Line {
                    bytes: record,
                    number: place.number,
                    offset: place.offset,
                    oversized: None,
                };
                done.rejects.push((KeptLine::from(&line), reason));
            }
        }
    }
    done.text = job.text;
    done.lines = job.lines;
    done
}
