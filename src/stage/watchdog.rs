//! Ends a program that signals cannot end otherwise, because it waits inside a system
//! call or runs work that cannot be interrupted.
//!
//! The watchdog is a thread that receives the same signals as the stage. While the
//! stage holds no data that could be lost, a signal to stop ends the program at once.
//! Otherwise the stage has until the end of the grace period. If it has checked for
//! signals, it has a little longer to save its data. The watchdog also passes SIGHUP on to
//! the stage, at a limited rate.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::low_level;

use crate::stage::cli::LogFormat;
use crate::stage::clock::time_left;
use crate::stage::exit::Stop;
use crate::stage::report::print_message;

/// The least time that a stage gets to check for signals, even if the grace period is
/// shorter. The watchdog ends a stage that has not checked by then, for example because
/// its disk blocks.
const UNSEEN_MIN: Duration = Duration::from_secs(1);

/// After the grace period, the watchdog waits this long before it ends a stage that has
/// checked for signals. The stage may be saving the records that it could not deliver.
const END_SEEN_AFTER: Duration = Duration::from_secs(5);

/// The watchdog ends the program this long after a second SIGINT.
const END_HURRIED_AFTER: Duration = Duration::from_secs(1);

/// The interval at which a steady series of SIGHUPs is passed on.
const HANGUP_EVERY: Duration = Duration::from_millis(500);

/// After a pause, up to this many SIGHUPs are passed on without delay, as a user or a
/// script may send them.
const HANGUPS_WITHOUT_DELAY: u32 = 8;

/// The longest time for the last message, because stderr may have no reader.
const MESSAGE_TIME_MAX: Duration = Duration::from_millis(200);

/// The state that the signal handlers, the stage and the watchdog share.
#[derive(Debug, Default)]
pub struct SignalFlags {
    /// SIGINT was received.
    pub interrupt: Arc<AtomicBool>,
    /// SIGTERM was received.
    pub terminate: Arc<AtomicBool>,
    /// SIGHUP was received, and the watchdog has not seen it yet.
    pub hangup: Arc<AtomicBool>,
    /// The stage must act on a SIGHUP.
    pub hangup_passed_on: AtomicBool,
    /// SIGINT was received twice, so the grace period is over.
    pub hurry: AtomicBool,
    /// The stage has checked for signals at least once after a signal to stop was received.
    pub seen: AtomicBool,
    /// Whether the stage holds data, so that a signal must not end the program at once.
    holds: Mutex<bool>,
}

impl SignalFlags {
    /// Sets whether the stage holds data. While it holds none, a signal to stop ends
    /// the program at once.
    pub fn set_holds(&self, holds: bool) {
        *self.lock_holds() = holds;
    }

    fn lock_holds(&self) -> MutexGuard<'_, bool> {
        // The lock is never poisoned, because no code panics while holding it.
        self.holds
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The signal that tells the program to end, if one was received.
    pub fn stop(&self) -> Option<Stop> {
        if self.hurry.load(Ordering::Relaxed) {
            Some(Stop::Interrupt)
        } else if self.terminate.load(Ordering::Relaxed) {
            Some(Stop::Terminate)
        } else if self.interrupt.load(Ordering::Relaxed) {
            Some(Stop::Interrupt)
        } else {
            None
        }
    }
}

/// A watchdog whose thread is not started yet.
pub struct Watchdog {
    /// The state that the watchdog shares with the signal handlers and the stage.
    pub shared: Arc<SignalFlags>,
    /// Receives a byte for every SIGINT.
    pub interrupts: UnixStream,
    /// Receives a byte for every SIGTERM and SIGHUP, unless it is full.
    pub others: UnixStream,
    /// Wakes the stage.
    pub waker: UnixStream,
    /// The grace period.
    pub grace: Duration,
    /// The program's name, for its last message.
    pub program: &'static str,
    /// The format of that message.
    pub format: LogFormat,
}

