//! Handles the records of a finished call.

use std::time::Instant;

use anyhow::{Result, bail};

use super::EsSink;
use crate::observe::es_sink::batch::{Deferral, Item, SealedBatch};
use crate::observe::es_sink::bulk_calls::FinishedCall;
use crate::observe::es_sink::bulk_reply::{BulkOutcome, Verdict};
use crate::observe::es_sink::shape::IndexedFields;
use crate::stage::Stage;
use crate::wire::lines::Line;
use crate::wire::micros::Micros;
use crate::wire::reject::Reject;

/// A reply with verdicts on the records of its call.
struct Verdicts<'a> {
    /// The address that has answered, for messages.
    url: &'a str,
    /// The number of records that were indexed before.
    indexed_before: u64,
    /// The time at which the reply is handled.
    now: Instant,
    /// The reason why the first deferred record was refused; `None` if no record was
    /// deferred.
    deferred: Option<String>,
}

impl EsSink {
    /// Handles the outcome of a call. An error ends the program.
    pub(super) fn handle_result(
        &mut self,
        stage: &mut Stage,
        finished: FinishedCall,
    ) -> Result<()> {
        let FinishedCall {
            batch,
            server,
            outcome,
            took,
        } = finished;
        self.counts.calls.record(Micros::from_duration(took));
        let now = Instant::now();
        let url = self.client.url(server).to_owned();
        match outcome {
            BulkOutcome::Items(verdicts) => {
                self.servers.succeeded(server);
                self.overload_backoff.reset();
                self.overloaded_until = None;
                self.has_worked = true;
                self.outbox.note_accepted(batch.body.len());
                self.handle_verdicts(stage, &url, &batch, verdicts)?;
            }
            BulkOutcome::TooLarge => self.handle_too_large(stage, &url, batch)?,
            BulkOutcome::Malformed(reason) if batch.len() > 1 => {
                let count = batch.len();
                stage.report.warn_seldom(
                    "malformed",
                    &format!("{url}: {reason}; sending its {count} records in smaller calls"),
                );
                self.send_in_halves(batch);
            }
            // The service has accepted other calls, so this record is the cause.
            BulkOutcome::Malformed(reason) if self.has_worked => {
                self.reject_all(stage, &batch, &reason)?;
            }
            BulkOutcome::Fatal(reason) | BulkOutcome::Malformed(reason) => {
                self.handle_fatal(stage, batch, &format!("{url}: {reason}"))?;
                self.servers.failed(server, now);
            }
            BulkOutcome::Retry(reason) => {
                self.send_again(stage, batch, &format!("{url}: {reason}"));
                self.servers.failed(server, now);
            }
            BulkOutcome::Busy(reason) => {
                self.send_again(stage, batch, &format!("{url}: {reason}"));
                // Calls that were in progress at the same time count as one
                // failure.
                if self.overloaded_until.is_none_or(|until| until <= now) {
                    self.overloaded_until = Some(now + self.overload_backoff.next_wait());
                    self.call_limit.halve();
                }
            }
        }
        Ok(())
    }

    /// Ends the program if the service has never accepted a call. Otherwise the call
    /// is repeated, because an operator may repair the service.
    fn handle_fatal(&mut self, stage: &mut Stage, batch: SealedBatch, reason: &str) -> Result<()> {
        if !self.has_worked {
            self.outbox.put_back(batch);
            bail!("{reason}");
        }
        // The credentials may have been replaced.
        if let Err(error) = self.client.reload_credentials() {
            stage
                .report
                .warn_seldom("credentials", &format!("{error:#}"));
        }
        self.send_again(stage, batch, reason);
        Ok(())
    }

    fn handle_too_large(&mut self, stage: &mut Stage, url: &str, batch: SealedBatch) -> Result<()> {
        if batch.len() == 1 {
            let reason = "the service finds the record too large (413)";
            return self.reject_all(stage, &batch, reason);
        }
        let bytes = self.outbox.lower_bytes_limit(batch.body.len());
        self.send_in_halves(batch);
        stage.report.warn_seldom(
            "too large",
            &format!(
                "{url}: a call was too large (413); from now on a call has at most {bytes} bytes"
            ),
        );
        Ok(())
    }

    fn send_again(&mut self, stage: &mut Stage, batch: SealedBatch, reason: &str) {
        let count = batch.len();
        self.counts.retried += count as u64;
        self.outbox.retry(batch);
        stage.report.warn_seldom(
            "retry",
            &format!("{reason}; sending again, {count} records at a time"),
        );
    }

    fn send_in_halves(&mut self, batch: SealedBatch) {
        self.counts.retried += batch.len() as u64;
        self.outbox.retry_in_halves(batch);
    }

