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
use crate::stream::input::{Input, Progress};
use crate::wire::lines::{Line, Lines};
use crate::wire::reject::Reject;

/// What is done with the lines of one input.
pub trait Filter {
    /// Works on one line, and appends what comes of it to `out`. `input` is what
    /// messages call the input.
    fn line(
        &mut self,
        stage: &mut Stage,
        input: &str,
        line: &Line,
        out: &mut Vec<u8>,
    ) -> Result<()>;

    /// All that was waiting has been worked on; the next read may wait.
    fn before_wait(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }

    /// Whether other threads work on lines, so that [`gather`](Filter::gather) is
    /// to be called.
    fn is_shared(&self) -> bool {
        false
    }

    /// Appends to `out` what other threads have done of the oldest lines, and says
    /// whether there was anything. With `wait` the input has no more to give for
    /// now: lines that are held are handed over, and waited for.
    fn gather(
        &mut self,
        _stage: &mut Stage,
        _input: &str,
        _out: &mut Vec<u8>,
        _wait: bool,
    ) -> Result<bool> {
        Ok(false)
    }

    /// The program ends early, by an error or a signal, and this line was read and
    /// not worked on.
    fn left_over(&mut self, _input: &str, _line: &Line) {}

    /// When to be called though nothing comes.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Streams that become readable when work that goes on beside is done: then
    /// [`before_wait`](Filter::before_wait) is called, though nothing comes.
    fn beside(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// SIGHUP has come. An error in what is reloaded is reported, not returned.
    fn hangup(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }

    /// The input has ended, or this program is to end; the output is closed.
    fn finish(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }

    /// The counts so far.
    fn snapshot(&self, stage: &Stage) -> Snapshot;
}

/// Runs `filter` until its input ends or a signal ends it.
pub fn run(stage: &mut Stage, mut streams: Streams, filter: &mut impl Filter) -> Result<()> {
    let mut lines = Lines::new(stage.line_bytes_max);
    let outcome = run_on(stage, &mut streams, &mut lines, filter);
    if outcome.is_err() {
        let name = streams.input.name();
        while let Some(line) = lines.next_line() {
            filter.left_over(name, &line);
        }
        // In a file it stays whole; what a pipe has given is nowhere else.
        if let Some(line) = lines.last_line().filter(|_| !streams.input.is_file()) {
            filter.left_over(name, &line);
        }
        // However it ended: the counts say how far it came.
        stage.write_stats(&filter.snapshot(stage));
    }
    outcome
}

fn run_on(
    stage: &mut Stage,
    streams: &mut Streams,
    lines: &mut Lines,
    filter: &mut impl Filter,
) -> Result<()> {
    let Streams {
        input,
        output,
        resume,
        is_source,
    } = streams;
    let name = input.name().to_owned();
    let mut out = Vec::new();
    if *resume {
        out.push(b'\n');
    }
    let bar = progress_bar(input, stage);
    let stopped = loop {
        while let Some(line) = lines.next_line() {
            filter.line(stage, &name, &line, &mut out)?;
            if out.len() >= WRITE_BYTES {
                stage.write_all(output, &mut out)?;
            }
        }
        while filter.is_shared() {
            let wait = !input.has_more()?;
            if !filter.gather(stage, &name, &mut out, wait)? {
                break;
            }
        }
        filter.before_wait(stage)?;
        stage.report.flush()?;
        stage.write_all(output, &mut out)?;
        if stage.signals.take_hangup() {
            filter.hangup(stage)?;
        }
        stage.show_stats(|stage| filter.snapshot(stage));
        match stage.signals.stop() {
            Some(Stop::Terminate) => break Some(Stop::Terminate),
            Some(Stop::Interrupt) if *is_source => break Some(Stop::Interrupt),
            Some(Stop::Interrupt) => {
                // The sources stop now, so this is the last writer.
                input.stop_following();
                out_of_time(stage)?;
            }
            None => {}
        }
        let progress = read_more(stage, input, lines, filter)?;
        stage.hear(input)?;
        match progress {
            Progress::Bytes(_) => {
                stage.stats.touch();
                if !bar.is_hidden() {
                    bar.set_position(input.position());
                }
            }
            Progress::Nothing => {}
            Progress::End => break None,
        }
    };
    bar.finish_and_clear();
    if stopped.is_some() {
        finish_line(stage, input, lines)?;
    }
    while let Some(line) = lines.next_line() {
        filter.line(stage, &name, &line, &mut out)?;
    }
    if let Some(line) = lines.last_line() {
        filter.line(stage, &name, &line, &mut out)?;
    }
    while filter.gather(stage, &name, &mut out, true)? {}
    filter.before_wait(stage)?;
    // To finish may take a while: who reads the output need not wait for that.
    stage.write_all(output, &mut out)?;
    stage.close(output)?;
    filter.finish(stage)?;
    let snapshot = filter.snapshot(stage);
    stage.final_stats(&snapshot);
    match stopped {
        // A file has an end, and this was not it.
        Some(stop) if input.is_file() => Err(EndedEarly::Signal(stop).into()),
        _ => Ok(()),
    }
}

/// How much output is gathered before it is written in the middle of a block.
const WRITE_BYTES: usize = 256 * 1024;

/// Waits for input, a signal or what the filter has beside, and reads what is
/// there.
fn read_more(
    stage: &mut Stage,
    input: &mut Input,
    lines: &mut Lines,
    filter: &impl Filter,
) -> Result<Progress> {
    if let Some(fd) = input.readiness() {
        let times = [filter.due(), stage.stats.due(), stage.signals.grace_end()];
        let until = times.into_iter().flatten().min();
        let mut streams = vec![(fd, PollFlags::IN)];
        streams.extend(filter.beside().into_iter().map(|fd| (fd, PollFlags::IN)));
        let ready = wait(&streams, &mut stage.signals, until)?;
        if !ready[0] {
            return Ok(Progress::Nothing);
        }
    }
    input.read(lines)
}

/// Reads on to the end of the line that was begun, and not a byte further, so
/// that a successor on the same pipe finds a whole line.
fn finish_line(stage: &mut Stage, input: &mut Input, lines: &mut Lines) -> Result<()> {
    while lines.is_inside_line() {
        if let Some(stop) = stage.signals.out_of_time() {
            if let Some(line) = lines.last_line() {
                stage
                    .report
                    .reject(input.name(), &line, &Reject::Unfinished)?;
            }
            return Err(EndedEarly::Signal(stop).into());
        }
        if let Some(fd) = input.readiness() {
            let until = stage.signals.grace_end();
            if !wait(&[(fd, PollFlags::IN)], &mut stage.signals, until)?[0] {
                continue;
            }
        }
        let progress = input.read_one_byte(lines)?;
        stage.hear(input)?;
        match progress {
            Progress::End => break,
            Progress::Bytes(_) if lines.ends_a_line() => break,
            Progress::Bytes(_) | Progress::Nothing => {}
        }
    }
    Ok(())
}

fn out_of_time(stage: &mut Stage) -> Result<()> {
    match stage.signals.out_of_time() {
        Some(stop) => Err(EndedEarly::Signal(stop).into()),
        None => Ok(()),
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
