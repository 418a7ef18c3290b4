//! The folder of an archive: one writer at a time, and a look at what is in it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::observe::archive::members::Stamp;
use crate::observe::archive::names::Id;
use crate::stream::archives::{
    Kind, LOCK_NAME, names, not_opened, open_regular, path_of, refuse_irregular,
};
use crate::wire::micros::Micros;

/// For the owner alone: records may be personal.
pub const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A folder that this process alone writes.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// The greatest id that was ever given in it, but for those at the end of time.
    greatest: Option<Id>,
    /// A file whose id is at the end of time.
    at_the_end: Option<String>,
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
        let opening = || {
            format!(
                "{}: cannot open the lock; if it is none of rv-archive's, remove it",
                lock_path.display()
            )
        };
        let lock = open_lock(&lock_path).with_context(opening)?;
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
        let (mut greatest, mut at_the_end) = (None, None);
        for name in names {
            let id = match Kind::of(&name) {
                Some(Kind::Complete(id) | Kind::Part(id) | Kind::Unfinished(id)) => Id::parse(id),
                None => None,
            };
            match id {
                Some(id) if id.is_at_the_end() => at_the_end = Some(name),
                id => greatest = id.max(greatest),
            }
        }
        Ok(Folder {
            path: path.to_owned(),
            greatest,
            at_the_end,
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it whose id is at the end of time, so that new ones stand before it.
    pub fn at_the_end(&self) -> Option<&str> {
        self.at_the_end.as_deref()
    }

    /// What the next file's stamp is to go on from: that of the latest complete
    /// file that can be read. Where that has none, or one that cannot be true,
    /// counting begins anew. `pass_over` hears of files that cannot be read.
    pub fn next_place(&self, mut pass_over: impl FnMut(String)) -> Result<Stamp> {
        let mut complete: Vec<(Id, String)> = Vec::new();
        for name in names(&self.path)? {
            if let Some(Kind::Complete(id)) = Kind::of(&name)
                && let Some(id) = Id::parse(id)
            {
                complete.push((id, name));
            }
        }
        // Files at the end of time stand behind those that are written after them.
        complete.sort_by_key(|(id, _)| (!id.is_at_the_end(), *id));
        for (_, name) in complete.iter().rev() {
            let path = self.path.join(name);
            match open_regular(&path, false).and_then(|(file, _)| Stamp::read(&file)) {
                Ok(stamp) => {
                    let stamp = stamp.filter(|stamp| stamp.contradiction().is_none());
                    return Ok(stamp.and_then(Stamp::after).unwrap_or_default());
                }
                Err(error) => pass_over(format!("{}: {}", path.display(), not_opened(&error))),
            }
        }
        Ok(Stamp::default())
    }

    /// An id for a file that is begun at `now`, greater than all in the folder, and
    /// taken by none.
    pub fn next_id(&mut self, now: Micros) -> Result<Id> {
        let mut next = Id::after(self.greatest, now);
        while let Some(id) = next {
            self.greatest = Some(id);
            if is_free(&self.path, id) {
                return Ok(id);
            }
            next = id.next();
        }
        bail!(
            "{}: no name is left behind the last file's; move the files of the year 9999 away",
            self.path.display()
        )
    }
}

/// Opens the lock, which is a file of its own: through a link it would be made
/// elsewhere, and a pipe would be waited for.
fn open_lock(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    if let Ok(there) = fs::symlink_metadata(path) {
        refuse_irregular(&there)?;
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .custom_flags(flags.bits() as i32)
        .open(path)?;
    refuse_irregular(&file.metadata()?)?;
    Ok(file)
}

/// Whether nothing in the folder bears a name with the id.
fn is_free(folder: &Path, id: Id) -> bool {
    let id = id.to_string();
    let kinds = [Kind::Complete(&id), Kind::Part(&id), Kind::Unfinished(&id)];
    kinds
        .into_iter()
        .all(|kind| fs::symlink_metadata(path_of(folder, kind)).is_err())
}

/// The least id behind `id` that is taken by nothing in the folder.
pub fn next_free(folder: &Path, id: Id) -> Option<Id> {
    std::iter::successors(id.next(), |id| id.next()).find(|id| is_free(folder, *id))
}

/// Makes what was created, renamed or removed in a folder survive a power cut.
pub fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Renames a file to a name that nothing bears; what bears it stays, and then this
/// is an error of the kind `AlreadyExists`.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(()),
        // The file system or the kernel cannot do this.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(errno.into()),
    }
    match rustix::fs::link(from, to) {
        Ok(()) => return fs::remove_file(from),
        // It has no second names either.
        Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK) => {}
        Err(errno) => return Err(errno.into()),
    }
    // Then only the folder's lock keeps others from the name in between.
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
    }
}
