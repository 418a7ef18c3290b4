//! The spill of a branch: lines that do not fit in memory are stored on disk until the reader
//! catches up.
//!
//! A separate thread writes and reads the disk, so that a slow disk delays no branch. The
//! main loop gives blocks to the thread, takes the oldest ones back, and is woken when blocks
//! are ready.

mod direct;
mod policy;
mod segments;
mod shared;
mod state;
mod stored_line;
mod worker;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::serve::tee::block::{Block, SpillPosition};
pub use crate::serve::tee::spill::policy::{OnFull, SpillEnd};
use crate::serve::tee::spill::segments::Segments;
pub use crate::serve::tee::spill::segments::SpillLimits;
use crate::serve::tee::spill::shared::SharedSpill;
pub use crate::serve::tee::spill::state::SpillLosses;
use crate::serve::tee::spill::state::{DISK_BEHIND, SpillState};
use crate::serve::tee::spill::worker::Worker;

/// The handle with which the main loop uses the spill of one branch.
#[derive(Debug)]
pub struct Spill {
    shared: Arc<SharedSpill>,
    /// The stored lines; `None` once the thread is started, because the thread takes them.
    segments: Option<Segments>,
    thread: Option<JoinHandle<Segments>>,
    on_full: OnFull,
    /// How many bytes may wait to be stored on disk.
    unstored_bytes_max: usize,
    is_persistent: bool,
    /// Lines of an earlier process that were found in the spill.
    recovered: u64,
    /// Whether the spill holds lines, so that new lines must be queued after them.
    active: bool,
}

/// The figures of a spill.
#[derive(Clone, Debug, Default)]
pub struct SpillStatus {
    /// Lines in the spill: on disk, waiting to be stored, or read back and not yet taken.
    pub records: u64,
    /// Bytes that are on disk or wait to be stored.
    pub bytes: u64,
    /// When the oldest line on disk was stored, or an earlier time.
    pub since: Option<Instant>,
    /// The lines that were lost.
    pub losses: SpillLosses,
    /// Lines of an earlier process that were found in the spill.
    pub recovered: u64,
}

impl Spill {
    /// Opens the spill in `folder`, which may hold lines of an earlier process. Without a folder,
    /// the spill is deleted when the process exits. The queue for the disk is full when
    /// `unstored_bytes_max` bytes wait in it. `wake` is an eventfd; it becomes readable when
    /// there are blocks to [`take`](Spill::take) or problems to report.
    pub fn open(
        folder: Option<&Path>,
        limits: SpillLimits,
        on_full: OnFull,
        unstored_bytes_max: usize,
        wake: Arc<OwnedFd>,
    ) -> Result<Spill> {
        let segments = match folder {
            Some(folder) => Segments::open(folder, limits)
                .with_context(|| format!("{}: cannot open the spill", folder.display()))?,
            None => Segments::temporary(limits),
        };
        let all_read = segments.all_read();
        let state = SpillState {
            all_read,
            stored: segments.stored(),
            ..SpillState::default()
        };
        Ok(Spill {
            shared: Arc::new(SharedSpill {
                state: Mutex::new(state),
                changed: Condvar::new(),
                wake,
            }),
            recovered: segments.stored().records,
            segments: Some(segments),
            thread: None,
            on_full,
            unstored_bytes_max,
            is_persistent: folder.is_some(),
            active: !all_read,
        })
    }

    /// Whether the spill holds lines, so that new lines must be queued after them.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Whether the stored lines survive the process.
    pub fn is_persistent(&self) -> bool {
        self.is_persistent
    }

    /// What to do when the spill is full.
    pub fn on_full(&self) -> OnFull {
        self.on_full
    }

    /// Whether reading the input must wait until the spill has room.
    pub fn is_full(&self) -> bool {
        if self.on_full == OnFull::Drop || !self.active {
            return false;
        }
        let mut state = self.shared.lock();
        let is_over = state.unstored_bytes >= self.unstored_bytes_max;
        if is_over && !state.full && state.problem.is_none() {
            state.problem = Some(DISK_BEHIND.to_owned());
        }
        state.full || is_over
    }

