//! Processes: their identity, their files, and their end.
//!
//! The number of a process and its start time together identify it. A stage writes both
//! into its own file before it becomes its program. So a supervisor that is started again
//! finds every stage.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, pidfd_open,
    waitpid,
};

/// A process that runs, or has just ended.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    /// Becomes readable when the process ends.
    exit: OwnedFd,
}

/// When a process was started, in ticks since the machine's start; `None` if it has ended.
pub fn start_time(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the process may hold any character.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    // The start time is the 22nd of all fields, and the state is the third.
    let start = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(start)
}

/// The path of the file with the identity of a process.
pub fn file(dir: &str, name: &str) -> String {
    format!("{dir}/processes/{name}")
}

/// Writes the identity of this process into a file.
pub fn note_self(path: &str) -> io::Result<()> {
    let pid = rustix::process::getpid();
    let start = start_time(pid).unwrap_or_default();
    let new = format!("{path}.new");
    fs::write(&new, format!("{pid} {start}\n"))?;
    fs::rename(new, path)
}

/// The process that a file names, if it still runs.
pub fn noted(path: &str) -> Option<Process> {
    let text = fs::read_to_string(path).ok()?;
    let (pid, start) = text.trim_end().split_once(' ')?;
    let pid = Pid::from_raw(pid.parse().ok()?)?;
    let process = Process::open(pid).ok()?;
    // The descriptor is opened first. So if the start time agrees, the descriptor belongs
    // to the noted process.
    (start_time(pid) == Some(start.parse().ok()?)).then_some(process)
}

impl Process {
    /// The process with this number.
    pub fn open(pid: Pid) -> io::Result<Process> {
        let exit = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Process { pid, exit })
    }

    /// The number of the process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// A descriptor that is readable when the process has ended.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.exit.as_fd()
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&self.exit, PollFlags::IN)];
        poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0)
    }

    /// Sends a signal to the process, if it runs.
    pub fn signal(&self, signal: Signal) {
        if !self.has_ended() {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Sends a signal to all processes of the stage. Call this before [`reap`](Self::reap),
    /// after which the number may belong to another process.
    pub fn signal_group(&self, signal: Signal) {
        let _ = kill_process_group(self.pid, signal);
    }

    /// Takes the status of a process that has ended, in words. The status of a process that
    /// another process has started is not known.
    pub fn reap(&self) -> String {
        match waitpid(Some(self.pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => describe(status),
            _ => "ended".to_owned(),
        }
    }
}

/// The end of a process in words.
pub fn describe(status: WaitStatus) -> String {
    if let Some(code) = status.exit_status() {
        return format!("ended with status {code}");
    }
    match status.terminating_signal() {
        Some(signal) => format!("was ended by signal {signal}"),
        None => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_file_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("self").to_str().unwrap().to_owned();
        note_self(&path).unwrap();
        let own = noted(&path).unwrap();
        assert_eq!(own.pid(), rustix::process::getpid());
        assert!(!own.has_ended());
        let text = fs::read_to_string(&path).unwrap();
        // Another process may have got the number since.
        fs::write(&path, text.replace('\n', "9\n")).unwrap();
        assert!(noted(&path).is_none());
        fs::write(&path, "nonsense").unwrap();
        assert!(noted(&path).is_none());
    }

    #[test]
    fn the_end_of_a_process_is_described() {
        for (script, expected) in [
            ("exit 3", "ended with status 3"),
            ("kill -9 $$", "was ended by signal 9"),
        ] {
            let mut command = std::process::Command::new("sh");
            let mut child = command.args(["-c", script]).spawn().unwrap();
            let process = Process::open(Pid::from_child(&child)).unwrap();
            let mut fds = [PollFd::new(&process.exit, PollFlags::IN)];
            poll(&mut fds, None).unwrap();
            assert!(process.has_ended());
            assert_eq!(process.reap(), expected);
            // The status was taken already.
            assert!(child.wait().is_err());
        }
    }
}
