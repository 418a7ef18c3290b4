//! What a branch cannot keep in memory, on disk until its reader catches up.
//!
//! A thread of its own does the work, so that a slow disk delays no branch. The
//! loop of the tee hands it blocks, asks it for the oldest ones, and is woken when
//! there is something to take.

mod segments;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::serve::tee::sending::Block;
use crate::serve::tee::spill::segments::Segments;
pub use crate::serve::tee::spill::segments::{Limits, Place, Stored};

/// How much is stored, and how much is read back, before the other's turn.
const ROUND_BYTES: usize = 1 << 20;

/// How much of it makes one block. What was passed on of a spill is written down block
/// by block.
const READ_BLOCK_BYTES: usize = 64 << 10;

/// How long to wait for room on a disk that others may empty.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// What happens to lines for which a spill has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFull {
    /// They are dropped and counted: nobody waits.
    Drop,
    /// Nothing more is read until there is room: everybody waits.
    Block,
}

/// What becomes of a spill when its branch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The next process finds it.
    Keep,
    /// The branch is gone, and its lines with it.
    Remove,
}

/// What is said where the disk does not keep up.
const BEHIND: &str = "the disk is behind, and --spill-queue is reached";

/// The spill of one branch, as the loop sees it.
#[derive(Debug)]
pub struct Spill {
    shared: Arc<Shared>,
    /// Set until the thread is needed.
    segments: Option<Segments>,
    thread: Option<JoinHandle<Segments>>,
    on_full: OnFull,
    /// How much may wait for the disk, in bytes.
    unstored_bytes_max: usize,
    is_persistent: bool,
    /// Lines that an earlier process had left.
    recovered: u64,
    /// Whether there is anything in it, so that what comes has to queue behind.
    active: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told to the thread.
    changed: Condvar,
    /// Told to the loop.
    wake: Arc<OwnedFd>,
}

#[derive(Debug, Default)]
struct State {
    // For the thread.
    unstored: VecDeque<Block>,
    /// With those that are being stored.
    unstored_bytes: usize,
    unstored_records: u64,
    /// How much the loop has room for, in bytes.
    wanted_bytes: usize,
    passed_on: Option<Place>,
    end: Option<End>,
    // For the loop.
    read: VecDeque<Block>,
    read_bytes: usize,
    /// The thread has taken something that it has not told the outcome of.
    busy: bool,
    /// There is no room, and lines wait for it.
    full: bool,
    /// All that was stored has been read.
    is_read: bool,
    stored: Stored,
    losses: Losses,
    trouble: Option<String>,
}

/// What a spill could not keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Lines for which there was no room.
    pub dropped: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// Stored lines that could not be read back.
    pub corrupt: u64,
}

/// What there is to say of a spill.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Lines in it: on disk, on their way there, and on their way back.
    pub records: u64,
    /// Bytes on disk, and on their way there.
    pub bytes: u64,
    /// When the oldest of those on disk was stored, or before.
    pub since: Option<Instant>,
    /// What could not be kept.
    pub losses: Losses,
    /// Lines that an earlier process had left.
    pub recovered: u64,
}

impl State {
    /// Lines that the loop has not taken yet.
    fn read_back(&self) -> u64 {
        self.read.iter().map(Block::records).sum()
    }

    /// Appends a block, or drops it where it would have to wait and that is wanted.
    fn append(&mut self, block: Block, on_full: OnFull, unstored_bytes_max: usize) {
        if on_full == OnFull::Drop && self.unstored_bytes >= unstored_bytes_max {
            self.losses.drop(&block);
            self.trouble = Some(BEHIND.to_owned());
            return;
        }
        self.unstored_bytes += block.memory_bytes();
        self.unstored_records += block.records();
        self.unstored.push_back(block);
    }

    /// Whether the thread is to read: the loop has room, and something is stored.
    fn wants_stored(&self) -> bool {
        self.read_bytes < self.wanted_bytes && !self.is_read
    }

