//! The end of a branch: whether all its lines are delivered, and what happens to lines that are
//! not.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::serve::tee::branch::{Branch, BranchKind, Failure, Sink};
use crate::serve::tee::spill::SpillEnd;
use crate::stream::lasting_pipe::LastingPipe;

impl Branch {
    /// Whether any line still waits to be delivered.
    pub fn is_waiting(&self) -> bool {
        !self.has_failed()
            && (!self.sending.is_empty()
                || matches!(&self.kind, BranchKind::Keeping(spill) if spill.is_active()))
    }

    /// Whether all lines are delivered. A pipe must also have a reader: if rv-tee exited before
    /// the first reader opens the pipe, that reader would wait forever for a writer.
    pub fn is_done(&self) -> bool {
        let has_reader = match &self.sink {
            Sink::Pipe(pipe) => pipe.has_reader(),
            Sink::Stream(_) => true,
        };
        self.has_failed() || (!self.is_waiting() && has_reader)
    }

    /// Whether all lines are delivered, or no byte was written for longer than `idle`.
    pub fn is_done_or_idle(&self, idle: Duration, now: Instant) -> bool {
        let has_reader = self.pipe().is_none_or(LastingPipe::has_reader);
        self.has_failed()
            || self.sending.is_empty()
            || !has_reader
            || now.saturating_duration_since(self.last_written_at) > idle
    }

    /// The time at which [`is_done_or_idle`](Branch::is_done_or_idle) becomes true if no byte is
    /// written until then.
    pub fn idle_at(&self, idle: Duration) -> Instant {
        self.last_written_at + idle
    }

    /// Whether waiting lines survive the process.
    pub fn is_persistent(&self) -> bool {
        matches!(&self.kind, BranchKind::Keeping(spill) if spill.is_persistent())
    }

    /// Ends the branch. Keeps the undelivered lines for the next process if the spill has a
    /// folder and `end` is [`SpillEnd::Keep`]; otherwise drops them.
    pub fn finish(&mut self, end: SpillEnd) -> Result<()> {
        let is_kept = self.is_persistent() && end == SpillEnd::Keep && !self.has_failed();
        let mut waiting = Vec::new();
        if is_kept {
            let (written, blocks) = self.sending.take_all();
            self.counts.written += written;
            waiting = blocks;
        } else {
            self.drop_waiting_lines();
        }
        if let BranchKind::Keeping(spill) = &mut self.kind {
            spill.finish(end, waiting)?;
            self.counts.dropped += spill.take_lost(is_kept);
        }
        let has_failed = self.has_failed();
        if let Sink::Stream(output) = &mut self.sink
            && !has_failed
        {
            let synced = output.sync();
            output.close();
            if let Err(error) = synced {
                self.fail(Failure::Error(error.to_string()));
            }
        }
        Ok(())
    }

    pub(super) fn drop_waiting_lines(&mut self) {
        let (written, waiting) = self.sending.take_all();
        self.counts.written += written;
        for block in &waiting {
            self.counts.dropped += block.records();
            self.counts.dropped_bytes += block.bytes().len() as u64;
        }
    }
}
