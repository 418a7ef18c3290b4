//! The streams of scores: named one by one, or all the pipes of a folder, as they
//! come and go.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::stage::{Stage, usage};
use crate::wire::endpoint::{Input, Progress};
use crate::wire::lines::Lines;

/// One stream, and what was read of it.
pub struct Stream {
    pub input: Input,
    pub lines: Lines,
    pub ended: bool,
    /// Tells the pipe from another one of its name.
    ino: u64,
}

impl Stream {
    pub fn open(path: &str, follow: bool, stage: &Stage) -> Result<Stream> {
        let input = Input::open(path, follow)?;
        if input.is_file() {
            return Err(usage(format!(
                "{path}: is a file, and a live rendezvous needs pipes, in which records come when \
                 they happen; for recordings there is --replay"
            )));
        }
        Ok(Stream {
            ino: input
                .readiness()
                .map_or(0, |fd| rustix::fs::fstat(fd).map_or(0, |stat| stat.st_ino)),
            input,
            lines: Lines::new(stage.line_bytes_max),
            ended: false,
        })
    }

    /// Reads what is there; one byte alone where only the present line is wanted.
    pub fn read(&mut self, only_this_line: bool) -> Result<()> {
        let progress = if only_this_line {
            self.input.read_one_byte(&mut self.lines)?
        } else {
            self.input.read(&mut self.lines)?
        };
        self.ended = progress == Progress::End;
        Ok(())
    }

    /// Whether a line was begun whose end may still come.
    pub fn is_inside_line(&self) -> bool {
        !self.ended && self.lines.is_inside_line()
    }
}

/// A folder whose named pipes are all streams of scores.
pub struct Folder {
    path: PathBuf,
    changes: OwnedFd,
}

impl Folder {
    /// Watches a folder; `None` where the path is none.
    pub fn watch(path: &str) -> Result<Option<Folder>> {
        if !Path::new(path).is_dir() {
            return Ok(None);
        }
        let watch = || -> rustix::io::Result<OwnedFd> {
            let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let of_names = WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO;
            inotify::add_watch(&changes, path, of_names)?;
            Ok(changes)
        };
        Ok(Some(Folder {
            path: PathBuf::from(path),
            changes: watch().with_context(|| format!("{path}: cannot watch the folder"))?,
        }))
    }

    /// Readable when a name has come or gone.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }

    /// Makes `readiness` quiet until the next change.
    pub fn acknowledge(&self) {
        let mut room = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.changes, &mut room);
        while reader.next().is_ok() {}
    }

    /// Brings `streams` in line with the folder: pipes that have come are opened,
    /// and of those that have gone the rest is still read.
    pub fn update(&self, streams: &mut Vec<Stream>, stage: &mut Stage) -> Result<()> {
        // By name, and by what bears the name: a pipe that is made anew under an old
        // name is another one.
        let mut present = BTreeMap::new();
        let list = fs::read_dir(&self.path);
        for entry in list.with_context(|| format!("{}: cannot list", self.path.display()))? {
            let path = entry?.path();
            // A pipe may go while the folder is being read.
            let pipe = fs::metadata(&path)
                .ok()
                .filter(|it| it.file_type().is_fifo());
            if let (Some(path), Some(pipe)) = (path.to_str(), pipe) {
                present.insert(path.to_owned(), pipe.ino());
            }
        }
        for stream in streams.iter_mut() {
            let path = stream.input.name();
            if Path::new(path).parent() != Some(&self.path) {
                continue;
            }
            if present.get(path).is_some_and(|ino| *ino == stream.ino) {
                present.remove(path);
            } else {
                stream.input.stop_following();
            }
        }
        for path in present.into_keys() {
            match Stream::open(&path, true, stage) {
                Ok(stream) => {
                    stage.report.info(&format!("{path}: joined"));
                    streams.push(stream);
                }
                Err(error) => stage.report.warn_seldom("scores", &format!("{error:#}")),
            }
        }
        Ok(())
    }
}
