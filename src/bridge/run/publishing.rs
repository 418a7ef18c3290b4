//! Records of the program to the brokers.

use anyhow::Result;

use crate::bridge::broker::Outgoing;
use crate::bridge::frame::id_of;
use crate::bridge::ledger::OutputKey;
use crate::bridge::run::rejecting::Rejected;
use crate::bridge::run::{Bridge, LINES_MAX, Publishing, Rejects};
use crate::wire::lines::{KeptLine, Line};
use crate::wire::message::Record;
use crate::wire::reject::Reject;

impl Bridge<'_> {
    /// Whether another record may be sent on its way.
    pub(super) fn may_publish(&self) -> bool {
        self.unsent.is_empty()
            && self.publishing.len() < self.plan.publishing_max
            && self.publishing_bytes < self.plan.publishing_bytes_max
    }

    /// Reads the outputs, and publishes their records. Returns whether more could be read
    /// at once.
    pub(super) fn read_outputs(&mut self) -> Result<bool> {
        let mut is_busy = false;
        for output in 0..self.outputs.len() {
            is_busy |= self.read_output(output)?;
        }
        Ok(is_busy)
    }

    fn read_output(&mut self, output: usize) -> Result<bool> {
        let mut lines = 0;
        loop {
            if !self.may_publish() {
                return Ok(false);
            }
            let Some(reader) = &mut self.outputs[output].reader else {
                return Ok(false);
            };
            if let Some(line) = reader.lines().next_line() {
                let line = KeptLine::from(&line);
                self.take_output(output, &line)?;
                lines += 1;
                if lines >= LINES_MAX {
                    return Ok(true);
                }
                continue;
            }
            if reader.has_ended() || !reader.read()? {
                return Ok(lines > 0);
            }
        }
    }

    /// One line of an output.
    fn take_output(&mut self, output: usize, kept: &KeptLine) -> Result<()> {
        let line = kept.line();
        let record = match line.record() {
            Ok(None) => return Ok(()),
            Ok(Some(bytes)) => Record::parse(bytes),
            Err(reject) => Err(reject),
        };
        let record = match record {
            Ok(record) => record,
            Err(reject) => return self.reject_line(output, &line, reject),
        };
        self.deaths.program_worked();
        let id = id_of(&record);
        let key = self.ledger.output(output, id.as_deref());
        self.publish_record(output, key, record.text().as_bytes().to_vec())
    }

    /// Sets a line of an output aside that is no record. It finishes nothing.
    fn reject_line(&mut self, output: usize, line: &Line, reject: Reject) -> Result<()> {
        if !matches!(self.rejects, Rejects::Topic { .. }) {
            let name = self.outputs[output].name.clone();
            return self.stage.report.reject(&name, line, &reject);
        }
        let key = self.ledger.loose();
        self.reject(Rejected {
            key,
            input: None,
            position: None,
            raw: line.bytes,
            reject,
        })
    }

    /// Sends a record of an output on its way.
    pub(super) fn publish_record(
        &mut self,
        output: usize,
        key: OutputKey,
        payload: Vec<u8>,
    ) -> Result<()> {
        self.counts.records_out += 1;
        let state = &self.outputs[output];
        let (Some(to), Some(sink)) = (&state.to, state.sink) else {
            // Nothing is published: what the program has written is safe.
            self.ledger.safe(key);
            return Ok(());
        };
        let text = std::str::from_utf8(&payload).unwrap_or_default();
        let id = Record::of_text(text).ok().and_then(|it| id_of(&it));
        let origin = self.ledger.origin(key);
        let partition = origin.map(|it| it.2).filter(|_| to.same_partition);
        let topic = if to.topic.has_fields() {
            let by_id = || self.ledger.open_line(id.as_deref()?);
            let line = origin.map(|it| it.1).or_else(by_id);
            let line = line.and_then(|it| std::str::from_utf8(it).ok());
            to.topic.fill(text, line, to.allow.as_ref())
        } else {
            Ok(to.topic.to_string())
        };
        match topic {
            Ok(topic) => {
                let record = Outgoing {
                    key,
                    topic,
                    partition,
                    id,
                    payload,
                };
                self.send(sink, record);
                Ok(())
            }
            Err(fault) => self.reject(Rejected {
                key,
                input: None,
                position: None,
                raw: &payload,
                reject: Reject::Field(fault),
            }),
        }
    }

    /// Hands a record to its client.
    pub(super) fn send(&mut self, sink: usize, record: Outgoing) {
        let bytes = record.payload.len();
        let is_reject = matches!(self.rejects, Rejects::Topic { sink: it, .. } if it == sink);
        let publishing = Publishing { bytes, is_reject };
        if self.publishing.insert(record.key, publishing).is_none() {
            self.publishing_bytes += bytes;
        }
        if !self.unsent.is_empty() {
            self.unsent.push_back((sink, record));
        } else if let Err(record) = self.clients.publish(sink, record) {
            self.unsent.push_back((sink, record));
        }
    }

    /// Tries again what a client had no room for.
    pub(super) fn send_unsent(&mut self) {
        while let Some((sink, record)) = self.unsent.pop_front() {
            if let Err(record) = self.clients.publish(sink, record) {
                self.unsent.push_front((sink, record));
                return;
            }
        }
    }

    /// A record is no longer on its way. Returns whether it was one of the rejects.
    pub(super) fn landed(&mut self, key: OutputKey) -> bool {
        let Some(record) = self.publishing.remove(&key) else {
            return false;
        };
        self.publishing_bytes -= record.bytes;
        record.is_reject
    }
}
