//! any stream -> `log-<id>.gz`: keeps every line as it came, in files that are
//! complete from the moment they have their name.

mod ahead;
mod cat;
mod files;
mod find;
mod folder;
mod members;
mod names;
mod pace;
mod part;
mod publisher;
mod range;
mod recovery;
mod retention;
mod verify;

use std::num::{NonZeroU16, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::{Parser, Subcommand};

use crate::observe::archive::cat::CatArgs;
use crate::observe::archive::find::FindArgs;
use crate::observe::archive::folder::Folder;
use crate::observe::archive::members::Compressor;
use crate::observe::archive::part::{Limits, Part};
use crate::observe::archive::publisher::{
    Closed, Publisher, RETRY_AFTER, is_disk_full, warn_of_full_disk,
};
use crate::observe::archive::recovery::recover;
use crate::observe::archive::retention::Retention;
use crate::observe::archive::verify::VerifyArgs;
use crate::stage::cli::bytes;
use crate::stage::cli::{RunArgs, VERSION, duration};
use crate::stage::clock::Clock;
use crate::stage::filter::{self, Background, Filter};
use crate::stage::program::Program;
use crate::stage::stats::Snapshot;
use crate::stage::streams::{InputArgs, Streams, refuse_same_file};
use crate::stage::task::pause;
use crate::stage::{EndedEarly, Stage, usage};
use crate::stream::address::Address;
use crate::stream::output::Output;
use crate::wire::lines::Line;

/// Keep a stream in compressed files, line by line as it came
///
/// A file named `log-<id>.gz` is complete and is never changed again. The file
/// that is being written is `part-<id>.ndjson`; if the program is killed, the next
/// start on the folder completes it. Names sort by time. On a full disk the
/// program stops reading and goes on when there is room. SIGHUP closes the
/// present file.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "rv-archive",
    version = VERSION,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:\n  printf '{\"a\":1}\\n{\"a\":2}\\n' | rv-archive --dir requests.archive\n  rv-archive cat requests.archive"
)]
pub struct ArchiveArgs {
    /// Write into DIR, made where it is missing; one rv-archive at a time
    #[arg(long, value_name = "DIR", required = true)]
    dir: Option<PathBuf>,

    #[command(flatten)]
    input: InputArgs,

    /// Write every line to the output, too, once it is synced in the folder: an
    /// archive that stands inside a pipe. What is passed is kept. Lines wait for a
    /// sync until the input pauses, or --sync-every or --pass-bytes is reached, and
    /// share it. A full disk holds up what is passed on
    #[arg(long)]
    pass: bool,

    /// With --pass: sync when SIZE of lines wait to be passed on. No more than this
    /// and one line are held in memory
    #[arg(long, value_name = "SIZE", default_value = "4MiB", requires = "pass")]
    pass_bytes: ByteSize,

    /// With --pass: write to PATH; `-` is standard output
    #[arg(short, long, value_name = "PATH", default_value_t = Address::Standard, value_parser = Address::of_output, requires = "pass")]
    output: Address,

    /// With --pass: begin with a newline, since this writer takes the place of one
    /// that may have died inside a line
    #[arg(long, requires = "pass")]
    resume: bool,

    /// Begin a new file after N records
    #[arg(long, value_name = "N")]
    max_records: Option<NonZeroU64>,

    /// Begin a new file before one exceeds SIZE, uncompressed
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    max_bytes: ByteSize,

    /// Close a file this long after its first record
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    max_age: Duration,

    /// Compress from 1 (fast) to 9 (small)
    #[arg(long, value_name = "LEVEL", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=9))]
    level: u32,

    /// Compress with N threads beside the one that reads
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroU16,

    /// Keep no more than N complete files: the oldest are removed
    #[arg(long, value_name = "N")]
    keep_files: Option<NonZeroU64>,

    /// Keep no more than SIZE of complete files, compressed: the oldest are
    /// removed, but never the latest
    #[arg(long, value_name = "SIZE")]
    keep_bytes: Option<ByteSize>,

