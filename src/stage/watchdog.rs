//! Ends a program that a signal could not end otherwise: one that waits inside a
//! system call, or works on something that cannot be interrupted.
//!
//! A thread of its own hears the same signals as the stage. While the stage holds
//! nothing that would be lost, a signal to stop ends the program at once. A stage
//! that hears signals itself has until the end of the grace, and a moment more to
//! set aside what it holds. The thread also passes SIGHUP on, not too often.

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
use crate::stage::report::say;

/// How long after the grace a stage is ended that has not looked for signals since
/// one came.
const UNHEARD_FOR: Duration = Duration::from_secs(1);

/// How long after the grace a stage is ended that has. It may be writing down what
/// it could not deliver.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long after a second SIGINT a stage is ended.
const AT_ONCE: Duration = Duration::from_secs(1);

/// How often a stage is told of SIGHUP, when they do not end.
const HANGUP_EVERY: Duration = Duration::from_millis(500);

/// How many it is told of at once before that: for people, and their scripts.
const HANGUPS_AT_ONCE: u32 = 8;

/// How long the last message may take. Nobody may read stderr any more.
const MESSAGE_TIME: Duration = Duration::from_millis(200);

/// What the signals' handlers, the stage and the thread share.
#[derive(Debug, Default)]
pub struct Shared {
    /// SIGINT has come.
    pub interrupt: Arc<AtomicBool>,
    /// SIGTERM has come.
    pub terminate: Arc<AtomicBool>,
    /// SIGHUP has come, and the thread does not know of it yet.
    pub hangup: Arc<AtomicBool>,
    /// The stage is to act on a SIGHUP.
    pub hangup_passed_on: AtomicBool,
    /// SIGINT has come twice: the grace is over.
    pub hurry: AtomicBool,
    /// The stage has looked for signals since one to stop came.
    pub seen: AtomicBool,
    /// Whether the stage holds something, so that a signal does not end the program
    /// at once.
    holds: Mutex<bool>,
}

impl Shared {
    /// From now on a signal to stop ends the program at once, or no longer does.
    pub fn set_holds(&self, holds: bool) {
        *self.lock_holds() = holds;
    }

    fn lock_holds(&self) -> MutexGuard<'_, bool> {
        // Nothing panics while it is locked, and a bool is always whole.
        self.holds
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The signal that is to end the program, if one has come.
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

/// The thread.
pub struct Watchdog {
    /// What it shares with the handlers and the stage.
    pub shared: Arc<Shared>,
    /// A byte for every SIGINT.
    pub interrupts: UnixStream,
    /// A byte for every SIGTERM and SIGHUP, as far as there is room.
    pub others: UnixStream,
    /// Wakes the stage.
    pub waker: UnixStream,
    /// How long the stage has after a signal to stop.
    pub grace: Duration,
    /// The program's name, for its last message.
    pub program: &'static str,
    /// The form of that message.
    pub format: LogFormat,
}

impl Watchdog {
    /// Starts the thread. It ends with the handlers that write to its streams.
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
            let heard = Heard {
                interrupts,
                stop: self.shared.stop(),
                seen: self.shared.seen.load(Ordering::Relaxed),
                hangup: self.shared.hangup.swap(false, Ordering::Relaxed),
            };
            let Step {
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
                // Where there is no room, the stage is being woken already.
                let _ = (&self.waker).write(b"!");
            }
            if let Some(stop) = self.shared.stop() {
                // Locked until the end, so that nothing is begun any more.
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

    /// Waits for a signal or the time. Says how many SIGINTs have come; `None` where
    /// no more signals can.
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

    /// The one place that ends a program from outside its main thread.
    fn end(&self, stop: Stop, message: &str) -> ! {
        let (said, heard) = mpsc::channel();
        let (program, format, message) = (self.program, self.format, message.to_owned());
        let saying = thread::Builder::new().spawn(move || {
            say(program, format, "error", &message);
            let _ = said.send(());
        });
        if saying.is_ok() {
            let _ = heard.recv_timeout(MESSAGE_TIME);
        }
        low_level::exit(stop.exit_status().into())
    }
}

/// How many bytes were waiting; `None` where no more can come.
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

/// What there is to know at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// SIGINTs since the last one.
    interrupts: usize,
    stop: Option<Stop>,
    seen: bool,
    hangup: bool,
}

/// What is to be done at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Step {
    /// The grace is over from now on.
    hurry: bool,
    pass_hangup_on: bool,
    /// The stage has had its time.
    end: bool,
}

