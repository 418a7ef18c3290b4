//! lines -> parts: this filter writes each line into the open part. When the part is
//! full or old, the filter closes the part and gives it to the publisher.

use std::io;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::observe::archive::args::ArchiveOptions;
use crate::observe::archive::closed_part::ClosedPart;
use crate::observe::archive::folder::ArchiveFolder;
use crate::observe::archive::gzip_members::Compressor;
use crate::observe::archive::part::{Part, PartLimits};
use crate::observe::archive::publisher::{Publisher, RETRY_AFTER, is_disk_full, warn_of_full_disk};
use crate::observe::archive::recovery::recover;
use crate::observe::archive::retention::Retention;
use crate::stage::clock::Clock;
use crate::stage::filter::{Background, Filter};
use crate::stage::stats::Snapshot;
use crate::stage::task::pause;
use crate::stage::{EndedEarly, Stage};
use crate::wire::lines::Line;

/// The only writer of a folder.
#[derive(Debug)]
pub struct ArchiveWriter {
    folder: ArchiveFolder,
    /// With `--pass`: the number of bytes of lines that may wait for a sync.
    pass_bytes_max: Option<usize>,
    /// Lines that are synced and not yet passed on.
    synced_lines: Vec<u8>,
    clock: Clock,
    pub(super) limits: PartLimits,
    /// The open part. Its first record creates it, so no file is empty.
    pub(super) part: Option<Part>,
    pub(super) publisher: Publisher,
    lines_in: u64,
    bytes_in: u64,
    /// The number of bytes of torn lines that recovery has cut off.
    pub(super) discarded_bytes: u64,
    /// The number of lines that another program has removed from the open part.
    lost_lines: u64,
}

impl ArchiveWriter {
    /// Locks the folder and completes the files of an earlier run.
    pub fn open(stage: &mut Stage, options: &ArchiveOptions) -> Result<ArchiveWriter> {
        let dir = &options.dir;
        let mut folder = ArchiveFolder::open(dir)?;
        if let Some(name) = folder.file_at_time_limit() {
            stage.report.warn(&format!(
                "{}: {name} has the latest time that a name can have; move it away, because new files \
                 may sort before it",
                dir.display()
            ));
        }
        let recovered = recover(stage, &mut folder, options.clock.unix())?;
        let mut retention = Retention::open(dir, options.retention)?;
        retention.apply()?;
        let compressor = Compressor::new(options.level, options.threads)?;
        let mut unreadable = Vec::new();
        let next_stamp = folder.next_stamp(|message| unreadable.push(message))?;
        for message in unreadable {
            stage.report.damaged(&message)?;
        }
        let mut publisher = Publisher::new(dir, compressor, next_stamp, retention);
        for part in recovered.parts {
            publisher.push(part);
        }
        Ok(ArchiveWriter {
            folder,
            pass_bytes_max: options.pass.as_ref().map(|pass| pass.waiting_bytes_max),
            synced_lines: Vec::new(),
            clock: options.clock,
            limits: options.part,
            part: None,
            publisher,
            lines_in: 0,
            bytes_in: 0,
            discarded_bytes: recovered.discarded_bytes,
            lost_lines: 0,
        })
    }

    /// The part for the next record. Creates one if none is open.
    fn open_part(&mut self, stage: &mut Stage) -> Result<&mut Part> {
        while self.part.is_none() {
            let id = self.folder.next_id(self.clock.unix())?;
            match Part::create(self.folder.path(), id) {
                Ok(part) => self.part = Some(part),
                // Another program has just created a file of this name. The next id is
                // free.
                Err(error) if is_name_taken(&error) => {}
                Err(error) => self.wait_for_room(stage, error)?,
            }
        }
        self.part.as_mut().context("a part was just created")
    }

