//! Whether a stage makes progress. Pure, but for the two functions that ask the kernel.
//!
//! A stage makes progress if its input is empty or if it reads. A stage that reads nothing
//! for a long time although its input waits is stuck: it hangs, it was stopped, or the
//! reader of its output is stuck.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::process::Pid;

/// What was last seen of a stage.
#[derive(Debug, Default)]
pub struct Progress {
    /// The bytes that the process has read, and since when it has read no more.
    last: Option<(u64, Instant)>,
}

impl Progress {
    /// Notes what is seen at `now`: the bytes that wait in the input, and all bytes that
    /// the process has read so far (`None` if the kernel does not tell). Returns for how
    /// long the input has waited without progress.
    pub fn observe(&mut self, now: Instant, waiting: u64, read: Option<u64>) -> Duration {
        let Some(read) = read.filter(|_| waiting > 0) else {
            self.last = None;
            return Duration::ZERO;
        };
        match self.last {
            Some((before, since)) if before == read => now.saturating_duration_since(since),
            _ => {
                self.last = Some((read, now));
                Duration::ZERO
            }
        }
    }

    /// Forgets what was seen, because another process has taken over.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

/// The bytes that wait in a pipe.
pub fn waiting_bytes(pipe: impl AsFd) -> u64 {
    rustix::io::ioctl_fionread(pipe).unwrap_or(0)
}

/// The bytes that a process and its children have read; `None` if the kernel does not
/// tell.
pub fn read_bytes(pid: Pid) -> Option<u64> {
    let own = read_by(pid)?;
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    let children = { children.split_whitespace() }
        .filter_map(|child| Pid::from_raw(child.parse().ok()?))
        .filter_map(read_by);
    Some(children.fold(own, u64::saturating_add))
}

fn read_by(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    line?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stage_that_reads_nothing_while_its_input_waits_is_stuck() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut progress = Progress::default();
        let mut stuck =
            |seconds, waiting, read| progress.observe(at(seconds), waiting, read).as_secs();
        // An idle stage.
        assert_eq!(stuck(0, 0, Some(5)), 0);
        assert_eq!(stuck(60, 0, Some(5)), 0);
        // A slow stage.
        assert_eq!(stuck(61, 9, Some(5)), 0);
        assert_eq!(stuck(64, 9, Some(6)), 0);
        // A stage that hangs.
        assert_eq!(stuck(67, 9, Some(6)), 3);
        assert_eq!(stuck(74, 9, Some(6)), 10);
        // It goes on.
        assert_eq!(stuck(75, 9, Some(7)), 0);
        // The kernel does not tell.
        assert_eq!(stuck(99, 9, None), 0);
        progress.reset();
        assert_eq!(progress.observe(at(200), 9, Some(7)), Duration::ZERO);
    }

    #[test]
    fn the_kernel_tells_what_a_process_reads() {
        let own = rustix::process::getpid();
        let before = read_bytes(own).unwrap();
        fs::read("/proc/self/maps").unwrap();
        assert!(read_bytes(own).unwrap() > before);
        let (reader, writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut &writer, b"abc").unwrap();
        assert_eq!(waiting_bytes(&writer), 3);
        assert_eq!(waiting_bytes(&reader), 3);
    }
}