/// Decides what is due (pure).
#[derive(Debug)]
struct Timing {
    grace: Duration,
    /// When the first signal to stop was heard.
    since: Option<Instant>,
    interrupts: usize,
    /// When the second SIGINT was heard.
    hurried: Option<Instant>,
    /// Whether the stage was seen to look for signals.
    seen: bool,
    hangup_waits: bool,
    /// Up to when those that were passed on would have kept the stage, had each had
    /// its span.
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

    fn step(&mut self, heard: &Heard, now: Instant) -> Step {
        let mut step = Step::default();
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

    /// When to step though no signal comes.
    fn due(&self) -> Option<Instant> {
        let hangup = self.hangup_due().filter(|_| self.hangup_waits);
        self.end_due().into_iter().chain(hangup).min()
    }

    fn end_due(&self) -> Option<Instant> {
        if let Some(hurried) = self.hurried {
            return Some(hurried + AT_ONCE);
        }
        let more = if self.seen { LAST_WORDS } else { UNHEARD_FOR };
        Some(self.since? + self.grace + more)
    }

    /// When the next SIGHUP may be passed on; none where that is at any time.
    fn hangup_due(&self) -> Option<Instant> {
        self.hangups_until?
            .checked_sub(HANGUP_EVERY * (HANGUPS_AT_ONCE - 1))
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
    fn a_stage_that_does_not_hear_is_ended_after_the_grace_and_one_that_does_a_little_later() {
        for (seen, end) in [(false, 11.0), (true, 15.0)] {
            let start = Instant::now();
            let mut timing = Timing::new(GRACE);
            assert_eq!(timing.due(), None);
            let heard = Heard {
                stop: Some(Stop::Terminate),
                seen,
                ..Heard::default()
            };
            assert!(!timing.step(&heard, start).end);
            assert_eq!(timing.due(), Some(start + seconds(end)));
            // SIGTERM once more changes nothing.
            assert!(!timing.step(&heard, start + seconds(9.0)).end);
            assert!(!timing.step(&heard, start + seconds(end - 0.1)).end);
            assert_eq!(timing.due(), Some(start + seconds(end)));
            assert!(timing.step(&heard, start + seconds(end)).end);
        }
    }

    #[test]
    fn a_second_sigint_ends_the_grace_and_a_first_one_after_sigterm_does_not() {
        let start = Instant::now();
        let mut timing = Timing::new(GRACE);
        let terminated = Heard {
            stop: Some(Stop::Terminate),
            seen: true,
            ..Heard::default()
        };
        let interrupted = Heard {
            interrupts: 1,
            ..terminated
        };
        assert_eq!(timing.step(&terminated, start), Step::default());
        assert_eq!(timing.step(&interrupted, start), Step::default());
        assert!(timing.step(&interrupted, start).hurry);
        assert_eq!(timing.due(), Some(start + AT_ONCE));
        // Once is enough.
        assert_eq!(timing.step(&interrupted, start), Step::default());
        assert!(timing.step(&terminated, start + AT_ONCE).end);
    }

    #[test]
    fn a_storm_of_hangups_is_thinned_and_the_last_one_is_not_lost() {
        let start = Instant::now();
        let mut timing = Timing::new(GRACE);
        let hangup = Heard {
            hangup: true,
            ..Heard::default()
        };
        let mut passed_on = Vec::new();
        for millis in 0..2000 {
            let now = Duration::from_millis(millis);
            let heard = if millis < 1200 {
                hangup
            } else {
                Heard::default()
            };
            if timing.step(&heard, start + now).pass_hangup_on {
                passed_on.push(millis);
            }
        }
        assert_eq!(passed_on, [0, 1, 2, 3, 4, 5, 6, 7, 500, 1000, 1500]);
        assert_eq!(timing.due(), None);
        // Long after, none need wait.
        for _ in 0..HANGUPS_AT_ONCE {
            assert!(timing.step(&hangup, start + GRACE).pass_hangup_on);
        }
        assert!(!timing.step(&hangup, start + GRACE).pass_hangup_on);
        assert!(timing.due().is_some());
    }
}
