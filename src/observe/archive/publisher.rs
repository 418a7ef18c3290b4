//! `part-<id>.ndjson` -> `log-<id>.gz`: compresses in a thread, since a full part
//! takes seconds, and gives the final name to complete files only.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use xxhash_rust::xxh3::Xxh3;

use crate::observe::archive::folder::{FILE_MODE, next_free, rename_new, sync};
use crate::observe::archive::members::{Compressor, Failed, Stamp};
use crate::observe::archive::names::Id;
use crate::observe::archive::part::{Content, Part, is_at};
use crate::observe::archive::retention::Retention;
use crate::stage::Stage;
use crate::stage::task::Task;
use crate::stream::archives::{Kind, end_of_last_line, open_regular, path_of};

/// How soon after a full disk the next attempt is made.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How soon a finished compression is noticed while no record comes.
const LOOK_AFTER: Duration = Duration::from_millis(200);

/// A part that takes no more records.
#[derive(Clone, Debug)]
pub struct Closed {
    /// Which one it is.
    pub id: Id,
    /// Of a part of this run: the file, which holds the records even where its name
    /// has gone, and what is in it.
    own: Option<(Arc<File>, Content)>,
}

impl Closed {
    /// One that an earlier run has left, whole lines.
    pub fn recovered(id: Id) -> Closed {
        Closed { id, own: None }
    }

    /// One of this run, which is settled.
    pub fn of(part: &Part) -> Closed {
        Closed {
            id: part.id(),
            own: Some((part.file(), part.content())),
        }
    }

    fn path(&self, folder: &Path) -> PathBuf {
        path_of(folder, Kind::Part(&self.id.to_string()))
    }

    /// What becomes of the records where this run cannot go on.
    fn fate(&self, folder: &Path) -> String {
        match &self.own {
            Some((file, content)) if !is_at(file, &self.path(folder)) => format!(
                "something else has removed the part, and its {} lines are lost",
                content.lines
            ),
            _ => "the records are kept, and the next start compresses them".to_owned(),
        }
    }
}

/// A part that has become a complete file.
#[derive(Debug)]
pub struct Published {
    /// What is in it; `None` where nothing was left of the part.
    stamp: Option<Stamp>,
    /// Its name, which is another one where a file had the part's.
    id: Id,
    /// How many lines of the part are not in it.
    lost_lines: u64,
    /// What something else has done, to be told.
    faults: Vec<String>,
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
    /// The records of this run that something else has taken from a closed part.
    pub lost: u64,
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
pub type Compression = Task<(Compressor, Result<Published>)>;

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

    /// How many lines are in parts whose names have gone: only this run can save
    /// them.
    pub fn nameless_lines(&self) -> u64 {
        let nameless = self.backlog.iter().filter_map(|closed| {
            let (file, content) = closed.own.as_ref()?;
            (!is_at(file, &closed.path(&self.folder))).then_some(content.lines)
        });
        nameless.sum()
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
                Ok(published) => self.count(stage, published)?,
                Err(error) if is_disk_full(&error) => {
                    self.retry_at = Some(Instant::now() + RETRY_AFTER);
                    warn_of_full_disk(stage, &error);
                }
                Err(error) => {
                    let front = self.backlog.front();
                    let fate = front.map_or_else(String::new, |it| it.fate(&self.folder));
                    bail!("{error:#}; {fate}");
                }
            }
        }
        if self.task.is_none()
            && self.retry_at.is_none_or(|at| at <= Instant::now())
            && let Some(closed) = self.backlog.front()
            && let Some(mut compressor) = self.compressor.take()
        {
            let (folder, closed, place) = (self.folder.clone(), closed.clone(), self.place);
            self.retry_at = None;
            self.task = Some(Task::spawn("publishing", move || {
                let outcome = publish(&folder, closed, &mut compressor, place);
                (compressor, outcome)
            })?);
        }
        Ok(())
    }

    fn count(&mut self, stage: &mut Stage, published: Published) -> Result<()> {
        stage.stats.touch();
        self.counts.lost += published.lost_lines;
        for fault in &published.faults {
            stage.report.damaged(fault)?;
        }
        let closed = self.backlog.pop_front();
        let Some(stamp) = published.stamp else {
            return Ok(());
        };
        // Past the end of numbers counting begins anew.
        self.place = stamp.after().unwrap_or_default();
        self.counts.files += 1;
        match closed.and_then(|closed| closed.own) {
            // What something else has put there is nobody's record.
            Some((_, content)) => self.counts.archived += stamp.lines.min(content.lines),
            None => self.counts.recovered += stamp.lines,
        }
        self.retention.add(published.id)?;
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

/// Makes one part the complete file of the same id. Wherever this is cut short, the
/// part is still there, or the complete file is, or both. A complete file that is
/// there already is not touched.
fn publish(
    folder: &Path,
    mut closed: Closed,
    compressor: &mut Compressor,
    place: Stamp,
) -> Result<Published> {
    let part = closed.path(folder);
    let file = match &closed.own {
        Some((file, _)) => Arc::clone(file),
        None => {
            let opened = open_regular(&part, false);
            let place = || format!("{}: cannot read", part.display());
            Arc::new(opened.with_context(place)?.0)
        }
    };
    let unfinished = path_of(folder, Kind::Unfinished(&closed.id.to_string()));
    let source = Source {
        path: &part,
        file: &file,
        expected: closed.own.as_ref().map(|(_, content)| *content),
    };
    let mut faults = Vec::new();
    let stamp = source
        .compress(&unfinished, compressor, place, &mut faults)
        .inspect_err(|_| {
            // What it holds is worth less than its room on a full disk.
            let _ = fs::remove_file(&unfinished);
        })?;
    let lost_lines = source.expected.map_or(0, |content| {
        let kept = stamp.map_or(0, |stamp| stamp.lines);
        content.lines.saturating_sub(kept)
    });
    if stamp.is_some() {
        give_final_name(folder, &unfinished, &file, &mut closed, &mut faults)?;
        sync(folder).with_context(|| format!("{}: cannot sync", folder.display()))?;
    }
    let part = closed.path(folder);
    if is_at(&file, &part) {
        fs::remove_file(&part).with_context(|| format!("{}: cannot remove", part.display()))?;
    } else {
        faults.push(format!(
            "{}: something else has removed, moved or replaced it; its records were saved from the \
             open file",
            part.display()
        ));
    }
    Ok(Published {
        stamp,
        id: closed.id,
        lost_lines,
        faults,
    })
}

/// Gives `unfinished` the name of a complete file. Where something bears that, both
/// it and the part get another id first.
fn give_final_name(
    folder: &Path,
    unfinished: &Path,
    file: &File,
    closed: &mut Closed,
    faults: &mut Vec<String>,
) -> Result<()> {
    loop {
        let complete = path_of(folder, Kind::Complete(&closed.id.to_string()));
        match rename_new(unfinished, &complete) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let place = format!("{}: cannot rename", unfinished.display());
                return Err(error).context(place);
            }
        }
        let part = closed.path(folder);
        let taken = complete.display();
        closed.id = next_free(folder, closed.id)
            .ok_or_else(|| anyhow!("{taken}: is there already, and no name is left behind it"))?;
        faults.push(format!(
            "{taken}: was there already, and is left as it is; the records get the name {}",
            closed.id
        ));
        if is_at(file, &part) {
            rename_new(&part, &closed.path(folder))
                .with_context(|| format!("{}: cannot rename", part.display()))?;
        }
    }
}

