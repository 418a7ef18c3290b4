//! What every stage holds while it runs: messages, signals and counts.

use std::time::Instant;

use anyhow::Result;

use crate::stage::cli::RunArgs;
use crate::stage::exit::EndedEarly;
use crate::stage::report::Report;
use crate::stage::signals::Signals;
use crate::stage::stats::Snapshot;
use crate::stage::stats_file::StatsFile;
use crate::stage::wait::{output_error, wait};
use crate::stream::output::Output;

/// What every stage holds while it runs.
#[derive(Debug)]
pub struct Stage {
    /// Messages, and the records set aside.
    pub report: Report,
    /// What the program was asked to do by signals.
    pub signals: Signals,
    /// Where the counts go while it runs.
    pub stats: StatsFile,
    /// The limit of a line in bytes.
    pub line_bytes_max: usize,
    /// Set if the work is done, and its outcome has faults that are not rejected
    /// records, such as errors in a rescoring: exit status 1.
    pub has_findings: bool,
}

impl Stage {
    /// Sets up what the flags ask for. Nothing is read or written yet.
    pub fn new(program: &'static str, args: &RunArgs) -> Result<Stage> {
        Ok(Stage {
            signals: Signals::new(program, args.log_format, args.grace)?,
            report: Report::new(program, args)?,
            stats: StatsFile::new(program, args.stats.clone()),
            line_bytes_max: args.line_bytes_max(),
            has_findings: false,
        })
    }

    /// Reports what was wrong with recorded files. To be called after each read of an
    /// input that may be an archive.
    pub fn report_faults(&mut self, faults: Vec<String>) -> Result<()> {
        for fault in faults {
            self.report.damaged(&fault)?;
        }
        Ok(())
    }

    /// Writes all of `bytes` and empties it. Waits for the reader as long as it
    /// takes, but after a signal to stop only to the end of the grace.
    pub fn write_all(&mut self, output: &mut Output, bytes: &mut Vec<u8>) -> Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            match output.try_write(&bytes[written..]) {
                Ok(0) => self.wait_for_output(output)?,
                Ok(count) => written += count,
                Err(error) => return Err(output_error(output, error)),
            }
        }
        bytes.clear();
        // One long line must not cost its memory for ever.
        bytes.shrink_to(1 << 20);
        Ok(())
    }

    /// Ends the output: a named pipe has had its reader, a file is on the disk.
    pub fn close(&mut self, output: &mut Output) -> Result<()> {
        // A reader that comes later would wait for ever for a first writer.
        while !output
            .is_open()
            .map_err(|error| output_error(output, error))?
        {
            self.wait_for_output(output)?;
        }
        output.sync().map_err(|error| output_error(output, error))?;
        output.close();
        Ok(())
    }

    /// Waits until a write may bring something, but after a signal to stop only to
    /// the end of the grace.
    pub fn wait_for_output(&mut self, output: &Output) -> Result<()> {
        if let Some(stop) = self.signals.out_of_time() {
            return Err(EndedEarly::Signal(stop).into());
        }
        let until = self.signals.grace_end();
        if let Some(stream) = output.readiness() {
            wait(&[stream], &mut self.signals, until)?;
        }
        Ok(())
    }

    /// Does what is due of showing the counts, which `snapshot` takes.
    pub fn show_stats(&mut self, snapshot: impl Fn(&Stage) -> Snapshot) {
        if self.signals.take_print_stats() {
            let running = self.stats.running();
            let text = snapshot(self).json(self.report.program(), running);
            self.report.tell(text.trim_end());
        }
        if self.stats.due().is_some_and(|due| due <= Instant::now()) {
            self.write_stats(&snapshot(self));
        }
    }

    /// Shows the counts for the last time.
    pub fn final_stats(&mut self, snapshot: &Snapshot) {
        self.write_stats(snapshot);
        self.report.summary(&snapshot.summary());
    }

    /// Writes the counts where `--stats` wants them. A place that is full or gone is
    /// no reason to stop answering.
    pub fn write_stats(&mut self, snapshot: &Snapshot) {
        if let Err(error) = self.stats.write(snapshot) {
            let message = format!("{}: cannot write the stats: {error}", self.stats.path());
            self.report.warn_seldom("stats", &message);
        }
    }
}
