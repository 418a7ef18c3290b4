//! `rv-archive cat`: `log-<id>.gz` -> the stream, in order, up to the last whole line of
//! the open part.

use std::io::{self, IsTerminal};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use indicatif::ProgressBar;

use crate::observe::archive::pace::{Pace, positive};
use crate::observe::archive::read_ahead::{ReadAhead, ReadEvent};
use crate::observe::archive::time_range::{
    TimeRange, TimeRangeArgs, creation_time, files_in_range, timestamp_of,
};
use crate::stage::filter::progress_bar_of;
use crate::stage::stats::{Latencies, Snapshot};
use crate::stage::streams::refuse_same_file;
use crate::stage::wait::wait;
use crate::stage::{EndedEarly, Stage};
use crate::stream::address::Address;
use crate::stream::archives::{self, RecordedFile, not_opened};
use crate::stream::output::Output;
use crate::wire::lines::{Line, Lines};
use crate::wire::micros::Micros;

/// A record may be written this much too early, so that one write can take several
/// records.
const EARLY_MAX: Duration = Duration::from_millis(1);

/// The number of bytes that are collected for one write.
const WRITE_BYTES: usize = 256 * 1024;

/// Write the lines of an archive to a stream, in order
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  rv-archive cat requests.archive | wc --lines
  rv-archive cat --since 2026-05-01 --until 2026-05-02 requests.archive > may-day.ndjson
  rv-archive cat --as-recorded --speed 10 requests.archive | rv-score --model dt.json > scores")]
pub struct CatArgs {
    /// Folders or single files. The files of a folder are read in the order of their
    /// names. The file that is being written is read last, up to its last whole line
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,

    #[command(flatten)]
    range: TimeRangeArgs,

    /// Write only the first N lines
    #[arg(short = 'n', long, value_name = "N")]
    records: Option<NonZeroU64>,

    /// Write N lines a second, at equal intervals
    #[arg(long, value_name = "N", value_parser = positive)]
    rate: Option<f64>,

    /// Write lines at the intervals of their timestamps: for a warm-up, or to repeat
    /// a recorded load
    #[arg(long, conflicts_with = "rate")]
    as_recorded: bool,

    /// With --as-recorded: X times as fast
    #[arg(long, value_name = "X", default_value = "1", value_parser = positive, requires = "as_recorded")]
    speed: f64,

    /// Write to PATH; `-` is standard output
    #[arg(short, long, value_name = "PATH", default_value_t = Address::Standard, value_parser = Address::of_output)]
    output: Address,
}

/// The counts of lines that were read and written.
#[derive(Debug, Default)]
struct CatCounts {
    read: u64,
    out: u64,
    files: u64,
    bytes_out: u64,
    /// The delays of the lines; `None` without a pace.
    behind: Option<Latencies>,
}

impl CatCounts {
    fn snapshot(&self, stage: &Stage) -> Snapshot {
        let snapshot = Snapshot::default()
            .count("in", self.read)
            .count("out", self.out)
            .rejected(&stage.report)
            .count("files", self.files)
            .count("damagedFiles", stage.report.damaged_files())
            .count("bytesOut", self.bytes_out);
        match &self.behind {
            Some(behind) => snapshot.latencies("behind", behind),
            None => snapshot,
        }
    }
}

/// Runs `rv-archive cat`.
pub fn run(args: &CatArgs, stage: &mut Stage) -> Result<()> {
    let range = args.range.range();
    let files = files_in_range(stage, &args.paths, range)?;
    for file in &files {
        refuse_same_file(
            &Address::from(&*file.path().to_string_lossy()),
            &args.output,
        )?;
    }
    let mut cat = Cat::open(args, range)?;
    let bar = progress_bar(args, &files, stage);
    let ahead = ReadAhead::start(files.clone())?;
    let mut finished = 0;
    for file in &files {
        if cat.left == 0 {
            break;
        }
        match ahead.next(stage)? {
            Some(ReadEvent::Opened { length }) => {
                cat.copy_file(stage, file, &ahead, |position| {
                    bar.set_position(finished + position);
                })?;
                finished += length;
            }
            Some(ReadEvent::NotOpened(error)) => {
                let place = file.path();
                let message = format!("{}: {}", place.display(), not_opened(&error));
                stage.report.damaged(&message)?;
            }
            _ => bail!("{}: was not read", file.path().display()),
        }
    }
    bar.finish_and_clear();
    stage.close(&mut cat.output)?;
    stage.final_stats(&cat.counts.snapshot(stage));
    Ok(())
}

/// Adds a block to `lines`. The block must fit into their free room.
fn fill(lines: &mut Lines, bytes: &[u8]) -> io::Result<()> {
    lines.fill(|room| {
        let room = room.get_mut(..bytes.len());
        let room = room.ok_or(io::ErrorKind::InvalidInput)?;
        room.copy_from_slice(bytes);
        Ok(bytes.len())
    })?;
    Ok(())
}

/// A progress bar. The bar is hidden if the lines go to the same terminal.
fn progress_bar(args: &CatArgs, files: &[RecordedFile], stage: &Stage) -> ProgressBar {
    if args.output == Address::Standard && io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = progress_bar_of(0, stage);
    if !bar.is_hidden() {
        let length = |file: &RecordedFile| {
            file.path()
                .symlink_metadata()
                .map_or(0, |found| found.len())
        };
        bar.set_length(files.iter().map(length).sum());
    }
    bar
}

