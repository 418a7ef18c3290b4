//! One branch of a tee: its destination, and the lines that wait for it.

mod ending;
pub mod figures;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::serve::tee::block::Block;
use crate::serve::tee::pacing::{CatchUp, DelayBudget, PacingState, STALL};
use crate::serve::tee::sending::Sending;
use crate::serve::tee::spill::{OnFull, Spill, SpillLosses};
use crate::stage::report::Report;
use crate::stream::lasting_pipe::LastingPipe;
use crate::stream::output::Output;

/// How many bytes of a spill are read ahead of the reader.
const READ_AHEAD_BYTES: usize = 4 << 20;

/// The destination of a branch.
#[derive(Debug)]
pub enum Sink {
    /// A named pipe, which several readers can open, one after another.
    Pipe(LastingPipe),
    /// Standard output, a regular file or a device. After an error, nothing more is written to it.
    Stream(Output),
}

/// The rule for lines that the reader does not read in time.
#[derive(Debug)]
pub enum BranchKind {
    /// No line is lost: lines wait in memory, then on disk.
    Keeping(Box<Spill>),
    /// No line is lost: reading the input waits for the reader. Used if the input is a file.
    Paced,
    /// The oldest lines are dropped.
    Live {
        /// How long a line may wait.
        age_max: Duration,
    },
}

/// Why nothing more can be written to a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The reader of the branch has closed the stream, which no other reader can open.
    ReaderClosed,
    /// A write failed with this error.
    Error(String),
}

/// How many lines of a branch were written, dropped and so on.
#[derive(Clone, Copy, Debug, Default)]
struct BranchCounts {
    /// Lines written completely.
    written: u64,
    /// Lines dropped before they were written.
    dropped: u64,
    /// The bytes of the dropped lines.
    dropped_bytes: u64,
    /// Lines that a reader had read only in part when it closed the pipe.
    torn: u64,
    /// Lines of an earlier process that were found in the pipe.
    recovered: u64,
}

/// A branch, with the lines that wait for it.
#[derive(Debug)]
pub struct Branch {
    name: String,
    sink: Sink,
    kind: BranchKind,
    /// How many bytes may wait in memory.
    queue_bytes: usize,
    sending: Sending,
    counts: BranchCounts,
    /// Since when lines have been waiting to be written; `None` if no line waits.
    blocked_since: Option<Instant>,
    blocked: Duration,
    /// The reason why nothing more can be written; `None` if the branch works.
    failure: Option<Failure>,
    /// When bytes were last written; at first, the start of the branch.
    last_written_at: Instant,
    /// Whether the pipe of the branch ever had a reader.
    had_reader: bool,
    /// How long the branch may still delay the others.
    delay_budget: DelayBudget,
    catch_up: CatchUp,
    /// The losses of the spill that were last reported.
    reported_losses: SpillLosses,
}

impl Branch {
    /// Creates a branch to which nothing has been written yet.
    pub fn new(name: &str, sink: Sink, kind: BranchKind, queue_bytes: usize) -> Branch {
        Branch {
            name: name.to_owned(),
            sink,
            kind,
            queue_bytes,
            sending: Sending::default(),
            counts: BranchCounts::default(),
            blocked_since: None,
            blocked: Duration::ZERO,
            failure: None,
            last_written_at: Instant::now(),
            had_reader: false,
            delay_budget: DelayBudget::new(Instant::now()),
            catch_up: CatchUp::new(Instant::now()),
            reported_losses: SpillLosses::default(),
        }
    }

    /// The name of the branch in messages and stats.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The named pipe of the branch, if it has one.
    pub fn pipe(&self) -> Option<&LastingPipe> {
        match &self.sink {
            Sink::Pipe(pipe) => Some(pipe),
            Sink::Stream(_) => None,
        }
    }

    /// Enlarges the pipe, unless the branch is live: lines in the pipe of a live branch cannot be
    /// dropped.
    pub fn widen(&mut self) {
        if let Sink::Pipe(pipe) = &mut self.sink
            && !matches!(self.kind, BranchKind::Live { .. })
        {
            pipe.widen();
        }
    }

    /// Whether the branch is live, so that it drops lines instead of keeping them.
    pub fn is_live(&self) -> bool {
        matches!(self.kind, BranchKind::Live { .. })
    }

    /// Why nothing more can be written; `None` if the branch works.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Writes a newline first, because an earlier writer may have died in the middle of a line.
    pub fn resume(&mut self, now: Instant) {
        self.sending.end_torn_line(now);
    }

