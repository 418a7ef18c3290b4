//! The thread of a spill: stores the blocks of the main loop on disk and reads them back.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::serve::tee::block::{Block, SpillPosition};
use crate::serve::tee::spill::policy::{OnFull, SpillEnd};
use crate::serve::tee::spill::segments::Segments;
use crate::serve::tee::spill::shared::SharedSpill;
use crate::serve::tee::spill::state::{ROUND_BYTES, SpillWork, WorkOutcome};

/// The size of a block that is read back, in bytes. The delivered position advances one block
/// at a time.
const READ_BLOCK_BYTES: usize = 64 << 10;

/// How long blocks are gathered before they are stored in one write. No reader waits for these
/// blocks.
const GATHER_TIME: Duration = Duration::from_millis(10);

/// The time that a direct write of one round should take at most.
const DIRECT_WRITE_TIME: Duration = Duration::from_millis(4);

/// If direct writes are too slow by more than this time in total, they are paused. Until then, the
/// queue in memory takes new blocks.
const DIRECT_LATE_MAX: Duration = Duration::from_millis(40);

/// The first pause of direct writes on a slow disk.
const DIRECT_PAUSE_MIN: Duration = Duration::from_secs(1);

/// How long to wait before a write to a full disk is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The thread's side of a spill.
pub struct Worker {
    shared: Arc<SharedSpill>,
    segments: Segments,
    on_full: OnFull,
    unstored_bytes_max: usize,
    /// The position after the last line that was handed to the main loop.
    handed_over_up_to: SpillPosition,
    /// The position after the last line that the main loop has delivered.
    delivered_up_to: SpillPosition,
    /// When direct writes may be used again.
    direct_from: Instant,
    /// The total time by which direct writes were too slow.
    direct_late: Duration,
    /// How long the next pause of direct writes lasts.
    direct_pause: Duration,
}

impl Worker {
    /// Creates a worker.
    pub fn new(
        shared: Arc<SharedSpill>,
        segments: Segments,
        on_full: OnFull,
        unstored_bytes_max: usize,
    ) -> Worker {
        Worker {
            shared,
            segments,
            on_full,
            unstored_bytes_max,
            handed_over_up_to: SpillPosition::default(),
            delivered_up_to: SpillPosition::default(),
            direct_from: Instant::now(),
            direct_late: Duration::ZERO,
            direct_pause: DIRECT_PAUSE_MIN,
        }
    }

    /// Works until the spill ends. Returns the segments.
    pub fn run(mut self) -> Segments {
        loop {
            let mut work = self.next_work();
            let mut outcome = WorkOutcome::default();
            if let Some(position) = work.delivered_up_to {
                outcome.problem = self.delete_up_to(position, work.blocks.is_empty()).err();
            }
            if work.read_bytes > 0 {
                self.read_blocks(work.read_bytes, &mut outcome);
            }
            if work.end != Some(SpillEnd::Remove) {
                self.store(&mut work.blocks, &mut outcome);
            }
            outcome.left = work.blocks;
            self.publish(outcome);
            if work.end.is_some() {
                return self.segments;
            }
        }
    }

    /// Waits for work and returns it.
    fn next_work(&self) -> SpillWork {
        let mut state = self.shared.lock();
        loop {
            let should_store = state.should_store();
            if state.is_ending() || state.delivered_up_to.is_some() || state.should_read() {
                break;
            }
            let now = Instant::now();
            let gathering_since = *state.gathering_since.get_or_insert(now);
            let left = (gathering_since + GATHER_TIME).saturating_duration_since(now);
            if should_store && (left.is_zero() || !state.may_gather()) {
                break;
            }
            state = if should_store {
                let waited = self.shared.changed.wait_timeout(state, left);
                waited.unwrap_or_else(|it| it.into_inner()).0
            } else if state.full {
                state.gathering_since = None;
                let waited = self.shared.changed.wait_timeout(state, RETRY_AFTER);
                let (mut state, timeout) = waited.unwrap_or_else(|it| it.into_inner());
                state.full &= !timeout.timed_out();
                state
            } else {
                state.gathering_since = None;
                let waited = self.shared.changed.wait(state);
                waited.unwrap_or_else(|it| it.into_inner())
            };
        }
        state.gathering_since = None;
        state.begin_work()
    }

    /// Deletes the delivered lines up to `position`.
    fn delete_up_to(&mut self, position: SpillPosition, is_all_stored: bool) -> io::Result<()> {
        self.delivered_up_to = position;
        if is_all_stored && position >= self.handed_over_up_to && self.segments.all_read() {
            self.segments.delete_all()
        } else {
            self.segments.delete_up_to(position)
        }
    }

