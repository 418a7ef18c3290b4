//! Removes the oldest complete files of an archive when there are too many.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::observe::archive::file_id::FileId;
use crate::stream::archives::{FileKind, names, path_of};

/// The limits of the complete files. Without a limit, all files are kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetentionLimits {
    /// The largest number of complete files.
    pub files: Option<u64>,
    /// The largest number of bytes in complete files, compressed.
    pub bytes: Option<u64>,
}

/// The complete files of a folder. The list is empty if there is no limit.
#[derive(Debug)]
pub struct Retention {
    folder: PathBuf,
    limits: RetentionLimits,
    /// Each file with its bytes, the oldest first.
    files: VecDeque<(FileId, u64)>,
    bytes: u64,
    removed: u64,
}

impl Retention {
    /// Lists the folder's complete files if there is a limit.
    pub fn open(folder: &Path, limits: RetentionLimits) -> Result<Retention> {
        let mut retention = Retention {
            folder: folder.to_owned(),
            limits,
            files: VecDeque::new(),
            bytes: 0,
            removed: 0,
        };
        if retention.has_limit() {
            for name in names(folder)? {
                if let Some(FileKind::Complete(id)) = FileKind::of(&name)
                    && let Some(id) = FileId::parse(id)
                {
                    retention.count(id)?;
                }
            }
        }
        Ok(retention)
    }

    fn has_limit(&self) -> bool {
        self.limits.files.is_some() || self.limits.bytes.is_some()
    }

    fn count(&mut self, id: FileId) -> Result<()> {
        let path = path_of(&self.folder, FileKind::Complete(&id.to_string()));
        let found = match fs::symlink_metadata(&path) {
            // The archive writes only regular files.
            Ok(found) if !found.is_file() => return Ok(()),
            // Another program may have removed the file in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.with_context(|| format!("{}: cannot read", path.display()))?,
        };
        let bytes = found.len();
        self.files.push_back((id, bytes));
        self.bytes += bytes;
        Ok(())
    }

    /// Adds a new complete file, which is the latest.
    pub fn add(&mut self, id: FileId) -> Result<()> {
        if self.has_limit() {
            self.count(id)?;
        }
        Ok(())
    }

    /// Removes the oldest files until the rest are within the limits. The latest file
    /// always stays.
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
            let path = path_of(&self.folder, FileKind::Complete(&id.to_string()));
            match fs::remove_file(&path) {
                Ok(()) => self.removed += 1,
                // Another program has removed the file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("{}: cannot remove", path.display()));
                }
            }
        }
        Ok(())
    }

    /// The number of removed files.
    pub fn removed(&self) -> u64 {
        self.removed
    }
}