/// Copies lines from files to an output.
struct Cat {
    output: Output,
    /// Lines that are not written yet.
    out: Vec<u8>,
    range: TimeRange,
    /// The number of lines that may still be written.
    left: u64,
    pace: Pace,
    /// The time at which the first line was written.
    started: Option<Instant>,
    /// The timestamp of the current line. If this line has none, the timestamp of the
    /// last line that has one.
    time: Option<Micros>,
    /// Whether timestamps must be read.
    needs_time: bool,
    counts: CatCounts,
}

impl Cat {
    fn open(args: &CatArgs, range: TimeRange) -> Result<Cat> {
        let pace = match args.rate {
            Some(per_second) => Pace::rate(per_second),
            None if args.as_recorded => Pace::recorded(args.speed),
            None => Pace::Free,
        };
        let has_pace = !matches!(pace, Pace::Free);
        Ok(Cat {
            output: Output::open(&args.output)?,
            out: Vec::new(),
            range,
            left: args.records.map_or(u64::MAX, NonZeroU64::get),
            pace,
            started: None,
            time: None,
            needs_time: !range.is_unbounded() || args.as_recorded,
            counts: CatCounts {
                behind: has_pace.then(Latencies::default),
                ..CatCounts::default()
            },
        })
    }

    /// Copies the file that `ahead` has opened, until the limit of lines is reached.
    /// Only whole lines are written, even if a signal or damage ends the file early.
    /// Calls `show` with the position in the file on disk, in bytes.
    fn copy_file(
        &mut self,
        stage: &mut Stage,
        file: &RecordedFile,
        ahead: &ReadAhead,
        show: impl Fn(u64),
    ) -> Result<()> {
        let name = file.path().display().to_string();
        let mut lines = Lines::new(stage.line_bytes_max);
        self.counts.files += 1;
        if self.time.is_none() {
            self.time = creation_time(file);
        }
        let (mut ended, mut broken) = (false, None);
        while !ended && self.left > 0 {
            stage.show_stats(|stage| self.counts.snapshot(stage));
            match ahead.next(stage)? {
                Some(ReadEvent::Block { bytes, position }) => {
                    fill(&mut lines, &bytes)?;
                    show(position);
                }
                Some(ReadEvent::Broken(error)) => {
                    let mut what = format!(
                        "{name}: {}; the rest of it is skipped",
                        archives::fault(&error)
                    );
                    let torn = lines.drop_unfinished_line();
                    if torn > 0 {
                        what +=
                            &format!("; this includes {torn} bytes of a line whose end is missing");
                    }
                    (ended, broken) = (true, Some(what));
                }
                Some(ReadEvent::End) => {
                    // A file that another program wrote may lack its last newline.
                    lines.end_input();
                    ended = true;
                }
                _ => bail!("{name}: was not read to its end"),
            }
            while self.left > 0
                && let Some(line) = lines.next_line()
            {
                self.copy(stage, &name, &line)?;
            }
            stage.stats.touch();
            stage.report.flush()?;
            stage.write_all(&mut self.output, &mut self.out)?;
        }
        if let Some(what) = broken {
            stage.report.damaged(&what)?;
        }
        Ok(())
    }

    /// Copies a line if it is in the range. Rejects the line if it is too long or its
    /// timestamp is invalid.
    fn copy(&mut self, stage: &mut Stage, name: &str, line: &Line) -> Result<()> {
        self.counts.read += 1;
        if let Err(reject) = line.whole() {
            return stage.report.reject(name, line, &reject);
        }
        if self.needs_time {
            match timestamp_of(line) {
                Ok(time) => self.time = time.or(self.time),
                Err(reject) => return stage.report.reject(name, line, &reject),
            }
            if !self.range.contains(self.time) {
                return Ok(());
            }
        }
        if let Some(due) = self.pace.due(self.time) {
            let due = *self.started.get_or_insert_with(Instant::now) + due;
            self.wait_until(stage, due)?;
        }
        self.left -= 1;
        self.out.extend_from_slice(line.bytes);
        self.out.push(b'\n');
        self.counts.out += 1;
        self.counts.bytes_out += line.bytes.len() as u64 + 1;
        if self.out.len() >= WRITE_BYTES {
            stage.write_all(&mut self.output, &mut self.out)?;
        }
        Ok(())
    }

    /// Writes all earlier lines, and waits until the next one is due. A signal to stop is
    /// an error.
    fn wait_until(&mut self, stage: &mut Stage, due: Instant) -> Result<()> {
        let now = Instant::now();
        if now + EARLY_MAX < due {
            stage.stats.touch();
            stage.report.flush()?;
            stage.write_all(&mut self.output, &mut self.out)?;
            while Instant::now() < due {
                if let Some(stop) = stage.signals.stop() {
                    return Err(EndedEarly::Signal(stop).into());
                }
                stage.show_stats(|stage| self.counts.snapshot(stage));
                let until = stage.stats.due().map_or(due, |stats| stats.min(due));
                wait(&[], &mut stage.signals, Some(until))?;
            }
        }
        if let Some(behind) = &mut self.counts.behind {
            behind.record(Micros::from_duration(now.saturating_duration_since(due)));
        }
        Ok(())
    }
}
