//! The supervisor: starts the stages, restarts them, and ends them in order.
//!
//! One loop waits for everything: the ends of processes, messages of stages, commands,
//! signals and times. `running` knows one stage. `job` changes the stages for a command.
//! Commands that change something run one after the other.

mod job;
mod progress;
mod restarts;
pub mod running;
mod scores;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{EventfdFlags, PollFlags, eventfd};

use crate::stage::Stage;
use crate::up::admin;
use crate::up::checks::{Identities, identities};
use crate::up::config::{Config, Role, parse};
use crate::up::control::{self, Call, Reply, Request};
use crate::up::holder::SUPERVISOR;
use crate::up::holder_link::HolderLink;
use crate::up::log_file::LogFile;
use crate::up::metrics;
use crate::up::plan;
use crate::up::policy::NamedModels;
use crate::up::process;
use crate::up::programs::Programs;
use crate::up::report::{Report, SeenStage, StageReport, readiness};
use crate::up::run_folder::RunFolder;
use crate::up::supervisor::job::{Job, Stopping};
use crate::up::supervisor::running::{Health, RunningStage, Surroundings};
use crate::up::supervisor::scores::ErrorRun;

/// The copy of the file that is in effect.
pub const RUNNING: &str = "running.toml";

/// The file that says that the start has succeeded.
pub const STARTED: &str = "started";

/// The file that says that everything is ending.
pub const STOPPING: &str = "stopping";

/// How often the stages are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the last answers may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// The largest number of commands that wait for their turn.
const WAITING_CALLS_MAX: usize = 16;

/// The state that the threads of commands and of the second listener read.
#[derive(Debug, Default)]
pub struct Published {
    report: Mutex<Arc<Report>>,
}

impl Published {
    /// The present report.
    pub fn report(&self) -> Arc<Report> {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&report)
    }

    fn set(&self, report: Report) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(report);
    }
}

/// Everything that runs.
struct Supervisor {
    around: Surroundings,
    config: Config,
    policy: NamedModels,
    seats: Identities,
    holder: HolderLink,
    stages: Vec<RunningStage>,
    error_runs: BTreeMap<String, ErrorRun>,
    listen: String,
    admin: Option<String>,
    calls: Receiver<Call>,
    wake: Arc<OwnedFd>,
    job: Option<Job>,
    stopping: Option<Stopping>,
    published: Arc<Published>,
    /// The number of commands that are not answered yet.
    unanswered: Arc<AtomicUsize>,
    look_at: Instant,
    /// The next attempt to start a holder, if the old one has died.
    holder_at: Instant,
    journal: LogFile,
}

/// Runs until all stages have ended. An error is written into the log of rv-up, because
/// nobody reads standard error.
pub fn run(stage: &mut Stage, run: &RunFolder) -> Result<()> {
    let mut journal = LogFile::open(&run.path("logs/rv-up.log"))?;
    let outcome = Supervisor::open(run).and_then(|mut supervisor| supervisor.serve(stage));
    if let Err(error) = &outcome {
        let _ = journal.append(&format!("{error:#}"));
    }
    stage.has_findings |= outcome.is_err();
    Ok(())
}

impl Supervisor {
    fn open(run: &RunFolder) -> Result<Supervisor> {
        let mut holder = HolderLink::of_stdin(run)?;
        process::note_self(&process::file(&run.dir, SUPERVISOR))?;
        let running = run.path(RUNNING);
        let text = fs::read_to_string(&running).with_context(|| running.clone())?;
        let config = parse(&text, &run.file)?;
        let policy = run.path("policy.toml");
        let text = fs::read_to_string(&policy).with_context(|| policy.clone())?;
        let policy =
            NamedModels::read(&text).map_err(|fault| anyhow::anyhow!("{policy}: {fault}"))?;
        let (socket, listen) = holder.socket("front", &config.front.listen)?;
        let published = Arc::new(Published::default());
        let admin = match &config.admin {
            Some(admin) => {
                let (socket, address) = holder.socket("admin", &admin.listen)?;
                admin::start(
                    socket,
                    admin.token_file.as_deref(),
                    run,
                    Arc::clone(&published),
                )?;
                Some(address)
            }
            None => None,
        };
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (sender, calls) = bounded(WAITING_CALLS_MAX);
        let unanswered =
            serve_commands(&run.dir, sender, Arc::clone(&wake), Arc::clone(&published))?;
        let now = Instant::now();
        let mut supervisor = Supervisor {
            seats: identities(&config).unwrap_or_default(),
            around: Surroundings {
                run: run.clone(),
                programs: Programs::find()?,
                socket,
            },
            holder,
            stages: Vec::new(),
            error_runs: BTreeMap::new(),
            listen,
            admin,
            calls,
            wake,
            job: None,
            stopping: None,
            published,
            unanswered,
            look_at: now,
            holder_at: now,
            journal: LogFile::open(&run.path("logs/rv-up.log"))?,
            config,
            policy,
        };
        supervisor.begin(now)?;
        Ok(supervisor)
    }

