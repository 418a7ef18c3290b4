//! An early end: all records that are not known to be delivered are rejected and counted.

use anyhow::Result;

use super::EsSink;
use crate::observe::es_sink::batch::{Item, SealedBatch};
use crate::observe::es_sink::pass_through::PassThrough;
use crate::stage::filter::Filter;
use crate::stage::{EndedEarly, Stage};

impl EsSink {
    /// Rejects the records that are undelivered at an early end, and adds their
    /// number to the error that ends the program.
    pub fn reject_undelivered(&mut self, stage: &mut Stage, error: anyhow::Error) -> anyhow::Error {
        let pending = self.pending();
        let unwritten = self.pass.as_ref().map_or(0, PassThrough::unwritten);
        let has_reader = !matches!(error.downcast_ref(), Some(EndedEarly::DownstreamClosed));
        let mut losses = Vec::new();
        if pending > 0 {
            let kept = match (self.keeps_rejects, self.reject_pending(stage)) {
                (true, Ok(())) => "; they are in the file of --rejects",
                (true, Err(_)) => "",
                (false, _) => "; with --rejects FILE they would have been kept",
            };
            let urls = self.client.urls();
            losses.push(format!(
                "{pending} records were read and not delivered to {urls}{kept}"
            ));
        }
        // If the reader has closed the output, it knows that records are missing.
        if unwritten > 0 && has_reader {
            losses.push(format!(
                "{unwritten} records were indexed and not passed on"
            ));
        }
        if !losses.is_empty() || !has_reader {
            let snapshot = self.snapshot(stage);
            stage.final_stats(&snapshot);
        }
        match losses.is_empty() {
            true => error,
            false => error.context(losses.join("; ")),
        }
    }

    /// Rejects every record that is not known to be delivered, in the order of the input.
    fn reject_pending(&mut self, stage: &mut Stage) -> Result<()> {
        let reason = "read, but not known to be delivered when the program ended";
        let mut batches = self.calls.abandon();
        batches.extend(self.outbox.take_all());
        let mut items: Vec<Item> = batches.iter().flat_map(SealedBatch::items).collect();
        items.sort_by_key(|item| item.number);
        // With --strict the first rejected record is an error. The other records
        // are still written to the file.
        let mut outcome = Ok(());
        for item in items {
            outcome = self.reject(stage, item, reason).and(outcome);
        }
        outcome.and(stage.report.flush())
    }
}
