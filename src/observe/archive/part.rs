//! The open part: the file that is being written. It holds plain lines, so after a
//! crash everything up to its last newline is whole.
//!
//! No other program should write to it. If one does, this is noticed: its length is
//! checked after each write, its name at each sync, and its content by a checksum when
//! it is compressed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xxhash_rust::xxh3::Xxh3;

use crate::observe::archive::file_id::FileId;
use crate::observe::archive::folder::{FILE_MODE, sync_folder};
use crate::stream::archives::{FileKind, end_of_last_line, path_of};

/// How often one write starts again because another program has changed the file.
const REPAIRS_MAX: u32 = 3;

/// When a part is closed, and how often it is synced.
#[derive(Clone, Copy, Debug)]
pub struct PartLimits {
    /// The most records in a file.
    pub records: u64,
    /// The most bytes in a file, uncompressed. A longer record gets a file of its own.
    pub bytes: u64,
    /// How long after its first record a file is closed.
    pub age: Duration,
    /// How long a written record may wait for its sync.
    pub sync_every: Duration,
}

/// What was written into a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartContent {
    /// How many lines.
    pub lines: u64,
    /// How many bytes.
    pub bytes: u64,
    /// The XXH3 of these bytes.
    pub hash: u64,
}

/// A part that takes records.
#[derive(Debug)]
pub struct Part {
    id: FileId,
    path: PathBuf,
    file: Arc<File>,
    /// Whole lines that memory keeps. They follow the released ones.
    pending: Vec<u8>,
    /// How many bytes of `pending` are in the file.
    written: usize,
    /// What is in the file and no longer in memory.
    released: ReleasedLines,
    records: u64,
    bytes: u64,
    created: Instant,
    /// When the oldest byte was written that is not synced yet.
    unsynced_since: Option<Instant>,
    /// What other programs have done to the file and nobody has reported yet.
    foreign_changes: Vec<ForeignChange>,
}

#[derive(Default)]
struct ReleasedLines {
    lines: u64,
    bytes: u64,
    hash: Xxh3,
}

impl std::fmt::Debug for ReleasedLines {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(formatter, "{} lines, {} bytes", self.lines, self.bytes)
    }
}

/// Another program has changed the part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignChange {
    /// What it did.
    pub message: String,
    /// How many lines are lost.
    pub lost_lines: u64,
}

