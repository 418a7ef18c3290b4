//! The file that is being written: plain lines, so that after a crash what is
//! whole can be told from what is torn.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::observe::archive::folder::{FILE_MODE, sync};
use crate::observe::archive::names::Id;
use crate::wire::recording::{Kind, path_of};

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

/// A part that takes records.
#[derive(Debug)]
pub struct Part {
    id: Id,
    path: PathBuf,
    file: File,
    /// Lines that are not in the file yet; up to `written` they are.
    pending: Vec<u8>,
    written: usize,
    records: u64,
    bytes: u64,
    begun: Instant,
    /// When the oldest byte was written that is not synced yet.
    unsynced_since: Option<Instant>,
}

impl Part {
    /// Begins a file for the first of its records.
    pub fn create(folder: &Path, id: Id) -> Result<Part> {
        let path = path_of(folder, Kind::Part(&id.to_string()));
        let file = OpenOptions::new()
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
            file,
            pending: Vec::new(),
            written: 0,
            records: 0,
            bytes: 0,
            begun: Instant::now(),
            unsynced_since: None,
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

    /// Writes what is in memory. After an error it can be called again and goes
    /// on at the byte where it stopped, so no record is torn by a full disk.
    pub fn write(&mut self) -> io::Result<()> {
        while self.written < self.pending.len() {
            match self.file.write(&self.pending[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count;
                    self.unsynced_since.get_or_insert_with(Instant::now);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.pending.clear();
        self.written = 0;
        // One long line must not cost its memory for ever.
        self.pending.shrink_to(1 << 20);
        Ok(())
    }

    /// How many bytes are in memory only.
    pub fn unwritten_bytes(&self) -> usize {
        self.pending.len() - self.written
    }

    /// Syncs what was written, where `now` it is time.
    pub fn sync_if_due(&mut self, limits: &Limits) -> Result<()> {
        match self.sync_due(limits) {
            Some(due) if due <= Instant::now() => self.sync(),
            _ => Ok(()),
        }
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
