//! What becomes of each record once its call has ended.

use std::time::Instant;

use anyhow::{Result, bail};

use super::EsSink;
use crate::observe::es_sink::batch::{Item, Parcel, PutOff};
use crate::observe::es_sink::calls::Finished;
use crate::observe::es_sink::reply::{Outcome, Verdict};
use crate::observe::es_sink::shape::Extent;
use crate::stage::Stage;
use crate::wire::lines::Line;
use crate::wire::micros::Micros;
use crate::wire::reject::Reject;

impl EsSink {
    /// Deals with what came of a call.
    pub(super) fn settle(&mut self, stage: &mut Stage, finished: Finished) -> Result<()> {
        let Finished {
            parcel,
            server,
            outcome,
            took,
        } = finished;
        self.counts.calls.record(Micros::from_duration(took));
        let (now, count) = (Instant::now(), parcel.len());
        let url = self.client.url(server).to_owned();
        match outcome {
            Outcome::Items(verdicts) => {
                self.servers.succeeded(server);
                self.backoff.reset();
                self.busy_until = None;
                self.works = true;
                self.fitted = self.fitted.max(parcel.body.len());
                self.settle_items(stage, &url, &parcel, verdicts)?;
            }
            Outcome::TooLarge if count == 1 => {
                let reason = "the service finds the record too large (413)";
                self.set_aside(stage, &parcel, reason)?;
            }
            Outcome::TooLarge => {
                // Not below what did fit: one record may have been too large for
                // any call.
                let bytes = (parcel.body.len() / 2).max(self.fitted);
                self.limits.bytes = self.limits.bytes.min(bytes);
                self.split(parcel);
                let bytes = self.limits.bytes;
                stage.report.warn_seldom(
                    "too large",
                    &format!(
                        "{url}: a call was too large (413); going on with {bytes} bytes at most"
                    ),
                );
            }
            Outcome::Malformed(reason) if count > 1 => {
                stage.report.warn_seldom(
                    "malformed",
                    &format!("{url}: {reason}; sending its {count} records in smaller calls"),
                );
                self.split(parcel);
            }
            // Others were taken, so it is this record.
            Outcome::Malformed(reason) if self.works => self.set_aside(stage, &parcel, &reason)?,
            Outcome::Fatal(reason) | Outcome::Malformed(reason) if !self.works => {
                self.again.push_front(parcel);
                bail!("{url}: {reason}");
            }
            Outcome::Fatal(reason) | Outcome::Malformed(reason) => {
                // It worked before, and somebody may be mending it.
                if let Err(error) = self.client.reload_credentials() {
                    stage
                        .report
                        .warn_seldom("credentials", &format!("{error:#}"));
                }
                self.send_again(stage, parcel, &format!("{url}: {reason}"));
                self.servers.failed(server, now);
            }
            Outcome::Retry(reason) => {
                self.send_again(stage, parcel, &format!("{url}: {reason}"));
                self.servers.failed(server, now);
            }
            Outcome::Busy(reason) => {
                self.send_again(stage, parcel, &format!("{url}: {reason}"));
                if self.busy_until.is_none_or(|until| until <= now) {
                    self.busy_until = Some(now + self.backoff.next_wait());
                    self.flow.refused();
                }
            }
        }
        Ok(())
    }

    fn send_again(&mut self, stage: &mut Stage, parcel: Parcel, reason: &str) {
        let count = parcel.len();
        self.counts.retried += count as u64;
        self.again.push_back(parcel);
        stage.report.warn_seldom(
            "retry",
            &format!("{reason}; sending again, {count} records at a time"),
        );
    }

    fn split(&mut self, parcel: Parcel) {
        self.counts.retried += parcel.len() as u64;
        let [first, second] = parcel.halves();
        self.again.push_front(second);
        self.again.push_front(first);
    }