    /// Writes pending lines into the part, and waits while the disk is full. With
    /// `--pass` the lines stay in memory until they are synced.
    fn write(&mut self, stage: &mut Stage) -> Result<()> {
        while let Some(part) = &mut self.part {
            let outcome = part.write();
            for change in part.take_foreign_changes() {
                self.lost_lines += change.lost_lines;
                stage.report.damaged(&change.message)?;
            }
            match outcome {
                Ok(()) => {
                    if self.pass_bytes_max.is_none() {
                        part.release_written(None);
                    }
                    break;
                }
                Err(error) => {
                    let place = format!("{}: cannot write", part.path().display());
                    self.wait_for_room(stage, anyhow::Error::new(error).context(place))?;
                }
            }
        }
        Ok(())
    }

    /// Syncs all pending lines at once, so that they may be passed on. If the part has
    /// lost its name, it is closed instead, because only a complete file can save its
    /// lines.
    fn sync(&mut self, stage: &mut Stage) -> Result<()> {
        self.write(stage)?;
        let Some(part) = &mut self.part else {
            return Ok(());
        };
        if part.has_lost_its_name() {
            return self.close_part(stage);
        }
        part.sync()?;
        if self.pass_bytes_max.is_some() {
            part.release_written(Some(&mut self.synced_lines));
        }
        Ok(())
    }

    /// If `error` is a full disk, waits for a short time. Returns any other error.
    fn wait_for_room(&mut self, stage: &mut Stage, error: anyhow::Error) -> Result<()> {
        if !is_disk_full(&error) {
            return Err(error);
        }
        warn_of_full_disk(stage, &error);
        // A compression that ends now removes its part, which frees space.
        self.publisher.advance(stage)?;
        pause(stage, self, Instant::now() + RETRY_AFTER).map_err(|ended| {
            let bytes = self.part.as_ref().map_or(0, Part::unwritten_bytes);
            ended.context(format!(
                "{error:#}; {bytes} bytes were read and not written"
            ))
        })
    }

    /// Closes the open part, if there is one, and gives it to the publisher. Waits
    /// while the previous part is still being compressed, so that at most one part
    /// waits.
    fn close_part(&mut self, stage: &mut Stage) -> Result<()> {
        self.write(stage)?;
        let Some(mut part) = self.part.take() else {
            return Ok(());
        };
        let has_lost_its_name = part.has_lost_its_name();
        let mut lines = Vec::new();
        part.release_written(self.pass_bytes_max.map(|_| &mut lines));
        self.publisher.push(ClosedPart::of(&part));
        // The compression starts first, so that it runs while the disk syncs the
        // part.
        self.publisher.advance(stage)?;
        part.sync()?;
        // If a part has lost its name, only a complete file can save its lines.
        let backlog_max = if has_lost_its_name { 0 } else { 1 };
        self.wait_for_publisher(stage, backlog_max)?;
        self.synced_lines.append(&mut lines);
        Ok(())
    }

    /// Waits until at most `backlog_max` parts are not compressed.
    fn wait_for_publisher(&mut self, stage: &mut Stage, backlog_max: usize) -> Result<()> {
        loop {
            self.publisher.advance(stage)?;
            if self.publisher.backlog() <= backlog_max {
                return Ok(());
            }
            let waited = match (self.publisher.compression(), self.publisher.due()) {
                (Some(compression), _) => compression.wait(stage, self),
                (None, Some(due)) => pause(stage, self, due),
                (None, None) => Ok(()),
            };
            waited.map_err(|ended| self.with_uncompressed_files(ended))?;
        }
    }

    /// Adds the number of uncompressed parts to `ended`, the error that ends the
    /// program early.
    fn with_uncompressed_files(&self, ended: anyhow::Error) -> anyhow::Error {
        if ended.downcast_ref::<EndedEarly>().is_none() {
            return ended;
        }
        let folder = self.folder.path().display();
        let lost = match self.publisher.lines_in_removed_parts() {
            0 => String::new(),
            lines => {
                format!("; {lines} lines are lost, because another program has removed their part")
            }
        };
        ended.context(format!(
            "{folder}: {} files are not compressed yet; the next start compresses them{lost}",
            self.publisher.backlog()
        ))
    }

    /// Closes the open part and waits until every part is a complete file.
    pub fn complete_files(&mut self, stage: &mut Stage) -> Result<()> {
        self.close_part(stage)?;
        self.wait_for_publisher(stage, 0)
    }

