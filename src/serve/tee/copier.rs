//! The loop of rv-tee: reads the input, gives its lines to the branches, and waits.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use rustix::event::PollFlags;

use crate::serve::tee::args::TeeArgs;
use crate::serve::tee::block::Block;
use crate::serve::tee::branch::{Branch, Failure};
use crate::serve::tee::bulk::Bulk;
use crate::serve::tee::pacing::{PacingState, wants_input};
use crate::serve::tee::spill::SpillEnd;
use crate::stage::wait::wait;
use crate::stage::{EndedEarly, Stage, Stop};
use crate::stream::cursor::Cursor;
use crate::stream::input::Progress;
use crate::stream::pipe_watch::PipeWatch;
use crate::wire::lines::Run;
use crate::wire::reject::Reject;

/// A watched folder. Each named pipe in it is a branch.
#[derive(Debug)]
pub struct Folder {
    pub(super) path: PathBuf,
    pub(super) is_live: bool,
}

/// The input, the branches, and the state that they share.
pub struct Tee {
    pub(super) args: TeeArgs,
    pub(super) branches: Vec<Branch>,
    pub(super) folders: Vec<Folder>,
    /// Reports named pipes that appear, disappear or are opened.
    pub(super) watch: PipeWatch,
    /// An eventfd that becomes readable when a spill has something for the main loop.
    pub(super) spill_wake: Arc<OwnedFd>,
    /// The lock on the spill folder, held while the process runs.
    pub(super) _spill_lock: Option<File>,
    pub(super) cursor: Cursor,
    pub(super) bulk: Bulk,
    pub(super) read: u64,
    pub(super) read_bytes: u64,
    /// The number of branches that ended because their pipes were removed.
    pub(super) removed_branches: u64,
    /// The number of branches to which nothing more can be written.
    pub(super) failed: usize,
}

impl Tee {
    /// Copies the input to the branches until the input ends or a signal stops the program.
    /// Returns the signal that stopped it, if any.
    pub fn serve(&mut self, stage: &mut Stage) -> Result<Option<Stop>> {
        let input = self.cursor.input();
        let is_source = input.is_file() || input.is_terminal();
        // From this call on, a signal no longer kills the process: the loop handles it.
        stage.signals.stop();
        loop {
            self.write_to_branches(stage);
            self.report_failures(stage)?;
            stage.report.flush()?;
            stage.show_stats(|stage| self.snapshot(stage));
            if self.branches.iter().any(Branch::is_waiting) {
                // The ages of waiting lines change even if nothing else happens.
                stage.stats.touch();
            }
            let stop = stage.signals.stop();
            let is_stopping = match stop {
                Some(Stop::Terminate) => true,
                Some(Stop::Interrupt) => {
                    self.cursor.stop_following();
                    is_source
                }
                None => false,
            };
            if is_stopping {
                self.cursor.stop_at_line_end();
            }
            if let Some(stop) = stage.signals.out_of_time() {
                return Ok(Some(stop));
            }
            let is_done = self.cursor.is_done();
            if is_done && self.can_exit(is_stopping) {
                return Ok(stop.filter(|_| is_stopping && self.cursor.input().is_file()));
            }
            if self.wait(stage, is_done)? {
                self.read(stage)?;
            }
        }
    }

    /// Reads the available bytes, and gives the lines to the branches.
    fn read(&mut self, stage: &mut Stage) -> Result<()> {
        let progress = self.cursor.read_up_to(self.bulk.read_bytes())?;
        stage.report_faults(self.cursor.take_faults())?;
        if let Progress::Bytes(count) = progress {
            self.read_bytes += count as u64;
            if self.bulk.becomes_bulk(count) {
                self.widen();
            }
            let now = Instant::now();
            for branch in &mut self.branches {
                branch.note_input_read(count as u64, now);
            }
            stage.stats.touch();
        }
        self.take_lines(stage)
    }

    /// Enlarges all pipes except those of live branches, so that each wake-up carries more lines.
    fn widen(&mut self) {
        self.cursor.input().widen();
        for branch in &mut self.branches {
            branch.widen();
        }
    }

