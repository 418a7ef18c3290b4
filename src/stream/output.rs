//! The writing end of a stream: standard output, a file, or a named pipe.
//!
//! Only writes to regular files and devices block. A named pipe is opened without
//! waiting for its reader, so pipes can be opened in any order.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, PollFlags};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::stream::address::Address;
use crate::stream::descriptor;

const STDOUT_NAME: &str = "<stdout>";

/// The writing end of a stream.
#[derive(Debug)]
pub struct Output {
    name: String,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    /// A named pipe that has no reader yet. A thread waits for one.
    Opening {
        opened: mpsc::Receiver<rustix::io::Result<OwnedFd>>,
        /// Becomes readable when the thread has opened the pipe or failed.
        done: OwnedFd,
        /// The pipe itself. It stays the same pipe even if its name later belongs to
        /// another file.
        pipe: OwnedFd,
        /// A reading end of the pipe, whose opening ends the thread's wait. This end
        /// stays open until the thread is done, because the thread may be about to open
        /// the pipe.
        release: Arc<OnceLock<OwnedFd>>,
    },
    Open {
        fd: OwnedFd,
        writes: Writes,
    },
    Nowhere,
}

/// How writes to a descriptor behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    /// The program owns the description, and writes do not block.
    NonBlocking,
    /// Other programs share the description, so its flags must not change. After poll
    /// reports room, a write of at most `PIECE_BYTES` never blocks on a pipe.
    InPieces,
    /// A regular file or a device. A write may block without a limit.
    Blocking { sync: bool },
}

/// On Linux, poll reports a pipe as writable only if it has room for at least this many
/// bytes.
const PIECE_BYTES: usize = 4096;

impl Output {
    /// Opens the stream at `address`. A regular file is emptied.
    pub fn open(address: &Address) -> Result<Output> {
        Output::open_with(address, OpenOptions::new().write(true).truncate(true))
    }

    /// Opens the stream at `address`. A regular file is appended to.
    pub fn append(address: &Address) -> Result<Output> {
        Output::open_with(address, OpenOptions::new().append(true))
    }

    fn open_with(address: &Address, options: &mut OpenOptions) -> Result<Output> {
        if address.is_standard_output() {
            return Output::standard();
        }
        let path = address.as_str();
        if let Some(output) = Output::open_pipe(path)? {
            return Ok(output);
        }
        let file = options.create(true).open(path);
        let file = file.with_context(|| format!("{path}: cannot open for writing"))?;
        let sync = file.metadata().is_ok_and(|metadata| metadata.is_file());
        Ok(Output {
            name: path.to_owned(),
            sink: Sink::Open {
                fd: file.into(),
                writes: Writes::Blocking { sync },
            },
        })
    }

