//! Where a stream comes from and where it goes: standard streams, files, named
//! pipes.
//!
//! Nothing here blocks except on a regular file, so that a stage can wait for
//! all its streams and its signals in one place. Named pipes are opened without
//! waiting for the other end, in any order.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc;
use std::{fmt, thread};

use anyhow::{Context, Result, bail};
use rustix::event::{EventfdFlags, PollFlags};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::wire::lines::Lines;
use crate::wire::recording::{Recorded, RecordedFile, recorded_files};

/// The path that stands for standard input or output.
pub const STANDARD: &str = "-";

/// The widest pipe that Linux grants to everybody.
const WIDE_PIPE_BYTES: usize = 1 << 20;

const STDIN_NAME: &str = "<stdin>";
const STDOUT_NAME: &str = "<stdout>";

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// This many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The end: the last writer has closed.
    End,
}

/// The reading end of a stream.
#[derive(Debug)]
pub struct Input {
    name: String,
    source: Source,
    /// A writing end of the program's own. While it is open the input does not
    /// end when the last writer goes.
    held_open: Option<OwnedFd>,
    /// What was wrong with recorded files.
    faults: Vec<String>,
}

enum Source {
    Plain {
        fd: OwnedFd,
        file_type: FileType,
        /// The description is shared with other programs, and may block.
        shared: bool,
    },
    /// A compressed file, or the files of an archive's folder.
    Recorded(Box<Recorded>),
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Source::Plain { fd, file_type, .. } => write!(formatter, "{file_type:?} {fd:?}"),
            Source::Recorded(recorded) => recorded.fmt(formatter),
        }
    }
}

impl Input {
    /// Opens `path`, or standard input for `-`. A file whose name ends in `.gz`
    /// is decompressed, all its members; an archive's folder is read as the stream
    /// that was put into it. With `follow` a pipe does not end when
    /// its last writer closes.
    pub fn open(path: &str, follow: bool) -> Result<Input> {
        let (name, fd, shared) = if path == STANDARD || path == "/dev/stdin" {
            let fd = rustix::stdio::stdin().try_clone_to_owned();
            // Not opened anew: a named pipe whose writer has gone would look as
            // if the writer were still to come.
            (STDIN_NAME, fd.context(STDIN_NAME)?, true)
        } else {
            // Without O_NONBLOCK a pipe would wait here for its writer, and a
            // program that opens several could wait for the wrong one.
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fd = rustix::fs::open(path, flags, Mode::empty());
            let fd = fd.with_context(|| format!("{path}: cannot open for reading"))?;
            (path, fd, false)
        };
        let stat = rustix::fs::fstat(&fd).with_context(|| name.to_owned())?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let compressed = file_type == FileType::RegularFile && name.ends_with(".gz");
        if compressed || (file_type == FileType::Directory && !shared) {
            return Input::recorded(name, recorded_files(Path::new(name))?);
        }
        if file_type == FileType::Directory {
            bail!("{name}: is a directory; name it with --input, or a file or a pipe");
        }
        let held_open = if follow && file_type == FileType::Fifo {
            Some(reopen_nonblocking(&fd).with_context(|| format!("{name}: cannot follow"))?)
        } else {
            None
        };
        if file_type == FileType::Fifo && is_inherited(name) {
            // Whoever handed the pipe down has waited for its writer. A
            // description opened anew knows nothing of that, and would wait for
            // ever where the writer has gone; so it is shown one.
            show_a_writer(&fd).with_context(|| {
                format!("{name}: cannot tell whether its writer has gone; name the pipe itself")
            })?;
        }
        let source = Source::Plain {
            fd,
            file_type,
            shared,
        };
        Ok(Input {
            name: name.to_owned(),
            source,
            held_open,
            faults: Vec::new(),
        })
    }

