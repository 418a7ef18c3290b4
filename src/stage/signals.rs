//! What a program is asked to do from outside.
//!
//! A signal sets a flag and makes a descriptor readable, which every wait of a
//! stage includes. So no signal is lost between a check and a wait.

use std::fmt;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level};

/// How a program is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT reaches all stages of a pipeline: sources stop, the others drain.
    Interrupt,
    /// SIGTERM is meant for this stage: it makes room for a successor.
    Terminate,
}

impl Stop {
    /// The exit status of a program that the signal cut short.
    pub fn exit_status(self) -> u8 {
        match self {
            Stop::Interrupt => 130,
            Stop::Terminate => 143,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Stop::Interrupt => "SIGINT",
            Stop::Terminate => "SIGTERM",
        })
    }
}

/// The signals that have come so far.
#[derive(Debug)]
pub struct Signals {
    wake: UnixStream,
    interrupt: Arc<AtomicBool>,
    terminate: Arc<AtomicBool>,
    hangup: Arc<AtomicBool>,
    usr1: Arc<AtomicBool>,
    grace: Duration,
    /// When the first signal to stop was seen.
    stop: Option<(Stop, Instant)>,
}

impl Signals {
    /// Takes over SIGINT, SIGTERM, SIGHUP and SIGUSR1. A second SIGINT ends the
    /// program at once. A second SIGTERM changes nothing: `timeout` and supervisors
    /// send it twice.
    pub fn new(grace: Duration) -> Result<Signals> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let new_flag = || Arc::new(AtomicBool::new(false));
        let (interrupt, terminate) = (new_flag(), new_flag());
        let (hangup, usr1) = (new_flag(), new_flag());
        // Actions run in the order in which they are registered: the first SIGINT
        // finds `interrupt` unset, and the second ends the program.
        let status = i32::from(Stop::Interrupt.exit_status());
        flag::register_conditional_shutdown(SIGINT, status, Arc::clone(&interrupt))?;
        for (signal, seen) in [
            (SIGINT, &interrupt),
            (SIGTERM, &terminate),
            (SIGHUP, &hangup),
            (SIGUSR1, &usr1),
        ] {
            flag::register(signal, Arc::clone(seen))?;
            low_level::pipe::register(signal, waker.try_clone()?)?;
        }
        Ok(Signals {
            wake,
            interrupt,
            terminate,
            hangup,
            usr1,
            grace,
            stop: None,
        })
    }

    /// Readable when a signal has come that was not looked at yet.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// A second descriptor for the same, for a reactor that wants to own one.
    pub fn wake_stream(&self) -> Result<UnixStream> {
        Ok(self.wake.try_clone()?)
    }

    /// Makes [`readiness`](Signals::readiness) quiet until the next signal. The
    /// flags stay up until they are taken.
    pub fn acknowledge(&mut self) {
        let mut bytes = [0; 64];
        while (&self.wake).read(&mut bytes).is_ok_and(|count| count > 0) {}
    }

    /// Whether the program was told to end, and how.
    pub fn stop(&mut self) -> Option<Stop> {
        if self.stop.is_none() {
            let now = Instant::now();
            if self.terminate.load(Ordering::Relaxed) {
                self.stop = Some((Stop::Terminate, now));
            } else if self.interrupt.load(Ordering::Relaxed) {
                self.stop = Some((Stop::Interrupt, now));
            }
        }
        self.stop.map(|(stop, _)| stop)
    }

    /// When a program that was told to end has to be done.
    pub fn grace_end(&mut self) -> Option<Instant> {
        self.stop();
        self.stop.map(|(_, since)| since + self.grace)
    }

    /// The signal that left no more time, if so.
    pub fn out_of_time(&mut self) -> Option<Stop> {
        let end = self.grace_end()?;
        (Instant::now() >= end).then(|| self.stop()).flatten()
    }

    /// Whether SIGHUP has come since the last call.
    pub fn take_hangup(&self) -> bool {
        self.hangup.swap(false, Ordering::Relaxed)
    }

    /// Whether SIGUSR1 has come since the last call.
    pub fn take_print_stats(&self) -> bool {
        self.usr1.swap(false, Ordering::Relaxed)
    }
}