impl Part {
    /// Creates the file in the archive's folder. The error is an I/O error with its
    /// place; its kind is `AlreadyExists` if the name is taken.
    pub fn create(folder: &Path, id: FileId) -> Result<Part> {
        let path = path_of(folder, FileKind::Part(&id.to_string()));
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&path)
            .with_context(|| format!("{}: cannot create", path.display()))?;
        // Without a synced name, a power cut would lose the file and its synced bytes.
        sync_folder(folder).with_context(|| format!("{}: cannot sync", folder.display()))?;
        Ok(Part {
            id,
            path,
            file: Arc::new(file),
            pending: Vec::new(),
            written: 0,
            released: ReleasedLines::default(),
            records: 0,
            bytes: 0,
            created: Instant::now(),
            unsynced_since: None,
            foreign_changes: Vec::new(),
        })
    }

    /// The id in its name.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// The path at which it was created.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file. It keeps the lines even if its name is removed.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Adds a line, given without its newline. It is only in memory until
    /// [`write`](Part::write).
    pub fn push(&mut self, line: &[u8]) {
        self.pending.extend_from_slice(line);
        self.pending.push(b'\n');
        self.records += 1;
        self.bytes += line.len() as u64 + 1;
    }

    /// Whether a line of `length` bytes fits.
    pub fn has_room(&self, length: usize, limits: &PartLimits) -> bool {
        self.bytes.saturating_add(length as u64 + 1) <= limits.bytes
    }

    /// Whether it has reached its limit of records or bytes.
    pub fn is_full(&self, limits: &PartLimits) -> bool {
        self.records >= limits.records || self.bytes >= limits.bytes
    }

    /// Whether it has reached its limit of age.
    pub fn is_old(&self, limits: &PartLimits) -> bool {
        self.created.elapsed() >= limits.age
    }

    /// Writes the pending lines, and repairs the file if another program has changed its
    /// length. After an error the next call goes on at the byte where this one stopped,
    /// so a full disk tears no record.
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
            if length == self.released.bytes + self.written as u64 {
                return Ok(());
            }
            // Appended bytes stand where the file ended before them. Up to there, or up to
            // its end if nothing was appended, the file is as this program wrote it.
            let ours = match self.written - from {
                0 => length,
                count => rustix::fs::tell(&*self.file)?.saturating_sub(count as u64),
            };
            self.repair(ours.min(length), length)?;
        }
        Err(io::Error::other("another program keeps writing to it"))
    }

    /// Cuts the file back to whole lines that this program wrote. `length` is the file's
    /// wrong length; up to `ours` it is as this program wrote it. All pending lines have to
    /// be written again.
    fn repair(&mut self, ours: u64, length: u64) -> io::Result<()> {
        let expected = self.released.bytes + self.written as u64;
        if ours >= self.released.bytes {
            self.file.set_len(self.released.bytes)?;
            self.add_foreign_change(
                format!("another program has changed its length from {expected} to {length} bytes; this is undone"),
                0,
            );
        } else {
            let kept = end_of_last_line(&self.file, ours)?;
            self.file.set_len(kept)?;
            let lines = self.released.lines;
            self.released = read_released(&self.file, kept)?;
            let lost = lines - self.released.lines.min(lines);
            self.records = self.records.saturating_sub(lost);
            self.add_foreign_change(
                format!("another program has cut it from {expected} to {ours} bytes; {lost} lines are lost"),
                lost,
            );
        }
        self.written = 0;
        Ok(())
    }

    fn add_foreign_change(&mut self, what: String, lost_lines: u64) {
        let message = format!("{}: {what}", self.path.display());
        let change = ForeignChange {
            message,
            lost_lines,
        };
        self.foreign_changes.push(change);
    }

    /// What other programs have done to the file since the last call.
    pub fn take_foreign_changes(&mut self) -> Vec<ForeignChange> {
        std::mem::take(&mut self.foreign_changes)
    }

    /// Removes the pending lines from memory, and appends them to `to` if it is given.
    /// All of them must have been written.
    pub fn release_written(&mut self, to: Option<&mut Vec<u8>>) {
        debug_assert_eq!(self.written, self.pending.len());
        self.released.hash.update(&self.pending);
        self.released.bytes += self.pending.len() as u64;
        self.released.lines = self.records;
        if let Some(to) = to {
            to.append(&mut self.pending);
        }
        self.pending.clear();
        self.written = 0;
        // One long line must not keep its memory for ever.
        self.pending.shrink_to(1 << 20);
    }

    /// What was written and released.
    pub fn content(&self) -> PartContent {
        PartContent {
            lines: self.released.lines,
            bytes: self.released.bytes,
            hash: self.released.hash.digest(),
        }
    }

    /// How many bytes are in memory and not in the file.
    pub fn unwritten_bytes(&self) -> usize {
        self.pending.len() - self.written
    }

    /// How many bytes memory keeps.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Whether another program has removed, moved or replaced it.
    pub fn has_lost_its_name(&self) -> bool {
        !is_at(&self.file, &self.path)
    }

    /// Whether a written byte has waited for its sync as long as it may.
    pub fn is_sync_due(&self, limits: &PartLimits) -> bool {
        let due = self.sync_due(limits);
        due.is_some_and(|due| due <= Instant::now())
    }

    /// Makes the written bytes survive a power cut. An error is final: after a failed sync
    /// the kernel may count lost pages as clean, so a second sync that succeeds proves
    /// nothing.
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

    /// When it has to be synced or closed even if no record comes.
    pub fn due(&self, limits: &PartLimits) -> Option<Instant> {
        // A time that cannot be represented never comes.
        let old = self.created.checked_add(limits.age);
        old.into_iter().chain(self.sync_due(limits)).min()
    }

    fn sync_due(&self, limits: &PartLimits) -> Option<Instant> {
        self.unsynced_since?.checked_add(limits.sync_every)
    }
}

/// Whether `path` names the open `file`.
pub fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(own), Ok(there)) => (own.dev(), own.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Counts and hashes the first `length` bytes of a file.
fn read_released(file: &File, length: u64) -> io::Result<ReleasedLines> {
    let mut released = ReleasedLines::default();
    let mut block = vec![0; 256 * 1024];
    while released.bytes < length {
        let wanted = (length - released.bytes).min(block.len() as u64) as usize;
        file.read_exact_at(&mut block[..wanted], released.bytes)?;
        released.hash.update(&block[..wanted]);
        released.bytes += wanted as u64;
        released.lines += memchr::memchr_iter(b'\n', &block[..wanted]).count() as u64;
    }
    Ok(released)
}