    /// Opens recorded files, which are read as one stream that messages call `name`.
    pub fn recorded(name: &str, files: Vec<RecordedFile>) -> Result<Input> {
        Ok(Input {
            name: name.to_owned(),
            source: Source::Recorded(Box::new(Recorded::open(files)?)),
            held_open: None,
            faults: Vec::new(),
        })
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends a `follow`: from now on the input ends with its last writer.
    pub fn stop_following(&mut self) {
        self.held_open = None;
    }

    /// From now on a pipe that no writer has opened yet has none, as one whose
    /// writer has gone. Fails where the program may not write to it.
    pub fn expect_writer(&self) -> io::Result<()> {
        match &self.source {
            Source::Plain {
                fd,
                file_type: FileType::Fifo,
                ..
            } => Ok(show_a_writer(fd)?),
            _ => Ok(()),
        }
    }

    /// Whether a pipe has a writer, or something to read that one has left. After
    /// [`expect_writer`](Input::expect_writer) also before the first one.
    pub fn has_writer(&self) -> bool {
        match &self.source {
            Source::Plain { fd, .. } => {
                let flags = poll_now(fd, PollFlags::IN).unwrap_or(PollFlags::empty());
                flags.contains(PollFlags::IN) || !flags.contains(PollFlags::HUP)
            }
            Source::Recorded(_) => false,
        }
    }

    /// Whether something else bears the name by now.
    pub fn is_replaced(&self) -> bool {
        match &self.source {
            Source::Plain { fd, .. } => is_replaced(fd, &self.name),
            Source::Recorded(_) => false,
        }
    }

    /// What to wait on before a read; `None` where a read never waits.
    pub fn readiness(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            Source::Plain {
                file_type: FileType::RegularFile,
                ..
            }
            | Source::Recorded(_) => None,
            Source::Plain { fd, .. } => Some(fd.as_fd()),
        }
    }

    /// Whether this is a file on disk: its end is known, and it can be read
    /// again.
    pub fn is_file(&self) -> bool {
        self.readiness().is_none()
    }

    /// Whether a read would bring something, or the end, without waiting.
    pub fn has_more(&self) -> io::Result<bool> {
        match &self.source {
            Source::Plain { fd, .. } if !self.is_file() => is_ready(fd, PollFlags::IN),
            Source::Plain { .. } | Source::Recorded(_) => Ok(true),
        }
    }

    /// Lets the writer of a pipe run ahead by more than usual, where the system
    /// allows it.
    pub fn widen(&self) {
        if let Source::Plain { fd, .. } = &self.source
            && self.is_pipe()
        {
            // A narrow pipe works too.
            let _ = rustix::pipe::fcntl_setpipe_size(fd, WIDE_PIPE_BYTES);
        }
    }

    /// Whether this is a pipe, named or not.
    pub fn is_pipe(&self) -> bool {
        matches!(
            self.source,
            Source::Plain {
                file_type: FileType::Fifo,
                ..
            }
        )
    }

    /// Whether a person types here.
    pub fn is_terminal(&self) -> bool {
        match &self.source {
            Source::Plain { fd, .. } => rustix::termios::isatty(fd),
            Source::Recorded(_) => false,
        }
    }

    /// The length of what is read in bytes, as it lies on disk; `None` where it is
    /// no file.
    pub fn file_bytes(&self) -> Option<u64> {
        match &self.source {
            Source::Plain {
                fd,
                file_type: FileType::RegularFile,
                ..
            } => rustix::fs::fstat(fd).ok().map(|stat| stat.st_size as u64),
            Source::Plain { .. } => None,
            Source::Recorded(recorded) => Some(recorded.length()),
        }
    }

    /// How many of these bytes were read.
    pub fn position(&self) -> u64 {
        match &self.source {
            Source::Plain { fd, .. } => rustix::fs::tell(fd).unwrap_or(0),
            Source::Recorded(recorded) => recorded.position(),
        }
    }

