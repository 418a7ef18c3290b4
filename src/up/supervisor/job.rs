//! Changes of the stages: the start, `add`, `remove`, `reload` and `stop`.
//!
//! A job ends the stages that go, then starts those that come, and waits until each has
//! begun its work. If one of them does not, the job takes all of them away again. Only a
//! job that has succeeded changes the file.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use crossbeam_channel::Sender;
use rustix::process::Signal;

use crate::stage::usage;
use crate::up::checks::{check_policy, check_seat, identities};
use crate::up::config::{Config, Role, parse, with_seat, without_seat};
use crate::up::control::{Reply, Request};
use crate::up::plan::{self, StagePlan};
use crate::up::run_folder::{RUNNING, STARTED, replace};
use crate::up::supervisor::change::{Change, Job, Phase};
use crate::up::supervisor::running::RunningStage;
use crate::up::supervisor::state::Supervisor;
use crate::wire::sha256::short_hash;

/// How long stages may take to begin their work.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long the rendezvous may take to put a policy into effect.
const POLICY_PATIENCE: Duration = Duration::from_secs(5);

impl Supervisor {
    /// Begins a change. A change that cannot be made is answered at once.
    pub(super) fn begin_job(&mut self, request: Request, reply: Sender<Reply>, now: Instant) {
        match self.prepare_job(request, now) {
            Ok(mut job) => {
                job.reply = Some(reply);
                let run = self.around.run.clone();
                for name in &job.ends {
                    // rv-tee closes the branch of a pipe that is gone.
                    let _ = fs::remove_file(run.path(&format!("models/{name}")));
                    if let Some(stage) = find(&mut self.stages, name) {
                        stage.end(&mut self.holder, &run.dir, now);
                    }
                }
                self.job = Some(job);
            }
            Err(error) => {
                let _ = reply.send(Reply::failed(&error));
            }
        }
    }

    fn prepare_job(&mut self, request: Request, now: Instant) -> Result<Job> {
        let (change, ends, starts) = match request {
            Request::Add {
                shadow,
                name,
                section,
            } => self.prepare_add(shadow, name, section)?,
            Request::Remove { name } => {
                if self.config.seat(&name).is_none() {
                    return Err(usage(format!("no model is called {name}")));
                }
                self.without_seat(&name)?;
                (
                    Change::Remove { name: name.clone() },
                    vec![name],
                    Vec::new(),
                )
            }
            _ => self.prepare_reload()?,
        };
        Ok(Job {
            change,
            reply: None,
            ends,
            starts,
            started: Vec::new(),
            phase: Phase::Ending,
            since: now,
        })
    }

    fn prepare_add(
        &self,
        shadow: bool,
        name: String,
        section: String,
    ) -> Result<(Change, Vec<String>, Vec<StagePlan>)> {
        let role = if shadow { Role::Shadow } else { Role::Model };
        let file = &self.around.run.file;
        // Both texts must take the seat: the file, and the copy that is in effect.
        with_seat(&read(file)?, file, role, &name, &section)?;
        let text = with_seat(&self.running_text()?, file, role, &name, &section)?;
        let config = parse(&text, file)?;
        let seat = config.seat(&name).context("the seat is missing")?;
        check_seat(&config, seat, file, &self.around.programs)?;
        let starts = vec![plan::seat_stage(&config, seat, &self.policy)];
        let change = Change::Add {
            role,
            name,
            section,
        };
        Ok((change, Vec::new(), starts))
    }

    fn prepare_reload(&self) -> Result<(Change, Vec<String>, Vec<StagePlan>)> {
        let file = &self.around.run.file;
        let text = read(file)?;
        let config = parse(&text, file)?;
        if !config.seats.iter().any(|seat| seat.role == Role::Model) {
            return Err(usage(format!(
                "{file}: no model may answer; add [model.NAME]"
            )));
        }
        let policy = check_policy(&config, file, &self.around.programs)?;
        // Both plans are for the policy that is in effect, so that they differ only if the
        // file differs.
        let old = plan::plan(&self.config, &self.policy);
        let new = plan::plan(&config, &self.policy);
        let is_fixed = |stage: &&StagePlan| !stage.is_seat;
        let fixed = |plan: &[StagePlan]| plan.iter().filter(is_fixed).cloned().collect::<Vec<_>>();
        let is_same = fixed(&old) == fixed(&new)
            && config.dir == self.config.dir
            && config.admin.as_ref().map(|it| &it.listen)
                == self.config.admin.as_ref().map(|it| &it.listen);
        if !is_same {
            return Err(usage(format!(
                "{file}: only models, shadows, [supervision] and the policy can be reloaded; \
                 `rv-up stop` and `rv-up start` put the rest into effect"
            )));
        }
        let ends = { old.iter() }.filter(|stage| stage.is_seat && !new.contains(stage));
        let starts = { new.iter() }.filter(|stage| stage.is_seat && !old.contains(stage));
        let starts: Vec<StagePlan> = starts.cloned().collect();
        for stage in &starts {
            if let Some(seat) = config.seat(&stage.name) {
                check_seat(&config, seat, file, &self.around.programs)?;
            }
        }
        let ends = ends.map(|stage| stage.name.clone()).collect();
        let change = Change::Reload {
            text,
            config: Box::new(config),
            policy: Box::new(policy),
        };
        Ok((change, ends, starts))
    }

