//! The writing end of a named pipe that stays open when readers close.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::event::PollFlags;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::stream::descriptor;
use crate::stream::pipe_watch::PipeWatch;

/// The capacity of a wide pipe, in bytes.
const WIDE_BYTES: usize = 256 << 10;

/// A pipe that is opened without waiting for a reader and stays open when its reader
/// closes. So the next reader finds a writer, and unread bytes can be taken back.
#[derive(Debug)]
pub struct LastingPipe {
    path: String,
    fd: OwnedFd,
    /// The inode, which distinguishes the pipe from another one with its name.
    ino: u64,
    has_reader: bool,
    /// The capacity when the pipe was opened, in bytes.
    capacity: usize,
}

impl LastingPipe {
    /// Opens the named pipe at `path`. `watch` then reports when a process opens the
    /// pipe.
    pub fn open(path: &str, watch: &PipeWatch) -> Result<LastingPipe> {
        let cannot = || format!("{path}: cannot open the pipe for writing");
        // Without a reader, opening a pipe for writing either fails or waits. So
        // this function opens the reading end for a short time.
        let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
        let reader = rustix::fs::open(path, OFlags::RDONLY | flags, Mode::empty());
        let reader = reader.with_context(cannot)?;
        let stat = rustix::fs::fstat(&reader).with_context(cannot)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
            bail!("{path}: is not a named pipe; make one with `mkfifo {path}`");
        }
        let fd = descriptor::reopen(&reader, OFlags::WRONLY).with_context(cannot)?;
        watch.watch_opening(path)?;
        drop(reader);
        let mut pipe = LastingPipe {
            path: path.to_owned(),
            capacity: rustix::pipe::fcntl_getpipe_size(&fd).with_context(cannot)?,
            fd,
            ino: stat.st_ino,
            has_reader: false,
        };
        pipe.look_for_reader();
        Ok(pipe)
    }

    /// The path of the pipe, for messages.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The inode, which distinguishes the pipe from another one with its name.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// The capacity in bytes. The reader may have enlarged it.
    pub fn capacity(&self) -> usize {
        rustix::pipe::fcntl_getpipe_size(&self.fd).unwrap_or(self.capacity)
    }

    /// The descriptor to wait on; `None` without a reader, because the wait would then
    /// end at once.
    pub fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.has_reader.then(|| self.fd.as_fd())
    }

    /// Whether the pipe had a reader at the last check.
    pub fn has_reader(&self) -> bool {
        self.has_reader
    }

    /// Checks whether the pipe has a reader now.
    pub fn look_for_reader(&mut self) -> bool {
        if let Ok(found) = descriptor::poll_now(&self.fd, PollFlags::empty()) {
            self.has_reader = !found.contains(PollFlags::ERR);
        }
        self.has_reader
    }

    /// Writes as many bytes as the pipe accepts without waiting. Returns `BrokenPipe`
    /// if the reader has closed.
    pub fn write_some(&mut self, slices: &[IoSlice]) -> io::Result<usize> {
        match rustix::io::writev(&self.fd, slices) {
            Ok(count) => Ok(count),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes back the bytes that no reader has read, and checks whether the pipe has a
    /// reader now.
    ///
    /// A single read empties the pipe, and no other read can happen in between. So a
    /// reader that has opened the pipe in the meantime can have read only bytes
    /// before `unread`, and will continue after them.
    pub fn take_back(&mut self) -> io::Result<TakenBack> {
        let reader = descriptor::reopen(&self.fd, OFlags::RDONLY)?;
        let mut unread = Vec::new();
        loop {
            let (filled, room) = (unread.len(), self.capacity().max(1) + 1);
            unread.resize(filled + room, 0);
            let outcome = rustix::io::read(&reader, &mut unread[filled..]);
            unread.truncate(filled + outcome.unwrap_or(0));
            match outcome {
                Err(Errno::INTR) => {}
                Ok(count) if count == room => {}
                // The pipe is empty. A read cannot reach the end while `fd` is open for
                // writing.
                Ok(_) | Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        // The reading end is closed before the check, which would otherwise count
        // it as a reader.
        drop(reader);
        Ok(TakenBack {
            unread,
            next_reader: self.look_for_reader(),
        })
    }

    /// Raises the capacity to 256 KiB, unless it is larger. Each write then wakes the reader
    /// for more lines, so the writer and the reader wake up less often.
    pub fn widen(&mut self) {
        if self.capacity() < WIDE_BYTES {
            // If the user has too many wide pipes, this call fails and the pipe keeps
            // its capacity.
            let _ = rustix::pipe::fcntl_setpipe_size(&self.fd, WIDE_BYTES);
        }
    }

    /// Reduces the capacity to `bytes`, rounded up to whole pages. Bytes in the pipe
    /// stay.
    pub fn narrow(&mut self, bytes: usize) {
        // If the pipe holds more bytes than that, this call fails and the pipe keeps
        // its capacity. The reader may also enlarge the pipe again.
        let _ = rustix::pipe::fcntl_setpipe_size(&self.fd, bytes);
    }
}

/// The state of a pipe after its reader closed.
#[derive(Debug, PartialEq, Eq)]
pub struct TakenBack {
    /// The bytes that no reader has read.
    pub unread: Vec<u8>,
    /// Whether the next reader has already opened the pipe. That reader may have read
    /// bytes before `unread`.
    pub next_reader: bool,
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    fn pipe() -> (tempfile::TempDir, String, PipeWatch) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe").to_str().unwrap().to_owned();
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        (folder, path, PipeWatch::new().unwrap())
    }

    #[test]
    fn readers_come_and_go_and_their_unread_bytes_are_taken_back() {
        let (_folder, path, watch) = pipe();
        let mut pipe = LastingPipe::open(&path, &watch).unwrap();
        assert!(!pipe.has_reader());
        let mut reader = File::open(&path).unwrap();
        assert!(pipe.look_for_reader());
        let text = b"one\ntwo\n";
        assert_eq!(pipe.write_some(&[IoSlice::new(text)]).unwrap(), 8);
        let mut taken = [0; 3];
        reader.read_exact(&mut taken).unwrap();
        drop(reader);
        assert!(!pipe.look_for_reader());
        assert_eq!(
            pipe.write_some(&[IoSlice::new(text)]).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        let left = |unread: &[u8], next_reader| TakenBack {
            unread: unread.to_owned(),
            next_reader,
        };
        assert_eq!(pipe.take_back().unwrap(), left(b"\ntwo\n", false));
        assert_eq!(pipe.take_back().unwrap(), left(b"", false));
        // The next reader opens the pipe before its bytes are taken back, and reads
        // some.
        let reader = File::open(&path).unwrap();
        pipe.look_for_reader();
        assert_eq!(pipe.write_some(&[IoSlice::new(text)]).unwrap(), 8);
        drop(reader);
        let mut reader = File::open(&path).unwrap();
        reader.read_exact(&mut taken).unwrap();
        assert_eq!(pipe.take_back().unwrap(), left(b"\ntwo\n", true));
        assert!(pipe.has_reader());
    }

    #[test]
    fn a_wide_pipe_is_taken_back_whole() {
        let (_folder, path, watch) = pipe();
        let mut pipe = LastingPipe::open(&path, &watch).unwrap();
        let reader = File::open(&path).unwrap();
        rustix::pipe::fcntl_setpipe_size(&reader, 1 << 20).unwrap();
        let text: Vec<u8> = (0..1 << 20).map(|number: u32| number as u8).collect();
        assert_eq!(pipe.write_some(&[IoSlice::new(&text)]).unwrap(), 1 << 20);
        drop(reader);
        assert!(pipe.take_back().unwrap().unread == text);
    }

    #[test]
    fn a_pipe_is_widened_and_never_narrowed_by_that() {
        let (_folder, path, watch) = pipe();
        let mut pipe = LastingPipe::open(&path, &watch).unwrap();
        pipe.widen();
        assert_eq!(pipe.capacity(), WIDE_BYTES);
        rustix::pipe::fcntl_setpipe_size(&pipe.fd, 4 * WIDE_BYTES).unwrap();
        pipe.widen();
        assert_eq!(pipe.capacity(), 4 * WIDE_BYTES);
    }

    #[test]
    fn a_narrow_pipe_holds_one_page() {
        let (_folder, path, watch) = pipe();
        let mut pipe = LastingPipe::open(&path, &watch).unwrap();
        let _reader = File::open(&path).unwrap();
        pipe.narrow(1);
        let page = pipe.capacity();
        assert!(page < 1 << 16);
        let text = vec![b'x'; 1 << 16];
        assert_eq!(pipe.write_some(&[IoSlice::new(&text)]).unwrap(), page);
    }

    #[test]
    fn a_file_is_no_pipe() {
        let (folder, _, watch) = pipe();
        let file = folder.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        let error = LastingPipe::open(file.to_str().unwrap(), &watch).unwrap_err();
        assert!(error.to_string().contains("mkfifo"), "{error}");
        assert_eq!(std::fs::read(&file).unwrap(), b"kept");
    }
}
