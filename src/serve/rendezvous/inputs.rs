//! The pipes of requests and scores. Each path of `--scores` is a pipe, or a folder
//! with pipes.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::join::kept_score::Seat;
use crate::serve::rendezvous::pace::ReadPace;
use crate::stage::{Stage, usage};
use crate::stream::address::Address;
use crate::stream::cursor::Cursor;
use crate::stream::input::{Input, Progress};
use crate::stream::pipe_watch::{PipeWatch, named_pipes};

/// The number of streams that were opened in this process. The next stream gets this
/// number.
static OPENED: AtomicU32 = AtomicU32::new(0);

/// One pipe, and the bytes that were read from it.
pub struct LiveStream {
    /// The pipe, and the lines that were read from it.
    pub cursor: Cursor,
    /// The number of the stream, which is unique in the process.
    pub number: u32,
    /// Whether the scores of the stream may answer requests.
    pub seat: Seat,
    /// How fast the stream is read.
    pub pace: ReadPace,
    /// The inode of the pipe. A new pipe with an old name has another inode.
    ino: u64,
}

impl LiveStream {
    /// Opens a pipe. A regular file is refused. With `follow`, the stream does not
    /// end when its last writer closes it.
    pub fn open(address: &Address, seat: Seat, follow: bool, stage: &Stage) -> Result<LiveStream> {
        let input = Input::open(address, follow)?;
        if input.is_file() {
            return Err(usage(format!(
                "{address}: is a file, and a rendezvous in service reads pipes, in which records come \
                 when they happen; use --replay for recordings"
            )));
        }
        Ok(LiveStream {
            ino: input
                .readiness()
                .map_or(0, |fd| rustix::fs::fstat(fd).map_or(0, |stat| stat.st_ino)),
            cursor: Cursor::new(input, stage.line_bytes_max),
            number: OPENED.fetch_add(1, Ordering::Relaxed),
            seat,
            pace: ReadPace::default(),
        })
    }

    /// Reads the available bytes, at most a block. Returns the number of bytes.
    pub fn read(&mut self) -> Result<usize> {
        match self.cursor.read_up_to(self.pace.block_bytes())? {
            Progress::Bytes(count) => Ok(count),
            Progress::Nothing | Progress::End => Ok(0),
        }
    }
}

/// A folder. Each named pipe in it is a stream of scores.
pub struct ScoreFolder {
    path: PathBuf,
    seat: Seat,
    changes: PipeWatch,
}

impl ScoreFolder {
    /// Watches a folder, whose streams get this seat. Returns `None` if the path is not
    /// a folder.
    pub fn watch(address: &Address, seat: Seat) -> Result<Option<ScoreFolder>> {
        let path = address.as_str();
        if !Path::new(path).is_dir() {
            return Ok(None);
        }
        let changes = PipeWatch::new()?;
        changes.watch_folder(path)?;
        Ok(Some(ScoreFolder {
            path: PathBuf::from(path),
            seat,
            changes,
        }))
    }

    /// A descriptor that becomes readable when a name is added or removed.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.changes.readiness()
    }

    /// Drops the events of changes, so that `readiness` waits for the next change.
    pub fn acknowledge(&self) {
        self.changes.acknowledge();
    }

    /// Opens the new pipes. A removed pipe is read to its end and not followed any
    /// longer.
    pub fn update(&self, streams: &mut Vec<LiveStream>, stage: &mut Stage) -> Result<()> {
        // Pipes are distinguished by name and inode: a new pipe with an old name
        // is a new stream.
        let mut present = named_pipes(&self.path)?;
        for stream in streams.iter_mut() {
            let path = stream.cursor.name();
            if Path::new(path).parent() != Some(&self.path) {
                continue;
            }
            if present.get(path).is_some_and(|ino| *ino == stream.ino) {
                present.remove(path);
            } else {
                stream.cursor.stop_following();
            }
        }
        for path in present.into_keys() {
            match LiveStream::open(&Address::from(&*path), self.seat, true, stage) {
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