    /// Takes the present job one step further.
    pub(super) fn advance_job(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        let Some(mut job) = self.job.take() else {
            return;
        };
        let outcome = match &job.phase {
            Phase::Ending => self.ending(&mut job, now),
            Phase::Starting => self.starting(&mut job, now),
            Phase::Confirming { hash } => {
                let stored = self.around.run.path(&format!("policies/{hash}.toml"));
                let is_late = now.saturating_duration_since(job.since) > POLICY_PATIENCE;
                match (fs::exists(stored).unwrap_or(false), is_late) {
                    (true, _) => Ok(true),
                    (false, false) => Ok(false),
                    (false, true) => Err(anyhow!(
                        "the rendezvous has not put the policy into effect; see `rv-up logs \
                         rendezvous`"
                    )),
                }
            }
            Phase::Undoing(_) => self.undoing(&mut job),
        };
        match outcome {
            Ok(false) => self.job = Some(job),
            Ok(true) => {
                self.say(&job.text());
                let text = match job.change {
                    Change::Start => self.address_text(),
                    _ => job.text(),
                };
                self.finish_job(job, Reply::done(text), now);
            }
            Err(error) => {
                self.say(&format!("{}: {error:#}", job.text()));
                if let Change::Start = job.change {
                    self.stop(None, Some(error));
                    return;
                }
                self.finish_job(job, Reply::failed(&error), now);
            }
        }
    }

    fn finish_job(&mut self, job: Job, reply: Reply, now: Instant) {
        // The report is new before anybody can ask for it.
        self.look(now);
        if let Some(waiting) = job.reply {
            let _ = waiting.send(reply);
        }
    }

    fn ending(&mut self, job: &mut Job, now: Instant) -> Result<bool> {
        let names = job.ends.clone();
        let has_ended = |name: &String| {
            let stage = self.stages.iter().find(|stage| stage.name() == name);
            stage.is_none_or(RunningStage::has_ended)
        };
        if !names.iter().all(has_ended) {
            return Ok(false);
        }
        self.take_away(&names);
        for plan in std::mem::take(&mut job.starts) {
            let name = plan.name.clone();
            let run = self.around.run.clone();
            let stage = RunningStage::prepare(plan, &run, &mut self.holder, now)?;
            // Stages end in the order of their kinds, so the place in the list is free.
            self.stages.push(stage);
            job.started.push(name);
        }
        job.phase = Phase::Starting;
        job.since = now;
        Ok(false)
    }

    fn starting(&mut self, job: &mut Job, now: Instant) -> Result<bool> {
        let dir = self.around.run.dir.clone();
        let mut fault = None;
        let mut is_settled = true;
        for name in &job.started {
            let Some(stage) = find(&mut self.stages, name) else {
                continue;
            };
            let is_late = now.saturating_duration_since(job.since) > START_PATIENCE;
            is_settled &= stage.has_settled(&dir, now);
            if stage.restarts() > 0 || is_late && !stage.has_settled(&dir, now) {
                let end = stage.last_end().unwrap_or("has not begun its work");
                let said = stage.log.last();
                let said = match said.is_empty() {
                    true => String::new(),
                    false => format!(": {said}"),
                };
                fault = Some(anyhow!("{name} {end}{said}; see `rv-up logs {name}`"));
                break;
            }
        }
        if fault.is_none() && is_settled {
            match self.commit(job, now) {
                Ok(is_done) => return Ok(is_done),
                Err(error) => fault = Some(error),
            }
        }
        let Some(error) = fault else {
            return Ok(false);
        };
        if let Change::Start = job.change {
            return Err(error);
        }
        for name in &job.started {
            let _ = fs::remove_file(format!("{dir}/models/{name}"));
            if let Some(stage) = find(&mut self.stages, name) {
                stage.end(&mut self.holder, &dir, now);
            }
        }
        job.phase = Phase::Undoing(error);
        Ok(false)
    }