    /// Adds the lines that were read to every branch.
    fn take_lines(&mut self, stage: &mut Stage) -> Result<()> {
        while let Some((run, name)) = self.cursor.next_run_and_name() {
            let (bytes, count) = match run {
                Run::Lines { bytes, count } => (bytes.to_vec(), count),
                Run::Single(line) => match line.whole() {
                    Ok(bytes) => ([bytes, b"\n"].concat(), 1),
                    Err(reject) => {
                        self.read += 1;
                        stage.report.reject(name, &line, &reject)?;
                        continue;
                    }
                },
            };
            self.read += count;
            let block = Block::new(bytes, count, Instant::now());
            for branch in &mut self.branches {
                branch.accept(&block, &mut stage.report);
            }
        }
        Ok(())
    }

    fn write_to_branches(&mut self, stage: &mut Stage) {
        for branch in &mut self.branches {
            branch.write_some(&mut stage.report);
            branch.take_spilled_lines(&mut stage.report);
        }
    }

    /// Reports branches that have failed. Returns an error if no branch is left.
    fn report_failures(&mut self, stage: &mut Stage) -> Result<()> {
        let failed = self.branches.iter().filter_map(Branch::failure).count();
        if failed == self.failed {
            return Ok(());
        }
        self.failed = failed;
        let mut outcome = Ok(());
        for branch in &self.branches {
            match branch.failure() {
                Some(Failure::Error(error)) => {
                    let message = format!("{}: cannot write: {error}", branch.name());
                    if failed < self.branches.len() {
                        stage.report.warn(&message);
                    }
                    outcome = Err(anyhow!(message));
                }
                Some(Failure::ReaderClosed) if outcome.is_ok() => {
                    outcome = Err(EndedEarly::DownstreamClosed.into());
                }
                _ => {}
            }
        }
        if failed < self.branches.len() {
            return Ok(());
        }
        self.finish_branches()?;
        outcome
    }

    /// Whether the program can exit without waiting for any branch.
    fn can_exit(&self, is_stopping: bool) -> bool {
        let now = Instant::now();
        self.branches.iter().all(|branch| {
            if branch.is_live() {
                branch.may_be_left(now)
            } else if is_stopping && branch.is_persistent() {
                !branch.is_inside_line()
            } else {
                branch.is_done()
            }
        })
    }

    /// Waits for the next event, and handles events of pipes and spills. Returns whether the
    /// input can be read now.
    fn wait(&mut self, stage: &mut Stage, is_done: bool) -> Result<bool> {
        let now = Instant::now();
        let pace = self.pace(now);
        let wants_input = !is_done && pace.wants_input;
        let mut streams = Vec::with_capacity(self.branches.len() + 3);
        streams.push((self.watch.readiness(), PollFlags::IN));
        streams.push((self.spill_wake.as_fd(), PollFlags::IN));
        let input = self.cursor.readiness().filter(|_| wants_input);
        let has_input = input.is_some();
        if let Some(input) = input {
            streams.push((input, PollFlags::IN));
        }
        let first_branch = streams.len();
        let mut polled_branches = Vec::with_capacity(self.branches.len());
        for (index, branch) in self.branches.iter().enumerate() {
            if let Some(readiness) = branch.readiness() {
                polled_branches.push(index);
                streams.push(readiness);
            }
        }
        let is_file = wants_input && self.cursor.input().is_file();
        let until = match is_file {
            // A file can always be read.
            true => Some(now),
            false => self.wait_until(stage, is_done, pace.recheck_at, now),
        };
        let ready = wait(&streams, &mut stage.signals, until)?;
        if pace.delays_others {
            self.count_delays(now);
        }
        let input_ready = is_file || (has_input && ready[2]);
        let pipes_changed = ready[0];
        let spill_has_woken = ready[1];
        for (index, ready) in polled_branches.into_iter().zip(&ready[first_branch..]) {
            if *ready {
                stage.stats.touch();
                // If lines wait, the next write finds out whether the reader has closed the pipe.
                if !self.branches[index].has_something_to_write() {
                    self.branches[index].update_reader(&mut stage.report);
                }
            }
        }
        if spill_has_woken {
            let mut count = [0; 8];
            let _ = rustix::io::read(&*self.spill_wake, &mut count);
        }
        if pipes_changed {
            stage.stats.touch();
            self.watch.acknowledge();
            for branch in &mut self.branches {
                branch.update_reader(&mut stage.report);
            }
            self.update_folders(stage, true)?;
        }
        Ok(input_ready)
    }

