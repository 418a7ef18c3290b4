//! The streams of scores: named one by one, or all the pipes of a folder, as they
//! come and go.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::stage::watch::{Watch, named_pipes};
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
    changes: Watch,
}

impl Folder {
    /// Watches a folder; `None` where the path is none.
    pub fn watch(path: &str) -> Result<Option<Folder>> {
        if !Path::new(path).is_dir() {
            return Ok(None);
        }
        let changes = Watch::new()?;
        changes.folder(path)?;
        Ok(Some(Folder {
            path: PathBuf::from(path),
            changes,
        }))
    }

    /// Readable when a name has come or gone.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.changes.readiness()
    }

    /// Makes `readiness` quiet until the next change.
    pub fn acknowledge(&self) {
        self.changes.acknowledge();
    }

    /// Brings `streams` in line with the folder: pipes that have come are opened,
    /// and of those that have gone the rest is still read.
    pub fn update(&self, streams: &mut Vec<Stream>, stage: &mut Stage) -> Result<()> {
        // By name, and by what bears the name: a pipe that is made anew under an old
        // name is another one.
        let mut present = named_pipes(&self.path)?;
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
