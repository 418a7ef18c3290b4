//! The end of a branch: whether all its lines are delivered, and what happens to lines that are
//! not.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::serve::tee::branch::{Branch, BranchKind, Failure, Sink};
use crate::serve::tee::spill::SpillEnd;
use crate::stream::lasting_pipe::LastingPipe;

/// After the end of the input, rv-tee no longer waits for a live branch to which it could write
/// nothing for this long.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// After the end of the input, rv-tee waits for the first reader of a live branch up to this long
/// after the start of the branch.
const FIRST_READER_MAX: Duration = Duration::from_secs(5);

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

    /// Whether rv-tee may leave this live branch at the end of the input: all lines are
    /// delivered, the reader has gone, or [`leave_at`](Branch::leave_at) has passed.
    pub fn may_be_left(&self, now: Instant) -> bool {
        let has_reader = self.pipe().is_none_or(LastingPipe::has_reader);
        let is_delivered = self.sending.is_empty() && has_reader;
        let is_reader_gone = self.had_reader && !has_reader;
        self.has_failed() || is_delivered || is_reader_gone || now > self.leave_at()
    }

    /// The time after which rv-tee no longer waits for this live branch if no byte is
    /// written until then. The first reader gets longer: it may still be starting, and if
    /// rv-tee exited before it opens the pipe, it would wait forever for a writer.
    pub fn leave_at(&self) -> Instant {
        let idle = match self.pipe().is_some() && !self.had_reader {
            true => FIRST_READER_MAX,
            false => IDLE_MAX,
        };
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
