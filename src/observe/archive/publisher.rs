//! `part-<id>.ndjson` -> `log-<id>.gz`: compresses in a thread, since a full part
//! takes seconds, and gives the final name to complete files only.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::observe::archive::folder::{FILE_MODE, sync};
use crate::observe::archive::members::{Compressor, Failed, Stamp};
use crate::observe::archive::names::Id;
use crate::observe::archive::retention::Retention;
use crate::observe::waiting::Task;
use crate::stage::Stage;
use crate::wire::recording::{Kind, path_of};

/// How soon after a full disk the next attempt is made.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How soon a finished compression is noticed while no record comes.
const LOOK_AFTER: Duration = Duration::from_millis(200);

/// A part that takes no more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Which one it is.
    pub id: Id,
    /// Whether an earlier run has left it.
    pub recovered: bool,
}

/// How much has its final name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Complete files.
    pub files: u64,
    /// The records of this run in them.
    pub archived: u64,
    /// The records of earlier runs in them.
    pub recovered: u64,
    /// Complete files that were removed, since there were too many.
    pub removed: u64,
}

/// The queue of closed parts, compressed one at a time in their order.
#[derive(Debug)]
pub struct Publisher {
    folder: PathBuf,
    /// With the task while there is one.
    compressor: Option<Compressor>,
    /// Where the next file stands among the others.
    place: Stamp,
    retention: Retention,
    /// The first is at work, where `task` is there.
    backlog: VecDeque<Closed>,
    task: Option<Compression>,
    /// After a full disk: when to try again.
    retry_at: Option<Instant>,
    counts: Counts,
}

/// A part that is being made a complete file.
pub type Compression = Task<(Compressor, Result<Stamp>)>;

impl Publisher {
    /// Nothing is to be done yet. `place` is that of the next file.
    pub fn new(
        folder: &Path,
        compressor: Compressor,
        place: Stamp,
        retention: Retention,
    ) -> Publisher {
        Publisher {
            folder: folder.to_owned(),
            compressor: Some(compressor),
            place,
            retention,
            backlog: VecDeque::new(),
            task: None,
            retry_at: None,
            counts: Counts::default(),
        }
    }

    /// Takes over a part.
    pub fn push(&mut self, closed: Closed) {
        self.backlog.push_back(closed);
    }

    /// How many parts have no final name yet.
    pub fn backlog(&self) -> usize {
        self.backlog.len()
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        Counts {
            removed: self.retention.removed(),
            ..self.counts
        }
    }

    /// The compression at work.
    pub fn task(&self) -> Option<&Compression> {
        self.task.as_ref()
    }

    /// When [`tend`](Publisher::tend) has something to do. Asks for looks at a
    /// compression at work: its end wakes nobody.
    pub fn due(&self) -> Option<Instant> {
        match &self.task {
            Some(_) => Some(Instant::now() + LOOK_AFTER),
            None => self.retry_at,
        }
    }

    /// Takes in what was finished and starts what is next, without waiting.
    pub fn tend(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some(task) = self.task.take_if(|task| task.is_done()) {
            let (mut compressor, outcome) = task.join()?;
            compressor.clear();
            self.compressor = Some(compressor);
            match outcome {
                Ok(stamp) => self.count(stage, stamp)?,
                Err(error) if is_disk_full(&error) => {
                    self.retry_at = Some(Instant::now() + RETRY_AFTER);
                    warn_of_full_disk(stage, &error);
                }
                Err(error) => {
                    bail!("{error:#}; the records are kept, and the next start compresses them");
                }
            }
        }
        if self.task.is_none()
            && self.retry_at.is_none_or(|at| at <= Instant::now())
            && let Some(closed) = self.backlog.front()
            && let Some(mut compressor) = self.compressor.take()
        {
            let (folder, id, place) = (self.folder.clone(), closed.id, self.place);
            self.retry_at = None;
            self.task = Some(Task::spawn("publishing", move || {
                let outcome = publish(&folder, id, &mut compressor, place);
                (compressor, outcome)
            })?);
        }
        Ok(())
    }

    fn count(&mut self, stage: &mut Stage, stamp: Stamp) -> Result<()> {
        stage.stats.touch();
        self.place = stamp.after();
        self.counts.files += 1;
        if let Some(closed) = self.backlog.pop_front() {
            match closed.recovered {
                true => self.counts.recovered += stamp.lines,
                false => self.counts.archived += stamp.lines,
            }
            self.retention.add(closed.id)?;
        }
        self.retention.apply()
    }
}

/// Says that the disk is full, once in a while.
pub fn warn_of_full_disk(stage: &mut Stage, error: &anyhow::Error) {
    let message = format!("{error:#}; reading pauses until there is room");
    stage.report.warn_seldom("disk full", &message);
}

/// Whether waiting can help.
pub fn is_disk_full(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    })
}

/// Makes one part the complete file of the same id, and returns its stamp.
/// Wherever this is cut short, the part is still there, or the complete file is,
/// or both.
fn publish(folder: &Path, id: Id, compressor: &mut Compressor, place: Stamp) -> Result<Stamp> {
    let id = id.to_string();
    let part = path_of(folder, Kind::Part(&id));
    let unfinished = path_of(folder, Kind::Unfinished(&id));
    let complete = path_of(folder, Kind::Complete(&id));
    let stamp = compress(&part, &unfinished, compressor, place).inspect_err(|_| {
        // What it holds is worth less than its room on a full disk.
        let _ = fs::remove_file(&unfinished);
    })?;
    fs::rename(&unfinished, &complete)
        .with_context(|| format!("{}: cannot rename", unfinished.display()))?;
    sync(folder).with_context(|| format!("{}: cannot sync", folder.display()))?;
    fs::remove_file(&part).with_context(|| format!("{}: cannot remove", part.display()))?;
    Ok(stamp)
}

/// Writes `from` into `to`, compressed and synced.
fn compress(from: &Path, to: &Path, compressor: &mut Compressor, place: Stamp) -> Result<Stamp> {
    let reading = || format!("{}: cannot read", from.display());
    let writing = || format!("{}: cannot write", to.display());
    let input = File::open(from).with_context(reading)?;
    let output = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(to)
        .with_context(writing)?;
    let stamp = match compressor.compress(input, &output, place) {
        Ok(stamp) => stamp,
        Err(Failed::Reading(error)) => return Err(error).with_context(reading),
        Err(Failed::Writing(error)) => return Err(error).with_context(writing),
        Err(Failed::Working(error)) => return Err(error).with_context(writing),
    };
    output
        .sync_all()
        .with_context(|| format!("{}: cannot sync", to.display()))?;
    Ok(stamp)
}
