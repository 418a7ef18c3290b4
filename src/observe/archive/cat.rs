//! `log-<id>.gz` -> the stream again: reads archives back in order, also the part
//! that is being written.

use std::io::{self, IsTerminal};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use indicatif::ProgressBar;

use crate::observe::archive::ahead::{Ahead, Event};
use crate::observe::archive::pace::{Pace, positive};
use crate::observe::archive::range::{Range, RangeArgs, begun, line_time};
use crate::stage::filter::progress_bar_of;
use crate::stage::stats::{Latencies, Snapshot};
use crate::stage::streams::refuse_same_file;
use crate::stage::wait::wait;
use crate::stage::{EndedEarly, Stage};
use crate::stream::address::Address;
use crate::stream::archives::{self, RecordedFile, not_opened, recorded_files};
use crate::stream::output::Output;
use crate::wire::lines::{Line, Lines};
use crate::wire::micros::Micros;

/// How much earlier than due a record may leave, so that many leave together.
const GRAIN: Duration = Duration::from_millis(1);

/// How much is gathered before it is written.
const WRITE_BYTES: usize = 256 * 1024;

/// Write archived lines to a stream again, in their order
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  rv-archive cat requests.archive | wc --lines
  rv-archive cat --since 2026-05-01 --until 2026-05-02 requests.archive > may-day.ndjson
  rv-archive cat --as-recorded --speed 10 requests.archive | rv-score --model dt.json > scores")]
pub struct CatArgs {
    /// Folders (their complete files by name, then the part that is being
    /// written, up to its last whole line) or single files
    #[arg(value_name = "DIR|FILE", required = true)]
    paths: Vec<PathBuf>,

    #[command(flatten)]
    range: RangeArgs,

    /// Write no more than the first N lines
    #[arg(short = 'n', long, value_name = "N")]
    records: Option<NonZeroU64>,

    /// Write N lines a second, evenly
    #[arg(long, value_name = "N", value_parser = positive)]
    rate: Option<f64>,

    /// Write each line when it once came, by the distances of the timestamps: for
    /// a warm-up, or for load as it was
    #[arg(long, conflicts_with = "rate")]
    as_recorded: bool,

    /// With --as-recorded: X times as fast as it was
    #[arg(long, value_name = "X", default_value = "1", value_parser = positive, requires = "as_recorded")]
    speed: f64,

    /// Write to PATH; `-` is standard output
    #[arg(short, long, value_name = "PATH", default_value_t = Address::Standard, value_parser = Address::of_output)]
    output: Address,
}

/// What was written so far.
#[derive(Debug, Default)]
struct Counts {
    read: u64,
    out: u64,
    files: u64,
    bytes_out: u64,
    /// How much later than due the lines have left; of a pace only.
    behind: Option<Latencies>,
}