/// A part that is being compressed.
struct Source<'a> {
    path: &'a Path,
    file: &'a File,
    /// What was written into it; `None` of one that an earlier run has left.
    expected: Option<Content>,
}

impl Source<'_> {
    /// Writes the lines of the part into `to`, compressed and synced. Where something
    /// else has changed them, those that are whole; `None` where there are none.
    fn compress(
        &self,
        to: &Path,
        compressor: &mut Compressor,
        place: Stamp,
        faults: &mut Vec<String>,
    ) -> Result<Option<Stamp>> {
        let reading = || format!("{}: cannot read", self.path.display());
        let length = self.file.metadata().with_context(reading)?.len();
        let Some(expected) = self.expected else {
            return Ok(Some(self.compress_up_to(length, to, compressor, place)?.0));
        };
        if expected.bytes == 0 {
            // All of it was taken away while it was open, which was told.
            return Ok(None);
        }
        let (stamp, hash) = self.compress_up_to(expected.bytes, to, compressor, place)?;
        let found = Content {
            lines: stamp.lines,
            bytes: stamp.bytes,
            hash,
        };
        if found == expected {
            return Ok(Some(stamp));
        }
        let whole =
            end_of_last_line(self.file, length.min(expected.bytes)).with_context(reading)?;
        let stamp = match whole {
            0 => None,
            _ => Some(self.compress_up_to(whole, to, compressor, place)?.0),
        };
        if stamp.is_none() {
            fs::remove_file(to).with_context(|| format!("{}: cannot remove", to.display()))?;
        }
        let left = stamp.map_or(0, |stamp| stamp.lines);
        faults.push(format!(
            "{}: something else has changed what was written into it; {left} of {} lines are left",
            self.path.display(),
            expected.lines
        ));
        Ok(stamp)
    }

    /// Compresses the first `end` bytes, and returns the XXH3 of what they were.
    fn compress_up_to(
        &self,
        end: u64,
        to: &Path,
        compressor: &mut Compressor,
        place: Stamp,
    ) -> Result<(Stamp, u64)> {
        let reading = || format!("{}: cannot read", self.path.display());
        let writing = || format!("{}: cannot write", to.display());
        if let Err(error) = fs::remove_file(to)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error).with_context(writing);
        }
        let output = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(to)
            .with_context(writing)?;
        let mut input = Hashed {
            file: self.file,
            at: 0,
            end,
            hash: Xxh3::new(),
        };
        let stamp = match compressor.compress(&mut input, &output, place) {
            Ok(stamp) => stamp,
            Err(Failed::Reading(error)) => return Err(error).with_context(reading),
            Err(Failed::Writing(error)) => return Err(error).with_context(writing),
            Err(Failed::Working(error)) => return Err(error).with_context(writing),
        };
        output
            .sync_all()
            .with_context(|| format!("{}: cannot sync", to.display()))?;
        Ok((stamp, input.hash.digest()))
    }
}

/// The first bytes of a file, wherever others read it, and their checksum.
struct Hashed<'a> {
    file: &'a File,
    at: u64,
    end: u64,
    hash: Xxh3,
}

impl Read for Hashed<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let wanted = (self.end - self.at).min(room.len() as u64) as usize;
        let count = self.file.read_at(&mut room[..wanted], self.at)?;
        self.hash.update(&room[..count]);
        self.at += count as u64;
        Ok(count)
    }
}