    /// Reads what is there into `lines`, a block at the most. Only to be called
    /// when [`readiness`](Input::readiness) says so: before its first writer a
    /// pipe looks as if it had ended.
    pub fn read(&mut self, lines: &mut Lines) -> Result<Progress> {
        let source = &mut self.source;
        let outcome = lines.fill(|room| read_some(source, room));
        self.progress(outcome, lines)
    }

    /// Reads what is there, but no more than `limit` bytes.
    pub fn read_up_to(&mut self, lines: &mut Lines, limit: usize) -> Result<Progress> {
        let source = &mut self.source;
        let outcome = lines.fill_up_to(limit, |room| read_some(source, room));
        self.progress(outcome, lines)
    }

    /// Reads one byte, for a stage that is to stop behind the present line.
    pub fn read_one_byte(&mut self, lines: &mut Lines) -> Result<Progress> {
        let source = &mut self.source;
        let outcome = lines.fill_one_byte(|room| read_some(source, room));
        self.progress(outcome, lines)
    }

    /// What was wrong with recorded files since the last call. Whoever reads asks
    /// after each read, and tells it.
    pub fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }

    fn progress(&mut self, outcome: io::Result<usize>, lines: &mut Lines) -> Result<Progress> {
        if let Source::Recorded(recorded) = &mut self.source
            && let Some(mut fault) = recorded.take_fault()
        {
            let torn = lines.drop_unfinished_line();
            if torn > 0 {
                fault += &format!(", with {torn} bytes of a line whose end is missing");
            }
            self.faults.push(fault);
        }
        match outcome {
            Ok(0) => Ok(Progress::End),
            Ok(count) => Ok(Progress::Bytes(count)),
            Err(error) if is_temporary(&error) => Ok(Progress::Nothing),
            Err(error) => Err(error).with_context(|| format!("{}: cannot read", self.name)),
        }
    }
}

/// Whether `path` stands for a descriptor that the program was started with.
fn is_inherited(path: &str) -> bool {
    path.starts_with("/dev/fd/") || path.starts_with("/proc/self/fd/")
}

fn read_some(source: &mut Source, room: &mut [u8]) -> io::Result<usize> {
    match source {
        Source::Plain {
            fd, shared: true, ..
        } if !is_ready(fd, PollFlags::IN)? => Err(io::ErrorKind::WouldBlock.into()),
        Source::Plain { fd, .. } => Ok(rustix::io::read(fd, room)?),
        Source::Recorded(recorded) => recorded.read(room),
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Whether an output to `path` would be a regular file, there already or made for
/// it.
pub fn is_file_output(path: &str) -> bool {
    if path == STANDARD || path == "/dev/stdout" {
        return false;
    }
    match rustix::fs::stat(path) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile,
        Err(errno) => errno == Errno::NOENT,
    }
}

/// Whether an input and an output, as they are named on the command line, are one
/// regular file: it would be emptied before it is read, or never end.
pub fn are_one_file(input: &str, output: &str) -> bool {
    let input = match input {
        STANDARD => rustix::fs::fstat(rustix::stdio::stdin()),
        path => rustix::fs::stat(path),
    };
    let output = match output {
        STANDARD => rustix::fs::fstat(rustix::stdio::stdout()),
        path => rustix::fs::stat(path),
    };
    let (Ok(input), Ok(output)) = (input, output) else {
        return false;
    };
    FileType::from_raw_mode(input.st_mode) == FileType::RegularFile
        && (input.st_dev, input.st_ino) == (output.st_dev, output.st_ino)
}

/// Refuses to read `path` once more where that could wait for another program, or
/// for ever: a pipe gives what it holds once.
pub fn refuse_to_wait(path: &str) -> Result<()> {
    match rustix::fs::stat(path) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => {
            bail!("{path}: is no regular file, so it cannot be read again")
        }
        // What is missing is said by whoever opens it.
        _ => Ok(()),
    }
}

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
        /// Becomes readable when the thread is done.
        done: OwnedFd,
        /// The pipe itself, whatever bears its name later.
        pipe: OwnedFd,
    },
    Open {
        fd: OwnedFd,
        writes: Writes,
    },
    Nowhere,
}

