//! One stage: its process, its restarts, its messages, and how it is ended.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};

use crate::up::holder_link::HolderLink;
use crate::up::log_file::StageLog;
use crate::up::pipes::{self, End};
use crate::up::plan::{self, Ending, StagePlan, Streams};
use crate::up::process::{self, Process};
use crate::up::programs::Programs;
use crate::up::run_folder::RunFolder;
use crate::up::supervisor::progress::{Progress, read_bytes, waiting_bytes};
use crate::up::supervisor::restarts::Restarts;

/// A stage that was told to end gets SIGTERM after this time.
const TERMINATE_AFTER: Duration = Duration::from_secs(20);

/// A stage that got SIGTERM is killed after this time.
const KILL_AFTER: Duration = Duration::from_secs(3);

/// A program of another kind counts as started when it has run for this long.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// A program of rv counts as started after this time, even if it has written no counts.
const SETTLED_WITHOUT_STATS: Duration = Duration::from_secs(5);

/// What every start of a stage needs.
#[derive(Debug)]
pub struct Surroundings {
    /// The run folder.
    pub run: RunFolder,
    /// Where the programs are.
    pub programs: Programs,
    /// The listening socket of the front end.
    pub socket: TcpListener,
}

/// One stage.
#[derive(Debug)]
pub struct RunningStage {
    /// What runs.
    pub plan: StagePlan,
    /// The messages.
    pub log: StageLog,
    state: State,
    restarts: Restarts,
    /// Whether a process of this stage has run before, and may have died inside a line.
    has_predecessor: bool,
    progress: Progress,
    /// For how long the input has waited without progress.
    stuck_for: Duration,
    /// The writing end of the input, which keeps the stage running.
    input: Option<OwnedFd>,
    /// How the last process ended.
    last_end: Option<String>,
}

#[derive(Debug)]
enum State {
    /// The stage starts at this time.
    Waiting(Instant),
    Running {
        process: Process,
        since: Instant,
    },
    /// The stage was told to end.
    Ending {
        process: Process,
        since: Instant,
        force: Force,
    },
    Ended,
}

/// How far the force against a stage has gone that does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Force {
    None,
    Terminated,
    Killed,
}

/// The state of a stage, for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It runs.
    Up,
    /// It runs, and makes no progress.
    Stuck,
    /// It has died, and will be started again.
    Restarting,
    /// It was told to end.
    Ending,
    /// It has ended.
    Down,
}

impl RunningStage {
    /// Makes the pipes of a stage and holds their ends. A process of this stage that still
    /// runs, because only the supervisor has died, is taken over. Otherwise the stage
    /// starts at the next [`advance`](RunningStage::advance).
    pub fn prepare(
        plan: StagePlan,
        run: &RunFolder,
        holder: &mut HolderLink,
        now: Instant,
    ) -> Result<RunningStage> {
        for pipe in plan::pipes(&run.dir, &plan) {
            pipes::make(&pipe).with_context(|| format!("{pipe}: cannot make the pipe"))?;
        }
        let messages = plan::stderr_pipe(&run.dir, &plan.name);
        holder.hold(&messages, End::Reading)?;
        holder.hold(&plan.reads, End::Writing)?;
        if let Some(writes) = &plan.writes {
            holder.hold(writes, End::Reading)?;
        }
        let input = pipes::open(&plan.reads, End::Writing)
            .with_context(|| format!("{}: cannot open", plan.reads))?;
        let log = run.path(&format!("logs/{}.log", plan.name));
        let log = StageLog::open(&messages, &log).with_context(|| format!("{log}: cannot open"))?;
        let note = process::file(&run.dir, &plan.name);
        let survivor = process::noted(&note);
        Ok(RunningStage {
            log,
            has_predecessor: fs::exists(note).unwrap_or(false),
            state: match survivor {
                Some(process) => State::Running {
                    process,
                    since: now,
                },
                None => State::Waiting(now),
            },
            plan,
            restarts: Restarts::default(),
            progress: Progress::default(),
            stuck_for: Duration::ZERO,
            input: Some(input),
            last_end: None,
        })
    }

    /// The name of the stage.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// How often the stage was started again.
    pub fn restarts(&self) -> u64 {
        self.restarts.count()
    }

    /// For how long the input has waited without progress.
    pub fn stuck_for(&self) -> Duration {
        self.stuck_for
    }

    /// How the last process ended, if one has.
    pub fn last_end(&self) -> Option<&str> {
        self.last_end.as_deref()
    }

