//! A running program and its pipes. No method waits.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::serve::score::exec::program_log::LogLines;

/// The largest number of bytes of one read.
const BLOCK_BYTES: usize = 64 * 1024;

/// The largest number of reads in one call of [`Program::advance`]. Without this limit,
/// a program that writes without end would hold up everything else.
const READS_MAX: usize = 64;

/// The time for which the first reply is held back. Some programs print a greeting when
/// they start or when they load their model. Such a line looks like a reply, but the
/// true reply follows.
const FIRST_REPLY_HELD: Duration = Duration::from_millis(20);

/// A running program. When this value is dropped, the process group of the program is
/// killed.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// The process group. Its id is the id of the shell that runs the command.
    group: Pid,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    /// Becomes readable when the shell ends; `None` on a kernel without pidfds.
    exit: Option<OwnedFd>,
    /// Becomes readable when the first reply has been held back long enough.
    timer: OwnedFd,
    /// An epoll descriptor, which becomes readable when one of the other descriptors is
    /// ready.
    events: OwnedFd,
    conversation: Conversation,
    log: LogLines,
    is_reaped: bool,
    /// Whether the program does not read or write any more.
    is_over: bool,
    block: Vec<u8>,
}

/// The line in flight and its reply.
#[derive(Debug, Default)]
struct Conversation {
    outgoing: Vec<u8>,
    written: usize,
    /// The number of bytes of the line in flight.
    sent_bytes: usize,
    awaits_reply: bool,
    /// Whether the program has answered a line and then kept silent.
    is_proven: bool,
    /// The first reply, while it is held back.
    held: Option<Vec<u8>>,
    reply: Vec<u8>,
    reply_bytes_max: usize,
    /// The number of bytes that were dropped because the reply is too long.
    dropped_bytes: u64,
}

/// What a program has done.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing to report.
    Pending,
    /// The program has answered the line in flight with this line, which is given
    /// without its newline.
    Reply(Vec<u8>),
    /// The program has answered with a line of this many bytes, which is too long.
    Oversized(u64),
    /// The program has written something although no answer was due, or more than one
    /// line. This is the beginning of the text.
    Stray(Vec<u8>),
    /// The program has ended, or does not read or write any more.
    Ended,
}

/// The events of [`Program::events`].
const STDIN: u64 = 0;
const STDOUT: u64 = 1;
const STDERR: u64 = 2;
const EXIT: u64 = 3;
const TIMER: u64 = 4;

/// Makes this end of each pipe non-blocking and adds the outputs and the end of the
/// program to `events`. The program has the other ends, so its own reads and writes do
/// not change.
fn watch(
    events: &OwnedFd,
    stdin: &ChildStdin,
    [stdout, stderr]: [BorrowedFd; 2],
    exit: Option<&OwnedFd>,
    timer: &OwnedFd,
) -> io::Result<()> {
    rustix::fs::fcntl_setfl(stdin, OFlags::WRONLY | OFlags::NONBLOCK)?;
    for (fd, event) in [(stdout, STDOUT), (stderr, STDERR)] {
        rustix::fs::fcntl_setfl(fd, OFlags::NONBLOCK)?;
        epoll::add(events, fd, EventData::new_u64(event), EventFlags::IN)?;
    }
    if let Some(exit) = exit {
        epoll::add(events, exit, EventData::new_u64(EXIT), EventFlags::IN)?;
    }
    epoll::add(events, timer, EventData::new_u64(TIMER), EventFlags::IN).map_err(io::Error::from)
}

