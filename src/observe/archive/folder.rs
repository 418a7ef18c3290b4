//! The folder of an archive: its lock, the next id, the next stamp, and renames that do
//! not replace files.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::observe::archive::file_id::FileId;
use crate::observe::archive::stamp::Stamp;
use crate::stream::archives::{
    FileKind, LOCK_NAME, names, not_opened, open_regular, path_of, refuse_irregular,
};
use crate::wire::micros::Micros;

/// The mode of an archive's files. Only the owner may read them, because records may be
/// personal.
pub const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A folder that this process has locked.
#[derive(Debug)]
pub struct ArchiveFolder {
    path: PathBuf,
    /// The greatest id in the folder. Ids at the time limit do not count.
    greatest: Option<FileId>,
    /// The name of a file whose id is at the time limit.
    file_at_time_limit: Option<String>,
    _lock: File,
}

impl ArchiveFolder {
    /// Creates the folder if it is missing, and locks it. Fails if another process has
    /// locked it.
    pub fn open(path: &Path) -> Result<ArchiveFolder> {
        let shown = path.display();
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path)
            .with_context(|| format!("{shown}: cannot make the folder"))?;
        let lock_path = path.join(LOCK_NAME);
        let opening = || {
            format!(
                "{}: cannot open the lock; remove it if rv-archive did not create it",
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
        let (mut greatest, mut file_at_time_limit) = (None, None);
        for name in names {
            let id = match FileKind::of(&name) {
                Some(FileKind::Complete(id) | FileKind::Part(id) | FileKind::Unfinished(id)) => {
                    FileId::parse(id)
                }
                None => None,
            };
            match id {
                Some(id) if id.is_at_time_limit() => file_at_time_limit = Some(name),
                id => greatest = id.max(greatest),
            }
        }
        Ok(ArchiveFolder {
            path: path.to_owned(),
            greatest,
            file_at_time_limit,
            _lock: lock,
        })
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of a file whose id is at the time limit. New files sort before it.
    pub fn file_at_time_limit(&self) -> Option<&str> {
        self.file_at_time_limit.as_deref()
    }

    /// The stamp of the next file, with its lines and bytes still at 0. It counts on
    /// from the stamp of the latest readable complete file. If that file has no stamp
    /// or an impossible stamp, counting starts again at 0. Calls `report` for each file
    /// that cannot be read.
    pub fn next_stamp(&self, mut report: impl FnMut(String)) -> Result<Stamp> {
        let mut complete: Vec<(FileId, String)> = Vec::new();
        for name in names(&self.path)? {
            if let Some(FileKind::Complete(id)) = FileKind::of(&name)
                && let Some(id) = FileId::parse(id)
            {
                complete.push((id, name));
            }
        }
        // A file at the time limit sorts last, but it may be older than the others.
        complete.sort_by_key(|(id, _)| (!id.is_at_time_limit(), *id));
        for (_, name) in complete.iter().rev() {
            let path = self.path.join(name);
            match open_regular(&path, false).and_then(|(file, _)| Stamp::read(&file)) {
                Ok(stamp) => {
                    let stamp = stamp.filter(|stamp| stamp.contradiction().is_none());
                    return Ok(stamp.and_then(Stamp::next).unwrap_or_default());
                }
                Err(error) => report(format!("{}: {}", path.display(), not_opened(&error))),
            }
        }
        Ok(Stamp::default())
    }

    /// A free id for a file that is created at `now`. The id is greater than all ids in
    /// the folder.
    pub fn next_id(&mut self, now: Micros) -> Result<FileId> {
        let mut next = FileId::after(self.greatest, now);
        while let Some(id) = next {
            self.greatest = Some(id);
            if is_free(&self.path, id) {
                return Ok(id);
            }
            next = id.next();
        }
        bail!(
            "{}: no name is left after the last file's; move the files of the year 9999 away",
            self.path.display()
        )
    }
}

/// Opens or creates the lock, which must be a regular file. If the name were a link,
/// the lock could be created elsewhere. If the name were a pipe, opening it could wait
/// forever.
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

/// Whether no file of the folder has the id in its name.
fn is_free(folder: &Path, id: FileId) -> bool {
    let id = id.to_string();
    let kinds = [
        FileKind::Complete(&id),
        FileKind::Part(&id),
        FileKind::Unfinished(&id),
    ];
    kinds
        .into_iter()
        .all(|kind| fs::symlink_metadata(path_of(folder, kind)).is_err())
}

/// The next free id after `id`.
pub fn next_free_id(folder: &Path, id: FileId) -> Option<FileId> {
    std::iter::successors(id.next(), |id| id.next()).find(|id| is_free(folder, *id))
}

/// Syncs a folder: after this, files that were created, renamed or removed in it survive
/// a power cut.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Renames a file without replacing another one. If `to` exists, returns an error of the
/// kind `AlreadyExists`.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(()),
        // The file system or the kernel does not support such a rename.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(errno.into()),
    }
    match rustix::fs::link(from, to) {
        Ok(()) => return fs::remove_file(from),
        // The file system does not support hard links either.
        Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP | Errno::MLINK) => {}
        Err(errno) => return Err(errno.into()),
    }
    // Between this check and the rename, only the folder's lock protects the name.
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
    }
}
