//! The stats of `rv-tee`.

use std::time::Instant;

use crate::serve::tee::branch::figures::BranchFigures;
use crate::serve::tee::copier::Tee;
use crate::stage::Stage;
use crate::stage::stats::Snapshot;

/// The label of the figures that each branch has.
const BRANCH: &str = "branch";

impl Tee {
    /// Returns all figures of the program.
    pub fn snapshot(&self, stage: &Stage) -> Snapshot {
        let now = Instant::now();
        let figures: Vec<(String, BranchFigures)> = self
            .branches
            .iter()
            .map(|branch| (branch.name().to_owned(), branch.figures(now)))
            .collect();
        let of = |value: fn(&BranchFigures) -> u64| -> Vec<(String, u64)> {
            let values = figures.iter();
            values
                .map(|(name, figures)| (name.clone(), value(figures)))
                .collect()
        };
        Snapshot::default()
            .count("in", self.read)
            .rejected(&stage.report)
            .count("bytesIn", self.read_bytes)
            .gauge("branches", self.branches.len() as u64)
            .count("branchesGone", self.removed_branches)
            .by_label("written", BRANCH, of(|it| it.written))
            .by_label("dropped", BRANCH, of(|it| it.dropped))
            .by_label("droppedBytes", BRANCH, of(|it| it.dropped_bytes))
            .by_label("corrupt", BRANCH, of(|it| it.corrupt))
            .by_label("torn", BRANCH, of(|it| it.torn))
            .by_label("recovered", BRANCH, of(|it| it.recovered))
            .gauge_by_label("queued", BRANCH, of(|it| it.queued))
            .gauge_by_label("queuedBytes", BRANCH, of(|it| it.queued_bytes))
            .gauge_by_label("spilled", BRANCH, of(|it| it.spilled))
            .gauge_by_label("spilledBytes", BRANCH, of(|it| it.spilled_bytes))
            .gauge_by_label("oldest_ms", BRANCH, of(|it| it.oldest.as_millis() as u64))
            .gauge_by_label("blocked_ms", BRANCH, of(|it| it.blocked.as_millis() as u64))
    }
}
