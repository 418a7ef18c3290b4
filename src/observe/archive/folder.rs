//! The folder of an archive: one writer at a time, and a look at what is in it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::observe::archive::members::Stamp;
use crate::observe::archive::names::Id;
use crate::wire::micros::Micros;
use crate::wire::recording::{Kind, LOCK_NAME, names};

/// For the owner alone: records may be personal.
pub const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A folder that this process alone writes.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// The greatest id that was ever given in it.
    greatest: Option<Id>,
    _lock: File,
}

impl Folder {
    /// Makes the folder where it is missing, and locks it.
    pub fn open(path: &Path) -> Result<Folder> {
        let shown = path.display();
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path)
            .with_context(|| format!("{shown}: cannot make the folder"))?;
        let lock_path = path.join(LOCK_NAME);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&lock_path)
            .with_context(|| format!("{}: cannot open", lock_path.display()))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                bail!("{shown}: another rv-archive writes here; give each its own --dir")
            }
            Err(errno) => {
                return Err(errno).with_context(|| format!("{}: cannot lock", lock_path.display()));
            }
        }
        let names = names(path)?;
        let greatest = names
            .iter()
            .filter_map(|name| match Kind::of(name)? {
                Kind::Complete(id) | Kind::Part(id) | Kind::Unfinished(id) => Id::parse(id),
            })
            .max();
        Ok(Folder {
            path: path.to_owned(),
            greatest,
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the next file's stamp is to go on from: that of the latest complete
    /// file. Where that has none, counting begins anew.
    pub fn next_place(&self) -> Result<Stamp> {
        let listed = names(&self.path)?;
        let complete = listed
            .iter()
            .rev()
            .filter_map(|name| match Kind::of(name)? {
                Kind::Complete(id) => Id::parse(id).map(|_| name),
                Kind::Part(_) | Kind::Unfinished(_) => None,
            });
        let Some(latest) = { complete }.next() else {
            return Ok(Stamp::default());
        };
        let path = self.path.join(latest);
        let stamp = File::open(&path).and_then(|file| Stamp::read(&file));
        let stamp = stamp.with_context(|| format!("{}: cannot read", path.display()))?;
        Ok(stamp.map(Stamp::after).unwrap_or_default())
    }

    /// An id for a file that is begun at `now`, greater than all in the folder.
    pub fn next_id(&mut self, now: Micros) -> Id {
        let id = Id::after(self.greatest, now);
        self.greatest = Some(id);
        id
    }
}

/// Makes what was created, renamed or removed in a folder survive a power cut.
pub fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
