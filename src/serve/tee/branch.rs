//! One branch of a tee: where its copy goes, and what becomes of lines that are
//! not taken.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::PollFlags;

use crate::serve::tee::pacing::{CatchUp, Patience, STALL, Standing};
use crate::serve::tee::sending::{Block, Sending};
use crate::serve::tee::spill::{End, Losses, OnFull, Spill, Status};
use crate::stage::report::Report;
use crate::stream::lasting_pipe::LastingPipe;
use crate::stream::output::Output;

/// How much of a spill is read ahead of the reader, in bytes.
const READ_AHEAD_BYTES: usize = 4 << 20;

/// Where a branch leads.
#[derive(Debug)]
pub enum Sink {
    /// A named pipe, which one reader after the other can open.
    Pipe(LastingPipe),
    /// Standard output or a file: what fails there has failed for good.
    Stream(Output),
}

/// What becomes of lines that are not taken.
#[derive(Debug)]
pub enum Kind {
    /// None is lost: they wait on disk.
    Keeping(Box<Spill>),
    /// The same in a batch, where they hold up the reading instead.
    Paced,
    /// The oldest are dropped.
    Live {
        /// How long a line may wait.
        age_max: Duration,
    },
}

/// Why a branch can never take anything again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its reader has left, and there will be no other.
    ReaderGone,
    /// What writing said.
    Error(String),
}

/// What became of the lines of one branch.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Written, all of it.
    written: u64,
    /// Dropped unwritten.
    dropped: u64,
    /// The bytes of these.
    dropped_bytes: u64,
    /// Lines inside which a reader ended, and which were sent again.
    torn: u64,
    /// Lines that an earlier process had left in the pipe.
    recovered: u64,
}

/// A branch and what waits for it.
#[derive(Debug)]
pub struct Branch {
    name: String,
    sink: Sink,
    kind: Kind,
    /// How much may wait in memory, in bytes.
    queue_bytes: usize,
    sending: Sending,
    counts: Counts,
    /// Since when something waits that is not taken.
    blocked_since: Option<Instant>,
    blocked: Duration,
    /// Set when it can never take anything again.
    failure: Option<Failure>,
    /// When something was taken last.
    taken_at: Instant,
    /// For how long others put up with it.
    patience: Patience,
    catch_up: CatchUp,
    /// What its spill had lost when that was said.
    losses_said: Losses,
}

impl Branch {
    /// A branch on which nothing was written yet.
    pub fn new(name: &str, sink: Sink, kind: Kind, queue_bytes: usize) -> Branch {
        Branch {
            name: name.to_owned(),
            sink,
            kind,
            queue_bytes,
            sending: Sending::default(),
            counts: Counts::default(),
            blocked_since: None,
            blocked: Duration::ZERO,
            failure: None,
            taken_at: Instant::now(),
            patience: Patience::new(Instant::now()),
            catch_up: CatchUp::new(Instant::now()),
            losses_said: Losses::default(),
        }
    }

    /// What messages and stats call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The named pipe it goes through, if it does.
    pub fn pipe(&self) -> Option<&LastingPipe> {
        match &self.sink {
            Sink::Pipe(pipe) => Some(pipe),
            Sink::Stream(_) => None,
        }
    }

    /// Whether the program waits for it at the end of its input.
    pub fn is_live(&self) -> bool {
        matches!(self.kind, Kind::Live { .. })
    }

    /// Why it can never take anything again, if it cannot.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Begins with a newline: the writer before may have died inside a line.
    pub fn resume(&mut self, now: Instant) {
        self.sending.end_torn_line(now);
    }

