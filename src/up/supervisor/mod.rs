//! The supervisor: starts the stages, restarts them, and ends them in order.
//!
//! One loop, in this file, waits for everything: the ends of processes, messages of
//! stages, commands, signals and times. `state` is everything that runs, and `running` one
//! stage. `job` changes the stages for a command, and `stopping` ends them. Commands that
//! change something run one after the other.

mod change;
mod job;
mod progress;
mod restarts;
pub mod running;
mod scores;
mod state;
mod stopping;

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam_channel::bounded;
use rustix::event::PollFlags;

use crate::stage::Stage;
use crate::up::control::{Call, Reply, Request};
use crate::up::log_file::LogFile;
use crate::up::run_folder::RunFolder;
use crate::up::supervisor::running::RunningStage;
use crate::up::supervisor::state::{LOOK_EVERY, Supervisor};

/// How long the last answers may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

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
}