    /// Opens a named pipe; `None` if `path` is not one. Creates no file.
    pub fn open_pipe(path: &str) -> Result<Option<Output>> {
        // The pipe is opened before it is checked, so a later change of its name does
        // not matter.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let Ok(pipe) = rustix::fs::open(path, flags, Mode::empty()) else {
            return Ok(None);
        };
        let stat = rustix::fs::fstat(&pipe);
        let is_pipe =
            stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if !is_pipe {
            return Ok(None);
        }
        let sink =
            wait_for_reader(path, pipe).with_context(|| format!("{path}: cannot open for writing"));
        Ok(Some(Output {
            name: path.to_owned(),
            sink: sink?,
        }))
    }

    /// Wraps the non-blocking writing end of the program's own pipe. `name` is the name
    /// that messages use for the pipe.
    pub fn of_pipe(name: &str, fd: OwnedFd) -> Output {
        Output {
            name: name.to_owned(),
            sink: Sink::Open {
                fd,
                writes: Writes::NonBlocking,
            },
        }
    }

    /// An output that discards all bytes.
    pub fn nowhere() -> Output {
        Output {
            name: "nowhere".to_owned(),
            sink: Sink::Nowhere,
        }
    }

    fn standard() -> Result<Output> {
        let fd = rustix::stdio::stdout().try_clone_to_owned();
        let fd = fd.context(STDOUT_NAME)?;
        let stat = rustix::fs::fstat(&fd).context(STDOUT_NAME)?;
        let (fd, writes) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => (fd, Writes::Blocking { sync: false }),
            FileType::CharacterDevice if !rustix::termios::isatty(&fd) => {
                (fd, Writes::Blocking { sync: false })
            }
            FileType::Fifo => match descriptor::reopen(&fd, OFlags::WRONLY) {
                Ok(own) => (own, Writes::NonBlocking),
                // There is no /proc, another user owns the pipe, or its reader has
                // closed.
                Err(_) => (fd, Writes::InPieces),
            },
            _ => (fd, Writes::InPieces),
        };
        Ok(Output {
            name: STDOUT_NAME.to_owned(),
            sink: Sink::Open { fd, writes },
        })
    }

    /// The name that messages use for the output.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The descriptor and events to wait for before the next write; `None` if a write
    /// never waits for another program.
    pub fn readiness(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.sink {
            Sink::Opening { done, .. } => Some((done.as_fd(), PollFlags::IN)),
            Sink::Open {
                writes: Writes::Blocking { .. },
                ..
            }
            | Sink::Nowhere => None,
            Sink::Open { fd, .. } => Some((fd.as_fd(), PollFlags::OUT)),
        }
    }

    /// Whether the pipe has had a reader. Until then, no byte can be written.
    pub fn is_open(&mut self) -> io::Result<bool> {
        if let Sink::Opening { opened, .. } = &self.sink {
            match opened.try_recv() {
                Ok(Ok(fd)) => {
                    // The thread has just opened this description, so no other program
                    // shares it.
                    rustix::fs::fcntl_setfl(&fd, OFlags::WRONLY | OFlags::NONBLOCK)?;
                    self.sink = Sink::Open {
                        fd,
                        writes: Writes::NonBlocking,
                    };
                }
                Ok(Err(errno)) => return Err(errno.into()),
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Writes as much as is accepted without waiting, and returns the number of
    /// bytes. Returns 0 if the pipe is full or has no reader yet.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_open()? {
            return Ok(0);
        }
        let (fd, writes) = match &self.sink {
            Sink::Open { fd, writes } => (fd, *writes),
            Sink::Opening { .. } => return Ok(0),
            Sink::Nowhere => return Ok(bytes.len()),
        };
        let piece = match writes {
            Writes::InPieces if !descriptor::is_ready(fd, PollFlags::OUT)? => return Ok(0),
            Writes::InPieces => &bytes[..bytes.len().min(PIECE_BYTES)],
            Writes::NonBlocking | Writes::Blocking { .. } => bytes,
        };
        match rustix::io::write(fd, piece) {
            Ok(count) => Ok(count),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the output is a named pipe, which can have several readers in
    /// succession.
    pub fn is_named_pipe(&self) -> bool {
        let by_path = self.name != STDOUT_NAME && !self.name.starts_with("/dev/");
        match &self.sink {
            Sink::Opening { .. } => by_path,
            Sink::Open { writes, .. } => by_path && *writes == Writes::NonBlocking,
            Sink::Nowhere => false,
        }
    }

    /// Whether the output still waits for its first reader, and its name now belongs to
    /// another file.
    pub fn is_replaced(&self) -> bool {
        match &self.sink {
            Sink::Opening { pipe, .. } => descriptor::is_replaced(pipe, &self.name),
            _ => false,
        }
    }

    /// Ends the wait for a reader that can no longer open the pipe, and ends the
    /// waiting thread.
    pub fn give_up_opening(self) {
        if let Sink::Opening { pipe, release, .. } = &self.sink
            && let Ok(reader) = descriptor::reopen(pipe, OFlags::RDONLY)
        {
            let _ = release.set(reader);
        }
    }

    /// Syncs a regular file to disk. For any other output, this does nothing.
    pub fn sync(&mut self) -> io::Result<()> {
        match &self.sink {
            Sink::Open {
                fd,
                writes: Writes::Blocking { sync: true },
            } => Ok(rustix::fs::fdatasync(fd)?),
            _ => Ok(()),
        }
    }

    /// Closes the output, so that its reader sees the end of the stream.
    pub fn close(&mut self) {
        self.sink = Sink::Nowhere;
        if self.name == STDOUT_NAME
            && let Ok(null) = File::options().write(true).open("/dev/null")
        {
            // The inherited descriptor is a writing end too, and must also be closed.
            // If this call fails, the reader sees the end of the stream when the
            // program ends.
            let _ = rustix::stdio::dup2_stdout(null);
        }
    }
}

/// Starts a thread that waits for a reader of the named pipe: without a reader, opening
/// a pipe for writing either fails or blocks.
fn wait_for_reader(path: &str, pipe: OwnedFd) -> Result<Sink> {
    let done = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let wake = done.try_clone()?;
    let held = pipe.try_clone()?;
    let (sender, opened) = mpsc::channel();
    let release = Arc::new(OnceLock::new());
    let held_for_thread = Arc::clone(&release);
    let path = path.to_owned();
    thread::Builder::new()
        .name("opening".to_owned())
        .spawn(move || {
            let fd = loop {
                let opened = match descriptor::reopen_blocking(&held, OFlags::WRONLY) {
                    // There is no /proc.
                    Err(Errno::NOENT) => {
                        rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                    }
                    opened => opened,
                };
                match opened {
                    Err(Errno::INTR) => {}
                    outcome => break outcome,
                }
            };
            // The receiver is dropped if the program no longer waits.
            let _ = sender.send(fd);
            let _ = rustix::io::write(&wake, &1u64.to_ne_bytes());
            drop(held_for_thread);
        })?;
    Ok(Sink::Opening {
        opened,
        done,
        pipe,
        release,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::path::Path;

    use rustix::event::{PollFd, Timespec, poll};

    use super::*;

    fn fifo(path: &Path) {
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
    }

    /// A folder, and the path of a named pipe in it.
    fn pipe() -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        fifo(&path);
        let path = path.to_str().unwrap().to_owned();
        (folder, path)
    }

    /// A reader that does not wait for a writer.
    fn reader(path: &str) -> File {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        File::from(rustix::fs::open(path, flags, Mode::empty()).unwrap())
    }

    fn wait(output: &Output) {
        let (fd, flags) = output.readiness().unwrap();
        let patience = Timespec {
            tv_sec: 30,
            tv_nsec: 0,
        };
        let ready = poll(&mut [PollFd::new(&fd, flags)], Some(&patience));
        assert_eq!(ready, Ok(1), "{output:?}");
    }

    #[test]
    fn a_named_pipe_is_written_to_once_its_reader_is_there_and_never_waits() {
        let (_folder, path) = pipe();
        let mut output = Output::open(&Address::from(&*path)).unwrap();
        assert_eq!(output.name(), path);
        assert!(output.is_named_pipe() && !output.is_open().unwrap());
        assert_eq!(output.try_write(b"early\n").unwrap(), 0);
        let mut reader = reader(&path);
        wait(&output);
        assert!(output.is_open().unwrap() && output.is_named_pipe());
        assert_eq!(output.try_write(b"line\n").unwrap(), 5);
        let mut found = [0; 64];
        assert_eq!(reader.read(&mut found).unwrap(), 5);
        let block = [b'x'; 4096];
        let mut written = 0;
        loop {
            match output.try_write(&block).unwrap() {
                0 => break,
                count => written += count,
            }
        }
        assert!(written >= block.len());
        let ready = |output: &Output| {
            let (fd, flags) = output.readiness().unwrap();
            descriptor::is_ready(fd, flags).unwrap()
        };
        assert!(!ready(&output));
        assert!(output.sync().is_ok());
        drop(reader);
        assert!(ready(&output));
        let error = output.try_write(b"late\n").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        output.close();
        assert!(!output.is_named_pipe() && output.readiness().is_none());
    }

    #[test]
    fn before_a_reader_has_come_another_pipe_may_take_the_name() {
        let (_folder, path) = pipe();
        let mut output = Output::open_pipe(&path).unwrap().unwrap();
        assert!(!output.is_replaced());
        fs::remove_file(&path).unwrap();
        fifo(Path::new(&path));
        assert!(output.is_replaced());
        // The thread waits for a reader of the first pipe, which can no longer be
        // opened.
        assert!(!output.is_open().unwrap());
        let Sink::Opening { done, .. } = &output.sink else {
            panic!("{output:?}");
        };
        let done = done.try_clone().unwrap();
        output.give_up_opening();
        let patience = Timespec {
            tv_sec: 30,
            tv_nsec: 0,
        };
        let ended = poll(&mut [PollFd::new(&done, PollFlags::IN)], Some(&patience));
        assert_eq!(ended, Ok(1), "the thread has ended");
    }

    #[test]
    fn what_is_no_named_pipe_is_not_opened_as_one_nor_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let text = path.to_str().unwrap();
        assert!(Output::open_pipe(text).unwrap().is_none());
        assert!(!path.exists());
        fs::write(&path, "kept").unwrap();
        assert!(Output::open_pipe(text).unwrap().is_none());
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    }

    #[test]
    fn a_file_is_emptied_or_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let address = Address::from(path.to_str().unwrap());
        let open: fn(&Address) -> Result<Output> = Output::open;
        for (open, text, expected) in [
            (open, "a long line\n", "a long line\n"),
            (open, "x\n", "x\n"),
            (Output::append, "y\n", "x\ny\n"),
        ] {
            let mut output = open(&address).unwrap();
            assert!(output.readiness().is_none() && !output.is_named_pipe());
            assert!(output.is_open().unwrap() && !output.is_replaced());
            assert_eq!(output.try_write(text.as_bytes()).unwrap(), text.len());
            output.sync().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        }
    }

    #[test]
    fn a_shared_pipe_is_written_to_in_pieces_that_never_wait() {
        let (mut reader, fd) = {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            (File::from(reader), writer)
        };
        rustix::pipe::fcntl_setpipe_size(&fd, 4096).unwrap();
        let mut output = Output {
            name: "shared".to_owned(),
            sink: Sink::Open {
                fd,
                writes: Writes::InPieces,
            },
        };
        assert!(!output.is_named_pipe());
        assert_eq!(output.try_write(&[b'x'; 10_000]).unwrap(), PIECE_BYTES);
        assert_eq!(output.try_write(b"more").unwrap(), 0);
        reader.read_exact(&mut [0; PIECE_BYTES]).unwrap();
        assert_eq!(output.try_write(b"more").unwrap(), 4);
    }

    #[test]
    fn nowhere_takes_everything() {
        let mut output = Output::nowhere();
        assert_eq!(output.try_write(b"line\n").unwrap(), 5);
        assert!(output.readiness().is_none() && !output.is_named_pipe());
    }
}
