//! The queue of closed parts. A thread makes complete files from them, one at a time,
//! since a full part takes seconds.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::observe::archive::closed_part::ClosedPart;
use crate::observe::archive::complete_file::{CompleteFile, complete};
use crate::observe::archive::gzip_members::Compressor;
use crate::observe::archive::retention::Retention;
use crate::observe::archive::stamp::Stamp;
use crate::stage::Stage;
use crate::stage::task::Task;

/// The time between finding the disk full and the next attempt.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// While no record arrives, a running compression is checked at this interval.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// The counts of the publisher.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublisherCounts {
    /// Complete files of this run.
    pub files: u64,
    /// Records of this run in complete files.
    pub archived: u64,
    /// Records of earlier runs in complete files.
    pub recovered: u64,
    /// Complete files that were removed because of a retention limit.
    pub removed: u64,
    /// Records of this run that another program has removed from a closed part.
    pub lost: u64,
}

/// The closed parts that have no final name yet, in order.
#[derive(Debug)]
pub struct Publisher {
    folder: PathBuf,
    /// The compressor; `None` while the thread of a compression uses it.
    compressor: Option<Compressor>,
    /// The stamp of the next file, with its lines and bytes still at 0.
    next_stamp: Stamp,
    retention: Retention,
    /// The closed parts. The `compression`, if there is one, compresses the first of
    /// them.
    backlog: VecDeque<ClosedPart>,
    compression: Option<Compression>,
    /// After a full disk: the time of the next attempt.
    retry_at: Option<Instant>,
    counts: PublisherCounts,
}

/// The compression of one part, in a thread.
pub type Compression = Task<(Compressor, Result<CompleteFile>)>;

impl Publisher {
    /// An empty queue. `next_stamp` is the stamp of the next file, with its lines and
    /// bytes still at 0.
    pub fn new(
        folder: &Path,
        compressor: Compressor,
        next_stamp: Stamp,
        retention: Retention,
    ) -> Publisher {
        Publisher {
            folder: folder.to_owned(),
            compressor: Some(compressor),
            next_stamp,
            retention,
            backlog: VecDeque::new(),
            compression: None,
            retry_at: None,
            counts: PublisherCounts::default(),
        }
    }

    /// Adds a part at the end. [`advance`](Publisher::advance) starts its compression.
    pub fn push(&mut self, part: ClosedPart) {
        self.backlog.push_back(part);
    }

    /// The number of parts without a final name.
    pub fn backlog(&self) -> usize {
        self.backlog.len()
    }

    /// The number of lines in parts whose names were removed. These lines are lost if
    /// this run does not compress the parts.
    pub fn lines_in_removed_parts(&self) -> u64 {
        let parts = self.backlog.iter();
        parts.map(|part| part.lines_at_risk(&self.folder)).sum()
    }

    /// The counts so far.
    pub fn counts(&self) -> PublisherCounts {
        PublisherCounts {
            removed: self.retention.removed(),
            ..self.counts
        }
    }

    /// The running compression.
    pub fn compression(&self) -> Option<&Compression> {
        self.compression.as_ref()
    }

    /// The time at which to call [`advance`](Publisher::advance). A running
    /// compression must be checked at intervals, because its end does not wake the
    /// loop.
    pub fn due(&self) -> Option<Instant> {
        match &self.compression {
            Some(_) => Some(Instant::now() + CHECK_EVERY),
            None => self.retry_at,
        }
    }

    /// Records a finished compression and starts the next one, without waiting. Fails
    /// if a compression failed for another reason than a full disk.
    pub fn advance(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some(finished) = self.compression.take_if(|task| task.is_done()) {
            let (mut compressor, outcome) = finished.join()?;
            compressor.clear();
            self.compressor = Some(compressor);
            match outcome {
                Ok(file) => self.record(stage, file)?,
                Err(error) if is_disk_full(&error) => {
                    self.retry_at = Some(Instant::now() + RETRY_AFTER);
                    warn_of_full_disk(stage, &error);
                }
                Err(error) => bail!("{error:#}; {}", self.fate_of_first()),
            }
        }
        if self.compression.is_none()
            && self.retry_at.is_none_or(|at| at <= Instant::now())
            && let Some(part) = self.backlog.front()
            && let Some(mut compressor) = self.compressor.take()
        {
            let (folder, part, next_stamp) = (self.folder.clone(), part.clone(), self.next_stamp);
            self.retry_at = None;
            self.compression = Some(Task::spawn("publishing", move || {
                let outcome = complete(&folder, part, &mut compressor, next_stamp);
                (compressor, outcome)
            })?);
        }
        Ok(())
    }

    /// Removes the first part from the queue and counts its result.
    fn record(&mut self, stage: &mut Stage, file: CompleteFile) -> Result<()> {
        stage.stats.touch();
        self.counts.lost += file.lost_lines;
        for fault in &file.faults {
            stage.report.damaged(fault)?;
        }
        let part = self.backlog.pop_front();
        let Some(stamp) = file.stamp else {
            return Ok(());
        };
        // After the largest numbers, counting starts again at 0.
        self.next_stamp = stamp.next().unwrap_or_default();
        self.counts.files += 1;
        match part.and_then(|part| part.own) {
            // Lines that another program has added are not records of this run.
            Some((_, content)) => self.counts.archived += stamp.lines.min(content.lines),
            None => self.counts.recovered += stamp.lines,
        }
        self.retention.add(file.id)?;
        self.retention.apply()
    }

    /// Tells what becomes of the records in the oldest waiting part if this run ends now.
    fn fate_of_first(&self) -> String {
        let first = self.backlog.front();
        match first.map_or(0, |part| part.lines_at_risk(&self.folder)) {
            0 => "the records are kept, and the next start compresses them".to_owned(),
            lines => {
                format!("another program has removed the part, and its {lines} lines are lost")
            }
        }
    }
}

/// Warns that the disk is full. The stage limits how often it prints this warning.
pub fn warn_of_full_disk(stage: &mut Stage, error: &anyhow::Error) {
    let message = format!("{error:#}; reading pauses until there is room");
    stage.report.warn_seldom("disk full", &message);
}

/// Whether an error may disappear when the disk has room again.
pub fn is_disk_full(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    })
}