    /// Sync what was written at least this often: a power cut loses no more. With
    /// --pass, where the input never pauses, a line waits no longer for its sync
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    sync_every: Duration,

    /// Name files by this clock: `system`, or `fixed:SECONDS` for names that are
    /// the same every time
    #[arg(long, value_name = "CLOCK", default_value = "system")]
    clock: Clock,

    #[command(flatten)]
    run: RunArgs,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    Cat(CatArgs),
    Find(FindArgs),
    Verify(VerifyArgs),
}

impl Program for ArchiveArgs {
    const NAME: &'static str = "rv-archive";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        match &self.command {
            Some(Command::Cat(args)) => return cat::run(args, stage),
            Some(Command::Find(args)) => return find::run(args, stage),
            Some(Command::Verify(args)) => return verify::run(args, stage),
            None => {}
        }
        if self.pass {
            refuse_same_file(&self.input.input, &self.output)?;
        }
        self.refuse_own_folder()?;
        let mut archive = Archive::open(stage, &self)?;
        // The output first: its reader may be the writer of the input.
        let output = match self.pass {
            true => Output::open(&self.output)?,
            false => Output::nowhere(),
        };
        let mut streams = Streams::open_input(&self.input)?;
        streams.output = output;
        streams.resume = self.resume;
        let outcome = filter::run(stage, streams, &mut archive);
        match &outcome {
            // Only the reader has gone; what was read is archived as ever.
            Err(error) if is_downstream_closed(error) => archive.finish(stage)?,
            Err(_) => archive.save(stage),
            Ok(()) => {}
        }
        outcome
    }
}

impl ArchiveArgs {
    /// Refuses to archive a folder into itself, which would double it.
    fn refuse_own_folder(&self) -> Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let folder = |path: &Path| path.canonicalize().ok().filter(|path| path.is_dir());
        match (folder(Path::new(self.input.input.as_str())), folder(dir)) {
            (Some(input), Some(dir)) if input == dir => Err(usage(format!(
                "{}: is input and output at once; archive into another folder",
                self.input.input
            ))),
            _ => Ok(()),
        }
    }
}

fn is_taken(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause.is_some_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists)
}

fn is_downstream_closed(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(EndedEarly::DownstreamClosed))
}

/// The one writer of a folder.
#[derive(Debug)]
struct Archive {
    folder: Folder,
    /// Where lines are passed on: how many bytes of them may wait for a sync.
    pass_bytes_max: Option<usize>,
    /// Lines that are safe and not passed on yet.
    passed: Vec<u8>,
    clock: Clock,
    limits: Limits,
    /// From the first record of a file to its close: there are no empty files.
    part: Option<Part>,
    publisher: Publisher,
    lines_in: u64,
    bytes_in: u64,
    discarded_bytes: u64,
    /// Lines that something else has taken from the part.
    lost: u64,
}

impl Archive {
    /// Locks the folder and takes over what an earlier run has left in it.
    fn open(stage: &mut Stage, args: &ArchiveArgs) -> Result<Archive> {
        let Some(dir) = &args.dir else {
            return Err(usage("--dir is missing"));
        };
        if args.max_bytes.as_u64() == 0 {
            return Err(usage("--max-bytes must be more than 0"));
        }
        let mut folder = Folder::open(dir)?;
        if let Some(name) = folder.at_the_end() {
            stage.report.warn(&format!(
                "{}: {name} claims the last time that a name can tell; move it away, or new files may \
                 stand before it",
                dir.display()
            ));
        }
        let recovered = recover(stage, &mut folder, args.clock.unix())?;
        let mut retention = Retention::open(
            dir,
            retention::Limits {
                files: args.keep_files.map(NonZeroU64::get),
                bytes: args.keep_bytes.map(|size| size.as_u64()),
            },
        )?;
        retention.apply()?;
        let compressor = Compressor::new(args.level, args.threads.get().into())?;
        let mut unread = Vec::new();
        let place = folder.next_place(|message| unread.push(message))?;
        for message in unread {
            stage.report.damaged(&message)?;
        }
        let mut publisher = Publisher::new(dir, compressor, place, retention);
        for part in recovered.parts {
            publisher.push(part);
        }
        Ok(Archive {
            folder,
            pass_bytes_max: args.pass.then(|| bytes(args.pass_bytes)),
            passed: Vec::new(),
            clock: args.clock,
            limits: Limits {
                records: args.max_records.map_or(u64::MAX, NonZeroU64::get),
                bytes: args.max_bytes.as_u64(),
                age: args.max_age,
                sync_every: args.sync_every,
            },
            part: None,
            publisher,
            lines_in: 0,
            bytes_in: 0,
            discarded_bytes: recovered.discarded_bytes,
            lost: 0,
        })
    }