impl Program {
    /// Starts a command line in a process group of its own. A reply of more than
    /// `reply_bytes_max` bytes is dropped.
    pub fn start(command: &str, reply_bytes_max: usize) -> io::Result<Program> {
        let events = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let mut child = Command::new("sh")
            .args(["-c", command])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("the program has no pipes"));
        };
        let group = Pid::from_child(&child);
        let exit = pidfd_open(group, PidfdFlags::empty()).ok();
        let watched = watch(
            &events,
            &stdin,
            [stdout.as_fd(), stderr.as_fd()],
            exit.as_ref(),
            &timer,
        );
        if let Err(error) = watched {
            // A child that is dropped runs on.
            let _ = kill_process_group(group, Signal::KILL);
            let _ = child.wait();
            return Err(error);
        }
        Ok(Program {
            child,
            group,
            stdin: Some(stdin),
            stdout,
            stderr: Some(stderr),
            exit,
            timer,
            events,
            conversation: Conversation {
                reply_bytes_max,
                ..Conversation::default()
            },
            log: LogLines::default(),
            is_reaped: false,
            is_over: false,
            block: Vec::new(),
        })
    }

    /// Becomes readable when [`advance`](Program::advance) can do something.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Whether the end of the program makes [`readiness`](Program::readiness) readable.
    pub fn reports_its_end(&self) -> bool {
        self.exit.is_some()
    }

    /// Sends a line, without its newline. Call this only if no line is in flight, and
    /// [`advance`](Program::advance) has just returned [`Progress::Pending`].
    pub fn send(&mut self, mut line: Vec<u8>) {
        line.push(b'\n');
        let conversation = &mut self.conversation;
        conversation.sent_bytes = line.len();
        conversation.outgoing = line;
        conversation.written = 0;
        conversation.awaits_reply = true;
        conversation.reply.clear();
        conversation.dropped_bytes = 0;
        self.write_outgoing();
        // A pipe that the program has closed becomes ready at once, and then the next
        // call of `advance` reports the failed write.
        if !self.conversation.is_sent() {
            self.poll_stdin();
        }
    }

    /// Writes and reads what is possible now. `show` gets the lines of stderr.
    pub fn advance(&mut self, show: &mut impl FnMut(&str)) -> Progress {
        let ready = self.ready();
        if ready[STDERR as usize] {
            self.read_stderr(show);
        }
        if ready[TIMER as usize] {
            self.set_timer(Duration::ZERO);
        }
        if ready[STDIN as usize] {
            self.is_over |= !self.write_outgoing();
            if self.is_over || self.conversation.is_sent() {
                if let Some(stdin) = &self.stdin {
                    let _ = epoll::delete(&self.events, stdin);
                }
                self.conversation.shrink();
            }
        }
        if ready[STDOUT as usize] {
            match self.read_stdout() {
                Progress::Pending => {}
                progress => return progress,
            }
        }
        self.is_over |= ready[EXIT as usize];
        match self
            .conversation
            .held
            .take_if(|_| ready[TIMER as usize] || self.is_over)
        {
            Some(reply) => {
                self.conversation.is_proven = true;
                Progress::Reply(reply)
            }
            None if self.is_over => Progress::Ended,
            None => Progress::Pending,
        }
    }

    /// Makes the timer ring after `delay`. The delay 0 stops the timer.
    fn set_timer(&self, delay: Duration) {
        let timer = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: 0,
                tv_nsec: delay.subsec_nanos().into(),
            },
        };
        // The call can only fail for a wrong descriptor or a wrong time.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer);
    }

    /// Whether the program has not read any byte of the line in flight. Then its
    /// output cannot be the reply.
    fn is_unread(&self) -> bool {
        let unread = |stdin| rustix::io::ioctl_fionread(stdin).unwrap_or(0);
        let unread = self.stdin.as_ref().map_or(0, unread);
        self.conversation.sent_bytes > 0 && unread >= self.conversation.sent_bytes as u64
    }

    /// For each event, whether it has occurred.
    fn ready(&self) -> [bool; 5] {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); 5];
        let at_once = Timespec::default();
        let mut ready = [false; 5];
        if let Ok((events, _)) = epoll::wait(&self.events, &mut events, Some(&at_once)) {
            for event in events {
                if let Some(ready) = ready.get_mut(event.data.u64() as usize) {
                    *ready = true;
                }
            }
        }
        ready
    }

    fn poll_stdin(&self) {
        if let Some(stdin) = &self.stdin {
            let data = EventData::new_u64(STDIN);
            let _ = epoll::add(&self.events, stdin, data, EventFlags::OUT);
        }
    }

    /// Writes the line in flight as far as possible. Returns false if the program does
    /// not read any more.
    fn write_outgoing(&mut self) -> bool {
        let Some(stdin) = &self.stdin else {
            return false;
        };
        let conversation = &mut self.conversation;
        while !conversation.is_sent() {
            match rustix::io::write(stdin, &conversation.outgoing[conversation.written..]) {
                Ok(count) => conversation.written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    fn read_stdout(&mut self) -> Progress {
        self.block.resize(BLOCK_BYTES, 0);
        for _ in 0..READS_MAX {
            let count = match rustix::io::read(&self.stdout, &mut self.block[..]) {
                Ok(count @ 1..) => count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Progress::Pending,
                Ok(0) | Err(_) => {
                    // At its end, standard output would be readable all the time until
                    // the program is gone.
                    let _ = epoll::delete(&self.events, &self.stdout);
                    self.is_over = true;
                    return Progress::Pending;
                }
            };
            if self.is_unread() {
                return Progress::Stray(head(&self.block[..count]));
            }
            match self.conversation.take(&self.block[..count]) {
                Progress::Pending => {}
                Progress::Reply(reply) if !self.conversation.is_proven => {
                    self.conversation.held = Some(reply);
                    self.set_timer(FIRST_REPLY_HELD);
                }
                progress => return progress,
            }
        }
        Progress::Pending
    }

    /// Reads stderr, and calls `show` with each complete line.
    fn read_stderr(&mut self, show: &mut impl FnMut(&str)) {
        let mut block = [0; 4096];
        for _ in 0..READS_MAX {
            let Some(stderr) = &self.stderr else {
                return;
            };
            match rustix::io::read(stderr, &mut block) {
                Ok(count @ 1..) => self.log.take(&block[..count], &mut *show),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Ok(0) | Err(_) => {
                    let _ = epoll::delete(&self.events, stderr);
                    self.stderr = None;
                    self.log.finish(show);
                }
            }
        }
    }

    /// Closes the program's standard input, which tells it to end.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal to all processes of the program.
    pub fn signal(&self, signal: Signal) {
        if !self.is_reaped {
            // If the signal cannot be sent, the whole group has ended.
            let _ = kill_process_group(self.group, signal);
        }
    }

    /// Whether the shell has ended. The kernel does not reuse the id of the shell
    /// before [`reap`](Program::reap), so a signal cannot hit another process.
    pub fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(self.group), options), Ok(Some(_)))
    }

    /// Kills what is left of the group after its shell has ended, reads the rest of
    /// stderr, and returns the exit status.
    pub fn reap(&mut self, show: &mut impl FnMut(&str)) -> Option<ExitStatus> {
        self.signal(Signal::KILL);
        self.read_stderr(show);
        self.log.finish(show);
        let status = self.child.try_wait().ok().flatten();
        self.is_reaped = status.is_some();
        status
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.signal(Signal::KILL);
            let _ = self.child.try_wait();
        }
    }
}