    /// Begins with all stages. If only the last supervisor has died, its stages are taken
    /// over, and no failure of a stage is a failure of the start.
    fn begin(&mut self, now: Instant) -> Result<()> {
        let run = self.around.run.clone();
        let is_resumed = fs::exists(run.path(STARTED)).unwrap_or(false);
        for plan in plan::plan(&self.config, &self.policy) {
            let stage = RunningStage::prepare(plan, &run, &mut self.holder, now)?;
            self.stages.push(stage);
        }
        if fs::exists(run.path(STOPPING)).unwrap_or(false) {
            self.say("a new supervisor goes on to end the stages");
            self.stop(None, None);
            return Ok(());
        }
        match is_resumed {
            true => self.say("a new supervisor has taken over the stages"),
            false => self.job = Some(Job::start(&self.stages, now)),
        }
        Ok(())
    }

    fn serve(&mut self, stage: &mut Stage) -> Result<()> {
        loop {
            self.wait(stage)?;
            let now = Instant::now();
            for stage in &mut self.stages {
                stage.advance(&self.around, now);
            }
            self.replace_dead_holder(now);
            if stage.signals.stop().is_some() && self.stopping.is_none() {
                self.stop(None, None);
            }
            if stage.signals.take_hangup() && self.job.is_none() && self.stopping.is_none() {
                let (reply, _) = bounded(1);
                self.begin_job(Request::Reload, reply, now);
            }
            self.take_calls(now);
            self.advance_job(now);
            if self.advance_stop(now) {
                return self.wait_for_answers(stage);
            }
            if self.look_at <= now {
                self.look_at = now + LOOK_EVERY;
                self.look(now);
            }
        }
    }

    /// Waits until the threads of commands have written their last answers.
    fn wait_for_answers(&self, stage: &mut Stage) -> Result<()> {
        let until = Instant::now() + ANSWER_PATIENCE;
        while self.unanswered.load(Ordering::Relaxed) > 0 && Instant::now() < until {
            // A command that came too late gets the answer that this process has ended.
            while self.calls.try_recv().is_ok() {}
            let soon = Instant::now() + Duration::from_millis(2);
            crate::stage::wait::wait(&[], &mut stage.signals, Some(soon))?;
        }
        Ok(())
    }

