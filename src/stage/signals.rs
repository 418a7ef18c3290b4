//! The signals that a program handles.
//!
//! A signal sets a flag and makes a descriptor readable. Every wait of a stage includes
//! that descriptor, so no signal is lost between a check and a wait. If a stage neither
//! waits nor checks, its `watchdog` ends the program.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{SigId, flag, low_level};

use crate::stage::cli::LogFormat;
use crate::stage::exit::{EndedEarly, Stop};
use crate::stage::watchdog::{SignalFlags, Watchdog};

/// The signals that were received so far.
#[derive(Debug)]
pub struct Signals {
    wake: UnixStream,
    shared: Arc<SignalFlags>,
    usr1: Arc<AtomicBool>,
    grace: Duration,
    /// Whether the stage checks for signals itself. Until then a signal to stop ends
    /// the program at once.
    handles_signals: bool,
    /// The signal to stop, and the time at which the stage first saw one.
    stop: Option<(Stop, Instant)>,
    handlers: Vec<SigId>,
}

impl Signals {
    /// Handles SIGINT, SIGTERM, SIGHUP and SIGUSR1. Until the stage first calls
    /// [`stop`](Signals::stop), a signal to stop ends the program at once: no input
    /// has been read, so none can be lost. After that call, the stage has `grace` to
    /// finish. A second SIGTERM has no effect; a second SIGINT ends the grace period.
    /// The watchdog uses `program` and `format` for its message.
    pub fn new(program: &'static str, format: LogFormat, grace: Duration) -> Result<Signals> {
        let (wake, waker) = pair()?;
        let (interrupts, of_interrupts) = pair()?;
        let (others, of_others) = pair()?;
        let shared = Arc::new(SignalFlags::default());
        let usr1 = Arc::new(AtomicBool::new(false));
        let mut handlers = Vec::new();
        // SIGHUP wakes only the watchdog. The watchdog limits the rate of SIGHUPs, and
        // then wakes the stage.
        for (signal, seen, wakes) in [
            (
                SIGINT,
                &shared.interrupt,
                [&waker, &of_interrupts].as_slice(),
            ),
            (SIGTERM, &shared.terminate, &[&waker, &of_others]),
            (SIGHUP, &shared.hangup, &[&of_others]),
            (SIGUSR1, &usr1, &[&waker]),
        ] {
            handlers.push(flag::register(signal, Arc::clone(seen))?);
            for stream in wakes {
                handlers.push(low_level::pipe::register(signal, stream.try_clone()?)?);
            }
        }
        let watchdog = Watchdog {
            shared: Arc::clone(&shared),
            interrupts,
            others,
            waker,
            grace,
            program,
            format,
        };
        watchdog.start()?;
        Ok(Signals {
            wake,
            shared,
            usr1,
            grace,
            handles_signals: false,
            stop: None,
            handlers,
        })
    }

    /// A descriptor that is readable if a signal was received since the last
    /// [`acknowledge`](Signals::acknowledge).
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// A copy of [`readiness`](Signals::readiness), for a reactor that needs to own its
    /// descriptor.
    pub fn wake_stream(&self) -> Result<UnixStream> {
        Ok(self.wake.try_clone()?)
    }

    /// Makes [`readiness`](Signals::readiness) unreadable until the next signal. The
    /// flags stay set until they are taken.
    pub fn acknowledge(&mut self) {
        let mut bytes = [0; 64];
        while (&self.wake).read(&mut bytes).is_ok_and(|count| count > 0) {}
    }

    /// The signal that told the program to end, if one was received. If SIGTERM
    /// follows SIGINT, the program stops at the end of a line instead of the end of
    /// the input.
    pub fn stop(&mut self) -> Option<Stop> {
        if !self.handles_signals {
            self.handles_signals = true;
            self.shared.set_holds(true);
        }
        if let Some(stop) = self.shared.stop() {
            self.shared.seen.store(true, Ordering::Relaxed);
            let since = self.stop.map_or_else(Instant::now, |(_, since)| since);
            self.stop = Some((stop, since));
        }
        self.stop.map(|(stop, _)| stop)
    }

    /// Runs long work that cannot check for signals and can be interrupted safely.
    /// During the work, a signal to stop ends the program at once. If a signal to stop
    /// was received before, returns an error.
    pub fn interruptible<T>(&mut self, work: impl FnOnce() -> T) -> Result<T> {
        self.handles_signals = false;
        self.shared.set_holds(false);
        // The flag is checked only after `set_holds`: a signal between an earlier check
        // and `set_holds` would be missed.
        if let Some(stop) = self.shared.stop() {
            return Err(EndedEarly::Signal(stop).into());
        }
        let outcome = work();
        self.handles_signals = true;
        self.shared.set_holds(true);
        Ok(outcome)
    }

    /// The end of the grace period, if the program was told to end.
    pub fn grace_end(&mut self) -> Option<Instant> {
        self.stop();
        let (_, since) = self.stop?;
        match self.shared.hurry.load(Ordering::Relaxed) {
            true => Some(since),
            false => Some(since + self.grace),
        }
    }

    /// The signal to stop, if its grace period is over.
    pub fn out_of_time(&mut self) -> Option<Stop> {
        let end = self.grace_end()?;
        (Instant::now() >= end).then(|| self.stop()).flatten()
    }

    /// Whether SIGHUP was received since the last call. Signals that arrive together
    /// count as one, and a steady series is passed on twice a second.
    pub fn take_hangup(&self) -> bool {
        self.shared.hangup_passed_on.swap(false, Ordering::Relaxed)
    }

    /// Whether SIGUSR1 was received since the last call.
    pub fn take_print_stats(&self) -> bool {
        self.usr1.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // The handlers own the last writing ends of the watchdog's streams. Once they
        // are closed, the watchdog's thread ends.
        for handler in self.handlers.drain(..) {
            low_level::unregister(handler);
        }
    }
}

/// A pair of connected streams that never block.
fn pair() -> Result<(UnixStream, UnixStream)> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    writer.set_nonblocking(true)?;
    Ok((reader, writer))
}
