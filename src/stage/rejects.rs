//! The file of rejected records, and a thread that writes it where the program must
//! not wait for a disk.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How much may wait for the disk. Records past it are counted and not kept.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How much is handed to the thread at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// How long the disk is waited for at the end of the program.
const FINISH: Duration = Duration::from_secs(5);

/// Where rejected records are kept.
#[derive(Debug)]
pub enum Rejects {
    /// Written at once. The program waits for the disk, and loses no record.
    Here(BufWriter<File>),
    /// Written by a thread. The program waits for nothing.
    Beside(Beside),
}

/// The end of the thread's queue that the program holds.
#[derive(Debug)]
pub struct Beside {
    pending: Vec<u8>,
    pending_records: u64,
    blocks: Option<mpsc::Sender<Block>>,
    shared: Arc<Shared>,
    /// Records for which there was no room.
    refused: u64,
}

type Block = (Vec<u8>, u64);

/// What the thread tells.
#[derive(Debug, Default)]
struct Shared {
    waiting_bytes: AtomicUsize,
    waiting_records: AtomicU64,
    /// Records that could not be written.
    failed: AtomicU64,
    is_done: AtomicBool,
}

impl Rejects {
    /// Records are written at once, until [`write_beside`](Rejects::write_beside).
    pub fn new(file: File) -> Rejects {
        Rejects::Here(BufWriter::new(file))
    }

    /// From now on a thread writes. Fails where there can be no thread.
    pub fn write_beside(&mut self) -> io::Result<()> {
        let Rejects::Here(file) = self else {
            return Ok(());
        };
        file.flush()?;
        let mut file = file.get_ref().try_clone()?;
        let (blocks, taken) = mpsc::channel::<Block>();
        let shared = Arc::new(Shared::default());
        let told = Arc::clone(&shared);
        let write = move || {
            for (block, records) in taken {
                if file.write_all(&block).is_err() {
                    told.failed.fetch_add(records, Ordering::Relaxed);
                }
                told.waiting_records.fetch_sub(records, Ordering::Relaxed);
                told.waiting_bytes.fetch_sub(block.len(), Ordering::Relaxed);
            }
            told.is_done.store(true, Ordering::Release);
        };
        let thread = thread::Builder::new().name("rejects".to_owned());
        thread.spawn(write)?;
        *self = Rejects::Beside(Beside {
            pending: Vec::new(),
            pending_records: 0,
            blocks: Some(blocks),
            shared,
            refused: 0,
        });
        Ok(())
    }

    /// Keeps one record, with its newline.
    pub fn write(&mut self, record: &[u8]) -> io::Result<()> {
        match self {
            Rejects::Here(file) => file.write_all(record),
            Rejects::Beside(beside) => {
                beside.write(record);
                Ok(())
            }
        }
    }

    /// Hands what was kept so far to the operating system, or to the thread.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Rejects::Here(file) => file.flush(),
            Rejects::Beside(beside) => {
                beside.hand_over();
                Ok(())
            }
        }
    }

    /// How many records were not kept, since the disk was full or too slow.
    pub fn lost(&self) -> u64 {
        match self {
            Rejects::Here(_) => 0,
            Rejects::Beside(beside) => beside.lost(),
        }
    }

    /// Waits until the thread has written everything, but no longer than five
    /// seconds. Returns how many records were not kept.
    #[expect(
        clippy::disallowed_methods,
        reason = "bounded by five seconds, and there is nothing else to wait for"
    )]
    pub fn finish(&mut self) -> u64 {
        let Rejects::Beside(beside) = self else {
            return 0;
        };
        beside.hand_over();
        beside.blocks = None;
        let end = Instant::now() + FINISH;
        while !beside.shared.is_done.load(Ordering::Acquire) && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        beside.lost() + beside.shared.waiting_records.load(Ordering::Relaxed)
    }
}

impl Beside {
    fn write(&mut self, record: &[u8]) {
        let waiting = self.shared.waiting_bytes.load(Ordering::Relaxed);
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
        let shared = &self.shared;
        shared
            .waiting_bytes
            .fetch_add(block.len(), Ordering::Relaxed);
        shared.waiting_records.fetch_add(records, Ordering::Relaxed);
        let sent = self.blocks.as_ref().map(|it| it.send((block, records)));
        if !matches!(sent, Some(Ok(()))) {
            self.refused += records;
        }
    }

    fn lost(&self) -> u64 {
        self.refused + self.shared.failed.load(Ordering::Relaxed)
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
        rejects.write_beside().unwrap();
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
    fn where_the_disk_takes_nothing_records_are_counted_and_nobody_waits() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut rejects = Rejects::new(full);
        rejects.write_beside().unwrap();
        for _ in 0..10 {
            rejects.write(b"record\n").unwrap();
            rejects.flush().unwrap();
        }
        assert_eq!(rejects.finish(), 10);
    }

    #[test]
    fn what_waits_for_a_disk_is_bounded() {
        // A pipe that nobody reads stands for a disk that has stopped.
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut rejects = Rejects::new(writer.into());
        rejects.write_beside().unwrap();
        let record = [b'x'; 1 << 20];
        for _ in 0..40 {
            rejects.write(&record).unwrap();
        }
        assert!((20..30).contains(&rejects.lost()), "{}", rejects.lost());
        drop(reader);
        assert_eq!(rejects.finish(), 40);
    }
}
