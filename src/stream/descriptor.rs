//! Operations on open descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Opens a new non-blocking description of the pipe behind `fd`, with the mode
/// `access`. An inherited description is shared: setting O_NONBLOCK on it would change
/// it for every program that holds it.
pub(super) fn reopen(fd: impl AsFd, access: OFlags) -> rustix::io::Result<OwnedFd> {
    reopen_with(fd, access | OFlags::NONBLOCK | OFlags::CLOEXEC)
}

/// Opens a new description of the pipe behind `fd`. The call may wait for the pipe's
/// other end.
pub(super) fn reopen_blocking(fd: impl AsFd, access: OFlags) -> rustix::io::Result<OwnedFd> {
    reopen_with(fd, access | OFlags::CLOEXEC)
}

fn reopen_with(fd: impl AsFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    rustix::fs::open(path, flags, Mode::empty())
}

/// Whether `name` now belongs to another file than `fd`.
pub(super) fn is_replaced(fd: impl AsFd, name: &str) -> bool {
    let (Ok(own), Ok(there)) = (rustix::fs::fstat(fd), rustix::fs::stat(name)) else {
        return false;
    };
    (own.st_dev, own.st_ino) != (there.st_dev, there.st_ino)
}

/// Whether a read or a write would not wait.
pub(super) fn is_ready(fd: impl AsFd, flags: PollFlags) -> io::Result<bool> {
    Ok(!poll_now(fd, flags)?.is_empty())
}

/// The events that poll reports without waiting.
pub(super) fn poll_now(fd: impl AsFd, flags: PollFlags) -> io::Result<PollFlags> {
    let mut fds = [PollFd::new(&fd, flags)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut fds, Some(&at_once)) {
        Ok(_) | Err(Errno::INTR) => Ok(fds[0].revents()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::FdFlags;

    use super::*;

    #[test]
    fn a_description_of_its_own_neither_waits_nor_goes_to_children() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let own = reopen(&reader, OFlags::RDONLY).unwrap();
        let flags = rustix::fs::fcntl_getfl(&own).unwrap();
        assert!(flags.contains(OFlags::NONBLOCK), "{flags:?}");
        assert_eq!(rustix::io::fcntl_getfd(&own).unwrap(), FdFlags::CLOEXEC);
        let shared = rustix::fs::fcntl_getfl(&reader).unwrap();
        assert!(!shared.contains(OFlags::NONBLOCK), "{shared:?}");
        let own = reopen_blocking(&reader, OFlags::WRONLY).unwrap();
        let flags = rustix::fs::fcntl_getfl(&own).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK), "{flags:?}");
        assert!(flags.contains(OFlags::WRONLY), "{flags:?}");
        assert_eq!(rustix::io::fcntl_getfd(&own).unwrap(), FdFlags::CLOEXEC);
    }
}