    fn read_blocks(&mut self, bytes: usize, outcome: &mut WorkOutcome) {
        let mut left = bytes;
        while left > 0
            && let Some(block) = self.read_block(outcome)
        {
            left = left.saturating_sub(block.memory_bytes());
            outcome.read.push_back(block);
        }
    }

    fn read_block(&mut self, outcome: &mut WorkOutcome) -> Option<Block> {
        match self.segments.read(READ_BLOCK_BYTES) {
            Ok(Some(mut chunk)) => {
                outcome.losses.corrupt += chunk.corrupt;
                if chunk.records > 0 {
                    self.handed_over_up_to = chunk.end;
                    chunk.bytes.shrink_to_fit();
                    let block = Block::new(chunk.bytes, chunk.records, Instant::now());
                    return Some(block.with_spill_end(chunk.end));
                }
            }
            Ok(None) => return None,
            Err(error) => {
                outcome.problem = Some(error);
                outcome.losses.corrupt += self.segments.skip_unreadable();
            }
        }
        // Corrupt lines are never delivered, so they have to be deleted here.
        if self.delivered_up_to >= self.handed_over_up_to
            && let Err(error) = self.segments.delete_up_to(self.segments.read_up_to())
        {
            outcome.problem = Some(error);
        }
        None
    }

    /// Stores blocks until there is no room. Leaves the other blocks in `blocks`, or drops them
    /// if the spill drops lines.
    fn store(&mut self, blocks: &mut VecDeque<Block>, outcome: &mut WorkOutcome) {
        if self.store_directly(blocks, outcome) {
            return;
        }
        while let Some(block) = blocks.front() {
            match self.segments.append(block.bytes(), block.records()) {
                Ok(true) => {}
                refused => {
                    let no_room = || io::Error::other("--spill-max is reached");
                    outcome.problem = Some(refused.err().unwrap_or_else(no_room));
                    if self.on_full == OnFull::Block {
                        return;
                    }
                    outcome.losses.drop(block);
                }
            }
            outcome.stored += block.memory_bytes();
            outcome.stored_records += block.records();
            blocks.pop_front();
        }
    }

    /// Stores a whole round in one direct write. Returns whether that was possible.
    fn store_directly(&mut self, blocks: &mut VecDeque<Block>, outcome: &mut WorkOutcome) -> bool {
        let round_bytes: usize = blocks.iter().map(Block::memory_bytes).sum();
        if round_bytes < ROUND_BYTES || Instant::now() < self.direct_from {
            return false;
        }
        let lines: Vec<_> = blocks.iter().map(|it| (it.bytes(), it.records())).collect();
        let began_at = Instant::now();
        if !self.segments.append_directly(&lines) {
            return false;
        }
        self.account_for_direct_write(began_at.elapsed());
        outcome.stored += round_bytes;
        outcome.stored_records += blocks.iter().map(Block::records).sum::<u64>();
        blocks.clear();
        true
    }

    /// If direct writes are too slow in total, pauses them. During the pause, blocks are written
    /// into the page cache, which takes a burst at memory speed. Each pause is twice as long as the
    /// last one.
    fn account_for_direct_write(&mut self, took: Duration) {
        self.direct_late = (self.direct_late + took).saturating_sub(DIRECT_WRITE_TIME);
        if self.direct_late > DIRECT_LATE_MAX {
            self.direct_late = Duration::ZERO;
            self.direct_from = Instant::now() + self.direct_pause;
            self.direct_pause *= 2;
        }
    }

    /// Publishes the results in the shared state, and wakes the main loop if necessary.
    fn publish(&self, outcome: WorkOutcome) {
        let mut state = self.shared.lock();
        let (was_full, was_over) = (state.full, state.unstored_bytes);
        let has_result = !outcome.read.is_empty() || outcome.problem.is_some();
        state.stored = self.segments.stored();
        state.all_read = self.segments.all_read();
        state.end_work(outcome);
        let has_room_again = was_full != state.full
            || (was_over >= self.unstored_bytes_max
                && state.unstored_bytes < self.unstored_bytes_max);
        // The main loop can now take the other blocks directly, or no block is left.
        let is_drained = state.all_read && !state.should_store();
        drop(state);
        if has_result || has_room_again || is_drained {
            self.shared.wake_loop();
        }
    }
}
