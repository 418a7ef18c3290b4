//! A regular file that a thread of its own writes. Several files are therefore written at the
//! same time, and a slow disk delays no pipe.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::serve::tee::block::Block;
use crate::stream::output::Output;

/// The handle with which the main loop uses a file.
#[derive(Debug)]
pub struct FileWriter {
    shared: Arc<SharedFile>,
    /// Set until the thread was joined.
    thread: Option<JoinHandle<()>>,
    /// How many bytes may wait.
    waiting_bytes_max: usize,
}

#[derive(Debug)]
struct SharedFile {
    state: Mutex<FileState>,
    /// Notifies the thread of a change.
    changed: Condvar,
    /// An eventfd that wakes the main loop.
    wake: Arc<OwnedFd>,
}

#[derive(Debug, Default)]
struct FileState {
    waiting: VecDeque<Block>,
    waiting_totals: WaitingLines,
    /// Lines that were written since the last call of `take_written`.
    written: u64,
    /// The condition under which the thread wakes the main loop, if the loop waits.
    wake_when: Option<WakeWhen>,
    is_closing: bool,
    has_failed: bool,
    error: Option<io::Error>,
}

/// The lines that wait to be written to a file, including those that are being written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitingLines {
    /// The number of lines.
    pub records: u64,
    /// The bytes of the lines.
    pub bytes: usize,
    /// When the oldest line was read.
    pub since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WakeWhen {
    HasRoom,
    Empty,
}

impl FileWriter {
    /// Starts the thread. The file is full when `waiting_bytes_max` bytes wait. `wake` is an
    /// eventfd; it becomes readable when the condition that the loop waits for is met, or when a
    /// write has failed.
    pub fn start(
        output: Output,
        waiting_bytes_max: usize,
        wake: Arc<OwnedFd>,
    ) -> io::Result<FileWriter> {
        let shared = Arc::new(SharedFile {
            state: Mutex::new(FileState::default()),
            changed: Condvar::new(),
            wake,
        });
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("file".to_owned());
        let thread = thread.spawn(move || for_thread.write(output, waiting_bytes_max))?;
        Ok(FileWriter {
            shared,
            thread: Some(thread),
            waiting_bytes_max,
        })
    }

    /// Queues a block for the thread.
    pub fn push(&self, block: Block) {
        let mut state = self.shared.lock();
        state.waiting_totals.records += block.records();
        state.waiting_totals.bytes += block.bytes().len();
        state.waiting_totals.since.get_or_insert(block.read_at());
        state.waiting.push_back(block);
        self.shared.changed.notify_one();
    }

    /// Whether the file has no room, so that reading the input must wait. If so, the loop is
    /// woken when there is room.
    pub fn is_full(&self) -> bool {
        let mut state = self.shared.lock();
        let is_full = state.waiting_totals.bytes >= self.waiting_bytes_max;
        state.wake_when = is_full.then_some(WakeWhen::HasRoom).or(state.wake_when);
        is_full
    }

    /// Whether all lines were written. If not, the loop is woken when they are.
    pub fn is_idle(&self) -> bool {
        let mut state = self.shared.lock();
        let is_idle = state.waiting_totals.bytes == 0;
        state.wake_when = (!is_idle).then_some(WakeWhen::Empty);
        is_idle
    }

    /// The lines that wait.
    pub fn waiting(&self) -> WaitingLines {
        self.shared.lock().waiting_totals
    }

    /// After a failed write: the lines that will not be written. Otherwise nothing.
    pub fn take_lost(&self) -> WaitingLines {
        let mut state = self.shared.lock();
        if !state.has_failed {
            return WaitingLines::default();
        }
        state.waiting.clear();
        std::mem::take(&mut state.waiting_totals)
    }

    /// The number of lines that were written since the last call, and the error if a write
    /// failed.
    pub fn take_written(&self) -> (u64, Option<io::Error>) {
        let mut state = self.shared.lock();
        (std::mem::take(&mut state.written), state.error.take())
    }

    /// Tells the thread to exit after it has written the waiting lines and synced the file.
    pub fn start_closing(&self) {
        self.shared.lock().is_closing = true;
        self.shared.changed.notify_one();
    }

