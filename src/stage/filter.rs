//! The loop of a stage that reads one stream: it works on all lines that have been
//! read, writes the output, and only then waits for more input.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::event::PollFlags;

use crate::stage::context::Stage;
use crate::stage::exit::EndedEarly;
use crate::stage::exit::Stop;
use crate::stage::stats::Snapshot;
use crate::stage::streams::Streams;
use crate::stage::wait::wait;
use crate::stream::cursor::Cursor;
use crate::stream::input::{Input, Progress};
use crate::stream::output::Output;
use crate::wire::lines::Line;
use crate::wire::reject::Reject;

/// A stage's work on the lines of one input.
pub trait Filter {
    /// Works on one line, and appends its output to `out`. `input` is the name that
    /// messages use for the input.
    fn line(
        &mut self,
        stage: &mut Stage,
        input: &str,
        line: &Line,
        out: &mut Vec<u8>,
    ) -> Result<()>;

    /// Whether [`line`](Filter::line) can be called now. If not, the loop writes the
    /// output, waits for the background work and does not read.
    fn has_room(&self) -> bool {
        true
    }

    /// Called when all lines that were read have been worked on, before a read that may
    /// wait.
    fn before_wait(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }

    /// The work that continues while the loop waits for input, if any.
    fn background(&mut self) -> Option<&mut dyn Background> {
        None
    }

    /// Called when the program ends early, by an error or a signal, for each line that
    /// was read but not worked on.
    fn left_over(&mut self, _input: &str, _line: &Line) {}

    /// Called after SIGHUP. A fault in a reloaded file is reported, not returned.
    fn hangup(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }

    /// Whether the stage has done its work, although the input has not ended. The loop
    /// then reads only to the end of the current line.
    fn is_satisfied(&self) -> bool {
        false
    }

    /// Called once, when all lines have been worked on and no more will be read. Appends
    /// the last output to `out`.
    fn conclude(&mut self, _stage: &mut Stage, _out: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }

    /// Called when the input has ended or the program is to stop. The output is already
    /// closed.
    fn finish(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }

    /// The counts so far.
    fn snapshot(&self, stage: &Stage) -> Snapshot;
}

/// The work of a filter that goes on in other threads or programs, or is due later.
pub trait Background {
    /// Appends the finished output to `out`, and returns whether there was any. `is_last`
    /// is set if no more input is ready. Then this submits the lines that are held for a
    /// batch. This never waits.
    fn collect(
        &mut self,
        _stage: &mut Stage,
        _input: &str,
        _out: &mut Vec<u8>,
        _is_last: bool,
    ) -> Result<bool> {
        Ok(false)
    }

    /// Whether [`collect`](Background::collect) will append more output after a wait.
    fn is_pending(&self) -> bool {
        false
    }

    /// The time at which to call [`collect`](Background::collect) and
    /// [`Filter::before_wait`] if no input arrives.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Streams that become readable when some of the work is done. The loop then calls
    /// [`collect`](Background::collect) and [`Filter::before_wait`].
    fn streams(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
}

/// Runs `filter` until its input ends or a signal ends it.
pub fn run(stage: &mut Stage, streams: Streams, filter: &mut impl Filter) -> Result<()> {
    let mut filtering = Filtering {
        bar: progress_bar(&streams.input, stage),
        name: streams.input.name().to_owned(),
        cursor: Cursor::new(streams.input, stage.line_bytes_max),
        output: streams.output,
        out: Vec::new(),
        is_source: streams.is_source,
        stopped: None,
        filter,
    };
    if streams.resume {
        filtering.out.push(b'\n');
    }
    let outcome = filtering.run(stage);
    if outcome.is_err() {
        filtering.hand_over_unprocessed();
        // The counts show how far the stage has read.
        stage.write_stats(&filtering.filter.snapshot(stage));
    }
    outcome
}

/// While more lines are ready, output is collected until it has this many bytes, and
/// then written.
const WRITE_BYTES: usize = 256 * 1024;

/// A filter with its streams.
struct Filtering<'f, F> {
    cursor: Cursor,
    /// The name that messages use for the input.
    name: String,
    output: Output,
    /// Output that has not been written yet.
    out: Vec<u8>,
    is_source: bool,
    /// The signal that made this stage stop reading.
    stopped: Option<Stop>,
    filter: &'f mut F,
    bar: ProgressBar,
}

