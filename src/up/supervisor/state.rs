//! Everything that runs, and the report about it.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::event::{EventfdFlags, eventfd};

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
use crate::up::published::Published;
use crate::up::report::{Report, SeenStage, StageReport, readiness};
use crate::up::run_folder::{RUNNING, RunFolder, STARTED, STOPPING};
use crate::up::supervisor::change::{Job, Stopping};
use crate::up::supervisor::running::{Health, RunningStage, Surroundings};
use crate::up::supervisor::scores::ErrorRun;

/// How often the stages are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The largest number of commands that wait for their turn.
const WAITING_CALLS_MAX: usize = 16;

/// Everything that runs.
pub struct Supervisor {
    pub(super) around: Surroundings,
    pub(super) config: Config,
    pub(super) policy: NamedModels,
    pub(super) seats: Identities,
    pub(super) holder: HolderLink,
    pub(super) stages: Vec<RunningStage>,
    pub(super) error_runs: BTreeMap<String, ErrorRun>,
    pub(super) listen: String,
    pub(super) admin: Option<String>,
    pub(super) calls: Receiver<Call>,
    pub(super) wake: Arc<OwnedFd>,
    pub(super) job: Option<Job>,
    pub(super) stopping: Option<Stopping>,
    pub(super) published: Arc<Published>,
    /// The number of commands that are not answered yet.
    pub(super) unanswered: Arc<AtomicUsize>,
    pub(super) look_at: Instant,
    /// The next attempt to start a holder, if the old one has died.
    pub(super) holder_at: Instant,
    pub(super) journal: LogFile,
}

impl Supervisor {
    /// Takes over the stages, or prepares to start them.
    pub fn open(run: &RunFolder) -> Result<Supervisor> {
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
        let published = Arc::new(Published::new());
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
            // A stage without a process has ended in its turn.
            for stage in &mut self.stages {
                if stage.pid().is_none() {
                    stage.end(&mut self.holder, &run.dir, now);
                }
            }
            self.stopping = Some(Stopping::default());
            return Ok(());
        }
        match is_resumed {
            true => self.say("a new supervisor has taken over the stages"),
            false => self.job = Some(Job::start(&self.stages, now)),
        }
        Ok(())
    }

    /// The addresses in words.
    pub(super) fn address_text(&self) -> String {
        let admin = self.admin.as_ref();
        let admin = admin.map_or_else(String::new, |it| format!("; admin at http://{it}"));
        let dir = &self.around.run.dir;
        format!("up at http://{}, in {dir}{admin}", self.listen)
    }

    /// Looks at all stages, and publishes the report.
    pub(super) fn look(&mut self, now: Instant) {
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

    /// Writes a message into the log of rv-up.
    pub(super) fn say(&mut self, message: &str) {
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
