//! The loop of a stage that reads one stream: take what is waiting, work, write,
//! and only then wait again.

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

/// What is done with the lines of one input.
pub trait Filter {
    /// Works on one line, and appends its output to `out`. `input` is what messages
    /// call the input.
    fn line(
        &mut self,
        stage: &mut Stage,
        input: &str,
        line: &Line,
        out: &mut Vec<u8>,
    ) -> Result<()>;

    /// Every line that was at hand has been worked on; the next read may wait.
    fn before_wait(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }

    /// Work that goes on while the loop waits for input, if there is any.
    fn background(&mut self) -> Option<&mut dyn Background> {
        None
    }

    /// The program ends early, by an error or a signal. This line was read and not
    /// worked on.
    fn left_over(&mut self, _input: &str, _line: &Line) {}

    /// SIGHUP has come. An error in what is reloaded is reported, not returned.
    fn hangup(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }

    /// The input has ended, or this program is to end. The output is closed.
    fn finish(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }

    /// The counts so far.
    fn snapshot(&self, stage: &Stage) -> Snapshot;
}

/// Work of a filter in other threads or programs, or at a later time.
pub trait Background {
    /// Appends to `out` what is finished of the oldest lines, and says whether that was
    /// anything. With `wait` the input has no more to give for now: it hands over the
    /// lines that are held for a batch, and waits for the oldest ones.
    fn collect(
        &mut self,
        _stage: &mut Stage,
        _input: &str,
        _out: &mut Vec<u8>,
        _wait: bool,
    ) -> Result<bool> {
        Ok(false)
    }

    /// When [`Filter::before_wait`] is to be called if nothing comes.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Streams that become readable when some of the work is done. Then
    /// [`Filter::before_wait`] is called.
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
        filtering.leave_over();
        // The counts say how far it came.
        stage.write_stats(&filtering.filter.snapshot(stage));
    }
    outcome
}

/// How much output is gathered before it is written in the middle of a block.
const WRITE_BYTES: usize = 256 * 1024;

/// A filter at work between its streams.
struct Filtering<'f, F> {
    cursor: Cursor,
    /// What messages call the input.
    name: String,
    output: Output,
    /// Output that is not written yet.
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
            self.settle(stage)?;
            self.obey_signals(stage)?;
            if self.cursor.is_done() {
                break;
            }
            self.read(stage)?;
        }
        self.bar.finish_and_clear();
        self.finish(stage)?;
        match self.stopped {
            // A file has an end, and it was not reached.
            Some(stop) if self.cursor.input().is_file() && !self.cursor.has_ended() => {
                Err(EndedEarly::Signal(stop).into())
            }
            _ => Ok(()),
        }
    }

    /// Works on every line that is at hand.
    fn work(&mut self, stage: &mut Stage) -> Result<()> {
        while let Some(line) = self.cursor.next_line() {
            self.filter.line(stage, &self.name, &line, &mut self.out)?;
            if self.out.len() >= WRITE_BYTES {
                stage.write_all(&mut self.output, &mut self.out)?;
            }
        }
        while let Some(background) = self.filter.background() {
            let wait = !self.cursor.has_more()?;
            if !background.collect(stage, &self.name, &mut self.out, wait)? {
                break;
            }
        }
        Ok(())
    }

    /// Writes what there is, before a wait that may be long.
    fn settle(&mut self, stage: &mut Stage) -> Result<()> {
        self.filter.before_wait(stage)?;
        stage.report.flush()?;
        stage.write_all(&mut self.output, &mut self.out)?;
        stage.show_stats(|stage| self.filter.snapshot(stage));
        Ok(())
    }

    /// Does what signals ask for.
    fn obey_signals(&mut self, stage: &mut Stage) -> Result<()> {
        if stage.signals.take_hangup() {
            self.filter.hangup(stage)?;
        }
        match stage.signals.stop() {
            Some(Stop::Interrupt) if !self.is_source => {
                // The sources stop now, so this is the last writer.
                self.cursor.stop_following();
            }
            Some(stop) => {
                self.stopped.get_or_insert(stop);
                self.cursor.stop_at_line_end();
            }
            None => {}
        }
        if !self.cursor.is_done()
            && let Some(stop) = stage.signals.out_of_time()
        {
            if self.stopped.is_some()
                && let Some(line) = self.cursor.unfinished_line()
            {
                let reject = Reject::Unfinished;
                stage.report.reject(&self.name, &line, &reject)?;
            }
            return Err(EndedEarly::Signal(stop).into());
        }
        Ok(())
    }

    /// Waits for input, a signal or the background work, and reads what is there.
    fn read(&mut self, stage: &mut Stage) -> Result<()> {
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

    /// Writes all output, closes it, and shows the counts for the last time.
    fn finish(&mut self, stage: &mut Stage) -> Result<()> {
        while let Some(background) = self.filter.background() {
            if !background.collect(stage, &self.name, &mut self.out, true)? {
                break;
            }
        }
        self.filter.before_wait(stage)?;
        // To finish may take a while. The reader of the output need not wait for that.
        stage.write_all(&mut self.output, &mut self.out)?;
        stage.close(&mut self.output)?;
        self.filter.finish(stage)?;
        let snapshot = self.filter.snapshot(stage);
        stage.final_stats(&snapshot);
        Ok(())
    }

    /// Hands the lines that were read and not worked on to the filter.
    fn leave_over(&mut self) {
        while let Some(line) = self.cursor.next_line() {
            self.filter.left_over(&self.name, &line);
        }
        // In a file the line stays whole. What a pipe has given is nowhere else.
        if !self.cursor.input().is_file()
            && let Some(line) = self.cursor.unfinished_line()
        {
            self.filter.left_over(&self.name, &line);
        }
    }
}

/// A progress bar on the terminal, where the length of the input is known.
fn progress_bar(input: &Input, stage: &Stage) -> ProgressBar {
    match input.file_bytes() {
        Some(bytes) => progress_bar_of(bytes, stage),
        None => ProgressBar::hidden(),
    }
}

/// A progress bar on the terminal, for so many bytes.
pub fn progress_bar_of(bytes: u64, stage: &Stage) -> ProgressBar {
    if stage.report.is_quiet() {
        return ProgressBar::hidden();
    }
    let template = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(template).expect("the template is well formed");
    ProgressBar::new(bytes).with_style(style)
}