    /// Handles the verdict on each record of a call.
    fn handle_verdicts(
        &mut self,
        stage: &mut Stage,
        url: &str,
        batch: &SealedBatch,
        verdicts: Vec<Verdict>,
    ) -> Result<()> {
        let mut reply = Verdicts {
            url,
            indexed_before: self.counts.indexed,
            now: Instant::now(),
            deferred: None,
        };
        let is_after_retry = batch.items().any(|item| item.deferral.is_some());
        let is_busy = verdicts.iter().any(|it| matches!(it, Verdict::Busy(_)));
        // With --strict a rejected record is an error. The other records of the
        // call are still handled.
        let mut outcome = Ok(());
        for (item, verdict) in batch.items().zip(verdicts) {
            outcome = outcome.and(self.handle_verdict(stage, &mut reply, item, verdict));
        }
        outcome?;
        let Some(reason) = reply.deferred else {
            if is_after_retry {
                self.outbox.reset_deferred_wait();
            }
            self.call_limit.raise();
            return Ok(());
        };
        if is_busy {
            self.call_limit.halve();
        }
        self.outbox.delay_deferred(is_after_retry, reply.now);
        let count = self.outbox.deferred_len();
        stage.report.warn_seldom(
            "deferred",
            &format!("{url}: {reason}; {count} records wait to be sent again"),
        );
        Ok(())
    }

    fn handle_verdict(
        &mut self,
        stage: &mut Stage,
        reply: &mut Verdicts,
        item: Item,
        verdict: Verdict,
    ) -> Result<()> {
        match verdict {
            Verdict::Indexed => {
                self.count_indexed(item);
                Ok(())
            }
            Verdict::Present => {
                self.counts.present += 1;
                self.count_indexed(item);
                Ok(())
            }
            Verdict::CreateOnly => self.send_for_data_stream(stage, item),
            Verdict::TooManyFields(reason) => {
                self.send_mapped_fields(stage, reply.url, item, &reason)
            }
            Verdict::Refused(reason) => self.reject(stage, item, &reason),
            Verdict::Retry(reason) | Verdict::Busy(reason) => {
                let since = self.refused_since(item, reply.indexed_before);
                if since.is_some_and(|since| reply.now - since >= self.give_up) {
                    let reason =
                        format!("{reason}, for longer than --give-up while others were accepted");
                    return self.reject(stage, item, &reason);
                }
                reply.deferred.get_or_insert(reason);
                self.counts.retried += 1;
                let deferral = Some(Deferral {
                    since: since.unwrap_or(reply.now),
                    indexed_before: reply.indexed_before,
                });
                self.outbox.defer(Item { deferral, ..item });
                Ok(())
            }
        }
    }

    fn count_indexed(&mut self, item: Item) {
        self.counts.indexed += 1;
        if let Some(pass) = &mut self.pass {
            pass.indexed(item.number, item.raw);
        }
    }

    /// The time since which the service has refused this record, if the record itself
    /// is probably the cause; otherwise `None`.
    fn refused_since(&self, item: Item, indexed_before: u64) -> Option<Instant> {
        let deferral = item.deferral?;
        // This record is the cause if other records were indexed since its last
        // refusal, or if it blocks all other records.
        let is_cause = deferral.indexed_before != indexed_before || self.is_held_up();
        is_cause.then_some(deferral.since)
    }

    /// Makes the operation again for a data stream, and sends it at once.
    fn send_for_data_stream(&mut self, stage: &mut Stage, item: Item) -> Result<()> {
        self.documents.for_data_stream();
        self.scratch.clear();
        let made = self
            .documents
            .operation(item.raw, IndexedFields::All, &mut self.scratch);
        if let Err(reject) = made {
            return self.reject(stage, item, &reject.to_string());
        }
        self.send_scratch(item);
        Ok(())
    }

    /// Makes the operation again with only the mapped fields, and sends it at once.
    /// If this does not change the operation, the record is rejected.
    fn send_mapped_fields(
        &mut self,
        stage: &mut Stage,
        url: &str,
        item: Item,
        reason: &str,
    ) -> Result<()> {
        self.scratch.clear();
        let made = self
            .documents
            .operation(item.raw, IndexedFields::Mapped, &mut self.scratch);
        if let Err(reject) = made {
            return self.reject(stage, item, &reject.to_string());
        }
        if self.scratch == item.body {
            return self.reject(stage, item, reason);
        }
        stage.report.warn_seldom(
            "fields",
            &format!(
                "{url}: {reason}; a record with further fields is indexed without them, and is kept whole in asReceived"
            ),
        );
        self.counts.narrowed += 1;
        self.send_scratch(item);
        Ok(())
    }

    /// Sends the operation in `scratch` instead of the operation of `item`.
    fn send_scratch(&mut self, item: Item) {
        self.counts.retried += 1;
        let body = &self.scratch;
        self.outbox.defer(Item { body, ..item });
    }

    fn reject_all(&mut self, stage: &mut Stage, batch: &SealedBatch, reason: &str) -> Result<()> {
        let mut outcome = Ok(());
        for item in batch.items() {
            outcome = outcome.and(self.reject(stage, item, reason));
        }
        outcome
    }

    /// Rejects a record.
    pub(super) fn reject(&mut self, stage: &mut Stage, item: Item, reason: &str) -> Result<()> {
        let line = Line {
            bytes: item.raw,
            number: item.number,
            offset: item.offset,
            oversized: None,
        };
        if let Some(pass) = &mut self.pass {
            pass.rejected(item.number);
        }
        let reject = Reject::Refused(reason.to_owned());
        stage.report.reject(&self.input, &line, &reject)
    }
}
