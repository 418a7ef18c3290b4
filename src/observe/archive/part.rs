//! The open part: the file that is being written. The part contains plain lines, so
//! after a crash all lines up to the last newline are whole.
//!
//! No other program should write to the part. The part detects such a write: it checks
//! the length after each write, the name at each sync, and a checksum of the content
//! when it is compressed.

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

/// The largest number of times that one write is repeated because another program has
/// changed the file.
const REPAIRS_MAX: u32 = 3;

/// The limits at which a part is closed, and the interval of its syncs.
#[derive(Clone, Copy, Debug)]
pub struct PartLimits {
    /// The largest number of records in a file.
    pub records: u64,
    /// The largest number of bytes in a file, uncompressed. A longer record gets a
    /// separate file.
    pub bytes: u64,
    /// A file is closed this long after its first record.
    pub age: Duration,
    /// A written record waits at most this long for its sync.
    pub sync_every: Duration,
}

/// The content of a part, as this program wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartContent {
    /// The number of lines.
    pub lines: u64,
    /// The number of bytes.
    pub bytes: u64,
    /// The XXH3 hash of these bytes.
    pub hash: u64,
}

/// The open part.
#[derive(Debug)]
pub struct Part {
    id: FileId,
    path: PathBuf,
    file: Arc<File>,
    /// Whole lines that are still in memory. They follow the released lines.
    pending: Vec<u8>,
    /// The number of bytes of `pending` that are in the file.
    written: usize,
    /// The lines that are in the file and no longer in memory.
    released: ReleasedLines,
    records: u64,
    bytes: u64,
    created: Instant,
    /// The time at which the oldest unsynced byte was written.
    unsynced_since: Option<Instant>,
    /// The changes by other programs that are not reported yet.
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

/// A change of the part by another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignChange {
    /// The description of the change.
    pub message: String,
    /// The number of lost lines.
    pub lost_lines: u64,
}

impl Part {
    /// Creates the file in the archive's folder. The error is an I/O error that names
    /// the file; its kind is `AlreadyExists` if the name is taken.
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

    /// The id in the part's name.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// The path at which the part was created.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, which keeps the lines even if the part's name is removed.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Adds a line, given without its newline. The line is only in memory until
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

    /// Whether the part has reached its limit of records or bytes.
    pub fn is_full(&self, limits: &PartLimits) -> bool {
        self.records >= limits.records || self.bytes >= limits.bytes
    }

    /// Whether the part has reached its limit of age.
    pub fn is_old(&self, limits: &PartLimits) -> bool {
        self.created.elapsed() >= limits.age
    }

    /// Writes the pending lines, and repairs the file if another program has changed
    /// its length. After an error, the next call continues at the byte at which this
    /// call stopped, so a full disk tears no record.
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
            // `ours` is the length that the file had before this call appended its
            // bytes. If the call appended nothing, `ours` is the present length.
            let ours = match self.written - from {
                0 => length,
                count => rustix::fs::tell(&*self.file)?.saturating_sub(count as u64),
            };
            self.repair(ours.min(length), length)?;
        }
        Err(io::Error::other("another program keeps writing to it"))
    }

    /// Cuts the file back to whole lines that this program wrote. `length` is the
    /// file's wrong length. The bytes up to `ours` count as written by this program.
    /// Afterwards all pending lines must be written again.
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

    /// The changes of the file by other programs since the last call.
    pub fn take_foreign_changes(&mut self) -> Vec<ForeignChange> {
        std::mem::take(&mut self.foreign_changes)
    }

    /// Removes the pending lines from memory, and, if `to` is given, appends them to
    /// `to`. All of them must have been written.
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
        // The memory of one long line must not be kept forever.
        self.pending.shrink_to(1 << 20);
    }

    /// The content that was written and released.
    pub fn content(&self) -> PartContent {
        PartContent {
            lines: self.released.lines,
            bytes: self.released.bytes,
            hash: self.released.hash.digest(),
        }
    }

    /// The number of bytes that are in memory and not in the file.
    pub fn unwritten_bytes(&self) -> usize {
        self.pending.len() - self.written
    }

    /// The number of bytes that are in memory.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Whether another program has removed, moved or replaced the part.
    pub fn has_lost_its_name(&self) -> bool {
        !is_at(&self.file, &self.path)
    }

    /// Whether the oldest unsynced byte may wait no longer for its sync.
    pub fn is_sync_due(&self, limits: &PartLimits) -> bool {
        let due = self.sync_due(limits);
        due.is_some_and(|due| due <= Instant::now())
    }

    /// Makes the written bytes survive a power cut. An error is final: after a failed
    /// sync the kernel may mark lost pages as clean, so a later sync can succeed
    /// although bytes are lost.
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

    /// The time at which the part must be synced or closed even if no record arrives.
    pub fn due(&self, limits: &PartLimits) -> Option<Instant> {
        // A time that cannot be represented is never reached.
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