    /// Takes lines in.
    pub fn offer(&mut self, block: &Block, report: &mut Report) {
        if self.has_failed() {
            self.counts.dropped += block.records();
            self.counts.dropped_bytes += block.bytes().len() as u64;
            return;
        }
        // Held up for in time, a reader that only paces comes here with room.
        let has_room = self.sending.memory_bytes() < self.queue_bytes;
        match &mut self.kind {
            Kind::Keeping(spill) if spill.is_active() || !has_room => {
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
            Kind::Keeping(_) | Kind::Paced | Kind::Live { .. } => self.sending.push(block.clone()),
        }
    }

    /// Of a live branch, drops what is too much or too old.
    fn drop_stale(&mut self) {
        let Kind::Live { age_max } = self.kind else {
            return;
        };
        let queue_bytes = self.queue_bytes;
        let dropped = self.sending.drop_oldest(|left| {
            // One block alone may be larger than the queue: it has to go through.
            (left.memory_bytes() <= queue_bytes || left.is_one_block())
                && left.oldest().is_none_or(|since| since.elapsed() <= age_max)
        });
        self.counts.dropped += dropped.records;
        self.counts.dropped_bytes += dropped.bytes;
        self.counts.written += dropped.sent;
    }

    /// What it does with what it has.
    pub fn standing(&mut self, now: Instant) -> Standing {
        if self.has_failed() || self.takes_everything() {
            return Standing::Aside;
        }
        let is_over = self.sending.memory_bytes() >= self.queue_bytes;
        let (is_full, is_spilling, paces) = match &self.kind {
            Kind::Live { .. } => (false, false, false),
            Kind::Paced => (is_over, false, true),
            Kind::Keeping(spill) => (
                spill.is_full(),
                spill.is_active(),
                spill.on_full() == OnFull::Block,
            ),
        };
        if !is_over {
            self.patience.restore(now);
        }
        let has_reader = self.pipe().is_none_or(LastingPipe::has_reader);
        if is_full {
            Standing::Full
        } else if self.sending.is_empty() && !is_spilling {
            match has_reader {
                true => Standing::Hungry,
                false => Standing::Aside,
            }
        } else if !paces || !has_reader || now >= self.stalls_at() {
            Standing::Aside
        } else if is_spilling {
            if self.sending.is_empty() {
                self.catch_up.waits();
            }
            match self.catch_up.holds(now) {
                true => Standing::CatchingUp,
                false => Standing::Busy,
            }
        } else if !is_over {
            Standing::Busy
        } else if self.patience.left(now).is_zero() {
            Standing::Aside
        } else {
            Standing::Behind
        }
    }

    /// Whether writing to it waits for no reader.
    fn takes_everything(&self) -> bool {
        matches!(&self.sink, Sink::Stream(output) if output.readiness().is_none())
    }

    /// When its reader counts as stopped if it takes nothing more.
    pub fn stalls_at(&self) -> Instant {
        self.taken_at
            .max(self.blocked_since.unwrap_or(self.taken_at))
            + STALL
    }

    /// So much was read of the input.
    pub fn has_read(&mut self, bytes: u64, now: Instant) {
        self.catch_up.roll(now);
        self.catch_up.read(bytes);
    }

    /// When it may hold others up no longer for its spill.
    pub fn catch_up_ends_at(&self) -> Instant {
        self.catch_up.window_end()
    }

    /// When others have starved enough for it.
    pub fn patience_ends_at(&self, now: Instant) -> Instant {
        now + self.patience.left(now)
    }

    /// It is behind, and others have starved for the last `waited`.
    pub fn has_starved_others(&mut self, waited: Duration, now: Instant) {
        self.patience.spend(waited, now);
    }

    /// Takes what has come back from the spill, and says what went wrong there.
    pub fn collect(&mut self, report: &mut Report) {
        let has_failed = self.has_failed();
        let Kind::Keeping(spill) = &mut self.kind else {
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
        let Some(trouble) = spill.take_trouble() else {
            return;
        };
        let losses = spill.status().losses;
        if losses == self.losses_said {
            let message = match spill.on_full() {
                OnFull::Block => "the spill has no room, and reading waits for it",
                OnFull::Drop => "the spill is in trouble",
            };
            let message = format!("{}: {message}: {trouble}", self.name);
            report.warn_seldom(&format!("trouble {}", self.name), &message);
        } else {
            let message = format!(
                "{}: the spill loses records: {trouble}; {} were dropped and {} cannot be read",
                self.name, losses.dropped, losses.corrupt
            );
            report.warn_seldom(&format!("losses {}", self.name), &message);
            self.losses_said = losses;
        }
    }

    /// Writes what is taken at once.
    pub fn write_some(&mut self, report: &mut Report) {
        self.drop_stale();
        let mut passed_on = None;
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
                    let (records, place) = self.sending.advance(count, capacity);
                    self.counts.written += records;
                    passed_on = place.or(passed_on);
                    self.taken_at = Instant::now();
                    self.catch_up.took(count as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.reader_left(report);
                }
                Err(error) => self.fail(Failure::Error(error.to_string())),
            }
        }
        if let (Kind::Keeping(spill), Some(place)) = (&mut self.kind, passed_on) {
            spill.passed_on(place);
        }
        self.note_blocked();
    }

