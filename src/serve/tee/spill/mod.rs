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

/// How much may wait for the disk.
const UNSTORED_BYTES_MAX: usize = 16 << 20;

/// How much is read back at a time.
const READ_BYTES: usize = 64 << 10;

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

/// The spill of one branch, as the loop sees it.
#[derive(Debug)]
pub struct Spill {
    shared: Arc<Shared>,
    /// Set until the thread is needed.
    segments: Option<Segments>,
    thread: Option<JoinHandle<Segments>>,
    on_full: OnFull,
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
    unstored_bytes: usize,
    unstored_records: u64,
    wanted: bool,
    passed_on: Option<Place>,
    end: Option<End>,
    // For the loop.
    read: VecDeque<Block>,
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
    /// a folder, one that goes with the process. `wake` is an eventfd that becomes
    /// readable when there is something to [`take`](Spill::take) or to tell.
    pub fn open(
        folder: Option<&Path>,
        limits: Limits,
        on_full: OnFull,
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

    /// Whether nothing more may be read until there is room.
    pub fn is_full(&self) -> bool {
        if self.on_full == OnFull::Drop || !self.active {
            return false;
        }
        let state = self.shared.lock();
        state.full || state.unstored_bytes >= UNSTORED_BYTES_MAX
    }

    /// Appends a block, or drops it where it would have to wait.
    pub fn append(&mut self, block: Block) -> io::Result<()> {
        self.start()?;
        self.active = true;
        let mut state = self.shared.lock();
        if self.on_full == OnFull::Drop && state.unstored_bytes >= UNSTORED_BYTES_MAX {
            state.losses.drop(&block);
            return Ok(());
        }
        state.unstored_bytes += block.memory_bytes();
        state.unstored_records += block.records();
        state.unstored.push_back(block);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Asks for the oldest lines.
    pub fn want(&mut self) -> io::Result<()> {
        if self.active {
            self.start()?;
            let mut state = self.shared.lock();
            if !state.wanted {
                state.wanted = true;
                self.shared.changed.notify_one();
            }
        }
        Ok(())
    }

    /// What was asked for, as far as it is there.
    pub fn take(&mut self) -> VecDeque<Block> {
        if !self.active {
            return VecDeque::new();
        }
        let mut state = self.shared.lock();
        let read = std::mem::take(&mut state.read);
        let is_empty = state.unstored.is_empty() && !state.busy && state.is_read;
        self.active = !(is_empty && read.is_empty());
        read
    }

    /// All lines up to `place` have been written to the reader's pipe.
    pub fn passed_on(&mut self, place: Place) {
        let mut state = self.shared.lock();
        state.passed_on = Some(place);
        self.shared.changed.notify_one();
    }

    /// What went wrong since the last call, if anything did.
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
            let bytes: Vec<u8> = waiting.iter().flat_map(Block::bytes).copied().collect();
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
}

/// The thread's side of a spill.
struct Worker {
    shared: Arc<Shared>,
    segments: Segments,
    on_full: OnFull,
    /// Where the last lines end that the loop got.
    good_up_to: Place,
    /// Up to where it has passed them on.
    passed_on: Place,
}

/// What the thread has to do next.
struct Work {
    blocks: VecDeque<Block>,
    read: bool,
    passed_on: Option<Place>,
    end: Option<End>,
}

impl Worker {
    fn run(mut self) -> Segments {
        loop {
            let mut work = self.next_work();
            let mut trouble = None;
            let mut losses = Losses::default();
            if let Some(place) = work.passed_on {
                trouble = self.forget(place, work.blocks.is_empty()).err();
            }
            let read = if work.read {
                self.read(&mut losses, &mut trouble)
            } else {
                None
            };
            let read_in_vain = work.read && read.is_none();
            let blocks_taken = work.blocks.len();
            if work.end != Some(End::Remove) {
                self.store(&mut work.blocks, &mut losses, &mut trouble);
            }
            let progress = work.blocks.len() < blocks_taken;
            self.publish(work.blocks, progress, read, read_in_vain, losses, trouble);
            if work.end.is_some() {
                return self.segments;
            }
        }
    }

    /// Waits for something to do.
    fn next_work(&self) -> Work {
        let mut state = self.shared.lock();
        loop {
            let read = state.wanted && !state.is_read;
            let store = !state.unstored.is_empty() && !state.full;
            if state.end.is_some() || state.passed_on.is_some() || read || store {
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
        // What was passed on may have made room.
        let passed_on = state.passed_on.take();
        state.full &= passed_on.is_none();
        let read = state.wanted && !state.is_read;
        state.wanted &= !read;
        state.busy = true;
        // At the end there is no later time to try again.
        let blocks = if state.full && state.end.is_none() {
            VecDeque::new()
        } else {
            std::mem::take(&mut state.unstored)
        };
        Work {
            blocks,
            read,
            passed_on,
            end: state.end,
        }
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

    fn read(&mut self, losses: &mut Losses, trouble: &mut Option<io::Error>) -> Option<Block> {
        match self.segments.read(READ_BYTES) {
            Ok(Some(chunk)) => {
                losses.corrupt += chunk.corrupt;
                if chunk.records > 0 {
                    self.good_up_to = chunk.end;
                    let block = Block::new(&chunk.bytes, chunk.records, Instant::now());
                    return Some(block.spilled_to(chunk.end));
                }
            }
            Ok(None) => return None,
            Err(error) => {
                *trouble = Some(error);
                losses.corrupt += self.segments.skip_unreadable();
            }
        }
        // Lines that are spoiled are passed on to nobody, and must not stay for ever.
        if self.passed_on >= self.good_up_to
            && let Err(error) = self.segments.forget(self.segments.read_up_to())
        {
            *trouble = Some(error);
        }
        None
    }

    /// Stores blocks until there is no room, and leaves those for which there is
    /// none to be stored later, or drops them.
    fn store(
        &mut self,
        blocks: &mut VecDeque<Block>,
        losses: &mut Losses,
        trouble: &mut Option<io::Error>,
    ) {
        while let Some(block) = blocks.front() {
            match self.segments.append(block.bytes(), block.records()) {
                Ok(true) => {}
                refused => {
                    let no_room = || io::Error::other("--spill-max is reached");
                    *trouble = Some(refused.err().unwrap_or_else(no_room));
                    if self.on_full == OnFull::Block {
                        return;
                    }
                    losses.drop(block);
                }
            }
            blocks.pop_front();
        }
    }

    /// Tells the loop what came of it. `left` are the blocks that wait for room.
    fn publish(
        &self,
        left: VecDeque<Block>,
        progress: bool,
        read: Option<Block>,
        read_in_vain: bool,
        losses: Losses,
        trouble: Option<io::Error>,
    ) {
        let mut state = self.shared.lock();
        let was_full = state.full;
        let was_over = state.unstored_bytes >= UNSTORED_BYTES_MAX;
        state.full = !left.is_empty() || (was_full && !progress);
        for block in left.into_iter().rev() {
            state.unstored.push_front(block);
        }
        state.unstored_bytes = state.unstored.iter().map(Block::memory_bytes).sum();
        state.unstored_records = state.unstored.iter().map(Block::records).sum();
        state.losses.dropped += losses.dropped;
        state.losses.dropped_bytes += losses.dropped_bytes;
        state.losses.corrupt += losses.corrupt;
        state.stored = self.segments.stored();
        state.is_read = self.segments.is_read();
        state.busy = false;
        let is_drained = state.is_read && state.unstored.is_empty();
        let is_over = state.unstored_bytes >= UNSTORED_BYTES_MAX;
        let has_room_again = was_full != state.full || was_over != is_over;
        // Where nothing but spoiled lines was read, there is more to read at once.
        state.wanted |= read_in_vain && !state.is_read;
        let is_news = read.is_some() || trouble.is_some() || has_room_again || is_drained;
        state.read.extend(read);
        if let Some(error) = trouble {
            state.trouble = Some(error.to_string());
        }
        drop(state);
        if is_news {
            self.shared.wake_loop();
        }
    }
}
