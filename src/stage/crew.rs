//! Threads that work on what one thread reads, and their outcomes in its order.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use crossbeam_channel::Sender;

/// How many jobs a thread has before it, so that none waits for its next one.
const JOBS_PER_THREAD: usize = 3;

/// Some threads with one kind of work. What they hold is bounded: whoever submits
/// takes outcomes where [`is_full`](Crew::is_full) says so.
#[derive(Debug)]
pub struct Crew<J, D> {
    jobs: Sender<(J, mpsc::SyncSender<D>)>,
    /// The outcomes that were not taken yet, in the order of their jobs.
    pending: VecDeque<mpsc::Receiver<D>>,
    pending_max: usize,
}

impl<J: Send + 'static, D: Send + 'static> Crew<J, D> {
    /// Starts `threads` threads; each works with a function that `worker` makes.
    /// They end when the crew is dropped.
    pub fn start<W>(name: &str, threads: usize, worker: impl Fn() -> W) -> Result<Crew<J, D>>
    where
        W: FnMut(J) -> D + Send + 'static,
    {
        let (jobs, queue) = crossbeam_channel::unbounded::<(J, mpsc::SyncSender<D>)>();
        for _ in 0..threads {
            let (queue, mut work) = (queue.clone(), worker());
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || {
                    for (job, done) in queue {
                        // Nobody listens where the program is about to end.
                        let _ = done.send(work(job));
                    }
                })
                .context("cannot start a thread")?;
        }
        Ok(Crew {
            jobs,
            pending: VecDeque::new(),
            pending_max: threads * JOBS_PER_THREAD,
        })
    }

    /// Whether an outcome is to be taken before the next job.
    pub fn is_full(&self) -> bool {
        self.pending.len() >= self.pending_max
    }

    /// Hands over a job.
    pub fn submit(&mut self, job: J) -> Result<()> {
        let (done, outcome) = mpsc::sync_channel(1);
        let sent = self.jobs.send((job, done));
        sent.map_err(|_| anyhow!("all threads have ended"))?;
        self.pending.push_back(outcome);
        Ok(())
    }

    /// The outcome of the oldest job, for which this waits; `None` where there is
    /// no job.
    pub fn wait_for_next(&mut self) -> Result<Option<D>> {
        let Some(oldest) = self.pending.pop_front() else {
            return Ok(None);
        };
        let outcome = oldest.recv().map_err(|_| anyhow!("a thread panicked"))?;
        Ok(Some(outcome))
    }

    /// The outcome of the oldest job, if it is there.
    pub fn next_if_done(&mut self) -> Result<Option<D>> {
        let outcome = match self.pending.front().map(mpsc::Receiver::try_recv) {
            Some(Ok(outcome)) => outcome,
            Some(Err(mpsc::TryRecvError::Disconnected)) => {
                return Err(anyhow!("a thread panicked"));
            }
            Some(Err(mpsc::TryRecvError::Empty)) | None => return Ok(None),
        };
        self.pending.pop_front();
        Ok(Some(outcome))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::limit::in_time;

    #[test]
    fn outcomes_come_in_the_order_of_their_jobs_and_are_bounded() {
        in_time(outcomes_come_in_order);
    }

    fn outcomes_come_in_order() {
        let mut crew = Crew::start("test", 3, || |number: u64| number * 2).unwrap();
        let mut taken = Vec::new();
        for number in 0..1000 {
            if crew.is_full() {
                taken.extend(crew.wait_for_next().unwrap());
            }
            crew.submit(number).unwrap();
            assert!(crew.pending.len() <= 3 * JOBS_PER_THREAD);
            taken.extend(crew.next_if_done().unwrap());
        }
        while let Some(outcome) = crew.wait_for_next().unwrap() {
            taken.push(outcome);
        }
        assert!(taken.iter().copied().eq((0..1000).map(|number| number * 2)));
        assert_eq!(crew.next_if_done().unwrap(), None);
    }

    #[test]
    fn a_job_that_panics_is_an_error() {
        in_time(a_job_panics);
    }

    fn a_job_panics() {
        let mut crew = Crew::start("test", 1, || |divisor: u32| 12 / divisor).unwrap();
        crew.submit(0).unwrap();
        assert!(crew.wait_for_next().is_err());
        // Its thread is gone; the next job's outcome never comes.
        let submitted = crew.submit(1);
        assert!(submitted.is_err() || crew.wait_for_next().is_err());
    }
}
