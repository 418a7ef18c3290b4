//! What a program is asked to do from outside.
//!
//! A signal sets a flag and makes a descriptor readable, which every wait of a
//! stage includes. So no signal is lost between a check and a wait. A stage that
//! neither waits nor checks is ended by its `watchdog`.

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
use crate::stage::watchdog::{Shared, Watchdog};

/// The signals that have come so far.
#[derive(Debug)]
pub struct Signals {
    wake: UnixStream,
    shared: Arc<Shared>,
    usr1: Arc<AtomicBool>,
    grace: Duration,
    /// Whether the stage looks for signals, so that none ends it at once.
    heeds: bool,
    /// When the first signal to stop was seen.
    stop: Option<(Stop, Instant)>,
    handlers: Vec<SigId>,
}

impl Signals {
    /// Takes over SIGINT, SIGTERM, SIGHUP and SIGUSR1. Until the stage asks for
    /// [`stop`](Signals::stop) for the first time, a signal to stop ends the program
    /// at once: nothing was read, so nothing can be lost. From then on the stage has
    /// `grace` to end by itself. A repeated SIGTERM changes nothing; a second SIGINT
    /// ends the grace. `program` and `format` are for the message of a program that
    /// had to be ended.
    pub fn new(program: &'static str, format: LogFormat, grace: Duration) -> Result<Signals> {
        let (wake, waker) = pair()?;
        let (interrupts, of_interrupts) = pair()?;
        let (others, of_others) = pair()?;
        let shared = Arc::new(Shared::default());
        let usr1 = Arc::new(AtomicBool::new(false));
        let mut handlers = Vec::new();
        // The stage is woken for SIGHUP by the watchdog, which paces it.
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
            heeds: false,
            stop: None,
            handlers,
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

    /// Whether the program was told to end, and how. SIGTERM after SIGINT makes it
    /// end sooner, at the end of a line instead of the input.
    pub fn stop(&mut self) -> Option<Stop> {
        if !self.heeds {
            self.heeds = true;
            self.shared.set_holds(true);
        }
        if let Some(stop) = self.shared.stop() {
            self.shared.seen.store(true, Ordering::Relaxed);
            let since = self.stop.map_or_else(Instant::now, |(_, since)| since);
            self.stop = Some((stop, since));
        }
        self.stop.map(|(stop, _)| stop)
    }

    /// Does work that leaves nothing half done where it is cut short: until it is
    /// done, a signal to stop ends the program at once. For what takes long and
    /// cannot look for signals. An error where a signal has come before.
    pub fn interruptible<T>(&mut self, work: impl FnOnce() -> T) -> Result<T> {
        self.heeds = false;
        self.shared.set_holds(false);
        // Looked for afterwards, so that none falls between the two.
        if let Some(stop) = self.shared.stop() {
            return Err(EndedEarly::Signal(stop).into());
        }
        let outcome = work();
        self.heeds = true;
        self.shared.set_holds(true);
        Ok(outcome)
    }

    /// When a program that was told to end has to be done.
    pub fn grace_end(&mut self) -> Option<Instant> {
        self.stop();
        let (_, since) = self.stop?;
        match self.shared.hurry.load(Ordering::Relaxed) {
            true => Some(since),
            false => Some(since + self.grace),
        }
    }

    /// The signal that left no more time, if so.
    pub fn out_of_time(&mut self) -> Option<Stop> {
        let end = self.grace_end()?;
        (Instant::now() >= end).then(|| self.stop()).flatten()
    }

    /// Whether SIGHUP has come since the last call. Many that come at once are one,
    /// and of those that do not end the stage is told twice a second.
    pub fn take_hangup(&self) -> bool {
        self.shared.hangup_passed_on.swap(false, Ordering::Relaxed)
    }

    /// Whether SIGUSR1 has come since the last call.
    pub fn take_print_stats(&self) -> bool {
        self.usr1.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // The last writing ends of the watchdog's streams go with them, and so does
        // its thread.
        for handler in self.handlers.drain(..) {
            low_level::unregister(handler);
        }
    }
}

/// Two ends of a stream that never block.
fn pair() -> Result<(UnixStream, UnixStream)> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    writer.set_nonblocking(true)?;
    Ok((reader, writer))
}