impl<F: Filter> Filtering<'_, F> {
    fn run(&mut self, stage: &mut Stage) -> Result<()> {
        loop {
            self.work(stage)?;
            self.write_before_wait(stage)?;
            self.handle_signals(stage)?;
            if self.cursor.is_done() {
                break;
            }
            self.read(stage)?;
        }
        self.bar.finish_and_clear();
        self.finish(stage)?;
        match self.stopped {
            // A file was not read to its end.
            Some(stop) if self.cursor.input().is_file() && !self.cursor.has_ended() => {
                Err(EndedEarly::Signal(stop).into())
            }
            _ => Ok(()),
        }
    }

    /// Works on the lines that have been read, as far as the filter has room.
    fn work(&mut self, stage: &mut Stage) -> Result<()> {
        while self.filter.has_room() {
            let Some(line) = self.cursor.next_line() else {
                break;
            };
            self.filter.line(stage, &self.name, &line, &mut self.out)?;
            if self.out.len() >= WRITE_BYTES {
                stage.write_all(&mut self.output, &mut self.out)?;
            }
        }
        while let Some(background) = self.filter.background() {
            let is_last = !self.cursor.has_line() && !self.cursor.has_more()?;
            if !background.collect(stage, &self.name, &mut self.out, is_last)? {
                break;
            }
            if self.out.len() >= WRITE_BYTES {
                stage.write_all(&mut self.output, &mut self.out)?;
            }
        }
        Ok(())
    }

    /// Writes all finished output before a wait that may be long.
    fn write_before_wait(&mut self, stage: &mut Stage) -> Result<()> {
        self.filter.before_wait(stage)?;
        stage.report.flush()?;
        stage.write_all(&mut self.output, &mut self.out)?;
        stage.show_stats(|stage| self.filter.snapshot(stage));
        Ok(())
    }

    /// Acts on signals.
    fn handle_signals(&mut self, stage: &mut Stage) -> Result<()> {
        if stage.signals.take_hangup() {
            self.filter.hangup(stage)?;
        }
        match stage.signals.stop() {
            Some(Stop::Interrupt) if !self.is_source => {
                // The sources stop too, so no other writer will follow the
                // current one.
                self.cursor.stop_following();
            }
            Some(stop) => {
                self.stopped.get_or_insert(stop);
                self.cursor.stop_at_line_end();
            }
            None if self.filter.is_satisfied() => self.cursor.stop_at_line_end(),
            None => {}
        }
        if !self.cursor.is_done()
            && let Some(stop) = stage.signals.out_of_time()
        {
            // If whole lines are left too, `hand_over_unprocessed` hands over all.
            if self.stopped.is_some()
                && !self.cursor.has_line()
                && let Some(line) = self.cursor.unfinished_line()
            {
                let reject = Reject::Unfinished;
                stage.report.reject(&self.name, &line, &reject)?;
            }
            return Err(EndedEarly::Signal(stop).into());
        }
        Ok(())
    }

    /// Waits for input, a signal or the background work, and reads the input that is
    /// ready.
    fn read(&mut self, stage: &mut Stage) -> Result<()> {
        if self.cursor.has_line() || !self.filter.has_room() {
            // The loop works on the lines that have been read first. The time of the
            // background work is read before the check. It cannot pass in between.
            let due = self.background_due();
            return match self.filter.has_room() {
                true => Ok(()),
                false => self.wait_for_background(stage, due),
            };
        }
        if let Some(fd) = self.cursor.readiness() {
            let background = self.filter.background();
            let due = background.as_ref().and_then(|it| it.due());
            let times = [due, stage.stats.due(), stage.signals.grace_end()];
            let until = times.into_iter().flatten().min();
            let mut streams = vec![(fd, PollFlags::IN)];
            let others = background.iter().flat_map(|it| it.streams());
            streams.extend(others.map(|fd| (fd, PollFlags::IN)));
            if !wait(&streams, &mut stage.signals, until)?[0] {
                return Ok(());
            }
        }
        let progress = self.cursor.read()?;
        stage.report_faults(self.cursor.take_faults())?;
        if let Progress::Bytes(_) = progress {
            stage.stats.touch();
            if !self.bar.is_hidden() {
                self.bar.set_position(self.cursor.input().position());
            }
        }
        Ok(())
    }

    /// The time at which some of the background work is due.
    fn background_due(&mut self) -> Option<Instant> {
        self.filter.background().and_then(|it| it.due())
    }

    /// Waits until some of the background work is done, a signal arrives, or `due`.
    fn wait_for_background(&mut self, stage: &mut Stage, due: Option<Instant>) -> Result<()> {
        let background = self.filter.background();
        let times = [due, stage.stats.due(), stage.signals.grace_end()];
        let until = times.into_iter().flatten().min();
        let streams = background.iter().flat_map(|it| it.streams());
        let streams: Vec<_> = streams.map(|fd| (fd, PollFlags::IN)).collect();
        wait(&streams, &mut stage.signals, until)?;
        Ok(())
    }

    /// Writes the output of the background work as it is finished, until all is.
    fn finish_background(&mut self, stage: &mut Stage) -> Result<()> {
        while let Some(background) = self.filter.background() {
            if background.collect(stage, &self.name, &mut self.out, true)? {
                continue;
            }
            if !background.is_pending() {
                break;
            }
            self.write_before_wait(stage)?;
            if stage.signals.take_hangup() {
                self.filter.hangup(stage)?;
            }
            if let Some(stop) = stage.signals.out_of_time() {
                return Err(EndedEarly::Signal(stop).into());
            }
            let due = self.background_due();
            self.wait_for_background(stage, due)?;
        }
        Ok(())
    }

    /// Writes all output, closes it, and shows the final counts.
    fn finish(&mut self, stage: &mut Stage) -> Result<()> {
        self.finish_background(stage)?;
        self.filter.before_wait(stage)?;
        self.filter.conclude(stage, &mut self.out)?;
        // The output closes first, because `finish` may take long and the reader need
        // not wait for it.
        stage.write_all(&mut self.output, &mut self.out)?;
        stage.close(&mut self.output)?;
        self.filter.finish(stage)?;
        let snapshot = self.filter.snapshot(stage);
        stage.final_stats(&snapshot);
        Ok(())
    }

    /// Gives the filter the lines that were read but not worked on.
    fn hand_over_unprocessed(&mut self) {
        while let Some(line) = self.cursor.next_line() {
            self.filter.left_over(&self.name, &line);
        }
        // The last line of a file stays in the file. Bytes that were read from a pipe
        // exist only in this program.
        if !self.cursor.input().is_file()
            && let Some(line) = self.cursor.unfinished_line()
        {
            self.filter.left_over(&self.name, &line);
        }
    }
}

/// A progress bar on the terminal. The bar is hidden if the length of the input is
/// unknown.
fn progress_bar(input: &Input, stage: &Stage) -> ProgressBar {
    match input.file_bytes() {
        Some(bytes) => progress_bar_of(bytes, stage),
        None => ProgressBar::hidden(),
    }
}

/// A progress bar on the terminal with a length of `bytes`.
pub fn progress_bar_of(bytes: u64, stage: &Stage) -> ProgressBar {
    if stage.report.is_quiet() {
        return ProgressBar::hidden();
    }
    let template = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(template).expect("the template is well formed");
    ProgressBar::new(bytes).with_style(style)
}
