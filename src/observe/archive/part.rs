//! The file that is being written: plain lines, so that after a crash what is
//! whole can be told from what is torn.
//!
//! Nothing else is to write to it. If something does, that is noticed: its length
//! is looked at after each write, its name with each sync, and its content by a
//! checksum when it is compressed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xxhash_rust::xxh3::Xxh3;

use crate::observe::archive::folder::{FILE_MODE, sync};
use crate::observe::archive::names::Id;
use crate::stream::archives::{Kind, end_of_last_line, path_of};

/// How often a write begins anew since something else has changed the file.
const REPAIRS_MAX: u32 = 3;

/// When a part is closed, and how soon it is safe.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most records in a file.
    pub records: u64,
    /// The most bytes in a file, uncompressed; one longer record has its own.
    pub bytes: u64,
    /// How long after its first record a file is closed.
    pub age: Duration,
    /// How long written records may be unsafe.
    pub sync_every: Duration,
}

/// What a part holds, if nothing else has changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// How many lines are in it.
    pub lines: u64,
    /// How many bytes are in it.
    pub bytes: u64,
    /// The XXH3 of all of them.
    pub hash: u64,
}

/// A part that takes records.
#[derive(Debug)]
pub struct Part {
    id: Id,
    path: PathBuf,
    file: Arc<File>,
    /// Whole lines behind the settled ones; up to `written` they are in the file.
    pending: Vec<u8>,
    written: usize,
    /// What is in the file for good, unless something else takes it away.
    settled: Settled,
    records: u64,
    bytes: u64,
    begun: Instant,
    /// When the oldest byte was written that is not synced yet.
    unsynced_since: Option<Instant>,
    /// What something else has done to the file, to be told.
    interference: Vec<Interference>,
}

#[derive(Default)]
struct Settled {
    lines: u64,
    bytes: u64,
    hash: Xxh3,
}

impl std::fmt::Debug for Settled {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(formatter, "{} lines, {} bytes", self.lines, self.bytes)
    }
}

/// Something else has changed the part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interference {
    /// What was done, for a message.
    pub what: String,
    /// How many lines were lost by it.
    pub lost_lines: u64,
}