    /// Deals with each record of a call that was answered.
    fn settle_items(
        &mut self,
        stage: &mut Stage,
        url: &str,
        parcel: &Parcel,
        verdicts: Vec<Verdict>,
    ) -> Result<()> {
        let (taken_before, now) = (self.counts.indexed, Instant::now());
        let mut again = None;
        let (mut were_put_off, mut busy) = (false, false);
        // With --strict a record that is set aside is an error. The others of the
        // call are dealt with all the same.
        let mut settled = Ok(());
        for (item, verdict) in parcel.items().zip(verdicts) {
            were_put_off |= item.put_off.is_some();
            busy |= matches!(verdict, Verdict::Busy(_));
            let outcome = match verdict {
                Verdict::Indexed => self.indexed(item),
                Verdict::Present => {
                    self.counts.present += 1;
                    self.indexed(item)
                }
                Verdict::CreateOnly => self.make_create(stage, item),
                Verdict::TooManyFields(reason) => self.make_named(stage, url, item, &reason),
                Verdict::Refused(reason) => self.reject(stage, item, &reason),
                Verdict::Retry(reason) | Verdict::Busy(reason) => {
                    let since = self.put_off_since(item, taken_before);
                    if since.is_some_and(|since| now - since >= self.limits.give_up) {
                        let reason =
                            format!("{reason}, for longer than --give-up while others were taken");
                        self.reject(stage, item, &reason)
                    } else {
                        self.counts.retried += 1;
                        again.get_or_insert(reason);
                        let put_off = PutOff {
                            since: since.unwrap_or(now),
                            taken: taken_before,
                        };
                        self.put_off.push(Item {
                            put_off: Some(put_off),
                            ..item
                        });
                        Ok(())
                    }
                }
            };
            settled = settled.and(outcome);
        }
        settled?;
        let Some(reason) = again else {
            if were_put_off {
                self.put_off_backoff.reset();
            }
            self.flow.taken();
            return Ok(());
        };
        if busy {
            self.flow.refused();
        }
        // Calls that were under way together add to one wait.
        if were_put_off || self.put_off_until.is_none_or(|until| until <= now) {
            self.put_off_until = Some(now + self.put_off_backoff.next_wait());
        }
        let count = self.put_off.len();
        stage.report.warn_seldom(
            "put off",
            &format!("{url}: {reason}; {count} records wait to be sent again"),
        );
        Ok(())
    }

    fn indexed(&mut self, item: Item) -> Result<()> {
        self.counts.indexed += 1;
        if let Some(pass) = &mut self.pass {
            pass.indexed(item.number, item.raw);
        }
        Ok(())
    }

    /// Since when a record is put off while others are taken.
    fn put_off_since(&self, item: Item, taken: u64) -> Option<Instant> {
        // Where nothing was taken meanwhile it is not this record, unless it is what
        // holds up all others.
        let put_off = item.put_off?;
        (put_off.taken != taken || self.is_held_up()).then_some(put_off.since)
    }

    /// Makes the document anew for a data stream, and has it sent at once.
    fn make_create(&mut self, stage: &mut Stage, item: Item) -> Result<()> {
        self.documents.for_data_stream();
        self.scratch.clear();
        let made = self
            .documents
            .operation(item.raw, Extent::Whole, &mut self.scratch);
        if let Err(reject) = made {
            return self.reject(stage, item, &reject.to_string());
        }
        self.send_anew(item);
        Ok(())
    }

    /// Makes the document anew of the fields that the template names, and has it
    /// sent at once.
    fn make_named(&mut self, stage: &mut Stage, url: &str, item: Item, reason: &str) -> Result<()> {
        self.scratch.clear();
        let made = self
            .documents
            .operation(item.raw, Extent::Named, &mut self.scratch);
        if let Err(reject) = made {
            return self.reject(stage, item, &reject.to_string());
        }
        if self.scratch == item.body {
            return self.reject(stage, item, reason);
        }
        stage.report.warn_seldom(
            "fields",
            &format!(
                "{url}: {reason}; a record with further fields is indexed without them, and holds itself in asReceived"
            ),
        );
        self.counts.narrowed += 1;
        self.send_anew(item);
        Ok(())
    }

    fn send_anew(&mut self, item: Item) {
        self.counts.retried += 1;
        let body = &self.scratch;
        self.put_off.push(Item { body, ..item });
    }

    fn set_aside(&mut self, stage: &mut Stage, parcel: &Parcel, reason: &str) -> Result<()> {
        let mut outcome = Ok(());
        for item in parcel.items() {
            outcome = outcome.and(self.reject(stage, item, reason));
        }
        outcome
    }

    pub(super) fn reject(&mut self, stage: &mut Stage, item: Item, reason: &str) -> Result<()> {
        let line = Line {
            bytes: item.raw,
            number: item.number,
            offset: item.offset,
            oversized: None,
        };
        if let Some(pass) = &mut self.pass {
            pass.set_aside(item.number);
        }
        let reject = Reject::Refused(reason.to_owned());
        stage.report.reject(&self.input, &line, &reject)
    }
}