    fn wait(&self, stage: &mut Stage) -> Result<()> {
        let mut streams = vec![(self.wake.as_fd(), PollFlags::IN)];
        if self.holder_at <= Instant::now() {
            streams.push((self.holder.readiness(), PollFlags::IN));
        }
        for running in &self.stages {
            streams.extend(running.readiness().map(|fd| (fd, PollFlags::IN)));
        }
        let due = self.stages.iter().filter_map(RunningStage::due);
        let mut until = due.fold(self.look_at, Instant::min);
        if self.job.is_some() {
            // A job looks whether a stage has begun its work.
            until = until.min(Instant::now() + Duration::from_millis(20));
        }
        crate::stage::wait::wait(&streams, &mut stage.signals, Some(until))?;
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.wake, &mut count);
        Ok(())
    }

    /// Starts a new holder if the old one has died. While there is none, the stages keep
    /// running, because they hold each other's pipes open.
    fn replace_dead_holder(&mut self, now: Instant) {
        if self.holder_at > now {
            return;
        }
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(
            self.holder.readiness(),
            PollFlags::IN,
        )];
        let at_once = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // The holder sends answers only, so a message that nobody asked for is an end.
        if !rustix::event::poll(&mut fds, Some(&at_once)).is_ok_and(|count| count > 0) {
            return;
        }
        self.say("the holder has ended; starting it again");
        if let Err(error) = self.holder.start_holder() {
            self.say(&format!("cannot start the holder: {error:#}"));
            self.holder_at = now + LOOK_EVERY;
        }
    }

    /// Takes the commands whose turn it is.
    fn take_calls(&mut self, now: Instant) {
        while self.job.is_none() || self.stopping.is_some() {
            let Ok(Call { request, reply }) = self.calls.try_recv() else {
                return;
            };
            match request {
                Request::Stop => self.stop(Some(reply), None),
                // The answer is the reason for which the start has failed.
                Request::Started if self.stopping.is_some() => self.stop(Some(reply), None),
                _ if self.stopping.is_some() => {
                    let error = anyhow::anyhow!("{} is not up: it is ending", self.around.run.dir);
                    let _ = reply.send(Reply::failed(&error));
                }
                Request::Started => {
                    let _ = reply.send(Reply::done(self.address_text()));
                }
                request => self.begin_job(request, reply, now),
            }
        }
    }

    fn address_text(&self) -> String {
        let admin = self.admin.as_ref();
        let admin = admin.map_or_else(String::new, |it| format!("; admin at http://{it}"));
        let dir = &self.around.run.dir;
        format!("up at http://{}, in {dir}{admin}", self.listen)
    }

    /// Looks at all stages, and publishes the report.
    fn look(&mut self, now: Instant) {
        let stuck_after = self.config.supervision.stuck_after;
        for stage in &mut self.stages {
            stage.watch(stuck_after, now);
        }
        let report = self.report(now);
        self.published.set(report);
    }

    fn report(&mut self, now: Instant) -> Report {
        let stuck_after = self.config.supervision.stuck_after;
        let mut stages = Vec::new();
        let mut seen = Vec::new();
        for stage in &self.stages {
            let path = stage.plan.stats(&self.around.run.dir);
            let counts = metrics::counts(&fs::read_to_string(path).unwrap_or_default());
            let count = |name: &str| counts.get(name).copied().unwrap_or(0);
            let run = self.error_runs.entry(stage.name().to_owned());
            let run = run.or_insert_with(|| ErrorRun::new(now));
            let failing = run.observe(now, count("out"), count("errors")) && stage.plan.is_seat;
            let seat = self.seats.iter().find(|(name, _, _)| name == stage.name());
            let health = stage.health(stuck_after);
            stages.push(StageReport {
                name: stage.name().to_owned(),
                kind: match seat {
                    Some((_, Role::Model, _)) => "model",
                    Some((_, Role::Shadow, _)) => "shadow",
                    None => "stage",
                }
                .to_owned(),
                model: seat.and_then(|(_, _, id)| Some(id.as_ref()?.to_string())),
                state: state_text(health).to_owned(),
                pid: stage.pid().map(|pid| pid.as_raw_nonzero().get()),
                restarts: stage.restarts(),
                running_seconds: stage.running_for(now).unwrap_or_default().as_secs(),
                stuck_seconds: stage.stuck_for().as_secs(),
                last_end: stage.last_end().map(str::to_owned),
                failing,
                counts,
            });
            seen.push(SeenStage {
                name: stage.name(),
                health,
                failing,
            });
        }
        let (ready, degraded) = readiness(&seen, &self.seats, &self.policy);
        Report {
            ready: ready.is_ok(),
            reason: ready.err(),
            degraded,
            listen: self.listen.clone(),
            admin: self.admin.clone(),
            stages,
        }
    }

    fn say(&mut self, message: &str) {
        let _ = self.journal.append(message);
    }
}

fn state_text(health: Health) -> &'static str {
    match health {
        Health::Up => "up",
        Health::Stuck => "stuck",
        Health::Restarting => "restarting",
        Health::Ending => "ending",
        Health::Down => "down",
    }
}

/// Listens for commands. `status` is answered at once; the others wait for their turn.
fn serve_commands(
    dir: &str,
    sender: Sender<Call>,
    wake: Arc<OwnedFd>,
    published: Arc<Published>,
) -> Result<Arc<AtomicUsize>> {
    control::serve(dir, move |call: Call| {
        if let Request::Status = call.request {
            let report = published.report();
            let _ = call.reply.send(Reply {
                report: Some(Report::clone(&report)),
                ..Reply::done("")
            });
            return;
        }
        // If the supervisor has ended, the reply is dropped, which is an answer.
        if sender.send(call).is_ok() {
            let _ = rustix::io::write(&*wake, &1_u64.to_ne_bytes());
        }
    })
}
