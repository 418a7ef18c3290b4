//! Named pipes: making them, and opening one of their ends without waiting for the other.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

/// One end of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The end from which bytes are read.
    Reading,
    /// The end into which bytes are written.
    Writing,
}

/// Makes a named pipe for its owner alone, unless there is one. Fails if the name belongs
/// to another kind of file.
pub fn make(path: &str) -> io::Result<()> {
    match rustix::fs::mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) if is_pipe(Path::new(path)) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a path is a named pipe.
pub fn is_pipe(path: &Path) -> bool {
    let stat = rustix::fs::lstat(path);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Opens one end of a named pipe. The call never waits for the other end. Reads and
/// writes of the returned descriptor wait.
pub fn open(path: &str, end: End) -> io::Result<OwnedFd> {
    // Both ends at once never wait. While they are open, either end alone opens at once.
    let both = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&both)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return Err(io::Error::other("is not a named pipe"));
    }
    let access = match end {
        End::Reading => OFlags::RDONLY,
        End::Writing => OFlags::WRONLY,
    };
    Ok(rustix::fs::open(
        path,
        access | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Opens both ends of a named pipe in one descriptor, whose reads do not wait and never
/// see an end.
pub fn open_for_messages(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens the writing end of a pipe of messages, for a stage. A full pipe blocks the
/// stage.
pub fn open_for_stage(path: &str) -> io::Result<OwnedFd> {
    open(path, End::Writing)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn either_end_opens_without_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe").to_str().unwrap().to_owned();
        make(&path).unwrap();
        make(&path).unwrap();
        let mut writer = std::fs::File::from(open(&path, End::Writing).unwrap());
        let reader = open(&path, End::Reading).unwrap();
        writer.write_all(b"ab").unwrap();
        assert_eq!(rustix::io::ioctl_fionread(&writer).unwrap(), 2);
        drop(writer);
        let mut read = String::new();
        std::fs::File::from(reader)
            .read_to_string(&mut read)
            .unwrap();
        assert_eq!(read, "ab");
        let file = folder.path().join("file").to_str().unwrap().to_owned();
        std::fs::write(&file, "").unwrap();
        assert!(make(&file).is_err() && open(&file, End::Reading).is_err());
    }
}
