//! Reads several live streams at once: pipes of scores or decisions, and a pipe of
//! labels.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use anyhow::Result;
use rustix::event::PollFlags;

use crate::compare::reader::{Observer, Reader};
use crate::stage::filter::Filter;
use crate::stage::streams::{OutputArgs, refuse_same_file};
use crate::stage::wait::wait;
use crate::stage::{EndedEarly, Stage, Stop, usage};
use crate::stream::address::Address;
use crate::stream::cursor::Cursor;
use crate::stream::input::Input;
use crate::stream::output::Output;
use crate::wire::micros::Micros;

/// Output is written when it has this many bytes.
const WRITE_BYTES: usize = 256 * 1024;

/// One of the streams.
struct LiveInput {
    cursor: Cursor,
    is_labels: bool,
    /// The time of the last record that was taken.
    last: Micros,
}

/// The streams that are read side by side. None waits for another.
struct LiveInputs(Vec<LiveInput>);

impl LiveInputs {
    fn open(records: &[Address], labels: Option<&Address>, stage: &Stage) -> Result<LiveInputs> {
        let open = |address: &Address, is_labels: bool| -> Result<LiveInput> {
            let input = Input::open(address, true)?;
            if input.is_file() {
                return Err(usage(format!(
                    "{address}: is not a pipe; with --follow, every stream is a pipe that is read as \
                     it comes. Leave out --follow to read files in step"
                )));
            }
            Ok(LiveInput {
                cursor: Cursor::new(input, stage.line_bytes_max),
                is_labels,
                last: Micros(i64::MIN),
            })
        };
        let mut all = Vec::new();
        if let Some(address) = labels {
            all.push(open(address, true)?);
        }
        for address in records {
            all.push(open(address, false)?);
        }
        Ok(LiveInputs(all))
    }

    /// Whether all records were read. Labels alone are not waited for.
    fn are_done(&self) -> bool {
        let mut records = self.0.iter().filter(|input| !input.is_labels);
        records.all(|input| input.cursor.is_done())
    }

    /// The input whose last record is the oldest, among those of which a line was read. So
    /// a stream that has much to read does not run ahead of the others.
    fn next_with_line(&mut self) -> Option<&mut LiveInput> {
        let ready = self.0.iter_mut().filter(|input| input.cursor.has_line());
        ready.min_by_key(|input| input.last)
    }

    fn stop(&mut self, stop: Option<Stop>) {
        for input in &mut self.0 {
            match stop {
                Some(Stop::Interrupt) => input.cursor.stop_following(),
                Some(Stop::Terminate) | None => input.cursor.stop_at_line_end(),
            }
        }
    }

    /// Waits for the first stream, for `other`, or until `due`, and reads what is there.
    fn read(
        &mut self,
        stage: &mut Stage,
        other: Option<BorrowedFd<'_>>,
        due: Option<Instant>,
    ) -> Result<()> {
        let waiting: Vec<usize> = (0..self.0.len())
            .filter(|index| !self.0[*index].cursor.is_done())
            .collect();
        let mut streams = Vec::with_capacity(waiting.len() + 1);
        let mut always_ready = false;
        for index in &waiting {
            match self.0[*index].cursor.readiness() {
                Some(fd) => streams.push((fd, PollFlags::IN)),
                None => always_ready = true,
            }
        }
        // A stream is either a pipe, or was refused; a device may always be ready.
        let times = [due, stage.stats.due(), stage.signals.grace_end()];
        let until = times.into_iter().flatten().min();
        streams.extend(other.map(|fd| (fd, PollFlags::IN)));
        let mut ready = match always_ready {
            true => vec![true; streams.len()],
            false => wait(&streams, &mut stage.signals, until)?,
        }
        .into_iter();
        for index in waiting {
            let cursor = &mut self.0[index].cursor;
            if cursor.readiness().is_none() || ready.next() == Some(true) {
                cursor.read()?;
                stage.stats.touch();
            }
        }
        Ok(())
    }
}

impl<O: Observer> Reader<O> {
    /// Reads the pipes of records, and the pipe of labels if there is one, until a signal
    /// stops this, or until the observer wants no more.
    pub fn run_live(
        mut self,
        records: &[Address],
        labels: Option<&Address>,
        output: &OutputArgs,
        stage: &mut Stage,
    ) -> Result<()> {
        for address in records.iter().chain(labels) {
            refuse_same_file(address, &output.output)?;
        }
        let mut to = Output::open(&output.output)?;
        let mut inputs = LiveInputs::open(records, labels, stage)?;
        let mut out = match output.resume {
            true => b"\n".to_vec(),
            false => Vec::new(),
        };
        loop {
            while let Some(input) = inputs.next_with_line() {
                self.take_line(input, stage, &mut out)?;
                if out.len() >= WRITE_BYTES {
                    stage.write_all(&mut to, &mut out)?;
                }
            }
            self.observer_mut().collect(stage)?;
            stage.report.flush()?;
            stage.write_all(&mut to, &mut out)?;
            stage.show_stats(|stage| self.snapshot(stage));
            match stage.signals.stop() {
                Some(stop) => inputs.stop(Some(stop)),
                None if Filter::is_satisfied(&self) => inputs.stop(None),
                None => {}
            }
            if inputs.are_done() {
                break;
            }
            if let Some(stop) = stage.signals.out_of_time() {
                return Err(EndedEarly::Signal(stop).into());
            }
            let observer = self.observer();
            inputs.read(stage, observer.collecting(), observer.collect_due())?;
        }
        self.observer_mut().collect_rest(stage)?;
        Filter::conclude(&mut self, stage, &mut out)?;
        stage.report.flush()?;
        stage.write_all(&mut to, &mut out)?;
        stage.close(&mut to)?;
        Filter::finish(&mut self, stage)?;
        let snapshot = self.snapshot(stage);
        stage.final_stats(&snapshot);
        Ok(())
    }

    fn take_line(
        &mut self,
        input: &mut LiveInput,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let Some((line, name)) = input.cursor.next_line_and_name() else {
            return Ok(());
        };
        if input.is_labels {
            return self.observer_mut().take_label_line(stage, name, &line);
        }
        Filter::line(self, stage, name, &line, out)?;
        input.last = self.last_time();
        Ok(())
    }
}
