//! The file of `--stats`, which holds the counts of a running program.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::stage::stats::Snapshot;

/// The time between two writes while counts change.
const EVERY: Duration = Duration::from_secs(1);

/// The file of `--stats`, if the flag is given.
#[derive(Debug)]
pub struct StatsFile {
    program: &'static str,
    path: Option<String>,
    started: Instant,
    written: Option<Instant>,
    /// Whether the counts may have changed since the last write.
    stale: bool,
}

impl StatsFile {
    /// Prepares the file at `path`. Writes nothing yet.
    pub fn new(program: &'static str, path: Option<String>) -> StatsFile {
        StatsFile {
            program,
            path,
            started: Instant::now(),
            written: None,
            stale: true,
        }
    }

    /// The path of the file, for messages.
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or_default()
    }

    /// The time since the program's start.
    pub fn running(&self) -> Duration {
        self.started.elapsed()
    }

    /// Notes that the counts may have changed.
    pub fn touch(&mut self) {
        self.stale = true;
    }

    /// The time of the next write; `None` while the counts have not changed, so that
    /// an idle stage sleeps.
    pub fn due(&self) -> Option<Instant> {
        self.path.as_ref()?;
        self.stale
            .then(|| self.written.map_or(self.started, |at| at + EVERY))
    }

    /// Replaces a regular file as a whole, so that a reader sees either the old counts
    /// or the new ones. If the path is something else, such as a pipe or a link, writes
    /// into it without replacing it.
    pub fn write(&mut self, snapshot: &Snapshot) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        self.written = Some(Instant::now());
        self.stale = false;
        let running = self.started.elapsed();
        let text = if path.ends_with(".prom") {
            snapshot.prometheus(self.program, running)
        } else {
            snapshot.json(self.program, running)
        };
        if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
            return write_into(path, &text);
        }
        let new = format!("{path}.new");
        fs::write(&new, text)?;
        fs::rename(new, path)
    }
}

/// Writes to a device, a named pipe or the target of a link. If a pipe has no reader,
/// or is full, these counts are skipped.
fn write_into(path: &str, text: &str) -> io::Result<()> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let no_reader = Errno::NXIO.raw_os_error();
    let mut file = match options.custom_flags(flags).open(path) {
        Err(error) if error.raw_os_error() == Some(no_reader) => return Ok(()),
        opened => opened?,
    };
    match file.write_all(text.as_bytes()) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::BrokenPipe
            ) =>
        {
            Ok(())
        }
        written => written,
    }
}