    /// Whether the stage has ended and will not start again.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether the stage was told to end, and has not ended yet.
    pub fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending { .. })
    }

    /// The number of the process, if there is one.
    pub fn pid(&self) -> Option<Pid> {
        match &self.state {
            State::Running { process, .. } | State::Ending { process, .. } => Some(process.pid()),
            State::Waiting(_) | State::Ended => None,
        }
    }

    /// For how long the process has run.
    pub fn running_for(&self, now: Instant) -> Option<Duration> {
        match &self.state {
            State::Running { since, .. } => Some(now.saturating_duration_since(*since)),
            _ => None,
        }
    }

    /// The state, for a report. A stage is stuck after `stuck_after` without progress.
    pub fn health(&self, stuck_after: Duration) -> Health {
        match self.state {
            State::Running { .. } if self.stuck_for >= stuck_after => Health::Stuck,
            State::Running { .. } => Health::Up,
            State::Waiting(_) => Health::Restarting,
            State::Ending { .. } => Health::Ending,
            State::Ended => Health::Down,
        }
    }

    /// Descriptors that become readable when there is something to do.
    pub fn readiness(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let process = match &self.state {
            State::Running { process, .. } | State::Ending { process, .. } => {
                Some(process.readiness())
            }
            State::Waiting(_) | State::Ended => None,
        };
        process.into_iter().chain([self.log.readiness()])
    }

    /// The next time at which there is something to do.
    pub fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting(at) => Some(*at),
            State::Ending { since, force, .. } => match force {
                Force::None => Some(*since + TERMINATE_AFTER),
                Force::Terminated => Some(*since + TERMINATE_AFTER + KILL_AFTER),
                Force::Killed => None,
            },
            State::Running { .. } | State::Ended => None,
        }
    }

    /// Whether the program has begun its work: it has written its counts, or it has run
    /// for a while.
    pub fn has_settled(&self, dir: &str, now: Instant) -> bool {
        let Some(running) = self.running_for(now) else {
            return false;
        };
        match self.plan.program {
            "sh" => running >= SETTLED_AFTER,
            _ => {
                running >= SETTLED_WITHOUT_STATS
                    || fs::exists(self.plan.stats(dir)).unwrap_or(false)
            }
        }
    }

    /// Starts the stage if it is time, notes its end, and forces an end that is overdue.
    pub fn advance(&mut self, around: &Surroundings, now: Instant) {
        self.log.advance();
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Running { process, since } if process.has_ended() => {
                self.note_end(&process);
                let at = self.restarts.next(since, now);
                let message = format!(
                    "{} {}; starting it again",
                    self.plan.name,
                    self.last_end.as_deref().unwrap_or_default()
                );
                self.log.note(&message);
                self.state = State::Waiting(at);
            }
            State::Waiting(at) if at <= now => self.start_now(around, now),
            State::Ending { process, .. } if process.has_ended() => {
                self.note_end(&process);
                let _ = fs::remove_file(process::file(&around.run.dir, &self.plan.name));
            }
            State::Ending {
                process,
                since,
                force,
            } => {
                let force = self.use_force(&process, since, force, now);
                self.state = State::Ending {
                    process,
                    since,
                    force,
                };
            }
            state => self.state = state,
        }
    }

    fn note_end(&mut self, process: &Process) {
        // Ends the processes that the stage has started.
        process.signal_group(Signal::KILL);
        self.log.finish_line();
        self.last_end = Some(process.reap());
        self.progress.reset();
        self.stuck_for = Duration::ZERO;
    }

    fn use_force(
        &mut self,
        process: &Process,
        since: Instant,
        force: Force,
        now: Instant,
    ) -> Force {
        let waited = now.saturating_duration_since(since);
        if force == Force::None && waited >= TERMINATE_AFTER {
            // SIGTERM still lets the stage save its records.
            self.log
                .note("it has not ended in time; ending it by force");
            process.signal_group(Signal::TERM);
            return Force::Terminated;
        }
        if force == Force::Terminated && waited >= TERMINATE_AFTER + KILL_AFTER {
            process.signal_group(Signal::KILL);
            return Force::Killed;
        }
        force
    }

    fn start_now(&mut self, around: &Surroundings, now: Instant) {
        // The counts of the last process must not be taken for those of the next.
        let _ = fs::remove_file(self.plan.stats(&around.run.dir));
        self.state = match self.spawn(around) {
            Ok(process) => {
                self.has_predecessor = true;
                State::Running {
                    process,
                    since: now,
                }
            }
            Err(error) => {
                self.last_end = Some(format!("did not start: {error:#}"));
                self.log.note(&format!("cannot start it: {error:#}"));
                State::Waiting(self.restarts.next(now, now))
            }
        };
    }

    fn spawn(&self, around: &Surroundings) -> Result<Process> {
        let plan = &self.plan;
        let mut command = Command::new(&around.programs.own);
        let note = process::file(&around.run.dir, &plan.name);
        command.args(["launch", "--parent", &std::process::id().to_string()]);
        command.args(["--note", &note]);
        for (flag, is_given) in [
            ("--socket", plan.has_socket),
            ("--nice", plan.is_nice),
            (
                "--newline",
                self.has_predecessor && plan.streams == Streams::Standard,
            ),
        ] {
            if is_given {
                command.arg(flag);
            }
        }
        command.arg("--").arg(around.programs.path(plan.program));
        command.args(&plan.arguments);
        if self.has_predecessor {
            command.args(plan.resume);
        }
        command.env("PATH", around.programs.search_path());
        command.stdin(self.standard_input(around)?);
        command.stdout(self.standard_output()?);
        let messages = plan::stderr_pipe(&around.run.dir, &plan.name);
        command.stderr(Stdio::from(pipes::open_for_stage(&messages)?));
        let child = command.spawn().context("rv-up launch")?;
        Ok(Process::open(Pid::from_child(&child))?)
    }

    fn standard_input(&self, around: &Surroundings) -> io::Result<Stdio> {
        if self.plan.has_socket {
            return Ok(Stdio::from(OwnedFd::from(around.socket.try_clone()?)));
        }
        match self.plan.streams {
            Streams::Named => Ok(Stdio::null()),
            // This process closes its copy after the start, so that rv-tee notices when
            // the stage dies.
            Streams::Standard => Ok(Stdio::from(pipes::open(&self.plan.reads, End::Reading)?)),
        }
    }

    fn standard_output(&self) -> io::Result<Stdio> {
        match (&self.plan.writes, self.plan.streams) {
            (Some(writes), Streams::Standard) => {
                Ok(Stdio::from(pipes::open(writes, End::Writing)?))
            }
            _ => Ok(Stdio::null()),
        }
    }

    /// Tells the stage to end: closes its input, or sends SIGTERM to a stage without one.
    pub fn end(&mut self, holder: &mut HolderLink, dir: &str, now: Instant) {
        self.input = None;
        holder.close(&self.plan.reads, End::Writing);
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Running { process, .. } => {
                if self.plan.ending == Ending::Signal {
                    process.signal(Signal::TERM);
                }
                self.state = State::Ending {
                    process,
                    since: now,
                    force: Force::None,
                };
            }
            State::Waiting(_) => {
                let _ = fs::remove_file(process::file(dir, &self.plan.name));
            }
            state => self.state = state,
        }
    }

    /// Closes the other ends of the pipes of a stage that has ended.
    pub fn release(&mut self, holder: &mut HolderLink, dir: &str) {
        if let Some(writes) = &self.plan.writes {
            holder.close(writes, End::Reading);
        }
        holder.close(&plan::stderr_pipe(dir, &self.plan.name), End::Reading);
    }

    /// Sends a signal to the process, if it runs.
    pub fn signal(&self, signal: Signal) {
        if let State::Running { process, .. } = &self.state {
            process.signal(signal);
        }
    }

    /// Looks whether the stage makes progress. A stuck stage is killed if its file says so;
    /// then it starts again.
    pub fn watch(&mut self, stuck_after: Duration, now: Instant) {
        let State::Running { process, .. } = &self.state else {
            return;
        };
        let waiting = self
            .input
            .as_ref()
            .map_or(0, |pipe| waiting_bytes(pipe.as_fd()));
        let read = match waiting {
            0 => None,
            _ => read_bytes(process.pid()),
        };
        let was_stuck = self.stuck_for >= stuck_after;
        self.stuck_for = self.progress.observe(now, waiting, read);
        if self.stuck_for < stuck_after || was_stuck {
            return;
        }
        let seconds = self.stuck_for.as_secs();
        let begins = format!("it has read nothing for {seconds} s, and {waiting} bytes wait");
        match self.plan.restart_when_stuck {
            true => {
                self.log.note(&format!("{begins}; killing it"));
                process.signal_group(Signal::KILL);
            }
            false => self.log.note(&begins),
        }
    }
}