impl Part {
    /// Begins a file for the first of its records.
    pub fn create(folder: &Path, id: Id) -> Result<Part> {
        let path = path_of(folder, Kind::Part(&id.to_string()));
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&path)
            .with_context(|| format!("{}: cannot create", path.display()))?;
        // Without its name in the folder no synced byte would be found again.
        sync(folder).with_context(|| format!("{}: cannot sync", folder.display()))?;
        Ok(Part {
            id,
            path,
            file: Arc::new(file),
            pending: Vec::new(),
            written: 0,
            settled: Settled::default(),
            records: 0,
            bytes: 0,
            begun: Instant::now(),
            unsynced_since: None,
            interference: Vec::new(),
        })
    }

    /// Which one it is.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, which holds the lines whatever becomes of the name.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Takes a line without its newline. It is in memory until
    /// [`write`](Part::write).
    pub fn push(&mut self, line: &[u8]) {
        self.pending.extend_from_slice(line);
        self.pending.push(b'\n');
        self.records += 1;
        self.bytes += line.len() as u64 + 1;
    }

    /// Whether a line of `length` bytes would still fit.
    pub fn has_room(&self, length: usize, limits: &Limits) -> bool {
        self.bytes.saturating_add(length as u64 + 1) <= limits.bytes
    }

    /// Whether it is to be closed, by what is in it.
    pub fn is_full(&self, limits: &Limits) -> bool {
        self.records >= limits.records || self.bytes >= limits.bytes
    }

    /// Whether it is to be closed, by its age.
    pub fn is_old(&self, limits: &Limits) -> bool {
        self.begun.elapsed() >= limits.age
    }

    /// Writes what is in memory, and sees to it that the file holds what it should.
    /// After an error it can be called again and goes on at the byte where it
    /// stopped, so no record is torn by a full disk.
    pub fn write(&mut self) -> io::Result<()> {
        for _ in 0..REPAIRS_MAX {
            let from = self.written;
            while self.written < self.pending.len() {
                match (&*self.file).write(&self.pending[self.written..]) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        self.written += count;
                        self.unsynced_since.get_or_insert_with(Instant::now);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            let length = self.file.metadata()?.len();
            if length == self.settled.bytes + self.written as u64 {
                return Ok(());
            }
            // What was just written stands where the file ended.
            let ours = match self.written - from {
                0 => length,
                count => rustix::fs::tell(&*self.file)?.saturating_sub(count as u64),
            };
            self.repair(ours.min(length), length)?;
        }
        Err(io::Error::other("something else writes to it all the time"))
    }

    /// Something else has changed the length of the file, and up to `ours` it is as
    /// it was written: brings it back to whole lines that this program wrote. What
    /// is pending is to be written again.
    fn repair(&mut self, ours: u64, length: u64) -> io::Result<()> {
        let expected = self.settled.bytes + self.written as u64;
        if ours >= self.settled.bytes {
            self.file.set_len(self.settled.bytes)?;
            self.interfered(
                format!("something else has changed its length from {expected} to {length} bytes; that is undone"),
                0,
            );
        } else {
            let kept = end_of_last_line(&self.file, ours)?;
            self.file.set_len(kept)?;
            let lines = self.settled.lines;
            self.settled = read_settled(&self.file, kept)?;
            let lost = lines - self.settled.lines.min(lines);
            self.records = self.records.saturating_sub(lost);
            self.interfered(
                format!("something else has cut it from {expected} to {ours} bytes; {lost} lines of it are lost"),
                lost,
            );
        }
        self.written = 0;
        Ok(())
    }

    fn interfered(&mut self, what: String, lost_lines: u64) {
        let what = format!("{}: {what}", self.path.display());
        self.interference.push(Interference { what, lost_lines });
    }

    /// What something else has done to the file since the last call.
    pub fn take_interference(&mut self) -> Vec<Interference> {
        std::mem::take(&mut self.interference)
    }

    /// Lets go of what is in memory, all of which was written, into `passed` where
    /// somebody waits for it.
    pub fn settle(&mut self, passed: Option<&mut Vec<u8>>) {
        debug_assert_eq!(self.written, self.pending.len());
        self.settled.hash.update(&self.pending);
        self.settled.bytes += self.pending.len() as u64;
        self.settled.lines = self.records;
        if let Some(passed) = passed {
            passed.append(&mut self.pending);
        }
        self.pending.clear();
        self.written = 0;
        // One long line must not cost its memory for ever.
        self.pending.shrink_to(1 << 20);
    }

    /// What is settled.
    pub fn content(&self) -> Content {
        Content {
            lines: self.settled.lines,
            bytes: self.settled.bytes,
            hash: self.settled.hash.digest(),
        }
    }

    /// How many bytes are in memory only.
    pub fn unwritten_bytes(&self) -> usize {
        self.pending.len() - self.written
    }

    /// How many bytes are not settled.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Whether something else bears its name by now, or nothing does.
    pub fn is_displaced(&self) -> bool {
        !is_at(&self.file, &self.path)
    }

    /// Whether it is time to sync what was written.
    pub fn is_sync_due(&self, limits: &Limits) -> bool {
        let due = self.sync_due(limits);
        due.is_some_and(|due| due <= Instant::now())
    }

    /// Makes what was written survive a power cut. An error is final: after a
    /// failed sync the kernel may call lost bytes clean, so that a second try
    /// proves nothing.
    pub fn sync(&mut self) -> Result<()> {
        if self.unsynced_since.is_none() {
            return Ok(());
        }
        self.file
            .sync_data()
            .with_context(|| format!("{}: cannot sync", self.path.display()))?;
        self.unsynced_since = None;
        Ok(())
    }

    /// When something is to be done though no record comes.
    pub fn due(&self, limits: &Limits) -> Option<Instant> {
        // An age past the end of time never comes.
        let old = self.begun.checked_add(limits.age);
        old.into_iter().chain(self.sync_due(limits)).min()
    }

    fn sync_due(&self, limits: &Limits) -> Option<Instant> {
        self.unsynced_since?.checked_add(limits.sync_every)
    }
}

/// Whether `file` is what bears the name `path`.
pub fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(own), Ok(there)) => (own.dev(), own.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// What the first `length` bytes of a file are.
fn read_settled(file: &File, length: u64) -> io::Result<Settled> {
    let mut settled = Settled::default();
    let mut block = vec![0; 256 * 1024];
    while settled.bytes < length {
        let wanted = (length - settled.bytes).min(block.len() as u64) as usize;
        file.read_exact_at(&mut block[..wanted], settled.bytes)?;
        settled.hash.update(&block[..wanted]);
        settled.bytes += wanted as u64;
        settled.lines += memchr::memchr_iter(b'\n', &block[..wanted]).count() as u64;
    }
    Ok(settled)
}