impl Watchdog {
    /// Starts the thread. It ends when the signal handlers close their ends of the
    /// streams.
    pub fn start(self) -> Result<()> {
        thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || self.watch())
            .context("cannot start a thread")?;
        Ok(())
    }

    fn watch(self) {
        let mut timing = Timing::new(self.grace);
        loop {
            let Some(interrupts) = self.wait(timing.due()) else {
                return;
            };
            let now = Instant::now();
            let heard = SignalsSeen {
                interrupts,
                stop: self.shared.stop(),
                seen: self.shared.seen.load(Ordering::Relaxed),
                hangup: self.shared.hangup.swap(false, Ordering::Relaxed),
            };
            let Due {
                hurry,
                pass_hangup_on,
                end,
            } = timing.step(&heard, now);
            if hurry {
                self.shared.hurry.store(true, Ordering::Relaxed);
            }
            if pass_hangup_on {
                self.shared.hangup_passed_on.store(true, Ordering::Relaxed);
            }
            if hurry || pass_hangup_on {
                // If the stream is full, the stage is being woken already.
                let _ = (&self.waker).write(b"!");
            }
            if let Some(stop) = self.shared.stop() {
                // If the program ends here, the lock stays locked until then. So the
                // stage cannot take data between the check and the end.
                let holds = self.shared.lock_holds();
                if !*holds {
                    self.end(stop, &format!("cut short by {stop}"));
                }
                if end {
                    self.end(
                        stop,
                        &format!("cut short by {stop}: it could not finish in time"),
                    );
                }
            }
        }
    }

    /// Waits for a signal or for `until`. Returns the number of SIGINTs that were
    /// received; `None` if no more signals can arrive.
    fn wait(&self, until: Option<Instant>) -> Option<usize> {
        let timeout = until.map(time_left);
        let mut fds = [&self.interrupts, &self.others]
            .map(|stream| PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return None,
        }
        drain(&self.others)?;
        drain(&self.interrupts)
    }

    /// Ends the program. No other code outside the main thread ends the program.
    fn end(&self, stop: Stop, message: &str) -> ! {
        let (printed, is_printed) = mpsc::channel();
        let (program, format, message) = (self.program, self.format, message.to_owned());
        let printing = thread::Builder::new().spawn(move || {
            print_message(program, format, "error", &message);
            let _ = printed.send(());
        });
        if printing.is_ok() {
            let _ = is_printed.recv_timeout(MESSAGE_TIME_MAX);
        }
        low_level::exit(stop.exit_status().into())
    }
}

/// Reads and counts all waiting bytes; `None` if the stream is closed.
fn drain(mut stream: &UnixStream) -> Option<usize> {
    let mut all = 0;
    let mut bytes = [0; 64];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return None,
            Ok(count) => all += count,
            Err(_) => return Some(all),
        }
    }
}

/// The signals at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct SignalsSeen {
    /// SIGINTs since the last step.
    interrupts: usize,
    stop: Option<Stop>,
    seen: bool,
    hangup: bool,
}

/// The actions that are due at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Due {
    /// The grace period ends now.
    hurry: bool,
    pass_hangup_on: bool,
    /// The program must end now.
    end: bool,
}

/// Decides which actions are due, without a clock and without effects.
#[derive(Debug)]
struct Timing {
    grace: Duration,
    /// The time of the first signal to stop.
    since: Option<Instant>,
    interrupts: usize,
    /// The time of the second SIGINT.
    hurried: Option<Instant>,
    /// Whether the stage has checked for signals at least once after the first signal to stop.
    seen: bool,
    hangup_waits: bool,
    /// The end of the last interval, if the last SIGHUPs were passed on at intervals.
    hangups_until: Option<Instant>,
}

impl Timing {
    fn new(grace: Duration) -> Timing {
        Timing {
            grace,
            since: None,
            interrupts: 0,
            hurried: None,
            seen: false,
            hangup_waits: false,
            hangups_until: None,
        }
    }

    fn step(&mut self, heard: &SignalsSeen, now: Instant) -> Due {
        let mut step = Due::default();
        self.seen |= heard.seen;
        self.interrupts += heard.interrupts;
        if self.interrupts >= 2 && self.hurried.is_none() {
            self.hurried = Some(now);
            step.hurry = true;
        }
        if heard.stop.is_some() {
            self.since.get_or_insert(now);
        }
        step.end = self.end_due().is_some_and(|due| due <= now);
        self.hangup_waits |= heard.hangup;
        if self.hangup_waits && self.hangup_due().is_none_or(|due| due <= now) {
            step.pass_hangup_on = true;
            self.hangup_waits = false;
            let until = self.hangups_until.map_or(now, |until| until.max(now));
            self.hangups_until = Some(until + HANGUP_EVERY);
        }
        step
    }