    /// Waits for the thread to exit. Lines that still wait afterwards could not be written.
    pub fn close(&mut self) {
        self.start_closing();
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, it has already printed a message.
            let _ = thread.join();
        }
    }
}

impl Drop for FileWriter {
    /// All lines that were read are written before the program exits, even after an error.
    fn drop(&mut self) {
        self.close();
    }
}

impl SharedFile {
    fn lock(&self) -> MutexGuard<'_, FileState> {
        // After a panic of the thread, the state is still consistent.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The thread: writes the queued blocks until it is told to exit or a write fails.
    fn write(&self, mut output: Output, waiting_bytes_max: usize) {
        let outcome = loop {
            let Some(block) = self.next_block() else {
                break output.sync();
            };
            if let Err(error) = write_all(&mut output, block.bytes()) {
                break Err(error);
            }
            self.has_written(&block, waiting_bytes_max);
        };
        output.close();
        if let Err(error) = outcome {
            let mut state = self.lock();
            state.has_failed = true;
            state.error = Some(error);
            self.wake_loop();
        }
    }

    /// Returns the oldest block, which stays in the queue until it is written. Returns `None` if
    /// the queue is empty and the thread must exit.
    fn next_block(&self) -> Option<Block> {
        let mut state = self.lock();
        loop {
            if let Some(block) = state.waiting.front() {
                return Some(block.clone());
            }
            if state.is_closing {
                return None;
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    fn has_written(&self, block: &Block, waiting_bytes_max: usize) {
        let mut state = self.lock();
        state.waiting.pop_front();
        state.written += block.records();
        let next = state.waiting.front().map(Block::read_at);
        let waiting = &mut state.waiting_totals;
        waiting.records -= block.records();
        waiting.bytes -= block.bytes().len();
        waiting.since = next;
        let is_due = match state.wake_when {
            Some(WakeWhen::HasRoom) => state.waiting_totals.bytes <= waiting_bytes_max / 2,
            Some(WakeWhen::Empty) => state.waiting_totals.bytes == 0,
            None => false,
        };
        if is_due {
            state.wake_when = None;
            self.wake_loop();
        }
    }

    fn wake_loop(&self) {
        // A write to a full eventfd fails. The loop is then about to wake anyway.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

fn write_all(output: &mut Output, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        // An interrupted write returns 0.
        let count = output.try_write(bytes)?;
        bytes = &bytes[count..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, PollFd, PollFlags, poll};

    use super::*;
    use crate::stream::address::Address;

    fn start(path: &str, waiting_bytes_max: usize) -> (FileWriter, Arc<OwnedFd>) {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let wake = Arc::new(wake);
        let output = Output::open(&Address::of_output(path).unwrap()).unwrap();
        let file = FileWriter::start(output, waiting_bytes_max, Arc::clone(&wake)).unwrap();
        (file, wake)
    }

    fn block(text: &str) -> Block {
        Block::new(text.as_bytes().to_vec(), 1, Instant::now())
    }

    #[test]
    fn a_file_gets_every_line_in_order_and_the_loop_is_woken_when_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (mut file, wake) = start(path.to_str().unwrap(), 10);
        let mut expected = String::new();
        for number in 0..1_000 {
            let line = format!("{number}\n");
            file.push(block(&line));
            expected += &line;
            if file.is_full() {
                poll(&mut [PollFd::new(&*wake, PollFlags::IN)], None).unwrap();
                rustix::io::read(&*wake, &mut [0; 8]).unwrap();
                assert!(file.waiting().bytes <= 5);
            }
        }
        file.close();
        assert_eq!(file.take_written().0, 1_000);
        assert_eq!(file.waiting(), WaitingLines::default());
        assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
    }

    #[test]
    fn lines_that_a_full_disk_refuses_are_counted_as_lost() {
        let (mut file, wake) = start("/dev/full", 10);
        file.push(block("one\n"));
        poll(&mut [PollFd::new(&*wake, PollFlags::IN)], None).unwrap();
        file.push(block("two\n"));
        file.close();
        let (written, error) = file.take_written();
        assert_eq!(
            (written, error.unwrap().kind()),
            (0, io::ErrorKind::StorageFull)
        );
        let lost = file.take_lost();
        assert_eq!((lost.records, lost.bytes), (2, 8));
    }
}
