//! Worker threads for the jobs of one thread. Their outcomes are returned in the order of
//! the jobs.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use crossbeam_channel::Sender;
use rustix::event::{EventfdFlags, eventfd};

/// The number of pending jobs per thread: enough that no thread waits for its next job.
const JOBS_PER_THREAD: usize = 3;

/// Threads that all do the same work. The number of pending jobs is bounded: if
/// [`is_full`](WorkerPool::is_full), take an outcome before you submit the next job.
#[derive(Debug)]
pub struct WorkerPool<J, D> {
    jobs: Sender<(J, mpsc::SyncSender<D>)>,
    /// The outcomes that have not been taken yet, in the order of their jobs.
    pending: VecDeque<mpsc::Receiver<D>>,
    pending_max: usize,
    /// An eventfd that each job makes readable when the job ends.
    ended: Arc<OwnedFd>,
}

impl<J: Send + 'static, D: Send + 'static> WorkerPool<J, D> {
    /// Starts `threads` threads. `worker` makes a function for each thread. The threads
    /// end when the pool is dropped.
    pub fn start<W>(name: &str, threads: usize, worker: impl Fn() -> W) -> Result<WorkerPool<J, D>>
    where
        W: FnMut(J) -> D + Send + 'static,
    {
        let (jobs, queue) = crossbeam_channel::unbounded::<(J, mpsc::SyncSender<D>)>();
        let ended = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        let ended = Arc::new(ended.context("cannot make an eventfd")?);
        for _ in 0..threads {
            let (queue, ended, mut work) = (queue.clone(), Arc::clone(&ended), worker());
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || {
                    for received in queue {
                        // `_notify` is declared first, so it is dropped last, even on a
                        // panic. By then the outcome has been sent, or its channel is
                        // closed.
                        let _notify = NotifyOnDrop(&ended);
                        let (job, outcome) = received;
                        // The receiver is dropped if the program is about to end.
                        let _ = outcome.send(work(job));
                    }
                })
                .context("cannot start a thread")?;
        }
        Ok(WorkerPool {
            jobs,
            pending: VecDeque::new(),
            pending_max: threads * JOBS_PER_THREAD,
            ended,
        })
    }

    /// Whether an outcome must be taken before the next job.
    pub fn is_full(&self) -> bool {
        self.pending.len() >= self.pending_max
    }

    /// Whether all outcomes have been taken.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Submits a job.
    pub fn submit(&mut self, job: J) -> Result<()> {
        let (sender, outcome) = mpsc::sync_channel(1);
        let sent = self.jobs.send((job, sender));
        sent.map_err(|_| anyhow!("all threads have ended"))?;
        self.pending.push_back(outcome);
        Ok(())
    }

    /// Waits for the outcome of the oldest job; `None` if no job is pending.
    pub fn wait_for_next(&mut self) -> Result<Option<D>> {
        let Some(oldest) = self.pending.pop_front() else {
            return Ok(None);
        };
        let outcome = oldest.recv().map_err(|_| anyhow!("a thread panicked"))?;
        Ok(Some(outcome))
    }

    /// Waits up to `patience` for the outcome of the oldest job; `None` if no job is
    /// pending or the job has not ended by then.
    pub fn wait_up_to(&mut self, patience: Duration) -> Result<Option<D>> {
        let Some(oldest) = self.pending.front() else {
            return Ok(None);
        };
        let outcome = match oldest.recv_timeout(patience) {
            Ok(outcome) => outcome,
            Err(mpsc::RecvTimeoutError::Timeout) => return Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(anyhow!("a thread panicked")),
        };
        self.pending.pop_front();
        Ok(Some(outcome))
    }

    /// The outcome of the oldest job; `None` if no job is pending or the job has not
    /// ended.
    pub fn next_if_done(&mut self) -> Result<Option<D>> {
        if let Some(outcome) = self.try_next()? {
            return Ok(Some(outcome));
        }
        // Check again after the reset: a job that ends after the reset makes the
        // eventfd readable again.
        let _ = rustix::io::read(&*self.ended, &mut [0; 8]);
        self.try_next()
    }

    fn try_next(&mut self) -> Result<Option<D>> {
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

    /// A descriptor that becomes readable when a job ends after
    /// [`next_if_done`](WorkerPool::next_if_done) has returned `None`.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}

/// Makes an eventfd readable when it is dropped.
struct NotifyOnDrop<'a>(&'a OwnedFd);

impl Drop for NotifyOnDrop<'_> {
    fn drop(&mut self) {
        // If the counter is full, it is already readable.
        let _ = rustix::io::write(self.0, &1u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    /// Waits until the pool is readable, for a limited time.
    fn wait_until_readable<J: Send + 'static, D: Send + 'static>(pool: &WorkerPool<J, D>) {
        let readiness = pool.readiness();
        let mut fds = [PollFd::from_borrowed_fd(readiness, PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: 30,
            tv_nsec: 0,
        };
        assert_eq!(poll(&mut fds, Some(&timeout)), Ok(1));
    }

    #[test]
    fn outcomes_return_in_the_order_of_their_jobs_and_are_bounded() {
        let mut pool = WorkerPool::start("test", 3, || |number: u64| number * 2).unwrap();
        let mut taken = Vec::new();
        for number in 0..1000 {
            if pool.is_full() {
                taken.extend(pool.wait_for_next().unwrap());
            }
            pool.submit(number).unwrap();
            assert!(pool.pending.len() <= 3 * JOBS_PER_THREAD);
            taken.extend(pool.next_if_done().unwrap());
        }
        while let Some(outcome) = pool.wait_for_next().unwrap() {
            taken.push(outcome);
        }
        assert!(taken.iter().copied().eq((0..1000).map(|number| number * 2)));
        assert_eq!(pool.next_if_done().unwrap(), None);
        assert!(pool.is_idle());
    }

    #[test]
    fn a_pool_becomes_readable_when_the_missing_outcome_is_ready() {
        let mut pool = WorkerPool::start("test", 3, || |number: u64| number * 2).unwrap();
        for round in 0..2000 {
            for number in 0..3 {
                pool.submit(round * 3 + number).unwrap();
            }
            for number in 0..3 {
                let outcome = loop {
                    match pool.next_if_done().unwrap() {
                        Some(outcome) => break outcome,
                        None => wait_until_readable(&pool),
                    }
                };
                assert_eq!(outcome, (round * 3 + number) * 2);
            }
        }
    }

    #[test]
    fn a_job_that_panics_is_an_error() {
        let mut pool = WorkerPool::start("test", 1, || |divisor: u32| 12 / divisor).unwrap();
        pool.submit(0).unwrap();
        wait_until_readable(&pool);
        assert!(pool.next_if_done().is_err());
        // Its thread has ended, so the next job has no outcome.
        let submitted = pool.submit(1);
        assert!(submitted.is_err() || pool.wait_for_next().is_err());
    }
}
