//! A file that a thread writes, so that the program does not wait for its disk. The
//! program writes to a pipe, which the thread reads. So poll can report whether the pipe
//! has room.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;

use crate::stream::output::Output;

/// The number of bytes that may wait for the disk.
const PIPE_BYTES: usize = 1 << 20;

const BLOCK_BYTES: usize = 256 * 1024;

/// A handle to the writing thread.
#[derive(Debug)]
pub struct ThreadedFile {
    shared: Arc<Mutex<WriterState>>,
}

/// The state that the thread reports.
#[derive(Debug, Default)]
struct WriterState {
    error: Option<io::Error>,
    /// Lines that the thread received but could not write to the file.
    lost: u64,
    is_done: bool,
}

impl ThreadedFile {
    /// Creates or empties the file at `path`. Bytes written to the returned output go
    /// to the file.
    pub fn create(path: &str) -> Result<(Output, ThreadedFile)> {
        let create = || -> io::Result<(Output, ThreadedFile)> {
            let file = File::create(path)?;
            let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::fs::fcntl_setfl(&writer, OFlags::WRONLY | OFlags::NONBLOCK)?;
            // A smaller pipe works too.
            let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_BYTES);
            let shared = Arc::new(Mutex::new(WriterState::default()));
            let in_thread = Arc::clone(&shared);
            let builder = thread::Builder::new().name("disk".to_owned());
            builder.spawn(move || copy(reader, file, &in_thread))?;
            Ok((Output::of_pipe(path, writer), ThreadedFile { shared }))
        };
        create().with_context(|| format!("{path}: cannot open for writing"))
    }

    fn shared(&self) -> MutexGuard<'_, WriterState> {
        lock(&self.shared)
    }

    /// Takes the error of the first failed write.
    pub fn take_error(&self) -> Option<io::Error> {
        self.shared().error.take()
    }

    /// The number of lines that the thread received but could not write because a
    /// write failed.
    pub fn lost(&self) -> u64 {
        self.shared().lost
    }

    /// Waits until everything is on disk, at most until `end`. Returns whether
    /// everything is on disk. Close the output before this.
    #[expect(
        clippy::disallowed_methods,
        reason = "bounded by `end`, and the program has no other work left"
    )]
    pub fn finish(&self, end: Instant) -> bool {
        while !self.shared().is_done && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        self.shared().is_done
    }
}

fn lock(shared: &Mutex<WriterState>) -> MutexGuard<'_, WriterState> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies until the pipe ends. After a failed write, further lines are only counted.
fn copy(reader: OwnedFd, mut file: File, shared: &Mutex<WriterState>) {
    let mut reader = File::from(reader);
    let mut block = vec![0; BLOCK_BYTES];
    let mut failed = false;
    let fail = |error: io::Error, lost: u64| {
        let mut shared = lock(shared);
        shared.error.get_or_insert(error);
        shared.lost += lost;
    };
    loop {
        let count = match reader.read(&mut block) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let lines = || memchr::memchr_iter(b'\n', &block[..count]).count() as u64;
        if failed {
            lock(shared).lost += lines();
        } else if let Err(error) = file.write_all(&block[..count]) {
            failed = true;
            fail(error, lines());
        }
    }
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if !failed
        && is_file
        && let Err(error) = file.sync_data()
    {
        fail(error, 0);
    }
    lock(shared).is_done = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_lines_reach_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (mut output, thread) = ThreadedFile::create(path.to_str().unwrap()).unwrap();
        let mut expected = String::new();
        for number in 0..1000 {
            let line = format!("{number} {}\n", "x".repeat(number));
            let mut written = 0;
            while written < line.len() {
                written += output.try_write(&line.as_bytes()[written..]).unwrap();
            }
            expected += &line;
        }
        output.close();
        assert!(thread.finish(Instant::now() + Duration::from_secs(30)));
        assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
        assert_eq!(thread.lost(), 0);
    }

    #[test]
    fn a_full_disk_is_reported_once_and_its_lost_lines_are_counted() {
        let (mut output, thread) = ThreadedFile::create("/dev/full").unwrap();
        for _ in 0..10 {
            assert_eq!(output.try_write(b"line\n").unwrap(), 5);
        }
        output.close();
        assert!(thread.finish(Instant::now() + Duration::from_secs(30)));
        assert_eq!(thread.lost(), 10);
        let error = thread.take_error().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(thread.take_error().is_none());
    }
}
