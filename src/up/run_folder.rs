//! The run folder: its files, and the locks that keep two of everything apart.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::FlockOperation;

use crate::stage::usage;
use crate::up::plan::{FOLDERS, PIPE_FOLDERS};

/// The copy of the file that is in effect.
pub const RUNNING: &str = "running.toml";

/// The file that says that the start has succeeded.
pub const STARTED: &str = "started";

/// The file that says that everything is ending.
pub const STOPPING: &str = "stopping";

/// The file of `rv-up` and its run folder. The program works in the folder of the file,
/// so every path of the file is relative to it.
#[derive(Clone, Debug)]
pub struct RunFolder {
    /// The name of the file, without its folder.
    pub file: String,
    /// The run folder.
    pub dir: String,
}

impl RunFolder {
    /// A path in the run folder.
    pub fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    /// Makes the run folder and the folders in it, for their owner alone.
    pub fn make(&self) -> Result<()> {
        let make = |path: &str| -> io::Result<()> {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(path)
        };
        let own = || -> io::Result<()> {
            make(&self.dir)?;
            // The folder may have been made by somebody else, for others to read.
            fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700))?;
            for folder in PIPE_FOLDERS.iter().chain(&FOLDERS) {
                make(&self.path(folder))?;
            }
            Ok(())
        };
        own().with_context(|| format!("{}: cannot make the run folder", self.dir))
    }

    /// Removes all pipes, because bytes that an earlier run has left in them must not
    /// reach this one.
    pub fn remove_pipes(&self) -> Result<()> {
        for folder in PIPE_FOLDERS {
            let path = self.path(folder);
            let entries = fs::read_dir(&path).with_context(|| format!("{path}: cannot read"))?;
            for entry in entries.flatten() {
                if crate::up::pipes::is_pipe(&entry.path()) {
                    fs::remove_file(entry.path())
                        .with_context(|| format!("{}: cannot remove", entry.path().display()))?;
                }
            }
        }
        Ok(())
    }

    /// Locks a file of the run folder. The lock lasts until the returned file is closed.
    /// Returns `None` if another process has the lock.
    pub fn lock(&self, name: &str) -> Result<Option<File>> {
        let path = self.path(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600);
        let file = file
            .open(&path)
            .with_context(|| format!("{path}: cannot open"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("{path}: cannot lock")),
        }
    }

    /// Replaces a file whole: a reader sees the old content or the new one.
    pub fn replace(&self, name: &str, text: &str) -> Result<()> {
        replace(Path::new(&self.path(name)), text)
    }
}

/// Makes the folder of a file the working folder, so that every path in the file is
/// relative to it. Returns the name of the file.
pub fn enter_folder_of(path: &Path) -> Result<String> {
    let shown = path.display();
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{shown}: is no name of a file"));
    let name = name
        .map_err(|error| usage(format!("{error:#}")))?
        .to_owned();
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        std::env::set_current_dir(folder)
            .map_err(|error| usage(format!("{}: {error}", folder.display())))?;
    }
    Ok(name)
}

/// Replaces a file whole. The file keeps its permissions.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let write = || -> io::Result<()> {
        // A link stays a link: the file behind it is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut new = path.clone().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        fs::write(&new, text)?;
        if let Ok(metadata) = fs::metadata(&path) {
            fs::set_permissions(&new, metadata.permissions())?;
        }
        File::open(&new)?.sync_all()?;
        fs::rename(new, path)
    };
    write().with_context(|| format!("{}: cannot write", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_folder_is_for_its_owner_alone_and_its_locks_exclude_others() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder {
            file: "rv.toml".to_owned(),
            dir: folder.path().join("run").to_str().unwrap().to_owned(),
        };
        run.make().unwrap();
        let mode = fs::metadata(&run.dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let held = run.lock("lock").unwrap().unwrap();
        assert!(run.lock("lock").unwrap().is_none());
        drop(held);
        assert!(run.lock("lock").unwrap().is_some());
        crate::up::pipes::make(&run.path("models/a")).unwrap();
        run.replace("models/b", "text").unwrap();
        run.remove_pipes().unwrap();
        assert!(!Path::new(&run.path("models/a")).exists());
        assert_eq!(fs::read_to_string(run.path("models/b")).unwrap(), "text");
    }
}