/// How a descriptor takes what is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    /// The description is the program's own and does not block.
    NonBlocking,
    /// The description is shared, so its flags are not the program's to change.
    /// After a poll, a piece this small never blocks on a pipe.
    InPieces,
    /// A regular file or a device: a write takes as long as it takes.
    Blocking { sync: bool },
}

/// What Linux guarantees to be free in a pipe that polls as writable.
const PIECE_BYTES: usize = 4096;

impl Output {
    /// Opens `path`, or standard output for `-`. A regular file is begun anew.
    pub fn open(path: &str) -> Result<Output> {
        Output::open_with(path, OpenOptions::new().write(true).truncate(true))
    }

    /// The same, but a regular file is appended to.
    pub fn append(path: &str) -> Result<Output> {
        Output::open_with(path, OpenOptions::new().append(true))
    }

    fn open_with(path: &str, options: &mut OpenOptions) -> Result<Output> {
        if path == STANDARD || path == "/dev/stdout" {
            return Output::standard();
        }
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

    /// Opens a named pipe; `None` where `path` names none. Makes no file.
    pub fn open_pipe(path: &str) -> Result<Option<Output>> {
        // Held first and looked at then, whatever bears the name a moment later.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let Ok(pipe) = rustix::fs::open(path, flags, Mode::empty()) else {
            return Ok(None);
        };
        let stat = rustix::fs::fstat(&pipe);
        let is_pipe = stat.is_ok_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::Fifo);
        if !is_pipe {
            return Ok(None);
        }
        let sink = opening(path, pipe).with_context(|| format!("{path}: cannot open for writing"));
        Ok(Some(Output {
            name: path.to_owned(),
            sink: sink?,
        }))
    }

    /// The writing end of a pipe of the program's own, which does not block. Messages
    /// call it `name`.
    pub fn of_pipe(name: &str, fd: OwnedFd) -> Output {
        Output {
            name: name.to_owned(),
            sink: Sink::Open {
                fd,
                writes: Writes::NonBlocking,
            },
        }
    }

    /// An output that takes everything and keeps nothing.
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
            FileType::Fifo => match reopen_nonblocking(&fd) {
                Ok(own) => (own, Writes::NonBlocking),
                // No /proc, somebody else's pipe, or no reader left.
                Err(_) => (fd, Writes::InPieces),
            },
            _ => (fd, Writes::InPieces),
        };
        Ok(Output {
            name: STDOUT_NAME.to_owned(),
            sink: Sink::Open { fd, writes },
        })
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What to wait for before the next write; `None` where a write never
    /// waits for another program.
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

    /// Whether the pipe has had its reader. Until then nothing can be written.
    pub fn is_open(&mut self) -> io::Result<bool> {
        if let Sink::Opening { opened, .. } = &self.sink {
            match opened.try_recv() {
                Ok(Ok(fd)) => {
                    // This description is ours alone: we have just opened it.
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

    /// Writes as much as is taken at once, and says how much that was: 0 where
    /// the reader is behind, or has not come yet.
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
            Writes::InPieces if !is_ready(fd, PollFlags::OUT)? => return Ok(0),
            Writes::InPieces => &bytes[..bytes.len().min(PIECE_BYTES)],
            Writes::NonBlocking | Writes::Blocking { .. } => bytes,
        };
        match rustix::io::write(fd, piece) {
            Ok(count) => Ok(count),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether it goes through a named pipe, which one reader after the other can
    /// open.
    pub fn is_named_pipe(&self) -> bool {
        let by_path = self.name != STDOUT_NAME && !self.name.starts_with("/dev/");
        match &self.sink {
            Sink::Opening { .. } => by_path,
            Sink::Open { writes, .. } => by_path && *writes == Writes::NonBlocking,
            Sink::Nowhere => false,
        }
    }

    /// Whether, before a reader has come, something else bears the name.
    pub fn is_replaced(&self) -> bool {
        match &self.sink {
            Sink::Opening { pipe, .. } => is_replaced(pipe, &self.name),
            _ => false,
        }
    }

    /// Ends the wait for a reader that cannot come any more, and its thread.
    pub fn give_up_opening(self) {
        if let Sink::Opening { pipe, .. } = &self.sink {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            // A reader lets the thread through, even one that goes at once.
            let _ = reopen(pipe, flags);
        }
    }

    /// What has to be done before an output may count as written: a file named
    /// on the command line is on the disk.
    pub fn sync(&mut self) -> io::Result<()> {
        match &self.sink {
            Sink::Open {
                fd,
                writes: Writes::Blocking { sync: true },
            } => Ok(rustix::fs::fdatasync(fd)?),
            _ => Ok(()),
        }
    }

    /// Closes the output, so that its reader sees the end.
    pub fn close(&mut self) {
        self.sink = Sink::Nowhere;
        if self.name == STDOUT_NAME
            && let Ok(null) = File::options().write(true).open("/dev/null")
        {
            // The inherited descriptor is a writing end too. Where this fails,
            // the reader sees the end when the program ends.
            let _ = rustix::stdio::dup2_stdout(null);
        }
    }
}

/// Waits for a reader of the named pipe in a thread of its own: opening a pipe
/// for writing fails without a reader or blocks, there is no third way.
fn opening(path: &str, pipe: OwnedFd) -> Result<Sink> {
    let done = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let wake = done.try_clone()?;
    let held = pipe.try_clone()?;
    let (sender, opened) = mpsc::channel();
    let path = path.to_owned();
    thread::Builder::new()
        .name("opening".to_owned())
        .spawn(move || {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let fd = loop {
                let opened = match reopen(&held, flags) {
                    // No /proc.
                    Err(Errno::NOENT) => rustix::fs::open(&path, flags, Mode::empty()),
                    opened => opened,
                };
                match opened {
                    Err(Errno::INTR) => {}
                    outcome => break outcome,
                }
            };
            // The program may have ended its wait: then nobody listens.
            let _ = sender.send(fd);
            let _ = rustix::io::write(&wake, &1u64.to_ne_bytes());
        })?;
    Ok(Sink::Opening { opened, done, pipe })
}

/// A writing end of the program's own for the pipe behind `fd`. Setting
/// O_NONBLOCK on an inherited one would change it for every program that shares
/// it.
fn reopen_nonblocking(fd: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    reopen(fd, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC)
}

fn reopen(fd: &OwnedFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, flags, Mode::empty())
}

/// Lets a description remember a writer that has come and gone.
fn show_a_writer(fd: &OwnedFd) -> rustix::io::Result<()> {
    reopen_nonblocking(fd).map(drop)
}

/// Whether `name` is borne by something else than `fd`.
fn is_replaced(fd: &OwnedFd, name: &str) -> bool {
    let (Ok(own), Ok(there)) = (rustix::fs::fstat(fd), rustix::fs::stat(name)) else {
        return false;
    };
    (own.st_dev, own.st_ino) != (there.st_dev, there.st_ino)
}

/// Whether a read or a write would not wait.
fn is_ready(fd: &OwnedFd, flags: PollFlags) -> io::Result<bool> {
    Ok(!poll_now(fd, flags)?.is_empty())
}

/// What a poll finds without waiting.
fn poll_now(fd: &OwnedFd, flags: PollFlags) -> io::Result<PollFlags> {
    use rustix::event::{PollFd, Timespec, poll};
    let mut fds = [PollFd::new(fd, flags)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut fds, Some(&at_once)) {
        Ok(_) | Err(Errno::INTR) => Ok(fds[0].revents()),
        Err(errno) => Err(errno.into()),
    }
}
