//! The counts of a bridge, for `--stats` and the summary.

use crate::bridge::ledger::InputCounts;
use crate::bridge::run::Bridge;
use crate::stage::stats::Snapshot;

impl Bridge<'_> {
    /// The counts now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut total = InputCounts::default();
        let mut open = Vec::new();
        let mut lag = Vec::new();
        for (index, state) in self.inputs.iter().enumerate() {
            let counts = self.ledger.counts(index);
            total.delivered += counts.delivered;
            total.redelivered += counts.redelivered;
            total.finished += counts.finished;
            total.finished_early += counts.finished_early;
            total.revoked += counts.revoked;
            open.push((state.name.clone(), self.ledger.open(index) as u64));
            lag.push((state.name.clone(), state.lag));
        }
        Snapshot::default()
            .count("in", total.delivered)
            .help("Messages that were delivered for the first time")
            .count("acknowledged", total.finished)
            .help("Messages that are finished")
            .count("acknowledgedEarly", total.finished_early)
            .help("Of these, messages that done=age has finished to make room")
            .count("revoked", total.revoked)
            .help("Messages that went to another consumer")
            .count("redelivered", total.redelivered)
            .help("Messages that came again while the bridge knew them")
            .count("out", self.counts.records_out)
            .help("Records of the program")
            .count("published", self.counts.published)
            .help("Records that a broker has stored")
            .count("rejectedByProgram", self.counts.rejected_by_program)
            .help("Records that the program has rejected")
            .count("programDeaths", self.counts.program_deaths)
            .help("Deaths of the program")
            .gauge("publishing", self.publishing.len() as u64)
            .help("Records that are on their way to a broker")
            .gauge_by_label("inFlight", "input", open)
            .help("Messages that are not acknowledged")
            .gauge_by_label("lag", "input", lag)
            .help("Messages that the broker has not delivered yet")
            .rejected(&self.stage.report)
    }
}