impl Counts {
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
    let files = listed(stage, &args.paths, range)?;
    for file in &files {
        refuse_same_file(
            &Address::from(&*file.path().to_string_lossy()),
            &args.output,
        )?;
    }
    let mut cat = Cat {
        output: Output::open(&args.output)?,
        out: Vec::new(),
        range,
        left: args.records.map_or(u64::MAX, NonZeroU64::get),
        pace: match args.rate {
            Some(per_second) => Pace::rate(per_second),
            None if args.as_recorded => Pace::recorded(args.speed),
            None => Pace::Free,
        },
        started: None,
        time: None,
        needs_time: !range.is_unbounded() || args.as_recorded,
        counts: Counts::default(),
    };
    if !matches!(cat.pace, Pace::Free) {
        cat.counts.behind = Some(Latencies::default());
    }
    let bar = progress_bar(args, &files, stage);
    let ahead = Ahead::start(files.clone())?;
    let mut finished = 0;
    for file in &files {
        if cat.left == 0 {
            break;
        }
        match ahead.next(stage)? {
            Some(Event::Opened { length }) => {
                cat.copy_file(stage, file, &ahead, |position| {
                    bar.set_position(finished + position);
                })?;
                finished += length;
            }
            Some(Event::NotOpened(error)) => {
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

/// The files of `paths` in which there may be records of `range`, in order. After a
/// signal to stop it may be some more.
pub fn listed(stage: &mut Stage, paths: &[PathBuf], range: Range) -> Result<Vec<RecordedFile>> {
    let mut files = Vec::new();
    for path in paths {
        let all = recorded_files(path)?;
        let count = all.len();
        let chosen = range.choose(all, || stage.signals.stop().is_some());
        if chosen.len() < count {
            stage.report.summary(&format!(
                "{}: {} of {count} files lie outside the time asked for",
                path.display(),
                count - chosen.len()
            ));
        }
        files.extend(chosen);
    }
    Ok(files)
}

/// Takes over what was read: no more than there is room for.
fn fill(lines: &mut Lines, bytes: &[u8]) -> io::Result<()> {
    lines.fill(|room| {
        let room = room.get_mut(..bytes.len());
        let room = room.ok_or(io::ErrorKind::InvalidInput)?;
        room.copy_from_slice(bytes);
        Ok(bytes.len())
    })?;
    Ok(())
}

/// A progress bar, unless it would stand between the lines.
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

/// Lines on their way from files to an output.
struct Cat {
    output: Output,
    out: Vec<u8>,
    range: Range,
    /// How many more lines are wanted.
    left: u64,
    pace: Pace,
    /// When the first line left.
    started: Option<Instant>,
    /// The timestamp of the line, or of one before it.
    time: Option<Micros>,
    needs_time: bool,
    counts: Counts,
}

impl Cat {
    /// Copies the file that `ahead` has opened, as far as it is wanted. Only whole
    /// lines are written, also where a signal or a broken file ends it. `show` gets
    /// the position on disk.
    fn copy_file(
        &mut self,
        stage: &mut Stage,
        file: &RecordedFile,
        ahead: &Ahead,
        show: impl Fn(u64),
    ) -> Result<()> {
        let name = file.path().display().to_string();
        let mut lines = Lines::new(stage.line_bytes_max);
        self.counts.files += 1;
        if self.time.is_none() {
            self.time = begun(file);
        }
        let (mut ended, mut broken) = (false, None);
        while !ended && self.left > 0 {
            stage.show_stats(|stage| self.counts.snapshot(stage));
            match ahead.next(stage)? {
                Some(Event::Block { bytes, position }) => {
                    fill(&mut lines, &bytes)?;
                    show(position);
                }
                Some(Event::Broken(error)) => {
                    let mut what = format!(
                        "{name}: {}; the rest of it is passed over",
                        archives::fault(&error)
                    );
                    let torn = lines.drop_unfinished_line();
                    if torn > 0 {
                        what += &format!(", with {torn} bytes of a line whose end is missing");
                    }
                    (ended, broken) = (true, Some(what));
                }
                Some(Event::End) => ended = true,
                _ => bail!("{name}: was not read to its end"),
            }
            while self.left > 0
                && let Some(line) = lines.next_line()
            {
                self.copy(stage, &name, &line)?;
            }
            // A file that was made elsewhere may end inside its last line.
            if ended
                && self.left > 0
                && let Some(line) = lines.last_line()
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

    /// Takes a line, or sets it aside where it is over the limit.
    fn copy(&mut self, stage: &mut Stage, name: &str, line: &Line) -> Result<()> {
        self.counts.read += 1;
        if let Err(reject) = line.whole() {
            return stage.report.reject(name, line, &reject);
        }
        if self.needs_time {
            match line_time(line) {
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

    /// Waits for the time of the next line, with nothing held back. A signal to
    /// stop ends it.
    fn wait_until(&mut self, stage: &mut Stage, due: Instant) -> Result<()> {
        let now = Instant::now();
        if now + GRAIN < due {
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