    /// The time of the next event that no descriptor reports.
    fn wait_until(
        &self,
        stage: &mut Stage,
        is_done: bool,
        recheck_at: Option<Instant>,
        now: Instant,
    ) -> Option<Instant> {
        let live = self.branches.iter().filter(|branch| branch.is_live());
        let idle = live.map(Branch::leave_at);
        let idle = idle.filter(|at| is_done && *at > now).min();
        let recheck = recheck_at.filter(|_| !is_done);
        let times = [idle, recheck, stage.stats.due(), stage.signals.grace_end()];
        times.into_iter().flatten().min()
    }

    /// Uses the states of all branches to decide whether to read more input.
    fn pace(&mut self, now: Instant) -> BranchPacing {
        let mut pacing_states = Vec::with_capacity(self.branches.len());
        let mut recheck_at: Option<Instant> = None;
        for branch in &mut self.branches {
            let pacing_state = branch.pacing_state(now);
            let changes_at = match pacing_state {
                PacingState::Writing => Some(branch.stalls_at()),
                PacingState::QueueFull => {
                    Some(branch.stalls_at().min(branch.delay_budget_ends_at(now)))
                }
                PacingState::CatchingUp => Some(branch.stalls_at().min(branch.catch_up_ends_at())),
                PacingState::Idle | PacingState::Blocked | PacingState::Ignored => None,
            };
            recheck_at = recheck_at.into_iter().chain(changes_at).min();
            pacing_states.push(pacing_state);
        }
        BranchPacing {
            wants_input: wants_input(pacing_states.iter().copied()),
            delays_others: pacing_states.contains(&PacingState::QueueFull)
                && pacing_states.contains(&PacingState::Idle),
            recheck_at,
        }
    }

    /// Charges the time since `since` to the branches whose queue was full, because they delayed
    /// the others.
    fn count_delays(&mut self, since: Instant) {
        let now = Instant::now();
        for branch in &mut self.branches {
            if branch.pacing_state(since) == PacingState::QueueFull {
                branch.count_delay_to_others(now - since, now);
            }
        }
    }

    /// Ends the branches and closes everything. `stopped` is the signal that stopped the program.
    pub fn finish(mut self, stopped: Option<Stop>, stage: &mut Stage) -> Result<()> {
        let name = self.cursor.name().to_owned();
        if let Some(line) = self.cursor.unfinished_line() {
            stage.report.reject(&name, &line, &Reject::Unfinished)?;
        }
        self.finish_branches()?;
        self.report_failures(stage)?;
        for branch in &self.branches {
            // Losses are normal on a live branch. A reader that has closed its stream wants no
            // more lines.
            let reader_has_closed = branch.failure() == Some(&Failure::ReaderClosed);
            if !branch.is_live() && !reader_has_closed && branch.lost() > 0 {
                stage.has_findings = true;
                stage.report.warn(&format!(
                    "{}: {} records are lost",
                    branch.name(),
                    branch.lost()
                ));
            }
        }
        let snapshot = self.snapshot(stage);
        stage.final_stats(&snapshot);
        let has_failed = |branch: &Branch| matches!(branch.failure(), Some(Failure::Error(_)));
        match stopped {
            _ if self.branches.iter().any(has_failed) => {
                bail!("a branch could not be written completely")
            }
            Some(stop) => Err(EndedEarly::Signal(stop).into()),
            None => Ok(()),
        }
    }

    fn finish_branches(&mut self) -> Result<()> {
        for branch in &mut self.branches {
            branch.finish(SpillEnd::Keep)?;
        }
        Ok(())
    }
}

/// The decision whether to read more input, and when to decide again.
struct BranchPacing {
    wants_input: bool,
    /// Whether a branch has nothing to write because the full queue of another branch stops the
    /// input.
    delays_others: bool,
    recheck_at: Option<Instant>,
}