    /// The time at which the next step is due if no signal arrives.
    fn due(&self) -> Option<Instant> {
        let hangup = self.hangup_due().filter(|_| self.hangup_waits);
        self.end_due().into_iter().chain(hangup).min()
    }

    fn end_due(&self) -> Option<Instant> {
        if let Some(hurried) = self.hurried {
            return Some(hurried + END_HURRIED_AFTER);
        }
        let time = match self.seen {
            true => self.grace + END_SEEN_AFTER,
            false => self.grace.max(UNSEEN_MIN),
        };
        Some(self.since? + time)
    }

    /// The time at which the next SIGHUP may be passed on; `None` if it may be passed
    /// on at any time.
    fn hangup_due(&self) -> Option<Instant> {
        self.hangups_until?
            .checked_sub(HANGUP_EVERY * (HANGUPS_WITHOUT_DELAY - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn seconds(count: f64) -> Duration {
        Duration::from_secs_f64(count)
    }

    #[test]
    fn a_stage_that_ignores_signals_is_ended_with_the_grace_and_one_that_checks_them_a_little_later()
     {
        for (grace, seen, end) in [
            (10.0, false, 10.0),
            (10.0, true, 15.0),
            (9.5, false, 9.5),
            // Even if the grace period is shorter, the stage has a second to check for
            // signals.
            (0.0, false, 1.0),
            (0.0, true, 5.0),
        ] {
            let start = Instant::now();
            let mut timing = Timing::new(seconds(grace));
            assert_eq!(timing.due(), None);
            let heard = SignalsSeen {
                stop: Some(Stop::Terminate),
                seen,
                ..SignalsSeen::default()
            };
            assert!(!timing.step(&heard, start).end);
            assert_eq!(timing.due(), Some(start + seconds(end)));
            // A second SIGTERM changes nothing.
            assert!(!timing.step(&heard, start + seconds(end - 0.5)).end);
            assert!(!timing.step(&heard, start + seconds(end - 0.1)).end);
            assert_eq!(timing.due(), Some(start + seconds(end)));
            assert!(timing.step(&heard, start + seconds(end)).end);
        }
    }

    #[test]
    fn a_second_sigint_ends_the_grace_and_a_first_one_after_sigterm_does_not() {
        let start = Instant::now();
        let mut timing = Timing::new(GRACE);
        let terminated = SignalsSeen {
            stop: Some(Stop::Terminate),
            seen: true,
            ..SignalsSeen::default()
        };
        let interrupted = SignalsSeen {
            interrupts: 1,
            ..terminated
        };
        assert_eq!(timing.step(&terminated, start), Due::default());
        assert_eq!(timing.step(&interrupted, start), Due::default());
        assert!(timing.step(&interrupted, start).hurry);
        assert_eq!(timing.due(), Some(start + END_HURRIED_AFTER));
        // A third SIGINT has no effect.
        assert_eq!(timing.step(&interrupted, start), Due::default());
        assert!(timing.step(&terminated, start + END_HURRIED_AFTER).end);
    }

    #[test]
    fn frequent_hangups_are_passed_on_at_a_limited_rate_and_the_last_one_is_not_lost() {
        let start = Instant::now();
        let mut timing = Timing::new(GRACE);
        let hangup = SignalsSeen {
            hangup: true,
            ..SignalsSeen::default()
        };
        let mut passed_on = Vec::new();
        for millis in 0..2000 {
            let now = Duration::from_millis(millis);
            let heard = if millis < 1200 {
                hangup
            } else {
                SignalsSeen::default()
            };
            if timing.step(&heard, start + now).pass_hangup_on {
                passed_on.push(millis);
            }
        }
        assert_eq!(passed_on, [0, 1, 2, 3, 4, 5, 6, 7, 500, 1000, 1500]);
        assert_eq!(timing.due(), None);
        // After a pause, SIGHUPs are passed on without delay again.
        for _ in 0..HANGUPS_WITHOUT_DELAY {
            assert!(timing.step(&hangup, start + GRACE).pass_hangup_on);
        }
        assert!(!timing.step(&hangup, start + GRACE).pass_hangup_on);
        assert!(timing.due().is_some());
    }
}
