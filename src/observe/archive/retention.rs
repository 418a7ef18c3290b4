//! How much of an archive is kept: of its complete files, the oldest go first.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::observe::archive::names::Id;
use crate::stream::archives::{Kind, names, path_of};

/// What was asked for. Without a limit everything is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// The most complete files.
    pub files: Option<u64>,
    /// The most bytes of complete files, compressed.
    pub bytes: Option<u64>,
}

/// The complete files of a folder, as far as a limit needs them.
#[derive(Debug)]
pub struct Retention {
    folder: PathBuf,
    limits: Limits,
    /// Oldest first, each with its bytes.
    files: VecDeque<(Id, u64)>,
    bytes: u64,
    removed: u64,
}

impl Retention {
    /// Looks at what is in the folder, where there is a limit.
    pub fn open(folder: &Path, limits: Limits) -> Result<Retention> {
        let mut retention = Retention {
            folder: folder.to_owned(),
            limits,
            files: VecDeque::new(),
            bytes: 0,
            removed: 0,
        };
        if retention.is_asked_for() {
            for name in names(folder)? {
                if let Some(Kind::Complete(id)) = Kind::of(&name)
                    && let Some(id) = Id::parse(id)
                {
                    retention.count(id)?;
                }
            }
        }
        Ok(retention)
    }

    fn is_asked_for(&self) -> bool {
        self.limits.files.is_some() || self.limits.bytes.is_some()
    }

    fn count(&mut self, id: Id) -> Result<()> {
        let path = path_of(&self.folder, Kind::Complete(&id.to_string()));
        let found = match fs::symlink_metadata(&path) {
            // What is no file is none of the archive's, and somebody may have
            // removed one by now.
            Ok(found) if !found.is_file() => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.with_context(|| format!("{}: cannot read", path.display()))?,
        };
        let bytes = found.len();
        self.files.push_back((id, bytes));
        self.bytes += bytes;
        Ok(())
    }

    /// Takes note of a new complete file, the latest.
    pub fn add(&mut self, id: Id) -> Result<()> {
        if self.is_asked_for() {
            self.count(id)?;
        }
        Ok(())
    }

    /// Removes what is over a limit. The latest file stays, however large it is.
    pub fn apply(&mut self) -> Result<()> {
        let files_max = self.limits.files.unwrap_or(u64::MAX);
        let bytes_max = self.limits.bytes.unwrap_or(u64::MAX);
        while self.files.len() > 1
            && (self.files.len() as u64 > files_max || self.bytes > bytes_max)
        {
            let Some((id, bytes)) = self.files.pop_front() else {
                break;
            };
            self.bytes -= bytes;
            let path = path_of(&self.folder, Kind::Complete(&id.to_string()));
            match fs::remove_file(&path) {
                Ok(()) => self.removed += 1,
                // Somebody was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("{}: cannot remove", path.display()));
                }
            }
        }
        Ok(())
    }

    /// How many files were removed.
    pub fn removed(&self) -> u64 {
        self.removed
    }
}