    fn undoing(&mut self, job: &mut Job) -> Result<bool> {
        let has_ended = |name: &String| {
            let stage = self.stages.iter().find(|stage| stage.name() == name);
            stage.is_none_or(RunningStage::has_ended)
        };
        if !job.started.iter().all(has_ended) {
            return Ok(false);
        }
        self.take_away(&job.started);
        match std::mem::replace(&mut job.phase, Phase::Ending) {
            Phase::Undoing(error) => Err(error),
            _ => Ok(true),
        }
    }

    /// Forgets stages that have ended, and removes their pipes.
    fn take_away(&mut self, names: &[String]) {
        let run = self.around.run.clone();
        for name in names {
            if let Some(stage) = find(&mut self.stages, name) {
                stage.release(&mut self.holder, &run.dir);
                for pipe in plan::pipes(&run.dir, &stage.plan) {
                    let _ = fs::remove_file(pipe);
                }
                let _ = fs::remove_file(stage.plan.stats(&run.dir));
            }
            self.error_runs.remove(name);
        }
        self.stages
            .retain(|stage| !names.iter().any(|name| name == stage.name()));
    }

    /// Puts a change into effect that has succeeded. Returns whether the job is done.
    fn commit(&mut self, job: &mut Job, now: Instant) -> Result<bool> {
        let run = self.around.run.clone();
        let file = Path::new(&run.file);
        match &job.change {
            Change::Start => {
                fs::write(run.path(STARTED), "").context("cannot write into the run folder")?;
                return Ok(true);
            }
            Change::Add {
                role,
                name,
                section,
            } => {
                let text = with_seat(&read(&run.file)?, &run.file, *role, name, section)?;
                let running = with_seat(&self.running_text()?, &run.file, *role, name, section)?;
                if *role == Role::Model {
                    self.keep_policy()?;
                }
                replace(file, &text)?;
                run.replace(RUNNING, &running)?;
                self.config = parse(&running, &run.file)?;
            }
            Change::Remove { name } => {
                let (text, running) = self.without_seat(name)?;
                if let Some(text) = text {
                    replace(file, &text)?;
                }
                run.replace(RUNNING, &running)?;
                self.config = parse(&running, &run.file)?;
            }
            Change::Reload {
                text,
                config,
                policy,
            } => {
                run.replace(RUNNING, text)?;
                run.replace("policy.toml", &policy.text)?;
                self.config = Config::clone(config);
                self.policy = policy.named.clone();
                self.seats = identities(&self.config)?;
                for warning in &policy.warnings {
                    let _ = self.journal.append(warning);
                }
                if let Some(stage) = find(&mut self.stages, "rendezvous") {
                    stage.signal(Signal::HUP);
                }
                job.phase = Phase::Confirming {
                    hash: short_hash(&policy.text),
                };
                job.since = now;
                return Ok(false);
            }
        }
        self.seats = identities(&self.config)?;
        Ok(true)
    }

    /// Writes the policy that is in effect beside the file, if there is none. A policy that
    /// rv-up has made up for one model cannot be made up for several.
    fn keep_policy(&self) -> Result<()> {
        let path = Path::new(&self.config.policy);
        if path.exists() {
            return Ok(());
        }
        replace(path, &read(&self.around.run.path("policy.toml"))?)
    }

    fn running_text(&self) -> Result<String> {
        read(&self.around.run.path(RUNNING))
    }

    /// The text of the file without a seat, if the file still has it, and the text of the
    /// copy that is in effect.
    fn without_seat(&self, name: &str) -> Result<(Option<String>, String)> {
        let file = &self.around.run.file;
        let running = without_seat(&self.running_text()?, file, name)?;
        let text = read(file)?;
        let text = match parse(&text, file)?.seat(name) {
            Some(_) => Some(without_seat(&text, file, name)?),
            None => None,
        };
        Ok((text, running))
    }
}

fn find<'s>(stages: &'s mut [RunningStage], name: &str) -> Option<&'s mut RunningStage> {
    stages.iter_mut().find(|stage| stage.name() == name)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|error| usage(format!("{path}: cannot read: {error}")))
}