    /// Adds a block. If the queue for the disk is full and the spill drops lines, drops the
    /// block.
    pub fn append(&mut self, block: Block) -> io::Result<()> {
        self.start()?;
        self.active = true;
        let mut state = self.shared.lock();
        state.append(block, self.on_full, self.unstored_bytes_max);
        // A thread that is already gathering blocks checks again by itself.
        if state.gathering_since.is_none() || !state.may_gather() {
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    /// Takes the oldest blocks that were read back, and asks the thread to read more. The caller
    /// has room for `room` bytes.
    pub fn take(&mut self, room: usize) -> io::Result<VecDeque<Block>> {
        if !self.active {
            return Ok(VecDeque::new());
        }
        if room > 0 {
            self.start()?;
        }
        let mut state = self.shared.lock();
        let mut taken = std::mem::take(&mut state.read);
        let mut room = room.saturating_sub(std::mem::take(&mut state.read_bytes));
        let nothing_stored = state.all_read && !state.busy;
        while nothing_stored
            && room > 0
            && let Some(block) = state.unstored.pop_front()
        {
            // The block was not stored yet, so the disk can be skipped.
            room = room.saturating_sub(block.memory_bytes());
            state.unstored_bytes -= block.memory_bytes();
            state.unstored_records -= block.records();
            state.full = false;
            taken.push_back(block);
        }
        self.active = !(nothing_stored && state.unstored.is_empty());
        let wanted_before = std::mem::replace(&mut state.wanted_bytes, room);
        if wanted_before < room {
            self.shared.changed.notify_one();
        }
        Ok(taken)
    }

    /// Records that all lines up to `position` were written to the branch's destination.
    pub fn set_delivered_up_to(&mut self, position: SpillPosition) {
        let mut state = self.shared.lock();
        state.delivered_up_to = Some(position);
        self.shared.changed.notify_one();
    }

    /// Returns the last problem since the previous call: an error, or a full spill.
    pub fn take_problem(&mut self) -> Option<String> {
        self.thread.as_ref()?;
        self.shared.lock().problem.take()
    }

    /// The current figures.
    pub fn status(&self) -> SpillStatus {
        let state = self.shared.lock();
        SpillStatus {
            records: state.stored.records + state.unstored_records + state.read_back_records(),
            bytes: state.stored.bytes + state.unstored_bytes as u64,
            since: state.stored.since,
            losses: state.losses,
            recovered: self.recovered,
        }
    }

    /// After [`finish`](Spill::finish): the number of lines that are lost. If the spill is
    /// kept, only lines that could not be stored are lost; otherwise all its lines are.
    pub fn take_lost(&mut self, is_kept: bool) -> u64 {
        let mut state = self.shared.lock();
        let mut lost = std::mem::take(&mut state.unstored_records);
        if !is_kept {
            lost += std::mem::take(&mut state.stored).records + state.read_back_records();
            state.read.clear();
        }
        lost
    }

    /// Ends the spill. With [`SpillEnd::Keep`], first stores all added lines. `waiting` are
    /// undelivered lines that are only in memory; the next process delivers them first.
    pub fn finish(&mut self, end: SpillEnd, mut waiting: Vec<Block>) -> Result<()> {
        let segments = match self.thread.take() {
            Some(thread) => {
                self.shared.lock().end = Some(end);
                self.shared.changed.notify_one();
                // If the thread panicked, it has already printed a message.
                thread.join().ok()
            }
            None => self.segments.take(),
        };
        let Some(mut segments) = segments else {
            return Ok(());
        };
        if end == SpillEnd::Remove {
            return segments.remove().context("cannot remove the spill");
        }
        let mut state = self.shared.lock();
        waiting.extend(state.read.drain(..));
        // A block without lines is the newline that ends a torn line, and is not
        // stored.
        waiting.retain(|block| block.records() > 0);
        if !waiting.is_empty() {
            let slices: Vec<&[u8]> = waiting.iter().map(Block::bytes).collect();
            let bytes = slices.concat();
            let records = waiting.iter().map(Block::records).sum();
            segments
                .put_back(&bytes, records)
                .context("cannot store the lines that wait in memory")?;
        }
        state.stored = segments.stored();
        Ok(())
    }

    fn start(&mut self) -> io::Result<()> {
        if let Some(segments) = self.segments.take() {
            let shared = Arc::clone(&self.shared);
            let worker = Worker::new(shared, segments, self.on_full, self.unstored_bytes_max);
            let thread = thread::Builder::new().name("spill".to_owned());
            self.thread = Some(thread.spawn(|| worker.run())?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