    /// Adds a block: to the queue, or to the spill if the queue is full or the spill holds lines.
    /// Counts the lines as dropped if the branch has failed.
    pub fn accept(&mut self, block: &Block, report: &mut Report) {
        if self.has_failed() {
            self.counts.dropped += block.records();
            self.counts.dropped_bytes += block.bytes().len() as u64;
            return;
        }
        // A file always has room here, because no input is read while the file is full. The
        // queue of a reader that sets the pace also has room: no input is read while this queue
        // is full.
        let has_room = self.sending.memory_bytes() < self.queue_bytes;
        match &mut self.kind {
            BranchKind::Keeping(spill) if spill.is_active() || !has_room => {
                if !spill.is_active() {
                    report.warn_seldom(
                        &format!("spilling {}", self.name),
                        &format!("{}: its reader is behind; spilling to disk", self.name),
                    );
                }
                if let Err(error) = spill.append(block.clone()) {
                    self.counts.dropped += block.records();
                    self.counts.dropped_bytes += block.bytes().len() as u64;
                    let message = format!("{}: cannot spill: {error}", self.name);
                    report.warn_seldom(&format!("spill {}", self.name), &message);
                }
            }
            BranchKind::Keeping(_) | BranchKind::Paced | BranchKind::Live { .. } => {
                self.sending.push(block.clone())
            }
        }
    }

    /// On a live branch, drops the oldest lines while the queue is too large or the oldest line
    /// is too old.
    fn drop_old_lines(&mut self) {
        let BranchKind::Live { age_max } = self.kind else {
            return;
        };
        let queue_bytes = self.queue_bytes;
        let dropped = self.sending.drop_oldest(|left| {
            // A single block is kept even if it is larger than the queue. Otherwise it could
            // never be written.
            (left.memory_bytes() <= queue_bytes || left.is_one_block())
                && left.oldest().is_none_or(|since| since.elapsed() <= age_max)
        });
        self.counts.dropped += dropped.records;
        self.counts.dropped_bytes += dropped.bytes;
        self.counts.written += dropped.sent;
    }

    /// Returns the state that decides whether to read more input.
    pub fn pacing_state(&mut self, now: Instant) -> PacingState {
        if self.has_failed() || self.never_blocks() {
            return PacingState::Ignored;
        }
        let is_queue_full = self.sending.memory_bytes() >= self.queue_bytes;
        let (is_full, is_spilling, paces) = match &self.kind {
            BranchKind::Live { .. } => (false, false, false),
            BranchKind::Paced => (is_queue_full, false, true),
            BranchKind::Keeping(spill) => (
                spill.is_full(),
                spill.is_active(),
                spill.on_full() == OnFull::Block,
            ),
        };
        if !is_queue_full {
            self.delay_budget.restore(now);
        }
        let has_reader = self.pipe().is_none_or(LastingPipe::has_reader);
        if is_full {
            PacingState::Blocked
        } else if self.sending.is_empty() && !is_spilling {
            match has_reader {
                true => PacingState::Idle,
                false => PacingState::Ignored,
            }
        } else if !paces || !has_reader || now >= self.stalls_at() {
            PacingState::Ignored
        } else if is_spilling {
            if self.sending.is_empty() {
                self.catch_up.note_reader_waits();
            }
            match self.catch_up.stops_input(now) {
                true => PacingState::CatchingUp,
                false => PacingState::Writing,
            }
        } else if !is_queue_full {
            PacingState::Writing
        } else if self.delay_budget.remaining(now).is_zero() {
            PacingState::Ignored
        } else {
            PacingState::QueueFull
        }
    }

    /// Whether a write to this branch never waits for a reader.
    fn never_blocks(&self) -> bool {
        matches!(&self.sink, Sink::Stream(output) if output.readiness().is_none())
    }

    /// When the reader counts as stopped, if it reads nothing until then.
    pub fn stalls_at(&self) -> Instant {
        self.last_written_at
            .max(self.blocked_since.unwrap_or(self.last_written_at))
            + STALL
    }

    /// Records that `bytes` were read from the input.
    pub fn note_input_read(&mut self, bytes: u64, now: Instant) {
        self.catch_up.end_due_window(now);
        self.catch_up.note_read(bytes);
    }

    /// When the branch must be asked again whether its spill stops the input.
    pub fn catch_up_ends_at(&self) -> Instant {
        self.catch_up.window_end()
    }

    /// When the branch will have used up its delay budget.
    pub fn delay_budget_ends_at(&self, now: Instant) -> Instant {
        now + self.delay_budget.remaining(now)
    }

    /// Records that this branch delayed the others for the time `waited`, which ended at `now`.
    pub fn count_delay_to_others(&mut self, waited: Duration, now: Instant) {
        self.delay_budget.spend(waited, now);
    }

