//! The reading end of a stream: standard input, a file, a named pipe, or the files
//! of an archive's folder.
//!
//! Only reads of regular files block. So a stage can wait for all its streams and its
//! signals in one place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::{fmt, io};

use anyhow::{Context, Result, bail};
use rustix::event::PollFlags;
use rustix::fs::{FileType, Mode, OFlags};

use crate::stream::address::Address;
use crate::stream::archives::{Recorded, RecordedFile, recorded_files};
use crate::stream::descriptor;
use crate::wire::lines::Lines;

/// The largest pipe size that Linux allows every user.
const WIDE_PIPE_BYTES: usize = 1 << 20;

const STDIN_NAME: &str = "<stdin>";

/// The outcome of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The number of bytes that were read.
    Bytes(usize),
    /// No bytes are available yet.
    Nothing,
    /// The end of the input: its last writer has closed.
    End,
}

/// The reading end of a stream.
#[derive(Debug)]
pub struct Input {
    name: String,
    source: Source,
    /// The program's own writing end. While this is open, the input does not end when
    /// the last writer closes.
    held_open: Option<OwnedFd>,
    /// Messages about damaged recorded files.
    faults: Vec<String>,
}

enum Source {
    Plain {
        fd: OwnedFd,
        file_type: FileType,
        /// Whether other programs share the description, so that a read may block.
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
    /// Opens the stream at `address`. A file whose name ends in `.gz` is decompressed,
    /// with all its members. The folder of an archive is read as the stream that was
    /// archived. With `follow`, a pipe does not end when its last writer closes.
    pub fn open(address: &Address, follow: bool) -> Result<Input> {
        let path = address.as_str();
        let (name, fd, shared) = if address.is_standard_input() {
            let fd = rustix::stdio::stdin().try_clone_to_owned();
            // The descriptor is not reopened. On a new description of a named pipe,
            // poll would not report an earlier close by the writer.
            (STDIN_NAME, fd.context(STDIN_NAME)?, true)
        } else {
            // Without O_NONBLOCK, opening a pipe would wait for its writer, and a
            // program that opens several pipes could wait for the wrong one.
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
            bail!("{name}: is a directory; use --input to read a folder, a file or a pipe");
        }
        let held_open = if follow && file_type == FileType::Fifo {
            Some(
                descriptor::reopen(&fd, OFlags::WRONLY)
                    .with_context(|| format!("{name}: cannot follow"))?,
            )
        } else {
            None
        };
        if file_type == FileType::Fifo && matches!(address, Address::Inherited(_)) && !shared {
            // The program that passed the pipe on has already waited for its
            // writer. The new description has had no writer, so poll would never
            // report HUP on it if the writer has already closed.
            mark_without_writer(&fd).with_context(|| {
                format!("{name}: cannot detect whether its writer has closed; give the path of the pipe itself")
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

    /// Opens recorded files as one stream. `name` is the name that messages use for the
    /// stream.
    pub fn recorded(name: &str, files: Vec<RecordedFile>) -> Result<Input> {
        Ok(Input {
            name: name.to_owned(),
            source: Source::Recorded(Box::new(Recorded::open(files)?)),
            held_open: None,
            faults: Vec::new(),
        })
    }

    /// The name that messages use for the input.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends `--follow`: the input now ends when its last writer closes.
    pub fn stop_following(&mut self) {
        self.held_open = None;
    }

    /// Marks a pipe as having no writer. Until a writer opens the pipe, poll reports
    /// HUP, as on a pipe whose writer has closed. Fails if the program may not write to
    /// the pipe.
    pub fn mark_without_writer(&self) -> io::Result<()> {
        match &self.source {
            Source::Plain {
                fd,
                file_type: FileType::Fifo,
                ..
            } => Ok(mark_without_writer(fd)?),
            _ => Ok(()),
        }
    }

    /// Whether a pipe has a writer, or holds unread bytes. Before the first writer, the
    /// answer is right only after [`mark_without_writer`](Input::mark_without_writer).
    pub fn has_writer(&self) -> bool {
        match &self.source {
            Source::Plain { fd, .. } => {
                let flags = descriptor::poll_now(fd, PollFlags::IN).unwrap_or(PollFlags::empty());
                flags.contains(PollFlags::IN) || !flags.contains(PollFlags::HUP)
            }
            Source::Recorded(_) => false,
        }
    }

    /// Whether the input's name now belongs to another file.
    pub fn is_replaced(&self) -> bool {
        match &self.source {
            Source::Plain { fd, .. } => descriptor::is_replaced(fd, &self.name),
            Source::Recorded(_) => false,
        }
    }

    /// The descriptor to wait on before a read; `None` if a read never waits.
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

    /// Whether the input is on disk. If so, its length is known and it can be read
    /// again.
    pub fn is_file(&self) -> bool {
        self.readiness().is_none()
    }

    /// Whether a read would return bytes or the end without waiting.
    pub fn has_more(&self) -> io::Result<bool> {
        match &self.source {
            Source::Plain { fd, .. } if !self.is_file() => descriptor::is_ready(fd, PollFlags::IN),
            Source::Plain { .. } | Source::Recorded(_) => Ok(true),
        }
    }

    /// Enlarges a pipe if the system allows it, so that its writer can run further
    /// ahead.
    pub fn widen(&self) {
        if let Source::Plain { fd, .. } = &self.source
            && self.is_pipe()
        {
            // A smaller pipe works too.
            let _ = rustix::pipe::fcntl_setpipe_size(fd, WIDE_PIPE_BYTES);
        }
    }

    /// Whether the input is a pipe, named or unnamed.
    pub fn is_pipe(&self) -> bool {
        matches!(
            self.source,
            Source::Plain {
                file_type: FileType::Fifo,
                ..
            }
        )
    }

    /// Whether the input is a terminal.
    pub fn is_terminal(&self) -> bool {
        match &self.source {
            Source::Plain { fd, .. } => rustix::termios::isatty(fd),
            Source::Recorded(_) => false,
        }
    }

    /// The length of the input on disk, in bytes; `None` if it is not a file.
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

    /// The number of bytes of the input on disk that have been read.
    pub fn position(&self) -> u64 {
        match &self.source {
            Source::Plain { fd, .. } => rustix::fs::tell(fd).unwrap_or(0),
            Source::Recorded(recorded) => recorded.position(),
        }
    }

    /// Reads the available bytes into `lines`, at most `limit` bytes. Call this only when
    /// [`readiness`](Input::readiness) is readable: without its first writer, a pipe looks
    /// as if it had ended.
    pub fn read_up_to(&mut self, lines: &mut Lines, limit: usize) -> Result<Progress> {
        let source = &mut self.source;
        let outcome = lines.fill_up_to(limit, |room| read_some(source, room));
        self.progress(outcome, lines)
    }

    /// Reads one byte, for a stage that must stop at the end of the current line.
    pub fn read_one_byte(&mut self, lines: &mut Lines) -> Result<Progress> {
        let source = &mut self.source;
        let outcome = lines.fill_one_byte(|room| read_some(source, room));
        self.progress(outcome, lines)
    }

    /// Takes the faults of recorded files since the last call. The caller must call
    /// this after each read and report the faults.
    pub fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }

    fn progress(&mut self, outcome: io::Result<usize>, lines: &mut Lines) -> Result<Progress> {
        if let Source::Recorded(recorded) = &mut self.source
            && let Some(mut fault) = recorded.take_fault()
        {
            let torn = lines.drop_unfinished_line();
            if torn > 0 {
                fault += &format!("; this includes {torn} bytes of a line whose end is missing");
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

/// Opens and closes the writing end of the pipe behind `fd`. After a pipe description
/// has had a writer, poll reports HUP exactly while no writer is open.
fn mark_without_writer(fd: &OwnedFd) -> rustix::io::Result<()> {
    descriptor::reopen(fd, OFlags::WRONLY).map(drop)
}

fn read_some(source: &mut Source, room: &mut [u8]) -> io::Result<usize> {
    match source {
        Source::Plain {
            fd, shared: true, ..
        } if !descriptor::is_ready(&*fd, PollFlags::IN)? => Err(io::ErrorKind::WouldBlock.into()),
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::wire::lines::BLOCK_BYTES;

    fn fifo(path: &str) {
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
    }

    /// A folder, and the path of a named pipe in it.
    fn pipe() -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe").to_str().unwrap().to_owned();
        fifo(&path);
        (folder, path)
    }

    fn open(path: &str, follow: bool) -> Input {
        Input::open(&Address::from(path), follow).unwrap()
    }

    #[test]
    fn a_pipe_knows_whether_it_has_a_writer_and_something_to_read() {
        let (_folder, path) = pipe();
        let mut input = open(&path, false);
        let mut lines = Lines::new(100);
        assert_eq!(input.name(), path);
        assert!(input.is_pipe() && !input.is_file() && !input.is_terminal());
        assert_eq!(input.file_bytes(), None);
        // Before the first writer, poll does not report the end.
        assert!(input.has_writer() && !input.has_more().unwrap());
        input.mark_without_writer().unwrap();
        assert!(!input.has_writer() && input.has_more().unwrap());
        let mut writer = File::options().write(true).open(&path).unwrap();
        assert!(input.has_writer() && !input.has_more().unwrap());
        assert_eq!(
            input.read_up_to(&mut lines, BLOCK_BYTES).unwrap(),
            Progress::Nothing
        );
        writer.write_all(b"left\n").unwrap();
        drop(writer);
        assert!(input.has_writer() && input.has_more().unwrap());
        assert_eq!(
            input.read_up_to(&mut lines, BLOCK_BYTES).unwrap(),
            Progress::Bytes(5)
        );
        assert!(!input.has_writer() && input.has_more().unwrap());
        assert_eq!(
            input.read_up_to(&mut lines, BLOCK_BYTES).unwrap(),
            Progress::End
        );
    }

    #[test]
    fn a_pipe_that_is_followed_ends_only_when_told() {
        let (_folder, path) = pipe();
        let mut input = open(&path, true);
        let mut lines = Lines::new(100);
        drop(File::options().write(true).open(&path).unwrap());
        assert_eq!(
            input.read_up_to(&mut lines, BLOCK_BYTES).unwrap(),
            Progress::Nothing
        );
        input.stop_following();
        assert_eq!(
            input.read_up_to(&mut lines, BLOCK_BYTES).unwrap(),
            Progress::End
        );
    }

    #[test]
    fn a_pipe_made_anew_under_the_name_is_another_one() {
        let (_folder, path) = pipe();
        let input = open(&path, false);
        assert!(!input.is_replaced());
        fs::remove_file(&path).unwrap();
        assert!(!input.is_replaced());
        fifo(&path);
        assert!(input.is_replaced());
    }

    #[test]
    fn a_wide_pipe_takes_more() {
        let (_folder, path) = pipe();
        let input = open(&path, false);
        let Source::Plain { fd, .. } = &input.source else {
            panic!("{input:?}");
        };
        let before = rustix::pipe::fcntl_getpipe_size(fd).unwrap();
        input.widen();
        assert!(rustix::pipe::fcntl_getpipe_size(fd).unwrap() > before);
    }

    #[test]
    fn an_inherited_pipe_whose_writer_has_gone_ends_at_once() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(writer);
        let mut input = open(&format!("/dev/fd/{}", reader.as_raw_fd()), false);
        assert!(input.has_more().unwrap() && !input.has_writer());
        assert_eq!(
            input.read_up_to(&mut Lines::new(100), BLOCK_BYTES).unwrap(),
            Progress::End
        );
    }

    #[test]
    fn reading_a_shared_pipe_never_waits() {
        let (fd, writer) = rustix::pipe::pipe().unwrap();
        let mut input = Input {
            name: "shared".to_owned(),
            source: Source::Plain {
                fd,
                file_type: FileType::Fifo,
                shared: true,
            },
            held_open: None,
            faults: Vec::new(),
        };
        let mut lines = Lines::new(100);
        assert_eq!(
            input.read_up_to(&mut lines, BLOCK_BYTES).unwrap(),
            Progress::Nothing
        );
        rustix::io::write(&writer, b"one\n").unwrap();
        assert_eq!(
            input.read_up_to(&mut lines, BLOCK_BYTES).unwrap(),
            Progress::Bytes(4)
        );
        drop(writer);
        assert_eq!(
            input.read_up_to(&mut lines, BLOCK_BYTES).unwrap(),
            Progress::End
        );
    }

    #[test]
    fn a_file_knows_its_length_and_how_far_it_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one\ntwo\n").unwrap();
        let mut input = open(path.to_str().unwrap(), true);
        let mut lines = Lines::new(100);
        assert!(input.is_file() && !input.is_pipe() && !input.is_replaced());
        assert_eq!((input.file_bytes(), input.position()), (Some(8), 0));
        assert_eq!(input.read_up_to(&mut lines, 5).unwrap(), Progress::Bytes(5));
        assert_eq!(input.read_one_byte(&mut lines).unwrap(), Progress::Bytes(1));
        assert_eq!((input.file_bytes(), input.position()), (Some(8), 6));
        assert_eq!(
            input.read_up_to(&mut lines, BLOCK_BYTES).unwrap(),
            Progress::Bytes(2)
        );
        // The end of the input also counts as something to read.
        assert!(input.has_more().unwrap());
        input.mark_without_writer().unwrap();
        assert_eq!(
            input.read_up_to(&mut lines, BLOCK_BYTES).unwrap(),
            Progress::End
        );
    }

    #[test]
    fn what_is_wrong_with_a_compressed_file_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.gz");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(b"one\ntorn").unwrap();
        let whole = encoder.finish().unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let mut input = open(path.to_str().unwrap(), false);
        let mut lines = Lines::new(100);
        assert!(!input.has_writer() && !input.is_replaced() && !input.is_terminal());
        assert_eq!(input.file_bytes(), Some(whole.len() as u64 - 1));
        assert_eq!(
            input.read_up_to(&mut lines, BLOCK_BYTES).unwrap(),
            Progress::Bytes(8)
        );
        assert_eq!(input.take_faults(), Vec::<String>::new());
        assert_eq!(
            input.read_up_to(&mut lines, BLOCK_BYTES).unwrap(),
            Progress::Nothing
        );
        let fault = format!(
            "{}: is damaged: it ends too early; the rest of it is skipped; this includes 4 bytes of a \
             line whose end is missing",
            path.display()
        );
        assert_eq!(input.take_faults(), [fault]);
        assert_eq!(
            input.read_up_to(&mut lines, BLOCK_BYTES).unwrap(),
            Progress::End
        );
        assert_eq!(input.take_faults(), Vec::<String>::new());
        assert_eq!(input.position(), whole.len() as u64 - 1);
        assert_eq!(lines.next_line().unwrap().bytes, b"one");
        assert!(lines.unfinished_line().is_none());
    }
}