impl Conversation {
    fn is_sent(&self) -> bool {
        self.written == self.outgoing.len()
    }

    /// Frees the memory of a long line.
    fn shrink(&mut self) {
        if self.is_sent() {
            self.outgoing = Vec::new();
            self.written = 0;
        }
    }

    /// Takes bytes that the program has written.
    fn take(&mut self, bytes: &[u8]) -> Progress {
        if let Some(greeting) = self.held.take() {
            return Progress::Stray(head(&greeting));
        }
        if !self.awaits_reply || !self.is_sent() {
            return Progress::Stray(head(bytes));
        }
        let end = memchr::memchr(b'\n', bytes);
        let part = &bytes[..end.unwrap_or(bytes.len())];
        let room = self.reply_bytes_max.saturating_sub(self.reply.len());
        let taken = part.len().min(room);
        self.reply.extend_from_slice(&part[..taken]);
        self.dropped_bytes += (part.len() - taken) as u64;
        let Some(end) = end else {
            return Progress::Pending;
        };
        self.awaits_reply = false;
        let mut reply = std::mem::take(&mut self.reply);
        if end + 1 < bytes.len() {
            reply.extend_from_slice(&bytes[end..]);
            return Progress::Stray(head(&reply));
        }
        match self.dropped_bytes {
            0 => Progress::Reply(reply),
            dropped => Progress::Oversized(reply.len() as u64 + dropped),
        }
    }
}

/// The beginning of what a program has written, for a message.
fn head(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len().min(1000)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Conversation {
        Conversation {
            awaits_reply: true,
            reply_bytes_max: 4,
            ..Conversation::default()
        }
    }

    #[test]
    fn a_reply_is_one_line_after_its_input() {
        let mut conversation = asked();
        assert_eq!(conversation.take(b"12"), Progress::Pending);
        assert_eq!(
            conversation.take(b"34\n"),
            Progress::Reply(b"1234".to_vec())
        );
        assert_eq!(conversation.take(b"5"), Progress::Stray(b"5".to_vec()));
        let mut conversation = asked();
        assert_eq!(
            conversation.take(b"1\n2\n"),
            Progress::Stray(b"1\n2\n".to_vec())
        );
        let mut conversation = asked();
        assert_eq!(conversation.take(b"12"), Progress::Pending);
        assert_eq!(
            conversation.take(b"\n3\n"),
            Progress::Stray(b"12\n3\n".to_vec())
        );
        // A line that is held back was a greeting if a further line follows.
        let mut conversation = asked();
        conversation.held = Some(b"hello".to_vec());
        assert_eq!(
            conversation.take(b"1\n"),
            Progress::Stray(b"hello".to_vec())
        );
        let mut conversation = asked();
        assert_eq!(conversation.take(b"12345678"), Progress::Pending);
        assert_eq!(conversation.take(b"9\n"), Progress::Oversized(9));
        let mut conversation = asked();
        conversation.outgoing = b"input\n".to_vec();
        conversation.written = 3;
        assert_eq!(conversation.take(b"1\n"), Progress::Stray(b"1\n".to_vec()));
    }
}
