//! Reports when named pipes are created, removed or opened.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// A descriptor that becomes readable when a watched folder or pipe changes. The owner
/// then reads the current state, so no change is missed if many happen together.
#[derive(Debug)]
pub struct PipeWatch(OwnedFd);

impl PipeWatch {
    /// A watch without folders or pipes.
    pub fn new() -> Result<PipeWatch> {
        let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        Ok(PipeWatch(changes.context(
            "cannot watch for changes; fs.inotify.max_user_instances may be too low",
        )?))
    }

    /// Watches for names that appear in a folder or disappear from it.
    pub fn watch_folder(&self, path: &str) -> Result<()> {
        let of_names =
            WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::MOVED_TO;
        inotify::add_watch(&self.0, path, of_names)
            .with_context(|| format!("{path}: cannot watch the folder"))?;
        Ok(())
    }

    /// Watches for processes that open a named pipe.
    pub fn watch_opening(&self, path: &str) -> Result<()> {
        inotify::add_watch(&self.0, path, WatchFlags::OPEN)
            .with_context(|| format!("{path}: cannot watch the pipe"))?;
        Ok(())
    }

    /// A descriptor that is readable if a watched folder or pipe has changed.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Makes `readiness` unreadable until the next change.
    pub fn acknowledge(&self) {
        let mut room = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut room);
        while reader.next().is_ok() {}
    }
}

/// The named pipes of a folder by path, each with its inode. The inode distinguishes
/// the pipe from another pipe of the same name.
pub fn named_pipes(folder: &Path) -> Result<BTreeMap<String, u64>> {
    let mut pipes = BTreeMap::new();
    let list = fs::read_dir(folder);
    for entry in list.with_context(|| format!("{}: cannot list", folder.display()))? {
        let path = entry?.path();
        // A pipe may be removed during the listing.
        let pipe = fs::metadata(&path)
            .ok()
            .filter(|it| it.file_type().is_fifo());
        if let (Some(path), Some(pipe)) = (path.to_str(), pipe) {
            pipes.insert(path.to_owned(), pipe.ino());
        }
    }
    Ok(pipes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::event::PollFlags;

    use super::*;
    use crate::stream::descriptor::is_ready;

    fn fifo(path: &Path) {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, path, mode).unwrap();
    }

    /// Whether something has changed. If so, acknowledges the change.
    fn has_changed(watch: &PipeWatch) -> bool {
        let changed = is_ready(watch.readiness(), PollFlags::IN).unwrap();
        watch.acknowledge();
        changed
    }

    #[test]
    fn a_name_that_comes_or_leaves_is_a_change_however_it_does() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (here, there) = (folder.path().join("pipe"), elsewhere.path().join("pipe"));
        let watch = PipeWatch::new().unwrap();
        watch.watch_folder(folder.path().to_str().unwrap()).unwrap();
        assert!(!has_changed(&watch));
        fifo(&here);
        assert!(has_changed(&watch), "made");
        assert!(!has_changed(&watch));
        fs::rename(&here, &there).unwrap();
        assert!(has_changed(&watch), "moved away");
        fs::rename(&there, &here).unwrap();
        assert!(has_changed(&watch), "moved here");
        fs::remove_file(&here).unwrap();
        assert!(has_changed(&watch), "removed");
        assert!(!has_changed(&watch));
        assert!(watch.watch_folder("/nowhere").is_err());
    }

    #[test]
    fn whoever_opens_a_pipe_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        fifo(&path);
        let watch = PipeWatch::new().unwrap();
        watch.watch_opening(path.to_str().unwrap()).unwrap();
        assert!(!has_changed(&watch));
        let opened = File::options().read(true).write(true).open(&path).unwrap();
        assert!(has_changed(&watch));
        drop(opened);
        assert!(!has_changed(&watch));
        assert!(watch.watch_opening("/nowhere/pipe").is_err());
    }

    #[test]
    fn a_folder_lists_its_named_pipes_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        fifo(&path);
        fs::write(folder.path().join("file"), "").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let found = named_pipes(folder.path()).unwrap();
        let expected = BTreeMap::from([(path.to_str().unwrap().to_owned(), inode)]);
        assert_eq!(found, expected);
        assert!(named_pipes(&path).is_err());
    }
}