    /// Moves lines from the spill to the queue, and reports problems of the spill.
    pub fn take_spilled_lines(&mut self, report: &mut Report) {
        let has_failed = self.has_failed();
        let BranchKind::Keeping(spill) = &mut self.kind else {
            return;
        };
        if has_failed {
            return;
        }
        let read_ahead = READ_AHEAD_BYTES.min(self.queue_bytes).max(1);
        match spill.take(read_ahead.saturating_sub(self.sending.memory_bytes())) {
            Ok(blocks) => blocks
                .into_iter()
                .for_each(|block| self.sending.push(block)),
            Err(error) => {
                let message = format!("{}: cannot read the spill: {error}", self.name);
                report.warn_seldom(&format!("spill {}", self.name), &message);
            }
        }
        let Some(problem) = spill.take_problem() else {
            return;
        };
        let losses = spill.status().losses;
        if losses == self.reported_losses {
            let message = match spill.on_full() {
                OnFull::Block => "the spill is full, and reading the input waits for room",
                OnFull::Drop => "the spill has a problem",
            };
            let message = format!("{}: {message}: {problem}", self.name);
            report.warn_seldom(&format!("problem {}", self.name), &message);
        } else {
            let message = format!(
                "{}: the spill loses records: {problem}; {} were dropped and {} cannot be read",
                self.name, losses.dropped, losses.corrupt
            );
            report.warn_seldom(&format!("losses {}", self.name), &message);
            self.reported_losses = losses;
        }
    }

    /// Writes as many bytes as the destination accepts without waiting.
    pub fn write_some(&mut self, report: &mut Report) {
        self.drop_old_lines();
        let mut delivered_up_to = None;
        while !self.has_failed() && !self.sending.is_empty() {
            let capacity = match &self.sink {
                Sink::Pipe(pipe) if !pipe.has_reader() => break,
                Sink::Pipe(pipe) => pipe.capacity(),
                Sink::Stream(_) => 0,
            };
            let written = match &mut self.sink {
                Sink::Pipe(pipe) => pipe.write_some(&self.sending.slices()),
                Sink::Stream(output) => output.try_write(self.sending.first_slice()),
            };
            match written {
                Ok(0) => break,
                Ok(count) => {
                    let (records, position) = self.sending.advance(count, capacity);
                    self.counts.written += records;
                    delivered_up_to = position.or(delivered_up_to);
                    self.last_written_at = Instant::now();
                    self.catch_up.note_written(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.handle_closed_reader(report);
                }
                Err(error) => self.fail(Failure::Error(error.to_string())),
            }
        }
        if let (BranchKind::Keeping(spill), Some(position)) = (&mut self.kind, delivered_up_to) {
            spill.set_delivered_up_to(position);
        }
        self.update_blocked_time();
    }

    fn update_blocked_time(&mut self) {
        let now = Instant::now();
        if self.sending.is_empty() {
            if let Some(since) = self.blocked_since.take() {
                self.blocked += now - since;
            }
        } else if self.blocked_since.is_none() {
            self.blocked_since = Some(now);
        }
    }

    /// Checks whether the pipe has a reader now, and handles a reader that has closed it.
    pub fn update_reader(&mut self, report: &mut Report) {
        let Sink::Pipe(pipe) = &mut self.sink else {
            return;
        };
        let had_reader = pipe.has_reader();
        let has_reader = pipe.look_for_reader();
        self.had_reader |= has_reader;
        if had_reader && !has_reader {
            self.handle_closed_reader(report);
        }
    }

    fn handle_closed_reader(&mut self, report: &mut Report) {
        let Sink::Pipe(pipe) = &mut self.sink else {
            return self.fail(Failure::ReaderClosed);
        };
        match pipe.take_back() {
            Ok(left) => {
                let now = Instant::now();
                let rewound = self.sending.rewind(&left.unread, left.next_reader, now);
                self.counts.written = self.counts.written + rewound.sent - rewound.unsent;
                self.counts.recovered += rewound.recovered;
                self.counts.torn += u64::from(rewound.torn);
            }
            Err(error) => {
                let message = format!(
                    "{}: its reader has closed the pipe, and the lines left in it cannot be read back: \
                     {error}",
                    self.name
                );
                report.warn_seldom(&format!("reader {}", self.name), &message);
                pipe.look_for_reader();
            }
        }
        let message = format!(
            "{}: its reader has closed the pipe; waiting for the next reader",
            self.name
        );
        report.warn_seldom(&format!("reader {}", self.name), &message);
    }

    fn fail(&mut self, failure: Failure) {
        self.failure = Some(failure);
        self.drop_waiting_lines();
    }

    /// The file descriptor and the events to poll for. If lines wait, poll reports room to write.
    /// Otherwise it reports only that the reader has closed the pipe.
    pub fn readiness(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.sink {
            _ if self.has_failed() => None,
            Sink::Pipe(pipe) => {
                let flags = match self.sending.is_empty() {
                    true => PollFlags::empty(),
                    false => PollFlags::OUT,
                };
                pipe.readiness().map(|fd| (fd, flags))
            }
            Sink::Stream(_) if self.sending.is_empty() => None,
            Sink::Stream(output) => output.readiness(),
        }
    }

    /// Whether the last write ended in the middle of a line.
    pub fn is_inside_line(&self) -> bool {
        !self.has_failed() && self.sending.is_inside_line()
    }

    /// Whether lines wait to be written.
    pub fn has_something_to_write(&self) -> bool {
        !self.sending.is_empty()
    }
}