    /// Writes pending lines into the part, if possible, before a failure ends the
    /// program. The next start finds them there.
    pub fn write_before_failure(&mut self, stage: &Stage) {
        if let Some(part) = &mut self.part
            && part.write().is_ok()
        {
            part.release_written(None);
            // The program reports only the failure that ends it.
            let _ = part.sync();
            if part.has_lost_its_name() {
                stage.report.warn(&format!(
                    "{}: another program has removed it, and its {} lines are lost",
                    part.path().display(),
                    part.content().lines
                ));
            }
        }
    }

    /// The number of records that are not in a complete file yet.
    fn open_records(&self, stage: &Stage) -> u64 {
        let done = self.publisher.counts().archived + self.lost() + stage.report.rejected();
        self.lines_in.saturating_sub(done)
    }

    /// The number of records that another program has removed from the folder.
    fn lost(&self) -> u64 {
        self.lost_lines + self.publisher.counts().lost
    }
}

fn is_name_taken(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
}

impl Filter for ArchiveWriter {
    fn line(
        &mut self,
        stage: &mut Stage,
        input: &str,
        line: &Line,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        self.lines_in += 1;
        self.bytes_in += line.oversized.unwrap_or(line.bytes.len() as u64) + 1;
        if let Err(reject) = line.whole() {
            return stage.report.reject(input, line, &reject);
        }
        let limits = self.limits;
        if let Some(part) = &self.part
            && !part.has_room(line.bytes.len(), &limits)
        {
            self.close_part(stage)?;
        }
        let part = self.open_part(stage)?;
        part.push(line.bytes);
        let (is_full, pending_bytes) = (part.is_full(&limits), part.pending_bytes());
        if is_full {
            self.close_part(stage)?;
        } else if self.pass_bytes_max.is_some_and(|max| pending_bytes >= max) {
            self.sync(stage)?;
        }
        out.append(&mut self.synced_lines);
        Ok(())
    }

    fn before_wait(&mut self, stage: &mut Stage) -> Result<()> {
        self.write(stage)?;
        if let Some(part) = &mut self.part {
            if part.is_old(&self.limits) {
                self.close_part(stage)?;
            } else if part.is_sync_due(&self.limits) {
                self.sync(stage)?;
            }
        }
        self.publisher.advance(stage)
    }

    fn background(&mut self) -> Option<&mut dyn Background> {
        Some(self)
    }

    fn hangup(&mut self, stage: &mut Stage) -> Result<()> {
        self.close_part(stage)
    }

    fn finish(&mut self, stage: &mut Stage) -> Result<()> {
        self.complete_files(stage)
    }

    fn snapshot(&self, stage: &Stage) -> Snapshot {
        let counts = self.publisher.counts();
        Snapshot::default()
            .count("in", self.lines_in)
            .count("archived", counts.archived)
            .rejected(&stage.report)
            .gauge("open", self.open_records(stage))
            .count("files", counts.files)
            .count("removedFiles", counts.removed)
            .count("recovered", counts.recovered)
            .count("bytesIn", self.bytes_in)
            .count("discardedBytes", self.discarded_bytes)
            .count("lost", self.lost())
    }
}

impl Background for ArchiveWriter {
    /// With `--pass`: passes on the lines that are synced.
    fn collect(
        &mut self,
        stage: &mut Stage,
        _input: &str,
        out: &mut Vec<u8>,
        is_last: bool,
    ) -> Result<bool> {
        if self.pass_bytes_max.is_some() {
            let is_due = |part: &Part| part.is_sync_due(&self.limits);
            if is_last || self.part.as_ref().is_some_and(is_due) {
                self.sync(stage)?;
            }
            out.append(&mut self.synced_lines);
        }
        Ok(false)
    }

    fn due(&self) -> Option<Instant> {
        let part = self.part.as_ref().and_then(|part| part.due(&self.limits));
        part.into_iter().chain(self.publisher.due()).min()
    }
}
