//! The file of rejected records, and a thread that writes it if the program must not
//! wait for a disk.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The number of bytes that may wait for the disk. Further records are counted but not
/// kept.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The number of bytes that are given to the thread at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// At its end, the program waits for the disk for at most this long.
const FINISH_TIME: Duration = Duration::from_secs(5);

/// The writer of rejected records.
#[derive(Debug)]
pub enum Rejects {
    /// The program itself writes and waits for the disk. No record is lost.
    Direct(BufWriter<File>),
    /// A thread writes. The program never waits, but records may be lost.
    Thread(RejectsThread),
}

/// The program's side of the writing thread.
#[derive(Debug)]
pub struct RejectsThread {
    pending: Vec<u8>,
    pending_records: u64,
    blocks: Option<mpsc::Sender<Block>>,
    progress: Arc<ThreadProgress>,
    /// Records that were not kept because too many bytes were waiting.
    refused: u64,
}

type Block = (Vec<u8>, u64);

/// The counts that the program and the thread share.
#[derive(Debug, Default)]
struct ThreadProgress {
    waiting_bytes: AtomicUsize,
    waiting_records: AtomicU64,
    /// Records that could not be written.
    failed: AtomicU64,
    is_done: AtomicBool,
}

impl Rejects {
    /// Writes directly to `file`, until [`write_in_thread`](Rejects::write_in_thread)
    /// is called.
    pub fn new(file: File) -> Rejects {
        Rejects::Direct(BufWriter::new(file))
    }

    /// Starts a thread that writes from now on. Fails if the thread cannot be started.
    pub fn write_in_thread(&mut self) -> io::Result<()> {
        let Rejects::Direct(file) = self else {
            return Ok(());
        };
        file.flush()?;
        let mut file = file.get_ref().try_clone()?;
        let (blocks, taken) = mpsc::channel::<Block>();
        let progress = Arc::new(ThreadProgress::default());
        let in_thread = Arc::clone(&progress);
        let write = move || {
            for (block, records) in taken {
                if file.write_all(&block).is_err() {
                    in_thread.failed.fetch_add(records, Ordering::Relaxed);
                }
                in_thread
                    .waiting_records
                    .fetch_sub(records, Ordering::Relaxed);
                in_thread
                    .waiting_bytes
                    .fetch_sub(block.len(), Ordering::Relaxed);
            }
            in_thread.is_done.store(true, Ordering::Release);
        };
        let builder = thread::Builder::new().name("rejects".to_owned());
        builder.spawn(write)?;
        *self = Rejects::Thread(RejectsThread {
            pending: Vec::new(),
            pending_records: 0,
            blocks: Some(blocks),
            progress,
            refused: 0,
        });
        Ok(())
    }

    /// Keeps one record, with its newline.
    pub fn write(&mut self, record: &[u8]) -> io::Result<()> {
        match self {
            Rejects::Direct(file) => file.write_all(record),
            Rejects::Thread(thread) => {
                thread.write(record);
                Ok(())
            }
        }
    }

    /// Gives all records so far to the operating system, or to the thread.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Rejects::Direct(file) => file.flush(),
            Rejects::Thread(thread) => {
                thread.hand_over();
                Ok(())
            }
        }
    }

    /// The number of records that were not kept because the disk was full or too slow.
    pub fn lost(&self) -> u64 {
        match self {
            Rejects::Direct(_) => 0,
            Rejects::Thread(thread) => thread.lost(),
        }
    }

    /// Waits at most five seconds until the thread has written everything. Returns the
    /// number of records that were not kept.
    #[expect(
        clippy::disallowed_methods,
        reason = "bounded by five seconds, and the program has no other work left"
    )]
    pub fn finish(&mut self) -> u64 {
        let Rejects::Thread(thread) = self else {
            return 0;
        };
        thread.hand_over();
        thread.blocks = None;
        let end = Instant::now() + FINISH_TIME;
        while !thread.progress.is_done.load(Ordering::Acquire) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        thread.lost() + thread.progress.waiting_records.load(Ordering::Relaxed)
    }
}

impl RejectsThread {
    fn write(&mut self, record: &[u8]) {
        let waiting = self.progress.waiting_bytes.load(Ordering::Relaxed);
        if waiting + self.pending.len() + record.len() > WAITING_BYTES_MAX {
            self.refused += 1;
            return;
        }
        self.pending.extend_from_slice(record);
        self.pending_records += 1;
        if self.pending.len() >= BLOCK_BYTES {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let block = std::mem::take(&mut self.pending);
        let records = std::mem::take(&mut self.pending_records);
        let progress = &self.progress;
        progress
            .waiting_bytes
            .fetch_add(block.len(), Ordering::Relaxed);
        progress
            .waiting_records
            .fetch_add(records, Ordering::Relaxed);
        let sent = self.blocks.as_ref().map(|it| it.send((block, records)));
        if !matches!(sent, Some(Ok(()))) {
            self.refused += records;
        }
    }

    fn lost(&self) -> u64 {
        self.refused + self.progress.failed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_writes_everything_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects");
        let mut rejects = Rejects::new(File::create(&path).unwrap());
        rejects.write(b"before\n").unwrap();
        rejects.write_in_thread().unwrap();
        let mut expected = "before\n".to_owned();
        for number in 0..20_000 {
            let record = format!("record {number}\n");
            rejects.write(record.as_bytes()).unwrap();
            expected += &record;
        }
        assert_eq!(rejects.finish(), 0);
        assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
    }

    #[test]
    fn records_for_a_full_disk_are_counted_and_the_program_does_not_wait() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut rejects = Rejects::new(full);
        rejects.write_in_thread().unwrap();
        for _ in 0..10 {
            rejects.write(b"record\n").unwrap();
            rejects.flush().unwrap();
        }
        assert_eq!(rejects.finish(), 10);
    }

    #[test]
    fn the_bytes_that_wait_for_a_disk_are_bounded() {
        // A pipe that is never read behaves like a disk that has stopped.
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut rejects = Rejects::new(writer.into());
        rejects.write_in_thread().unwrap();
        let record = [b'x'; 1 << 20];
        for _ in 0..40 {
            rejects.write(&record).unwrap();
        }
        assert!((20..30).contains(&rejects.lost()), "{}", rejects.lost());
        drop(reader);
        assert_eq!(rejects.finish(), 40);
    }
}
