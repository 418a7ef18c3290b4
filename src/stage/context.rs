//! The state that every stage has while it runs: messages, signals and counts.

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

/// The state that every stage has while it runs.
#[derive(Debug)]
pub struct Stage {
    /// Messages and rejected records.
    pub report: Report,
    /// The signals that were received.
    pub signals: Signals,
    /// The file of `--stats`.
    pub stats: StatsFile,
    /// The longest line that is accepted, in bytes.
    pub line_bytes_max: usize,
    /// Whether the finished work has faults other than rejected records, such as errors
    /// of a rescoring. The exit status is then 1.
    pub has_findings: bool,
}

impl Stage {
    /// Sets up messages, signals and counts. Opens the file of `--rejects`, but reads
    /// and writes nothing.
    pub fn new(program: &'static str, args: &RunArgs) -> Result<Stage> {
        Ok(Stage {
            signals: Signals::new(program, args.log_format, args.grace)?,
            report: Report::new(program, args)?,
            stats: StatsFile::new(program, args.stats.clone()),
            line_bytes_max: args.line_bytes_max(),
            has_findings: false,
        })
    }

    /// Reports damaged recorded files. Call this after each read of an input that may
    /// be an archive.
    pub fn report_faults(&mut self, faults: Vec<String>) -> Result<()> {
        for fault in faults {
            self.report.damaged(&fault)?;
        }
        Ok(())
    }

    /// Writes all of `bytes`, then empties `bytes`. Waits for the reader without a
    /// time limit. After a signal to stop, it waits only until the grace period ends.
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
        // Frees the memory of a long line.
        bytes.shrink_to(1 << 20);
        Ok(())
    }

    /// Closes the output. Waits until a named pipe has a reader, and syncs a file to
    /// disk.
    pub fn close(&mut self, output: &mut Output) -> Result<()> {
        // If the pipe were closed without a reader, a later reader would wait
        // forever for a writer.
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

    /// Waits until `output` can accept bytes. After a signal to stop, waits only
    /// until the grace period ends.
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

    /// Prints the counts if SIGUSR1 asked for them, and rewrites the file of `--stats`
    /// if it is due. `snapshot` takes the counts.
    pub fn show_stats(&mut self, snapshot: impl Fn(&Stage) -> Snapshot) {
        if self.signals.take_print_stats() {
            let running = self.stats.running();
            let text = snapshot(self).json(self.report.program(), running);
            self.report.print_requested(text.trim_end());
        }
        if self.stats.due().is_some_and(|due| due <= Instant::now()) {
            self.write_stats(&snapshot(self));
        }
    }

    /// Writes the final counts and prints the summary.
    pub fn final_stats(&mut self, snapshot: &Snapshot) {
        self.write_stats(snapshot);
        self.report.summary(&snapshot.summary());
    }

    /// Writes the counts to the file of `--stats`. A failure is only a warning, because
    /// the stage must go on answering.
    pub fn write_stats(&mut self, snapshot: &Snapshot) {
        if let Err(error) = self.stats.write(snapshot) {
            let message = format!("{}: cannot write the stats: {error}", self.stats.path());
            self.report.warn_seldom("stats", &message);
        }
    }
}