    /// The part for the next record, begun where there is none.
    fn part(&mut self, stage: &mut Stage) -> Result<&mut Part> {
        while self.part.is_none() {
            let id = self.folder.next_id(self.clock.unix())?;
            match Part::create(self.folder.path(), id) {
                Ok(part) => self.part = Some(part),
                // Something else was faster; the next id is free.
                Err(error) if is_taken(&error) => {}
                Err(error) => self.wait_for_room(stage, error)?,
            }
        }
        self.part.as_mut().context("a part was just begun")
    }

    /// Writes what is in memory, waiting for as long as the disk is full. Where lines
    /// are passed on they stay in memory, too, until they are synced.
    fn write(&mut self, stage: &mut Stage) -> Result<()> {
        while let Some(part) = &mut self.part {
            let outcome = part.write();
            for interference in part.take_interference() {
                self.lost += interference.lost_lines;
                stage.report.damaged(&interference.what)?;
            }
            match outcome {
                Ok(()) => {
                    if self.pass_bytes_max.is_none() {
                        part.settle(None);
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

    /// Makes all lines safe that were taken: one sync for all of them. Then they may
    /// be passed on. A part without its name is closed: only a complete file is safe.
    fn commit(&mut self, stage: &mut Stage) -> Result<()> {
        self.write(stage)?;
        let Some(part) = &mut self.part else {
            return Ok(());
        };
        if part.is_displaced() {
            return self.rotate(stage);
        }
        part.sync()?;
        if self.pass_bytes_max.is_some() {
            part.settle(Some(&mut self.passed));
        }
        Ok(())
    }

    /// Waits a while where `error` is a full disk; another error is returned.
    fn wait_for_room(&mut self, stage: &mut Stage, error: anyhow::Error) -> Result<()> {
        if !is_disk_full(&error) {
            return Err(error);
        }
        warn_of_full_disk(stage, &error);
        // A compression that ends now may be what makes room.
        self.publisher.tend(stage)?;
        pause(stage, self, Instant::now() + RETRY_AFTER).map_err(|ended| {
            let bytes = self.part.as_ref().map_or(0, Part::unwritten_bytes);
            ended.context(format!(
                "{error:#}; {bytes} bytes were read and not written"
            ))
        })
    }

    /// Closes the present part, if there is one, and has it compressed. While
    /// the one before is still at work this waits: the reader is ahead by one.
    fn rotate(&mut self, stage: &mut Stage) -> Result<()> {
        self.write(stage)?;
        let Some(mut part) = self.part.take() else {
            return Ok(());
        };
        let is_displaced = part.is_displaced();
        let mut lines = Vec::new();
        part.settle(self.pass_bytes_max.map(|_| &mut lines));
        self.publisher.push(Closed::of(&part));
        // The disk is at work on the part while it is being compressed.
        self.publisher.tend(stage)?;
        part.sync()?;
        // What has no name is safe when it is a complete file.
        let backlog = if is_displaced { 0 } else { 1 };
        self.wait_for_publisher(stage, backlog)?;
        self.passed.append(&mut lines);
        Ok(())
    }

    /// Waits until no more than `backlog` parts are left to compress.
    fn wait_for_publisher(&mut self, stage: &mut Stage, backlog: usize) -> Result<()> {
        loop {
            self.publisher.tend(stage)?;
            if self.publisher.backlog() <= backlog {
                return Ok(());
            }
            let waited = match (self.publisher.task(), self.publisher.due()) {
                (Some(task), _) => task.wait(stage, self),
                (None, Some(due)) => pause(stage, self, due),
                (None, None) => Ok(()),
            };
            waited.map_err(|ended| self.explain(ended))?;
        }
    }

    /// Says what becomes of the parts that there was no time to compress.
    fn explain(&self, ended: anyhow::Error) -> anyhow::Error {
        if ended.downcast_ref::<EndedEarly>().is_none() {
            return ended;
        }
        let folder = self.folder.path().display();
        let lost = match self.publisher.nameless_lines() {
            0 => String::new(),
            lines => format!(", but for {lines} lines: something else has removed their part"),
        };
        ended.context(format!(
            "{folder}: {} files are not compressed yet; the next start does it{lost}",
            self.publisher.backlog()
        ))
    }

    /// Before a failure ends the program: what was taken in is written, if that
    /// is still possible. The next start finds it in the part.
    fn save(&mut self, stage: &Stage) {
        if let Some(part) = &mut self.part
            && part.write().is_ok()
        {
            part.settle(None);
            // The failure that ends the program is the one to be told.
            let _ = part.sync();
            if part.is_displaced() {
                stage.report.warn(&format!(
                    "{}: something else has removed it, and its {} lines are lost",
                    part.path().display(),
                    part.content().lines
                ));
            }
        }
    }

    /// The records that are in no complete file yet.
    fn open_records(&self, stage: &Stage) -> u64 {
        let settled = self.publisher.counts().archived + self.lost() + stage.report.rejected();
        self.lines_in.saturating_sub(settled)
    }

    /// The records that something else has taken from the folder.
    fn lost(&self) -> u64 {
        self.lost + self.publisher.counts().lost
    }
}

impl Filter for Archive {
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
            self.rotate(stage)?;
        }
        let part = self.part(stage)?;
        part.push(line.bytes);
        let (is_full, pending) = (part.is_full(&limits), part.pending_bytes());
        if is_full {
            self.rotate(stage)?;
        } else if self.pass_bytes_max.is_some_and(|most| pending >= most) {
            self.commit(stage)?;
        }
        out.append(&mut self.passed);
        Ok(())
    }

    fn before_wait(&mut self, stage: &mut Stage) -> Result<()> {
        self.write(stage)?;
        if let Some(part) = &mut self.part {
            if part.is_old(&self.limits) {
                self.rotate(stage)?;
            } else if part.is_sync_due(&self.limits) {
                self.commit(stage)?;
            }
        }
        self.publisher.tend(stage)
    }

    fn background(&mut self) -> Option<&mut dyn Background> {
        Some(self)
    }

    fn hangup(&mut self, stage: &mut Stage) -> Result<()> {
        self.rotate(stage)
    }

    fn finish(&mut self, stage: &mut Stage) -> Result<()> {
        self.rotate(stage)?;
        self.wait_for_publisher(stage, 0)
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

impl Background for Archive {
    /// Passes on the lines that are synced.
    fn collect(
        &mut self,
        stage: &mut Stage,
        _input: &str,
        out: &mut Vec<u8>,
        wait: bool,
    ) -> Result<bool> {
        if self.pass_bytes_max.is_some() {
            let is_due = |part: &Part| part.is_sync_due(&self.limits);
            if wait || self.part.as_ref().is_some_and(is_due) {
                self.commit(stage)?;
            }
            out.append(&mut self.passed);
        }
        Ok(false)
    }

    fn due(&self) -> Option<Instant> {
        let part = self.part.as_ref().and_then(|part| part.due(&self.limits));
        part.into_iter().chain(self.publisher.due()).min()
    }
}

#[cfg(test)]
mod tests;
