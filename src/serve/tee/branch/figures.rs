//! The figures of a branch, for the stats.

use std::time::{Duration, Instant};

use crate::serve::tee::branch::{Branch, BranchKind};
use crate::serve::tee::spill::SpillStatus;

/// The figures of a branch, for the stats.
#[derive(Clone, Copy, Debug)]
pub struct BranchFigures {
    /// Lines written.
    pub written: u64,
    /// Lines that wait in memory.
    pub queued: u64,
    /// The bytes of the lines that wait in memory.
    pub queued_bytes: u64,
    /// Lines that are on disk or wait to be stored there.
    pub spilled: u64,
    /// The bytes of the spill, on disk or waiting to be stored there.
    pub spilled_bytes: u64,
    /// Lines dropped.
    pub dropped: u64,
    /// The bytes of the dropped lines.
    pub dropped_bytes: u64,
    /// Lines of an earlier process, found on disk or in the pipe.
    pub recovered: u64,
    /// Spilled lines that could not be read back.
    pub corrupt: u64,
    /// Lines that a reader had read only in part when it closed the pipe.
    pub torn: u64,
    /// How long the oldest waiting line has waited.
    pub oldest: Duration,
    /// The total time during which lines waited to be written.
    pub blocked: Duration,
}

impl Branch {
    /// The number of dropped lines, which are never delivered.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped + self.spill_status().losses.dropped
    }

    /// The number of lost lines: dropped, or unreadable in the spill.
    pub fn lost(&self) -> u64 {
        self.dropped() + self.spill_status().losses.corrupt
    }

    fn spill_status(&self) -> SpillStatus {
        match &self.kind {
            BranchKind::Keeping(spill) => spill.status(),
            BranchKind::Paced | BranchKind::Live { .. } => SpillStatus::default(),
        }
    }

    /// Returns the figures at the time `now`.
    pub fn figures(&self, now: Instant) -> BranchFigures {
        let spill = self.spill_status();
        let waited = |since: Instant| now.saturating_duration_since(since);
        let in_memory = self.sending.oldest().map(waited);
        let on_disk = spill.since.map(waited);
        BranchFigures {
            written: self.counts.written,
            queued: self.sending.records(),
            queued_bytes: self.sending.bytes() as u64,
            spilled: spill.records,
            spilled_bytes: spill.bytes,
            dropped: self.dropped(),
            dropped_bytes: self.counts.dropped_bytes + spill.losses.dropped_bytes,
            recovered: self.counts.recovered + spill.recovered,
            corrupt: spill.losses.corrupt,
            torn: self.counts.torn,
            oldest: in_memory.max(on_disk).unwrap_or_default(),
            blocked: self.blocked + self.blocked_since.map(waited).unwrap_or_default(),
        }
    }
}