    fn note_blocked(&mut self) {
        let now = Instant::now();
        if self.sending.is_empty() {
            if let Some(since) = self.blocked_since.take() {
                self.blocked += now - since;
            }
        } else if self.blocked_since.is_none() {
            self.blocked_since = Some(now);
        }
    }

    /// Looks whether a reader has come or gone.
    pub fn look_for_reader(&mut self, report: &mut Report) {
        let Sink::Pipe(pipe) = &mut self.sink else {
            return;
        };
        let had_reader = pipe.has_reader();
        let has_reader = pipe.look_for_reader();
        if had_reader && !has_reader {
            self.reader_left(report);
        }
    }

    fn reader_left(&mut self, report: &mut Report) {
        let Sink::Pipe(pipe) = &mut self.sink else {
            return self.fail(Failure::ReaderGone);
        };
        match pipe.take_back() {
            Ok(left) => {
                let now = Instant::now();
                let rewound = self.sending.rewind(&left.unread, left.next_reader, now);
                self.counts.written = self.counts.written + rewound.sent - rewound.unsent;
                self.counts.recovered += rewound.foreign;
                self.counts.torn += u64::from(rewound.torn);
            }
            Err(error) => {
                let message = format!(
                    "{}: its reader has gone, and what it has left cannot be taken back: {error}",
                    self.name
                );
                report.warn_seldom(&format!("reader {}", self.name), &message);
                pipe.look_for_reader();
            }
        }
        let message = format!("{}: its reader has gone; waiting for the next", self.name);
        report.warn_seldom(&format!("reader {}", self.name), &message);
    }

    fn fail(&mut self, failure: Failure) {
        self.failure = Some(failure);
        self.lose_what_waits();
    }

    /// What to wait for: room, where something waits for it, or the reader's end.
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

    /// Whether its reader has seen a part of a line.
    pub fn is_inside_line(&self) -> bool {
        !self.has_failed() && self.sending.is_inside_line()
    }

