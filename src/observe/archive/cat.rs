//! `log-<id>.gz` -> the stream again: reads archives back in order, also the part
//! that is being written.

use std::io::{self, IsTerminal};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use indicatif::ProgressBar;

use crate::observe::archive::pace::{Pace, positive};
use crate::observe::archive::range::{Range, RangeArgs, begun, line_time};
use crate::stage::filter::{output_path, progress_bar_of, refuse_one_file};
use crate::stage::stats::{Latencies, Snapshot};
use crate::stage::wait::wait;
use crate::stage::{EndedEarly, Stage};
use crate::wire::endpoint::{Output, STANDARD};
use crate::wire::lines::{Line, Lines};
use crate::wire::micros::Micros;
use crate::wire::recording::{OpenedFile, RecordedFile, recorded_files};
use std::io::Read;

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
    #[arg(short, long, value_name = "PATH", default_value = STANDARD, value_parser = output_path)]
    output: String,
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
            .count("rejected", stage.report.rejected())
            .count("files", self.files)
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
        refuse_one_file(&file.path().to_string_lossy(), &args.output)?;
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
    let mut finished = 0;
    for file in &files {
        if cat.left == 0 {
            break;
        }
        let Some(opened) = open(stage, file)? else {
            continue;
        };
        let length = opened.length();
        cat.copy_file(stage, file, opened, |position| {
            bar.set_position(finished + position);
        })?;
        finished += length;
    }
    bar.finish_and_clear();
    stage.close(&mut cat.output)?;
    stage.final_stats(&cat.counts.snapshot(stage));
    Ok(())
}

/// The files of `paths` in which there may be records of `range`, in order.
pub fn listed(stage: &Stage, paths: &[PathBuf], range: Range) -> Result<Vec<RecordedFile>> {
    let mut files = Vec::new();
    for path in paths {
        let all = recorded_files(path)?;
        let count = all.len();
        let chosen = range.choose(all);
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

/// Opens a file, or says that it has gone since the folder was looked at: an
/// archive that keeps so much and no more removes its oldest files.
pub fn open(stage: &mut Stage, file: &RecordedFile) -> Result<Option<OpenedFile>> {
    match file.open() {
        Err(error) if is_not_found(&error) => {
            stage.report.warn(&format!(
                "{}: was removed before it was read",
                file.path().display()
            ));
            stage.found_wanting = true;
            Ok(None)
        }
        outcome => outcome.map(Some),
    }
}

/// Whether a file was not there.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// A progress bar, unless it would stand between the lines.
fn progress_bar(args: &CatArgs, files: &[RecordedFile], stage: &Stage) -> ProgressBar {
    if args.output == STANDARD && io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = progress_bar_of(0, stage);
    if !bar.is_hidden() {
        let length = |file: &RecordedFile| file.path().metadata().map_or(0, |found| found.len());
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
    /// Copies `opened`, as far as it is wanted. Only whole lines are written, also
    /// where a signal or a broken file ends it. `show` gets the position on disk.
    fn copy_file(
        &mut self,
        stage: &mut Stage,
        file: &RecordedFile,
        mut opened: OpenedFile,
        show: impl Fn(u64),
    ) -> Result<()> {
        let name = file.path().display().to_string();
        let mut lines = Lines::new(stage.line_bytes_max);
        self.counts.files += 1;
        if self.time.is_none() {
            self.time = begun(file);
        }
        let mut ended = false;
        while !ended && self.left > 0 {
            if let Some(stop) = stage.signals.stop() {
                return Err(EndedEarly::Signal(stop).into());
            }
            stage.show_stats(|stage| self.counts.snapshot(stage));
            match lines.fill(|room| opened.read(room)) {
                Ok(count) => ended = count == 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).with_context(|| format!("{name}: cannot read")),
            }
            show(opened.position());
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
        Ok(())
    }

    /// Takes a line, or sets it aside where it is over the limit.
    fn copy(&mut self, stage: &mut Stage, name: &str, line: &Line) -> Result<()> {
        self.counts.read += 1;
        if line.oversized.is_some() {
            return stage.report.reject_oversized(name, line);
        }
        if self.needs_time {
            match line_time(line) {
                Ok(time) => self.time = time.or(self.time),
                Err(reason) => return stage.report.reject(name, line, &reason),
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