    /// Whether the thread is to store. Where all that was stored has been read, the
    /// loop takes what comes next as it is, as soon as it has room.
    fn wants_storing(&self) -> bool {
        let passes_by = self.is_read && self.read_bytes < self.wanted_bytes;
        !self.unstored.is_empty() && !self.full && !passes_by
    }

    /// What is to be stored in one round.
    fn next_unstored(&mut self) -> VecDeque<Block> {
        let mut next = VecDeque::new();
        let mut bytes = 0;
        while bytes < ROUND_BYTES
            && let Some(block) = self.unstored.pop_front()
        {
            bytes += block.memory_bytes();
            next.push_back(block);
        }
        next
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that has panicked has left whole values behind.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wake_loop(&self) {
        // Where it is full already, the loop is going to wake.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

impl Spill {
    /// A spill in `folder`, where an earlier process may have left lines; without
    /// a folder, one that goes with the process. At most `unstored_bytes_max` and one
    /// block wait for the disk. `wake` is an eventfd that becomes readable when there
    /// is something to [`take`](Spill::take) or to tell.
    pub fn open(
        folder: Option<&Path>,
        limits: Limits,
        on_full: OnFull,
        unstored_bytes_max: usize,
        wake: Arc<OwnedFd>,
    ) -> Result<Spill> {
        let segments = match folder {
            Some(folder) => Segments::open(folder, limits)
                .with_context(|| format!("{}: cannot open the spill", folder.display()))?,
            None => Segments::temporary(limits),
        };
        let is_read = segments.is_read();
        let state = State {
            is_read,
            stored: segments.stored(),
            ..State::default()
        };
        Ok(Spill {
            shared: Arc::new(Shared {
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
            active: !is_read,
        })
    }

    /// Whether there is anything in it, so that what comes has to queue behind.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Whether it outlives the process.
    pub fn is_persistent(&self) -> bool {
        self.is_persistent
    }

    /// What happens where it has no room.
    pub fn on_full(&self) -> OnFull {
        self.on_full
    }

    /// Whether nothing more may be read until there is room.
    pub fn is_full(&self) -> bool {
        if self.on_full == OnFull::Drop || !self.active {
            return false;
        }
        let mut state = self.shared.lock();
        let is_over = state.unstored_bytes >= self.unstored_bytes_max;
        if is_over && !state.full && state.trouble.is_none() {
            state.trouble = Some(BEHIND.to_owned());
        }
        state.full || is_over
    }

    /// Appends a block, or drops it where it would have to wait.
    pub fn append(&mut self, block: Block) -> io::Result<()> {
        self.start()?;
        self.active = true;
        let mut state = self.shared.lock();
        state.append(block, self.on_full, self.unstored_bytes_max);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Takes the oldest lines, as far as they have been read, and asks for more of
    /// them. There is room for `room` bytes.
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
        let nothing_stored = state.is_read && !state.busy;
        while nothing_stored
            && room > 0
            && let Some(block) = state.unstored.pop_front()
        {
            // It need not go by the disk.
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

    /// All lines up to `place` have been written to the reader's pipe.
    pub fn passed_on(&mut self, place: Place) {
        let mut state = self.shared.lock();
        state.passed_on = Some(place);
        self.shared.changed.notify_one();
    }

    /// What went wrong since the last call, or makes all wait.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.thread.as_ref()?;
        self.shared.lock().trouble.take()
    }

    /// What there is to say of it.
    pub fn status(&self) -> Status {
        let state = self.shared.lock();
        Status {
            records: state.stored.records + state.unstored_records + state.read_back(),
            bytes: state.stored.bytes + state.unstored_bytes as u64,
            since: state.stored.since,
            losses: state.losses,
            recovered: self.recovered,
        }
    }

    /// After the end: what it could not store, and all of it where it is not kept.
    pub fn take_lost(&mut self, is_kept: bool) -> u64 {
        let mut state = self.shared.lock();
        let mut lost = std::mem::take(&mut state.unstored_records);
        if !is_kept {
            lost += std::mem::take(&mut state.stored).records + state.read_back();
            state.read.clear();
        }
        lost
    }

    /// Ends the spill. With [`End::Keep`] all that was appended is stored first, and
    /// the next process begins with `waiting`, which was read and not sent, or never
    /// in it.
    pub fn finish(&mut self, end: End, mut waiting: Vec<Block>) -> Result<()> {
        let segments = match self.thread.take() {
            Some(thread) => {
                self.shared.lock().end = Some(end);
                self.shared.changed.notify_one();
                // A thread that has panicked has said so itself.
                thread.join().ok()
            }
            None => self.segments.take(),
        };
        let Some(mut segments) = segments else {
            return Ok(());
        };
        if end == End::Remove {
            return segments.remove().context("cannot remove the spill");
        }
        let mut state = self.shared.lock();
        waiting.extend(state.read.drain(..));
        // A newline that ends a torn line is none of them.
        waiting.retain(|block| block.records() > 0);
        if !waiting.is_empty() {
            let slices: Vec<&[u8]> = waiting.iter().map(Block::bytes).collect();
            let bytes = slices.concat();
            let records = waiting.iter().map(Block::records).sum();
            segments
                .put_back(&bytes, records)
                .context("cannot store what waits in memory")?;
        }
        state.stored = segments.stored();
        Ok(())
    }

    fn start(&mut self) -> io::Result<()> {
        if let Some(segments) = self.segments.take() {
            let shared = Arc::clone(&self.shared);
            let worker = Worker {
                shared,
                segments,
                on_full: self.on_full,
                unstored_bytes_max: self.unstored_bytes_max,
                good_up_to: Place::default(),
                passed_on: Place::default(),
            };
            let thread = thread::Builder::new().name("spill".to_owned());
            self.thread = Some(thread.spawn(|| worker.run())?);
        }
        Ok(())
    }
}

impl Losses {
    fn drop(&mut self, block: &Block) {
        self.dropped += block.records();
        self.dropped_bytes += block.bytes().len() as u64;
    }

    fn add(&mut self, more: Losses) {
        self.dropped += more.dropped;
        self.dropped_bytes += more.dropped_bytes;
        self.corrupt += more.corrupt;
    }
}

/// The thread's side of a spill.
struct Worker {
    shared: Arc<Shared>,
    segments: Segments,
    on_full: OnFull,
    unstored_bytes_max: usize,
    /// Where the last lines end that the loop got.
    good_up_to: Place,
    /// Up to where it has passed them on.
    passed_on: Place,
}

/// What the thread has to do next.
struct Work {
    blocks: VecDeque<Block>,
    /// How much is to be read.
    read_bytes: usize,
    passed_on: Option<Place>,
    end: Option<End>,
}

/// What came of it.
#[derive(Default)]
struct Outcome {
    /// What was stored, in bytes of memory, or dropped.
    stored: usize,
    stored_records: u64,
    /// Blocks that wait for room.
    left: VecDeque<Block>,
    read: VecDeque<Block>,
    losses: Losses,
    trouble: Option<io::Error>,
}

impl State {
    /// Takes the next work. What is being stored waits until it is stored.
    fn begin_work(&mut self) -> Work {
        // What was passed on may have made room.
        let passed_on = self.passed_on.take();
        self.full &= passed_on.is_none();
        let wants_stored = self.wants_stored();
        let blocks = if self.end.is_some() {
            // There is no later time to try again.
            std::mem::take(&mut self.unstored)
        } else if self.wants_storing() {
            self.next_unstored()
        } else {
            VecDeque::new()
        };
        // No less is read back than is stored.
        let stored: usize = blocks.iter().map(Block::memory_bytes).sum();
        self.busy = true;
        Work {
            read_bytes: match wants_stored && self.end.is_none() {
                true => stored.max(ROUND_BYTES),
                false => 0,
            },
            blocks,
            passed_on,
            end: self.end,
        }
    }

    /// The work is done.
    fn end_work(&mut self, outcome: Outcome) {
        for block in outcome.left.into_iter().rev() {
            self.full = true;
            self.unstored.push_front(block);
        }
        self.unstored_bytes = self.unstored_bytes.saturating_sub(outcome.stored);
        self.unstored_records = self.unstored_records.saturating_sub(outcome.stored_records);
        self.losses.add(outcome.losses);
        let read = outcome.read.iter().map(Block::memory_bytes);
        self.read_bytes += read.sum::<usize>();
        self.read.extend(outcome.read);
        self.busy = false;
        if let Some(error) = outcome.trouble {
            self.trouble = Some(error.to_string());
        }
    }
}

impl Worker {
    fn run(mut self) -> Segments {
        loop {
            let mut work = self.next_work();
            let mut outcome = Outcome::default();
            if let Some(place) = work.passed_on {
                outcome.trouble = self.forget(place, work.blocks.is_empty()).err();
            }
            if work.read_bytes > 0 {
                self.read_blocks(work.read_bytes, &mut outcome);
            }
            if work.end != Some(End::Remove) {
                self.store(&mut work.blocks, &mut outcome);
            }
            outcome.left = work.blocks;
            self.publish(outcome);
            if work.end.is_some() {
                return self.segments;
            }
        }
    }

    /// Waits for something to do.
    fn next_work(&self) -> Work {
        let mut state = self.shared.lock();
        loop {
            let wants = state.wants_stored() || state.wants_storing();
            if state.end.is_some() || state.passed_on.is_some() || wants {
                break;
            }
            state = if state.full {
                let waited = self.shared.changed.wait_timeout(state, RETRY_AFTER);
                let (mut state, timeout) = waited.unwrap_or_else(|it| it.into_inner());
                state.full &= !timeout.timed_out();
                state
            } else {
                let waited = self.shared.changed.wait(state);
                waited.unwrap_or_else(|it| it.into_inner())
            };
        }
        state.begin_work()
    }

    /// Deletes what was passed on.
    fn forget(&mut self, place: Place, nothing_unstored: bool) -> io::Result<()> {
        self.passed_on = place;
        if nothing_unstored && place >= self.good_up_to && self.segments.is_read() {
            self.segments.forget_all()
        } else {
            self.segments.forget(place)
        }
    }

    fn read_blocks(&mut self, bytes: usize, outcome: &mut Outcome) {
        let mut left = bytes;
        while left > 0
            && let Some(block) = self.read_block(outcome)
        {
            left = left.saturating_sub(block.memory_bytes());
            outcome.read.push_back(block);
        }
    }

    fn read_block(&mut self, outcome: &mut Outcome) -> Option<Block> {
        match self.segments.read(READ_BLOCK_BYTES) {
            Ok(Some(mut chunk)) => {
                outcome.losses.corrupt += chunk.corrupt;
                if chunk.records > 0 {
                    self.good_up_to = chunk.end;
                    chunk.bytes.shrink_to_fit();
                    let block = Block::new(chunk.bytes, chunk.records, Instant::now());
                    return Some(block.spilled_to(chunk.end));
                }
            }
            Ok(None) => return None,
            Err(error) => {
                outcome.trouble = Some(error);
                outcome.losses.corrupt += self.segments.skip_unreadable();
            }
        }
        // Lines that are spoiled are passed on to nobody, and must not stay for ever.
        if self.passed_on >= self.good_up_to
            && let Err(error) = self.segments.forget(self.segments.read_up_to())
        {
            outcome.trouble = Some(error);
        }
        None
    }

    /// Stores blocks until there is no room, and leaves those for which there is
    /// none to be stored later, or drops them.
    fn store(&mut self, blocks: &mut VecDeque<Block>, outcome: &mut Outcome) {
        while let Some(block) = blocks.front() {
            match self.segments.append(block.bytes(), block.records()) {
                Ok(true) => {}
                refused => {
                    let no_room = || io::Error::other("--spill-max is reached");
                    outcome.trouble = Some(refused.err().unwrap_or_else(no_room));
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

    /// Tells the loop what came of it.
    fn publish(&self, outcome: Outcome) {
        let mut state = self.shared.lock();
        let (was_full, was_over) = (state.full, state.unstored_bytes);
        let is_news = !outcome.read.is_empty() || outcome.trouble.is_some();
        state.stored = self.segments.stored();
        state.is_read = self.segments.is_read();
        state.end_work(outcome);
        let has_room_again = was_full != state.full
            || (was_over >= self.unstored_bytes_max
                && state.unstored_bytes < self.unstored_bytes_max);
        // What is left goes to the loop, or there is nothing left.
        let is_drained = state.is_read && !state.wants_storing();
        drop(state);
        if is_news || has_room_again || is_drained {
            self.shared.wake_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(bytes: usize) -> Block {
        let mut text = vec![b'x'; bytes - 1];
        text.push(b'\n');
        Block::new(text, 1, Instant::now())
    }

    /// What was stored of `work`: all of it.
    fn stored(work: &Work) -> Outcome {
        Outcome {
            stored: work.blocks.iter().map(Block::memory_bytes).sum(),
            stored_records: work.blocks.iter().map(Block::records).sum(),
            ..Outcome::default()
        }
    }

    #[test]
    fn what_is_being_stored_waits_until_it_is_stored() {
        let bytes_max = block(1_000).memory_bytes();
        let mut state = State {
            is_read: true,
            ..State::default()
        };
        state.append(block(1_000), OnFull::Drop, bytes_max);
        let work = state.begin_work();
        assert_eq!(work.blocks.len(), 1);
        // Nothing waits in the queue, but it is not on disk.
        state.append(block(600), OnFull::Drop, bytes_max);
        let dropped = Losses {
            dropped: 1,
            dropped_bytes: 600,
            corrupt: 0,
        };
        assert_eq!(state.losses, dropped);
        assert_eq!(state.trouble.as_deref(), Some(BEHIND));
        assert_eq!(state.unstored_records, 1);
        state.end_work(stored(&work));
        state.append(block(600), OnFull::Drop, bytes_max);
        assert_eq!((state.losses, state.unstored_records), (dropped, 1));
        // Who makes all wait drops nothing.
        state.append(block(1_000), OnFull::Block, 1);
        assert_eq!((state.losses, state.unstored_records), (dropped, 2));
    }

    #[test]
    fn no_less_is_read_back_than_is_stored() {
        let mut state = State {
            wanted_bytes: 1,
            is_read: false,
            ..State::default()
        };
        for bytes in [1_000, 3 * ROUND_BYTES] {
            state.append(block(bytes), OnFull::Block, usize::MAX);
            state.append(block(1_000), OnFull::Block, usize::MAX);
            let work = state.begin_work();
            let stored_bytes: usize = work.blocks.iter().map(Block::memory_bytes).sum();
            assert!(work.read_bytes >= stored_bytes.max(ROUND_BYTES));
            assert!(stored_bytes < ROUND_BYTES + bytes + 1_000);
            state.end_work(stored(&work));
        }
        // A loop without room gets nothing, and what comes is stored all the same.
        state.wanted_bytes = 0;
        state.append(block(1_000), OnFull::Block, usize::MAX);
        let work = state.begin_work();
        assert_eq!((work.read_bytes, work.blocks.is_empty()), (0, false));
    }

    #[test]
    fn what_comes_when_all_was_read_need_not_be_stored() {
        let wake = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC);
        let limits = Limits {
            bytes_max: 1 << 20,
            line_bytes_max: 100,
        };
        let mut spill = Spill::open(
            None,
            limits,
            OnFull::Block,
            1 << 20,
            Arc::new(wake.unwrap()),
        )
        .unwrap();
        assert!(!spill.is_active());
        // Without room it goes to the disk, and comes back in order behind that.
        let end = Instant::now() + Duration::from_secs(20);
        let mut sent = 0;
        let mut got = Vec::new();
        while (sent < 100 || spill.is_active()) && Instant::now() < end {
            if sent < 100 {
                let text = format!("{sent}\n").into_bytes();
                spill.append(Block::new(text, 1, Instant::now())).unwrap();
                sent += 1;
            }
            let room = if sent % 10 == 0 { 1_000 } else { 0 };
            for block in spill.take(room).unwrap() {
                got.extend_from_slice(block.bytes());
            }
        }
        let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(got).unwrap(), expected);
        assert!(!spill.is_active());
        assert_eq!(spill.status().records, 0);
    }
}