    /// Whether the next write has something to write.
    pub fn has_something_to_write(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Whether anything waits for its reader.
    pub fn is_waiting(&self) -> bool {
        !self.has_failed()
            && (!self.sending.is_empty()
                || matches!(&self.kind, Kind::Keeping(spill) if spill.is_active()))
    }

    /// Whether it has taken everything. A reader that has not come yet would wait
    /// for ever for a first writer.
    pub fn is_done(&self) -> bool {
        let has_reader = match &self.sink {
            Sink::Pipe(pipe) => pipe.has_reader(),
            Sink::Stream(_) => true,
        };
        self.has_failed() || (!self.is_waiting() && has_reader)
    }

    /// Whether it has taken everything, or does not take anything for so long.
    pub fn is_done_or_idle(&self, idle: Duration, now: Instant) -> bool {
        let has_reader = self.pipe().is_none_or(LastingPipe::has_reader);
        self.has_failed()
            || self.sending.is_empty()
            || !has_reader
            || now.saturating_duration_since(self.taken_at) > idle
    }

    /// When [`is_done_or_idle`](Branch::is_done_or_idle) is to be asked again.
    pub fn idle_at(&self, idle: Duration) -> Instant {
        self.taken_at + idle
    }

    /// Whether what waits survives the process.
    pub fn is_persistent(&self) -> bool {
        matches!(&self.kind, Kind::Keeping(spill) if spill.is_persistent())
    }

    /// Ends the branch. What it has not taken is kept for the next process where
    /// its spill is, and is dropped otherwise.
    pub fn finish(&mut self, end: End) -> Result<()> {
        let is_kept = self.is_persistent() && end == End::Keep && !self.has_failed();
        let mut waiting = Vec::new();
        if is_kept {
            let (written, blocks) = self.sending.take_all();
            self.counts.written += written;
            waiting = blocks;
        } else {
            self.lose_what_waits();
        }
        if let Kind::Keeping(spill) = &mut self.kind {
            spill.finish(end, waiting)?;
            self.counts.dropped += spill.take_lost(is_kept);
        }
        let has_failed = self.has_failed();
        if let Sink::Stream(output) = &mut self.sink
            && !has_failed
        {
            let synced = output.sync();
            output.close();
            if let Err(error) = synced {
                self.fail(Failure::Error(error.to_string()));
            }
        }
        Ok(())
    }

    fn lose_what_waits(&mut self) {
        let (written, waiting) = self.sending.take_all();
        self.counts.written += written;
        for block in &waiting {
            self.counts.dropped += block.records();
            self.counts.dropped_bytes += block.bytes().len() as u64;
        }
    }

    /// How many lines it did not get and will not get.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped + self.spill_status().losses.dropped
    }

    /// How many lines are gone, dropped or spoiled.
    pub fn lost(&self) -> u64 {
        self.dropped() + self.spill_status().losses.corrupt
    }

    fn spill_status(&self) -> Status {
        match &self.kind {
            Kind::Keeping(spill) => spill.status(),
            Kind::Paced | Kind::Live { .. } => Status::default(),
        }
    }

    /// What there is to say of it, name by name.
    pub fn figures(&self, now: Instant) -> Figures {
        let spill = self.spill_status();
        let waited = |since: Instant| now.saturating_duration_since(since);
        let in_memory = self.sending.oldest().map(waited);
        let on_disk = spill.since.map(waited);
        Figures {
            written: self.counts.written,
            queued: self.sending.records(),
            queued_bytes: self.sending.bytes() as u64,
            spilled: spill.records,
            spilled_bytes: spill.bytes,
            dropped: self.dropped(),
            dropped_bytes: self.counts.dropped_bytes + spill.losses.dropped_bytes,
            recovered: self.counts.recovered + spill.recovered,
            corrupt: spill.losses.corrupt,
            torn: self.counts.torn,
            oldest: in_memory.max(on_disk).unwrap_or_default(),
            blocked: self.blocked + self.blocked_since.map(waited).unwrap_or_default(),
        }
    }
}

/// The state of a branch in numbers.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Lines written.
    pub written: u64,
    /// Lines that wait in memory.
    pub queued: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Lines that wait on disk, or for it.
    pub spilled: u64,
    /// Bytes on disk.
    pub spilled_bytes: u64,
    /// Lines dropped.
    pub dropped: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// Lines that an earlier process had left, on disk or in the pipe.
    pub recovered: u64,
    /// Lines that a spill could not give back.
    pub corrupt: u64,
    /// Lines that were sent again, since a reader ended inside them.
    pub torn: u64,
    /// For how long the oldest has waited.
    pub oldest: Duration,
    /// For how long something waited that was not taken, all in all.
    pub blocked: Duration,
}
